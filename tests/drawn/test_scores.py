import pytest
import torch

from vilau_hf import TINY_CHECKPOINT, VilaUProcessor, VilaUVisionTowerForPreTraining
from vilau_hf.drawn.scores import evaluate_images, evaluate_reconstruction, evaluate_tower
from vilau_hf.drawn.shapes import draw, drawings


def test_true_images_have_all_attributes():
    targets = drawings("test")[::10]
    scores = evaluate_images(draw(targets), targets)
    assert list(scores) == [
        "picture_color",
        "picture_shape",
        "picture_size",
        "picture_place",
        "picture_background",
        "picture_color_and_shape",
        "picture_all",
    ]
    assert set(scores.values()) == {1.0}


def test_a_wrong_attribute_counts_in_its_score_and_in_the_joint_scores():
    first = drawings("train")[0]
    second = next(d for d in drawings("train") if d.color != drawings("train")[0].color)
    target = type(first)(second.color, first.shape, first.size, first.place, first.background)
    scores = evaluate_images(draw([first, first]), [first, target])
    assert scores["picture_color"] == scores["picture_color_and_shape"] == scores["picture_all"] == 0.5
    assert scores["picture_shape"] == scores["picture_size"] == scores["picture_place"] == 1


def test_scores_of_a_tower_depend_only_on_the_seed():
    tower = VilaUVisionTowerForPreTraining.from_pretrained(f"{TINY_CHECKPOINT}/tower", dtype=torch.float32).eval()
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    length = tower.config.text_config.max_position_embeddings
    scores = evaluate_reconstruction(tower.vision_tower, processor, num_samples=8, seed=1)
    assert scores == evaluate_reconstruction(tower.vision_tower, processor, num_samples=8, seed=1)
    assert scores["reconstruction_psnr"] > 30 and 0 < scores["codebook_usage"] < 1
    assert evaluate_tower(tower, processor, length, num_samples=8)["zero_shot_color_and_shape"] >= 0.75


def test_rejects_another_number_of_targets():
    with pytest.raises(ValueError, match="shorter"):
        evaluate_images(draw(drawings("test")[:2]), drawings("test")[:1])
