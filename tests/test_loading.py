"""Configurations and towers by name."""

import pytest
import torch

from vilau_hf import TINY_CHECKPOINT, VilaUConfig, VilaUForConditionalGeneration
from vilau_hf.loading import load_config, load_published_config, load_vision_tower, source_of


def test_loads_the_config_of_a_published_model_or_a_checkpoint():
    assert load_config("vilau-7b-384").to_dict() == load_published_config("vilau-7b-384").to_dict()
    assert load_config(TINY_CHECKPOINT).to_dict() == VilaUConfig.from_pretrained(TINY_CHECKPOINT).to_dict()
    assert (source_of("tiny"), source_of("me/model"), source_of(None)) == (TINY_CHECKPOINT, "me/model", None)


def test_rejects_an_unknown_published_model():
    with pytest.raises(ValueError, match="`name` must be one of vilau-7b-256, vilau-7b-384, got 'vilau-13b'"):
        load_published_config("vilau-13b")


def test_loads_a_tower_from_each_kind_of_checkpoint(tmp_path):
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    tower = load_vision_tower(TINY_CHECKPOINT)
    pretraining = load_vision_tower(f"{TINY_CHECKPOINT}/tower")
    for name, weight in model.model.vision_tower.state_dict().items():
        assert torch.equal(tower.state_dict()[name], weight)
        assert pretraining.state_dict()[name].shape == weight.shape
    assert not tower.training
    del model.model.vision_tower.image_encoder.layers[1]
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not those of VilaUVisionTower: missing image_encoder.layers.2"):
        load_vision_tower(tmp_path)
