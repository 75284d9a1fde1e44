# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""
Vision models of transformers that can be the image encoder of a vision tower.

To support another family, add one entry to `VISION_FAMILIES`. `vision_encoders_vilau.py` builds encoders from it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

import torch
from transformers import PreTrainedConfig


def _configured_image_size(config: PreTrainedConfig) -> int:
    """Returns the side of an image in pixels, which most families configure."""
    return config.image_size


def _whole_images(pixel_values: torch.Tensor, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Returns the inputs of a model that reads images `(N, 3, S, S)`."""
    return {"pixel_values": pixel_values}


@dataclass(frozen=True)
class VisionFamily:
    """
    Describes the vision models of one `model_type`: where their patch features are, and what they read.

    The models must have square images, a grid of patches and a configuration with `hidden_size`, `num_hidden_layers`,
    `num_attention_heads` and `patch_size`.

    Args:
        num_prefix_tokens (`int`): tokens before the patches, for example a class token.
        modules_after_layers (`tuple[str, ...]`): attributes of the model that run after its last layer, such as the
            final layer norm and the pooler.
        image_mean, image_std (`tuple[float, ...]`): normalisation of the images that the family was trained on.
        image_size (`Callable`): returns the side of an image in pixels for a configuration.
        inputs (`Callable`): returns the arguments of the model for normalised images `(N, 3, S, S)` and a
            configuration.
    """

    num_prefix_tokens: int = 0
    modules_after_layers: tuple[str, ...] = ()
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_size: Callable[[PreTrainedConfig], int] = _configured_image_size
    inputs: Callable[[torch.Tensor, PreTrainedConfig], dict[str, torch.Tensor]] = _whole_images


def _siglip2_image_size(config: PreTrainedConfig) -> int:
    """
    Returns the side of the square image whose patches fill the position embeddings.

    SigLIP2 with native aspect ratio configures a number of patches instead of an image size.
    """
    side = isqrt(config.num_patches)
    if side**2 != config.num_patches:
        raise ValueError(f"`encoder_config.num_patches` must be a square number, got {config.num_patches}.")
    return side * config.patch_size


def _siglip2_inputs(pixel_values: torch.Tensor, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """
    Returns patches `(N, L, patch_size * patch_size * 3)`, their mask `(N, L)` and the grid sizes `(N, 2)`.

    The order of rows, columns and channels is that of `Siglip2ImageProcessor`.
    """
    num_images, channels, side, _ = pixel_values.shape
    grid = side // config.patch_size
    shape = (num_images, channels, grid, config.patch_size, grid, config.patch_size)
    patches = pixel_values.reshape(shape).permute(0, 2, 4, 3, 5, 1).reshape(num_images, grid * grid, -1)
    return {
        "pixel_values": patches,
        "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device),
        "spatial_shapes": torch.full((num_images, 2), grid, dtype=torch.long, device=patches.device),
    }


# `model_type` of the image encoder's configuration -> its family.
VISION_FAMILIES: dict[str, VisionFamily] = {
    # SigLIP, and the SigLIP2 checkpoints of fixed resolution, which have SigLIP's `model_type` and classes.
    "siglip_vision_model": VisionFamily(),
    # SigLIP2 checkpoints of native aspect ratio ("naflex"), here with square images.
    "siglip2_vision_model": VisionFamily(
        modules_after_layers=("post_layernorm", "head"), image_size=_siglip2_image_size, inputs=_siglip2_inputs
    ),
    "clip_vision_model": VisionFamily(
        num_prefix_tokens=1,
        modules_after_layers=("post_layernorm",),
        # from the preprocessor_config.json of OpenAI's checkpoints
        image_mean=(0.48145466, 0.4578275, 0.40821073),
        image_std=(0.26862954, 0.26130258, 0.27577711),
    ),
    "vit": VisionFamily(num_prefix_tokens=1, modules_after_layers=("layernorm", "pooler")),
}


def vision_family(encoder_config: PreTrainedConfig) -> VisionFamily:
    """
    Returns the family of an image encoder.

    Args:
        encoder_config ([`PreTrainedConfig`]): configuration of the image encoder.

    Raises:
        ValueError: if no entry of `VISION_FAMILIES` has its `model_type`.
    """
    if encoder_config.model_type not in VISION_FAMILIES:
        raise ValueError(
            f"`encoder_config.model_type` must be one of {', '.join(VISION_FAMILIES)}, got "
            f"{encoder_config.model_type!r}."
        )
    return VISION_FAMILIES[encoder_config.model_type]


__all__ = ["VISION_FAMILIES", "VisionFamily", "vision_family"]
