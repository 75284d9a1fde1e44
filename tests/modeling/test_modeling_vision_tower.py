import math

import pytest
import torch
from transformers import AutoModel, AutoModelForZeroShotImageClassification, SiglipConfig, SiglipModel

from vilau_hf import VilaUVisionConfig, VilaUVisionTower, VilaUVisionTowerForPreTraining

from ..conftest import TEXT_TOWER, VISION


REST = {name: value for name, value in VISION.items() if name != "encoder_config"}


@pytest.fixture
def siglip():
    model = SiglipModel(SiglipConfig(vision_config=VISION["encoder_config"], text_config=TEXT_TOWER))
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
        model.logit_bias.fill_(-2.0)
    return model.eval()


@pytest.fixture
def pretraining(siglip):
    return VilaUVisionTowerForPreTraining.from_siglip(siglip, **REST).eval()


@pytest.fixture
def batch():
    return {"pixel_values": torch.rand(4, 3, 16, 16) * 2 - 1, "input_ids": torch.randint(1, 40, (4, 8))}


@torch.no_grad()
def test_features_are_the_output_of_siglips_second_to_last_layer(siglip, pretraining, batch):
    expected = siglip.vision_model(batch["pixel_values"], output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(pretraining.vision_tower.get_features(batch["pixel_values"]), expected)


@torch.no_grad()
def test_image_embeddings_of_unquantized_features_are_siglips(siglip, pretraining, batch):
    features = pretraining.vision_tower.get_features(batch["pixel_values"])
    expected = siglip.get_image_features(batch["pixel_values"]).pooler_output
    torch.testing.assert_close(pretraining.image_pooler(features), expected)
    quantized = pretraining.vision_tower.encode(batch["pixel_values"]).quantized
    actual = pretraining.get_image_features(batch["pixel_values"])
    torch.testing.assert_close(actual, pretraining.image_pooler(quantized))
    assert not torch.allclose(actual, expected)
    torch.testing.assert_close(
        pretraining.get_text_features(batch["input_ids"]), siglip.get_text_features(batch["input_ids"]).pooler_output
    )


def test_only_text_encoder_and_codebook_are_frozen(pretraining):
    for name, parameter in pretraining.named_parameters():
        frozen = name.startswith("text_model.") or name.endswith("codebook.weight")
        assert parameter.requires_grad != frozen, name


def test_frozen_encoders_stay_in_evaluation_mode(pretraining):
    pretraining.train()
    assert not any(module.training for module in pretraining.text_model.modules())
    assert pretraining.vision_tower.image_encoder.training and pretraining.image_pooler.training
    pretraining.text_model.requires_grad_(True)
    pretraining.vision_tower.image_encoder.requires_grad_(False)
    pretraining.train()
    assert pretraining.text_model.training and pretraining.vision_tower.quantizer.training
    assert not any(module.training for module in pretraining.vision_tower.image_encoder.modules())
    assert not any(module.training for module in pretraining.eval().modules())


def test_losses_of_weight_0_are_not_computed(pretraining, batch):
    pretraining.config.contrastive_loss_weight = 0.0
    output = pretraining(batch["pixel_values"], return_loss=True)
    assert output.contrastive_loss is None and output.image_embeds is None
    expected = output.reconstruction_loss + 0.25 * output.commitment_loss
    torch.testing.assert_close(output.loss, expected)
    pretraining.config.contrastive_loss_weight = 1.0
    pretraining.config.reconstruction_loss_weight = 0.0
    output = pretraining(**batch, return_loss=True)
    assert output.reconstruction is None and torch.equal(output.loss, output.contrastive_loss)


def test_losses_equal_the_equations(pretraining, batch):
    pretraining.config.l1_loss_weight = 0.5
    pretraining.config.mse_loss_weight = 3.0
    pretraining.config.contrastive_loss_weight = 0.7
    pretraining.config.reconstruction_loss_weight = 2.0
    output = pretraining(**batch, return_loss=True)
    images = output.image_embeds
    texts = output.text_embeds
    torch.testing.assert_close(images.norm(dim=-1), torch.ones(4))
    scale = pretraining.logit_scale.exp().item()
    bias = pretraining.logit_bias.item()
    total = 0.0
    for i in range(4):
        for j in range(4):
            logit = (images[i] @ texts[j]).item() * scale + bias
            total += math.log(1 / (1 + math.exp(-logit if i == j else logit)))
    torch.testing.assert_close(output.contrastive_loss.item(), -total / 4, rtol=1e-4, atol=1e-5)
    difference = output.reconstruction - batch["pixel_values"]
    reconstruction = 3.0 * (difference**2).mean() + 0.5 * difference.abs().mean()
    torch.testing.assert_close(output.reconstruction_loss, reconstruction)
    expected = 0.7 * output.contrastive_loss + 2.0 * (reconstruction + 0.25 * output.commitment_loss)
    torch.testing.assert_close(output.loss, expected)


def test_reconstruction_trains_the_encoder_through_the_quantizer(pretraining, batch):
    pretraining.config.contrastive_loss_weight = pretraining.config.commitment_loss_weight = 0.0
    pretraining(**batch, return_loss=True).loss.backward()
    assert pretraining.vision_tower.image_encoder.embeddings.patch_embedding.weight.grad.abs().sum() > 0


def test_loss_falls_on_one_batch(pretraining, batch):
    pretraining.train()
    optimizer = torch.optim.AdamW([p for p in pretraining.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(40):
        loss = pretraining(**batch, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_built_in_half_precision_keeps_encoder_and_quantizer_in_float32(config, dtype):
    default = torch.get_default_dtype()
    tower = AutoModel.from_config(config, dtype=dtype).model.vision_tower
    assert torch.get_default_dtype() == default
    for module in (tower.image_encoder, tower.quantizer):
        assert {each.dtype for each in module.state_dict().values() if each.is_floating_point()} == {torch.float32}
    assert tower.post_quant_conv.weight.dtype == tower.pixel_decoder.conv_in.weight.dtype == dtype
    weight = tower.image_encoder.layers[0].mlp.fc1.weight
    assert not torch.equal(weight, weight.to(dtype).float())  # initialised in float32, not rounded and cast back


@torch.no_grad()
def test_a_pixel_decoder_may_have_one_residual_block_per_level(vision_config):
    vision_config.layers_per_block = 0
    tower = VilaUVisionTower(vision_config).eval()
    assert [len(block.resnets) for block in tower.pixel_decoder.up_blocks] == [1, 1, 1]
    assert tower.decode(torch.zeros(1, 16, 3, dtype=torch.long)).shape == (1, 3, 16, 16)


@torch.no_grad()
def test_codes_and_features_decode_to_the_same_pixels(tower):
    encoded = tower.encode(torch.rand(2, 3, 16, 16) * 2 - 1)
    pixels = tower.decode(encoded.codes)
    assert pixels.shape == (2, 3, 16, 16)
    torch.testing.assert_close(tower.decode(encoded.quantized), pixels)


@torch.no_grad()
def test_saving_and_loading_is_bit_equal(pretraining, batch, tmp_path):
    pretraining.save_pretrained(tmp_path / "pretraining")
    again = AutoModelForZeroShotImageClassification.from_pretrained(tmp_path / "pretraining").eval()
    assert type(again) is VilaUVisionTowerForPreTraining
    assert torch.equal(again(**batch).logits_per_image, pretraining(**batch).logits_per_image)
    pretraining.vision_tower.save_pretrained(tmp_path / "tower")
    tower = AutoModel.from_pretrained(tmp_path / "tower").eval()
    assert type(tower) is VilaUVisionTower
    pixels = batch["pixel_values"]
    assert torch.equal(tower.encode(pixels).quantized, pretraining.vision_tower.encode(pixels).quantized)


@torch.no_grad()
def test_losses_in_bfloat16_are_finite_with_the_quantizer_in_float32(pretraining, batch, tmp_path):
    pretraining.save_pretrained(tmp_path)
    model = VilaUVisionTowerForPreTraining.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for tensor in (*model.vision_tower.quantizer.parameters(), model.vision_tower.quantizer.cluster_sum):
        assert tensor.dtype == torch.float32
    assert model.image_pooler.post_layernorm.weight.dtype == torch.bfloat16
    assert torch.isfinite(model(**batch, return_loss=True).loss)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(2, 3, 8, 8), r"`pixel_values` must have shape \(N, 3, 16, 16\), got \(2, 3, 8, 8\)"),
        (torch.zeros(3, 16, 16), r"`pixel_values` must have shape \(N, 3, 16, 16\), got \(3, 16, 16\)"),
    ],
)
def test_rejects_pixels_of_a_wrong_shape(tower, pixels, message):
    with pytest.raises(ValueError, match=message):
        tower.encode(pixels)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.full((1, 16, 3), 24), r"`codes` must be in \[0, 24\), got values from 24 to 24"),
        (torch.zeros(1, 9, 3, dtype=torch.long), r"must have shape \(N, 16, 3\) as codes .*got \(1, 9, 3\)"),
        (torch.zeros(1, 16, 31), r"\(N, 16, 32\) as features, got \(1, 16, 31\)"),
    ],
)
def test_rejects_codes_and_features_that_cannot_be_decoded(tower, codes, message):
    with pytest.raises(ValueError, match=message):
        tower.decode(codes)


def test_pretraining_requires_texts_and_matching_sizes(vision_config, pretraining, batch):
    with pytest.raises(ValueError, match="`config.text_config` is None"):
        VilaUVisionTowerForPreTraining(vision_config)
    with pytest.raises(ValueError, match="`input_ids` must be given with `return_loss=True`"):
        pretraining(batch["pixel_values"], return_loss=True)
    smaller = VilaUVisionConfig(**VISION, text_config=TEXT_TOWER, decoder_latent_size=2)
    with pytest.raises(ValueError, match=r"gives \(8, 8\) pixels and the images have \(16, 16\)"):
        VilaUVisionTowerForPreTraining(smaller)(**batch, return_loss=True)
