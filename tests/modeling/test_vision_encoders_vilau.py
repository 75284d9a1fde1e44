"""Image encoders of several families of vision models."""

import pytest
import torch
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    Dinov2Config,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    SiglipVisionConfig,
    ViTConfig,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vilau_hf import (
    TINY_CHECKPOINT,
    VilaUConfig,
    VilaUForConditionalGeneration,
    VilaUProcessor,
    VilaUVisionConfig,
    VilaUVisionTower,
    VilaUVisionTowerForPreTraining,
)
from vilau_hf.data.tower_fingerprint import describe_tower
from vilau_hf.modeling.vision_families_vilau import VISION_FAMILIES, VisionFamily, vision_family

from ..conftest import DEPTH, TEXT, TEXT_TOWER, TOKEN_IDS, VISION


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 4,
    "initializer_range": 0.2,
}
ENCODERS = {
    "siglip": SiglipVisionConfig(**SIZES, image_size=16),
    "siglip2": Siglip2VisionConfig(**SIZES, num_patches=16),
    "clip": CLIPVisionConfig(**SIZES, image_size=16),
    "vit": ViTConfig(**SIZES, image_size=16),
}


@pytest.fixture(params=list(ENCODERS))
def encoder_config(request):
    # a copy, because building a model sets fields of its configuration
    return type(ENCODERS[request.param])(**ENCODERS[request.param].to_dict())


def vision_config_of(encoder_config):
    return VilaUVisionConfig(**{**VISION, "encoder_config": encoder_config}, text_config=TEXT_TOWER)


@pytest.fixture
def pretraining(encoder_config):
    return VilaUVisionTowerForPreTraining(vision_config_of(encoder_config)).eval()


@pytest.fixture
def batch():
    return {"pixel_values": torch.rand(4, 3, 16, 16) * 2 - 1, "input_ids": torch.randint(1, 40, (4, 8))}


def second_to_last_layer(vision_model, pixels):
    """Patch outputs by the model's documented inputs and outputs, with one image at a time."""
    kind = vision_model.config.model_type
    if kind == "clip_vision_model":
        pixels = (pixels / 2 + 0.5 - torch.tensor(OPENAI_CLIP_MEAN)[:, None, None]) / torch.tensor(OPENAI_CLIP_STD)[
            :, None, None
        ]
    features = []
    for image in pixels:
        inputs = {"pixel_values": image[None]}
        if kind == "siglip2_vision_model":
            settings = {"do_resize": False, "do_rescale": False, "do_normalize": False}
            inputs = Siglip2ImageProcessor(**settings, patch_size=4, max_num_patches=16)(image, return_tensors="pt")
        hidden = vision_model(**inputs, output_hidden_states=True).hidden_states[-2]
        features.append(hidden[0, 1:] if kind in ("clip_vision_model", "vit") else hidden[0])
    return torch.stack(features)


@torch.no_grad()
def test_features_are_the_patch_outputs_of_the_second_to_last_layer(encoder_config, batch):
    vision_model = AutoModel.from_config(encoder_config).eval()
    tower = VilaUVisionTower(vision_config_of(encoder_config)).eval()
    tower.load_image_encoder(vision_model)
    expected = second_to_last_layer(vision_model, batch["pixel_values"])
    torch.testing.assert_close(tower.get_features(batch["pixel_values"]), expected, atol=1e-5, rtol=1e-5)


