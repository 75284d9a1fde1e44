"""Loading of the pipeline and the tower that draw."""

import shutil

import pytest
import torch

from vilau_hf import TINY_CHECKPOINT, VilaUPipeline
from vilau_hf.evaluation.drawing_model import load_pipeline, load_tower_ranker
from vilau_hf.loading import load_vision_tower


def weights(pipe):
    return pipe.model.state_dict()


def test_loads_models_and_saved_pipelines(tmp_path):
    pipe = load_pipeline(TINY_CHECKPOINT)
    assert type(pipe) is VilaUPipeline and pipe.model.dtype == torch.float32 and not pipe.model.training
    pipe.save_pretrained(tmp_path / "pipeline")
    ignored = shutil.ignore_patterns("model_index.json", "tower")
    shutil.copytree(TINY_CHECKPOINT, tmp_path / "model", ignore=ignored)
    for name in ("pipeline", "model"):
        other = load_pipeline(str(tmp_path / name))
        assert all(torch.equal(value, weights(other)[name]) for name, value in weights(pipe).items())
        assert other.processor.chat_template == pipe.processor.chat_template
    assert load_pipeline(TINY_CHECKPOINT, dtype="bfloat16").model.dtype == torch.bfloat16


def test_rejects_towers_and_devices_that_are_not_there():
    with pytest.raises(ValueError, match="must be a checkpoint of a VILA-U model, got one of type 'vilau_vision'"):
        load_pipeline(f"{TINY_CHECKPOINT}/tower")
    for device in ("no-device", "cuda:99", "meta"):
        with pytest.raises(ValueError, match=f"`device` '{device}' cannot be used"):
            load_pipeline(TINY_CHECKPOINT, device=device)


def test_says_how_to_get_a_tower(tmp_path):
    assert load_tower_ranker(TINY_CHECKPOINT, "tower").tower.dtype == torch.float32
    with pytest.raises(ValueError, match=r"tower has no config\.json\. .* by `--tower`, or rank by 'likelihood'"):
        load_tower_ranker(str(tmp_path), "tower")
    with pytest.raises(ValueError, match=r"tiny is a checkpoint of type 'vilau'\. .* by `--tower`"):
        load_tower_ranker(TINY_CHECKPOINT)
    load_vision_tower(TINY_CHECKPOINT).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no text encoder\. .* by `--tower`"):
        load_tower_ranker(str(tmp_path))
