"""Ranges of configuration fields."""

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError

from vilau_hf import VilaUConfig, VilaUDepthConfig, VilaUVisionConfig

from ..conftest import DEPTH, TEXT, TOKEN_IDS, VISION


NAN = float("nan")


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_num_groups": 0},
        {"latent_channels": -8},
        {"codebook_size": 0},
        {"layers_per_block": -1},
        {"block_out_channels": []},
        {"block_out_channels": [8, 0, 8]},
        {"decoder_latent_size": 0},
        {"codebook_decay": 1.5},
        {"codebook_epsilon": NAN},
        {"mse_loss_weight": float("inf")},
        {"l1_loss_weight": -1.0},
        {"initializer_range": NAN},
        *({"encoder_config": {**VISION["encoder_config"], name: 0}} for name in ("patch_size", "num_attention_heads")),
        {"encoder_config": {**VISION["encoder_config"], "num_hidden_layers": 10**6}},
    ],
)
def test_rejects_sizes_of_towers(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"`{name}[a-z_.]*` must"):
        VilaUVisionConfig(**{**VISION, **changes})


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_attention_heads", 0), ("num_hidden_layers", -4), ("num_hidden_layers", 10**6), ("hidden_size", 0)],
)
def test_rejects_sizes_of_depth_transformers_and_language_models(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must"):
        VilaUDepthConfig(**{**DEPTH, name: value})
    sizes = {"vision_config": VISION, "depth_config": DEPTH, "text_config": TEXT}
    for sub_config in ("depth_config", "text_config"):
        with pytest.raises(ValueError, match=f"`{sub_config}.{name}` must"):
            VilaUConfig(**{**sizes, sub_config: {**sizes[sub_config], name: value}}, **TOKEN_IDS)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_token_id": -5},
        {"start_marker_prefix_ids": [-1]},
        {"text_loss_weight": NAN},
        {"visual_loss_weight": -1.0},
    ],
)
def test_rejects_ids_and_weights_out_of_range(changes):
    (name,) = changes
    sizes = {"vision_config": VISION, "depth_config": DEPTH, "text_config": TEXT}
    with pytest.raises(ValueError, match=f"`{name}` must"):
        VilaUConfig(**{**sizes, **TOKEN_IDS, **changes})


ERRORS = {
    "type of a field": (lambda: VilaUDepthConfig(layer_norm_eps="x"), "layer_norm_eps", None),
    "relation": (
        lambda: VilaUDepthConfig(hidden_size=30, num_attention_heads=4),
        "`hidden_size` .30. must be a multiple",
        StrictDataclassClassValidationError,
    ),
    "nested relation": (
        lambda: VilaUConfig(vision_config=VISION, depth_config={**DEPTH, "num_attention_heads": 5}, text_config=TEXT),
        "`hidden_size` .32. must be a multiple",
        StrictDataclassClassValidationError,
    ),
    "nested field": (
        lambda: VilaUConfig(vision_config=VISION, depth_config=DEPTH, text_config={**TEXT, "rms_norm_eps": "x"}),
        "rms_norm_eps",
        StrictDataclassFieldValidationError,
    ),
    "changed field": (
        lambda: setattr(VilaUDepthConfig(**DEPTH), "num_attention_heads", "x"),
        "num_attention_heads",
        StrictDataclassFieldValidationError,
    ),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_of_configurations_are_value_errors(kind):
    make, message, library_class = ERRORS[kind]
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert library_class is None or isinstance(raised.value, library_class)


def test_relations_are_checked_again_before_saving(tmp_path):
    config = VilaUDepthConfig(**DEPTH)
    config.num_attention_heads = 5
    with pytest.raises(ValueError, match="must be a multiple of `num_attention_heads`"):
        config.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_start_token_id": 1.5}, "image_start_token_id.* expected int, got float"),
        ({"tie_word_embeddings": "x"}, "tie_word_embeddings.* expected bool, got str"),
        ({"image_start_token_id": 60}, "`image_start_token_id` .* must be in the vocabulary"),
        ({"id2label": 5}, "`id2label` must be a mapping"),
        ({"architectures": 5}, "`architectures` must be a list of strings"),
        ({"dtype": [None]}, "`dtype` must be"),
        ({"text_config": {**TEXT, "pad_token_id": 60}}, "`text_config.pad_token_id` must be in the vocabulary"),
        ({"text_config": {**TEXT, "hidden_act": "x"}}, "`text_config.hidden_act` must be a string that names"),
        ({"text_config": {**TEXT, "model_type": [None]}}, "`text_config.model_type` must be a string"),
        ({"text_config": {**TEXT, "rope_parameters": 5}}, "rope_parameters"),
    ],
)
def test_types_and_names_raise_value_errors(changes, message):
    sizes = {"vision_config": VISION, "depth_config": DEPTH, "text_config": TEXT}
    with pytest.raises(ValueError, match=message):
        VilaUConfig(**{**sizes, **TOKEN_IDS, **changes})


def test_setting_a_field_raises_a_value_error():
    config = VilaUDepthConfig(**DEPTH)
    config.initializer_range = 0.5
    with pytest.raises(ValueError, match="hidden_size.* expected int, got str"):
        config.hidden_size = "x"


def test_rejects_heads_that_do_not_divide_the_width_of_the_encoder():
    encoder = {**VISION["encoder_config"], "num_attention_heads": 5}
    with pytest.raises(ValueError, match="`encoder_config.hidden_size` .32. must be a multiple of"):
        VilaUVisionConfig(**{**VISION, "encoder_config": encoder})


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"question": "q"}'])
def test_rejects_json_files_that_are_no_configurations(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    for name in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(ValueError, match="must hold fields by name, with `model_type`"):
            VilaUConfig.from_pretrained(name)


def test_names_the_checkpoint_that_cannot_be_found():
    with pytest.raises(OSError, match="nobody/nothing"):
        VilaUConfig.from_pretrained("nobody/nothing", local_files_only=True)
