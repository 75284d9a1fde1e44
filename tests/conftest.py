"""Fixtures shared by all tests: models of tiny size, a fixed seed, and a check for deprecated functions."""

import pytest
import torch

import vilau_hf

from .deprecations import WARNING_FILTERS, DeprecationRecorder, is_newest
from .pass_order import resized_as_recorded  # noqa: F401


VISION = {
    "encoder_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    },
    "codebook_size": 24,
    "code_depth": 3,
    "latent_channels": 8,
    "block_out_channels": [8, 8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "initializer_range": 1.0,
}
DEPTH = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "backbone_hidden_size": 48,
    "code_dim": 32,
    "codebook_size": 24,
    "code_depth": 3,
    "initializer_range": 0.2,
}
TEXT = {
    "model_type": "llama",
    "vocab_size": 60,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TEXT_TOWER = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
    "projection_size": 32,
}
TOKEN_IDS = {
    "image_start_token_id": 54,
    "image_end_token_id": 55,
    "video_start_token_id": 56,
    "video_end_token_id": 57,
    "image_token_id": 58,
    "video_token_id": 59,
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def pytest_configure(config):
    if is_newest():
        for line in WARNING_FILTERS:
            config.addinivalue_line("filterwarnings", line)


@pytest.fixture(autouse=True)
def no_deprecated_function_is_used():
    """Fails a test in which a library logs a deprecation, if transformers has the newest known version."""
    with DeprecationRecorder() as recorder:
        yield
    if is_newest():
        assert not recorder.messages, "a library logged a deprecation, so this call will stop working: " + "; ".join(
            recorder.messages
        )


@pytest.fixture
def vision_config():
    return vilau_hf.VilaUVisionConfig(**VISION)


@pytest.fixture
def config():
    sizes = {"vision_config": VISION, "depth_config": DEPTH, "text_config": TEXT}
    return vilau_hf.VilaUConfig(**sizes, initializer_range=0.2, **TOKEN_IDS)


@pytest.fixture
def tower(vision_config):
    return vilau_hf.VilaUVisionTower(vision_config).eval()


@pytest.fixture
def model(config):
    model = vilau_hf.VilaUForConditionalGeneration(config).eval()
    model.generation_config.unconditional_prompt_ids = [1, 5]
    return model


def pytest_collection_modifyitems(items):
    """Runs `test_library_hooks.py` first, because it names what a new version of a library changed."""
    items.sort(key=lambda item: item.path.name != "test_library_hooks.py")
