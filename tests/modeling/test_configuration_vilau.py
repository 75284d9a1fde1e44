import copy

import pytest
import torch
from transformers import AutoConfig

from vilau_hf import VilaUConfig, VilaUDepthConfig, VilaUForConditionalGeneration, VilaUVisionConfig
from vilau_hf.loading import load_published_config

from ..conftest import DEPTH, TEXT, TOKEN_IDS, VISION


SUB_CONFIGS = {"vision_config": VISION, "depth_config": DEPTH, "text_config": TEXT}


def linear(inputs, outputs, bias=True):
    return inputs * outputs + bias * outputs


def conv(inputs, outputs, kernel):
    return inputs * outputs * kernel**2 + outputs


def llama(vocab, hidden, mlp, layers):
    layer = 4 * hidden**2 + 3 * hidden * mlp + 2 * hidden
    return 2 * vocab * hidden + layers * layer + hidden


def depth_transformer(width, layers, hidden, dim, codes, depth):
    layer = 4 * linear(width, width) + linear(width, 4 * width) + linear(4 * width, width) + 2 * 2 * width
    return (
        linear(hidden, width) + linear(dim, width) + depth * width + layers * layer + 2 * width + linear(width, codes)
    )


def siglip_encoder(width, mlp, layers, patch, tokens):
    layer = 4 * linear(width, width) + linear(width, mlp) + linear(mlp, width) + 2 * 2 * width
    return conv(3, width, patch) + tokens * width + layers * layer


def residual_block(inputs, outputs):
    shortcut = conv(inputs, outputs, 1) if inputs != outputs else 0
    return 2 * inputs + conv(inputs, outputs, 3) + 2 * outputs + conv(outputs, outputs, 3) + shortcut


def attention_block(channels):
    return 2 * channels + 4 * linear(channels, channels)


def pixel_decoder(latent, channels, blocks):
    """Counts parameters of the levels, from the lowest resolution; the middle and the lowest level have attention."""
    lowest = channels[-1]
    total = conv(latent, lowest, 3) + 2 * residual_block(lowest, lowest) + attention_block(lowest)
    inputs = lowest
    for level, outputs in enumerate(reversed(channels)):
        for _ in range(blocks + 1):
            total += residual_block(inputs, outputs) + (attention_block(outputs) if level == 0 else 0)
            inputs = outputs
        total += conv(outputs, outputs, 3) if level < len(channels) - 1 else 0
    return total + 2 * inputs + conv(inputs, 3, 3)


@pytest.mark.parametrize(
    ("name", "width", "mlp", "layers", "patch", "side", "depth"),
    [("vilau-7b-256", 1024, 4096, 23, 16, 16, 4), ("vilau-7b-384", 1152, 4304, 26, 14, 27, 16)],
)
def test_published_sizes_have_the_expected_numbers_of_parameters(name, width, mlp, layers, patch, side, depth):
    with torch.device("meta"):
        model = VilaUForConditionalGeneration(load_published_config(name))
    tower = model.model.vision_tower
    expected = {
        "language model": llama(32004, 4096, 11008, 32),
        "depth transformer": depth_transformer(2560, 6, 4096, width, 16384, depth),
        "projector": linear(width, 4096) + linear(4096, 4096),
        "encoder": siglip_encoder(width, mlp, layers, patch, side**2),
        "quantizer": 16384 * width,
        "pixel decoder": conv(width, 256, 1) + pixel_decoder(256, [128, 128, 256, 256, 512], 2),
    }
    sub_models = {
        "language model": [model.model.language_model, model.lm_head],
        "depth transformer": [model.depth_transformer],
        "projector": [model.model.multi_modal_projector],
        "encoder": [tower.image_encoder],
        "quantizer": [tower.quantizer],
        "pixel decoder": [tower.post_quant_conv, tower.pixel_decoder],
    }
    counts = {name: sum(p.numel() for m in modules for p in m.parameters()) for name, modules in sub_models.items()}
    assert counts == expected
    assert sum(p.numel() for p in model.parameters()) == sum(expected.values())
    assert all(parameter.is_meta for parameter in model.parameters())


def test_the_default_is_the_published_256_pixel_model():
    assert VilaUConfig().to_dict() == load_published_config("vilau-7b-256").to_dict()
    config = VilaUConfig()
    assert (config.vision_config.num_visual_tokens, config.vision_config.output_image_size) == (256, 256)
    large = load_published_config("vilau-7b-384").vision_config
    assert (large.num_visual_tokens, large.output_image_size) == (729, 384)