def test_a_step_trains_every_weight_but_the_codebook(pretraining, batch):
    pretraining.train()
    optimizer = torch.optim.AdamW([p for p in pretraining.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(10):
        loss = pretraining(**batch, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, parameter in pretraining.named_parameters():
        assert (parameter.grad is None) == name.endswith("codebook.weight"), name


@torch.no_grad()
def test_codes_decode_and_hidden_states_are_returned(pretraining, batch):
    tower = pretraining.vision_tower
    encoded = tower.encode(batch["pixel_values"], output_hidden_states=True)
    assert encoded.codes.shape == (4, 16, 3) and len(encoded.hidden_states) == 3
    assert tower.decode(encoded.codes).shape == (4, 3, 16, 16)


@torch.no_grad()
def test_saving_and_loading_is_bit_equal(pretraining, batch, tmp_path):
    pretraining.save_pretrained(tmp_path / "pretraining")
    again = VilaUVisionTowerForPreTraining.from_pretrained(tmp_path / "pretraining").eval()
    assert type(again.config.encoder_config) is type(pretraining.config.encoder_config)
    assert torch.equal(again(**batch).logits_per_image, pretraining(**batch).logits_per_image)
    pretraining.vision_tower.save_pretrained(tmp_path / "tower")
    tower = VilaUVisionTower.from_pretrained(tmp_path / "tower").eval()
    codes = pretraining.vision_tower.encode(batch["pixel_values"]).codes
    assert torch.equal(tower.encode(batch["pixel_values"]).codes, codes)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_image_encoder_stays_in_float32(pretraining, tmp_path, dtype):
    pretraining.save_pretrained(tmp_path)
    loaded = VilaUVisionTowerForPreTraining.from_pretrained(tmp_path, dtype=dtype)
    cast = pretraining.to(dtype)
    for model in (loaded, cast):
        encoder = model.vision_tower.image_encoder
        assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
        assert model.dtype == dtype


@torch.no_grad()
def test_the_complete_model_draws_with_the_tower(encoder_config):
    vision_config = {**VISION, "encoder_config": encoder_config.to_dict()}
    config = VilaUConfig(vision_config=vision_config, depth_config=DEPTH, text_config=TEXT, **TOKEN_IDS)
    model = VilaUForConditionalGeneration(config).eval()
    codes = model.generate(torch.tensor([[1, 5, 6]]), generation_mode="image", guidance_scale=1.0, seed=0)
    assert model.decode_image_tokens(codes).shape == (1, 3, 16, 16)


def test_attention_of_the_image_encoder_can_be_chosen(pretraining):
    pretraining.set_attn_implementation("eager")
    modules = [each for each in pretraining.vision_tower.image_encoder.modules() if hasattr(each, "is_causal")]
    assert modules and {each.config._attn_implementation for each in modules} == {"eager"}


@torch.no_grad()
def test_another_family_takes_one_entry(batch, monkeypatch):
    encoder_config = Dinov2Config(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, patch_size=4, image_size=16, use_mask_token=False
    )
    entry = VisionFamily(num_prefix_tokens=1, modules_after_layers=("layernorm",))
    monkeypatch.setitem(VISION_FAMILIES, "dinov2", entry)
    vision_model = AutoModel.from_config(encoder_config).eval()
    tower = VilaUVisionTower(vision_config_of(encoder_config)).eval()
    tower.load_image_encoder(vision_model)
    expected = vision_model(batch["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
    torch.testing.assert_close(tower.get_features(batch["pixel_values"]), expected)
    assert tower.decode(tower.encode(batch["pixel_values"]).codes).shape == (4, 3, 16, 16)


def test_a_family_without_entry_is_rejected():
    with pytest.raises(ValueError, match="`encoder_config.model_type` must be one of siglip_vision_model, .*'dinov2'"):
        vision_config_of(Dinov2Config(hidden_size=32, num_hidden_layers=3, num_attention_heads=2))


def test_siglip2_patches_must_form_a_square():
    with pytest.raises(ValueError, match="`encoder_config.num_patches` must be a square number, got 15"):
        vision_config_of(Siglip2VisionConfig(**SIZES, num_patches=15))


def test_a_configuration_without_model_type_is_siglips():
    encoder_config = VilaUVisionConfig(**VISION).encoder_config
    assert type(encoder_config) is SiglipVisionConfig
    assert vision_family(encoder_config) == VisionFamily()


def test_clip_images_are_normalised_like_the_librarys():
    family = VISION_FAMILIES["clip_vision_model"]
    assert list(family.image_mean) == OPENAI_CLIP_MEAN and list(family.image_std) == OPENAI_CLIP_STD


@torch.no_grad()
def test_fingerprints_tell_weights_apart(pretraining):
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    tower = pretraining.vision_tower
    before = describe_tower(tower, processor)["fingerprint"]
    assert describe_tower(tower, processor)["fingerprint"] == before
    next(tower.image_encoder.parameters()).add_(1e-3)
    assert describe_tower(tower, processor)["fingerprint"] != before
