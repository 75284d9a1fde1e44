"""Numbers of the original implementation, recorded in float32 with tiny random weights."""

import pytest
import torch

from vilau_hf.modeling.generation_vilau import code_probabilities

from .golden import FOLDERS, depth_transformer, recording, vision_tower


pytestmark = pytest.mark.parametrize("folder", FOLDERS)


def assert_near(actual, expected, atol=1e-4):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-4)


@torch.no_grad()
def test_tower_gives_the_recorded_features_and_exactly_the_recorded_codes(folder):
    tower, expected, inputs = vision_tower(folder), recording(folder, "encode"), recording(folder, "inputs")
    patches = tower.encoder.embeddings.patch_embedding(inputs["images"]).flatten(2).transpose(1, 2)
    positions = tower.encoder.embeddings.position_embedding.weight
    recorded = expected["patch_embeddings"]
    assert min((patches - recorded).abs().max(), (patches + positions - recorded).abs().max()) < 1e-4
    assert_near(tower.get_features(inputs["images"]), expected["quantizer_input"])
    encoded = tower.encode(inputs["images"])
    assert torch.equal(encoded.codes, expected["codes"].flatten(1, 2).long())
    assert_near(encoded.quantized, expected["z_q"].flatten(1, 2))
    assert torch.equal(tower.encode(inputs["video"]).codes, expected["video_codes"].flatten(1, 2).long())


@torch.no_grad()
def test_codes_decode_to_the_recorded_pixels(folder):
    tower, expected = vision_tower(folder), recording(folder, "decode")
    codes = expected["codes"].long()
    assert_near(tower.quantizer.code_embeddings(codes[:1, :4]), expected["code_embeddings"])
    assert_near(tower.quantizer.decode(codes), expected["summed"].flatten(1, 2))
    pixels = tower.decode(codes)
    assert_near(pixels, expected["pixels"])
    assert_near(pixels.add(1).mul(127.5).clamp(0, 255), expected["pixels_255"], atol=1e-2)


@torch.no_grad()
def test_depth_transformer_gives_the_recorded_logits(folder):
    tower, depth, expected = vision_tower(folder), depth_transformer(folder), recording(folder, "depth")
    embeddings = tower.quantizer.code_embeddings(expected["codes"].long())  # (2, 3, D, C)
    logits = depth(expected["hidden_states"].flatten(0, 1), embeddings.flatten(0, 1))
    assert_near(logits, expected["logits"].flatten(0, 1))


@pytest.mark.parametrize("case", ["t1_k", "t1_p", "t1_k_p", "t0.7_k_p"])
def test_codes_are_drawn_from_the_recorded_distribution(folder, case):
    expected = recording(folder, "sampling")
    temperature, *limits = case.removeprefix("t").split("_")
    probabilities = code_probabilities(
        expected["logits"],
        temperature=float(temperature),
        top_k=50 if "k" in limits else 0,
        top_p=0.96 if "p" in limits else 1.0,
    )
    torch.testing.assert_close(probabilities, expected[f"probs.{case}"])