def fields(config):
    return {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}


def test_saving_and_loading_keeps_everything(config, tmp_path):
    config.save_pretrained(tmp_path)
    assert fields(VilaUConfig.from_pretrained(tmp_path)) == fields(config)
    assert fields(AutoConfig.from_pretrained(tmp_path)) == fields(config)
    assert fields(VilaUVisionConfig.from_pretrained(tmp_path)) == fields(config.vision_config)
    assert fields(VilaUDepthConfig.from_pretrained(tmp_path)) == fields(config.depth_config)
    changed = VilaUConfig.from_pretrained(tmp_path, text_config={"num_hidden_layers": 7})
    assert changed.text_config.num_hidden_layers == 7 and changed.text_config.hidden_size == 48


def test_rejects_a_folder_without_configuration(tmp_path):
    for cls in (VilaUConfig, VilaUVisionConfig, VilaUDepthConfig):
        with pytest.raises(OSError, match="has no config.json"):
            cls.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("sub_config", "change", "message"),
    [
        ("depth_config", {"code_depth": 2}, r"`depth_config.code_depth` \(2\) .*`vision_config.code_depth` \(3\)"),
        (
            "depth_config",
            {"codebook_size": 9},
            r"codebook_size` \(9\) must equal `vision_config.codebook_size` \(24\)",
        ),
        ("depth_config", {"code_dim": 9}, r"`depth_config.code_dim` \(9\) must equal .*hidden_size` \(32\)"),
        ("depth_config", {"backbone_hidden_size": 9}, r"\(9\) must equal `text_config.hidden_size` \(48\)"),
        ("depth_config", {"num_attention_heads": 5}, r"`hidden_size` \(32\) .*`num_attention_heads` \(5\)"),
        ("vision_config", {"norm_num_groups": 3}, r"`block_out_channels` \(\[8, 8, 8\]\) .*`norm_num_groups` \(3\)"),
        (
            "vision_config",
            {"code_depth": 0},
            "`vision_config.code_depth` must be an integer from 1 to 2147483647, got 0",
        ),
        (
            "text_config",
            {"num_key_value_heads": 2**63},
            "`text_config.num_key_value_heads` must be an integer from 1 to 2147483647, got 9223372036854775808",
        ),
        (
            "vision_config",
            {"layers_per_block": -1},
            "`vision_config.layers_per_block` must be an integer from 0 to 1000, got -1",
        ),
        ("vision_config", {"codebook_initialization": "zeros"}, "must be one of random, kmeans, got 'zeros'"),
        ("vision_config", {"contrastive_loss_type": "clip"}, "must be one of sigmoid, softmax, got 'clip'"),
        (
            "vision_config",
            {"l1_loss_weight": -1.0},
            "`vision_config.l1_loss_weight` must be a finite number of at least 0, got -1.0",
        ),
        ("vision_config", {"up_block_types": ["UpDecoderBlock2D"]}, r"`up_block_types` \(1 entries\) .*\(3 entries\)"),
        ("text_config", {"vocab_size": 57}, r"`video_end_token_id` \(57\) must be in the vocabulary, .*\[0, 57\)"),
    ],
)
def test_rejects_sub_configs_that_do_not_match(sub_config, change, message):
    sub_configs = copy.deepcopy(SUB_CONFIGS)
    sub_configs[sub_config].update(change)
    with pytest.raises(ValueError, match=message):
        VilaUConfig(**sub_configs, **TOKEN_IDS)


def test_rejects_image_encoders_that_are_too_small():
    for change, message in (
        (
            {"patch_size": 32},
            r"`encoder_config.image_size` \(16\) must be at least `encoder_config.patch_size` \(32\)",
        ),
        ({"num_hidden_layers": 1}, "`encoder_config.num_hidden_layers` must be at least 2 .*got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            VilaUVisionConfig(**{**VISION, "encoder_config": {**VISION["encoder_config"], **change}})


def test_token_ids_must_differ():
    with pytest.raises(ValueError, match="`video_token_id` and `image_token_id` must differ, both are 58"):
        VilaUConfig(**SUB_CONFIGS, **{**TOKEN_IDS, "video_token_id": 58})


def test_placeholders_of_images_and_videos_are_visual():
    config = VilaUConfig(image_token_id=32004, video_token_id=32005)
    ids = torch.tensor([[1, 32000, 32004, 32001], [32002, 32005, 32003, -100]])
    expected = [[False, False, True, False], [False, True, False, False]]
    assert config.is_visual(ids).tolist() == expected
