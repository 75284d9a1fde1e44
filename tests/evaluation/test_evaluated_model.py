import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.evaluation.evaluated_model import EvaluatedModel


TOWER = f"{TINY_CHECKPOINT}/tower"


def test_a_model_shares_its_tower_with_tasks_of_images():
    model = EvaluatedModel(TINY_CHECKPOINT)
    alone = model.vision_tower
    assert "model" not in vars(model)  # the language model is not read for the tower
    assert model.image_size == 32 and model.num_frames == 4
    other = EvaluatedModel(TINY_CHECKPOINT)
    assert other.vision_tower is not other.model.model.vision_tower
    third = EvaluatedModel(TINY_CHECKPOINT)
    assert third.model.model.vision_tower is third.vision_tower
    for name, value in alone.state_dict().items():
        assert torch.equal(value, third.vision_tower.state_dict()[name]), name


def test_a_tower_serves_tasks_that_need_no_language_model():
    model = EvaluatedModel(TOWER)
    assert model.image_size == 32 and model.text_tower_source() == TOWER
    assert model.image_processor.size["height"] == 32
    with pytest.raises(ValueError, match="needs a complete model, got .*'vilau_vision'"):
        _ = model.model


def test_rejects_a_tower_that_is_a_model():
    with pytest.raises(ValueError, match="`tower` must be a vision tower with its text encoder"):
        EvaluatedModel(TINY_CHECKPOINT, tower=TINY_CHECKPOINT).text_tower_source()


def test_the_description_changes_with_weights_and_generation_settings(tmp_path):
    shutil.copytree(TINY_CHECKPOINT, tmp_path / "model")
    before = EvaluatedModel(str(tmp_path / "model")).describe()
    assert before["generation_config"]["visual_guidance_scale"] == 1.5
    assert before == EvaluatedModel(str(tmp_path / "model")).describe()
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).add_(1)
    save_file(weights, path, metadata={"format": "pt"})
    assert EvaluatedModel(str(tmp_path / "model")).describe()["checkpoints"] != before["checkpoints"]
