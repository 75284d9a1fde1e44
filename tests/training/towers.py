"""Vision towers and batches at tiny size. LPIPS needs images of 32 pixels."""

import torch

from vilau_hf import VilaUVisionConfig

from ..conftest import TEXT_TOWER, VISION


SIDE = 32


def tower_config(**kwargs) -> VilaUVisionConfig:
    encoder = {**VISION["encoder_config"], "image_size": SIDE, "patch_size": 8}
    sizes = {"encoder_config": encoder, "block_out_channels": [8, 8, 8, 8], "text_config": TEXT_TOWER}
    return VilaUVisionConfig(**{**VISION, **sizes, **kwargs})


def random_batch(size: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "pixel_values": torch.rand(size, 3, SIDE, SIDE, generator=generator) * 2 - 1,
        "input_ids": torch.randint(1, 40, (size, 8), generator=generator),
    }
