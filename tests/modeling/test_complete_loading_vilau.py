"""Incomplete checkpoints are refused by every loader, and frozen parameters stay frozen."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    SiglipConfig,
    SiglipModel,
    pipeline,
)

from vilau_hf import (
    TINY_CHECKPOINT,
    VilaUDepthTransformer,
    VilaUForConditionalGeneration,
    VilaUModel,
    VilaUPipeline,
    VilaUVisionTower,
    VilaUVisionTowerForPreTraining,
    hub,
)
from vilau_hf.cli import main
from vilau_hf.loading import load_complete, load_vision_tower

from ..conftest import TEXT_TOWER, VISION


def drop_depth_transformer(weights):
    return {name: value for name, value in weights.items() if not name.startswith("depth_transformer.")}


def drop_one_bias(weights):
    return {name: value for name, value in weights.items() if name != "model.vision_tower.post_quant_conv.bias"}


def add_a_tensor(weights):
    return {**weights, "depth_transformer.layers.9.norm.weight": torch.zeros(3)}


def cut_a_tensor(weights):
    return {**weights, "lm_head.weight": weights["lm_head.weight"][:-1].contiguous()}


FAULTS = {
    "missing depth_transformer.*and 28 more": drop_depth_transformer,
    "missing model.vision_tower.post_quant_conv.bias": drop_one_bias,
    "unexpected depth_transformer.layers.9.norm.weight": add_a_tensor,
    r"mismatched lm_head.weight of shape \(\d+, \d+\), expected \(\d+, \d+\)": cut_a_tensor,
}


def damage(folder: Path, change):
    """Copies the shipped checkpoint to `folder`, with changed weights."""
    shutil.copytree(TINY_CHECKPOINT, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module", params=FAULTS.items(), ids=[change.__name__ for change in FAULTS.values()])
def damaged(request, tmp_path_factory):
    message, change = request.param
    return damage(tmp_path_factory.mktemp("damaged") / "checkpoint", change), message


@pytest.fixture(scope="module")
def without_depth_transformer(tmp_path_factory):
    return damage(tmp_path_factory.mktemp("damaged") / "checkpoint", drop_depth_transformer)


def test_rejects_a_checkpoint_with_other_tensors_by_name(damaged):
    folder, message = damaged
    with pytest.raises(ValueError, match=f"VilaUForConditionalGeneration: {message}"):
        VilaUForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize(
    "load",
    [
        AutoModel.from_pretrained,
        AutoModelForMultimodalLM.from_pretrained,
        AutoModelForImageTextToText.from_pretrained,
        VilaUPipeline.from_pretrained,
        lambda folder: pipeline("text-to-image", model=str(folder)),
        lambda folder: pipeline("image-text-to-text", model=str(folder)),
        lambda folder: VilaUForConditionalGeneration.from_pretrained(folder, device_map="cpu"),
        lambda folder: VilaUForConditionalGeneration.from_pretrained(folder, dtype="bfloat16"),
    ],
    ids=["model", "multimodal", "image-text", "diffusers", "task-image", "task-text", "device-map", "dtype"],
)
def test_every_loader_rejects_it(without_depth_transformer, load):
    with pytest.raises(ValueError, match="missing depth_transformer"):
        load(without_depth_transformer)


@pytest.mark.parametrize("command", ["push", "demo"])
def test_commands_reject_it_and_leave_no_files(without_depth_transformer, tmp_path, capsys, command):
    source, out = str(without_depth_transformer), str(tmp_path / "out")
    arguments = {
        "push": ["push", "me/model", "--source", source, "--dry-run", out],
        "demo": ["demo", "--model", source, "--out", out],
    }
    with pytest.raises(SystemExit):
        main(arguments[command])
    assert "missing depth_transformer" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_caller_can_accept_it(without_depth_transformer, tmp_path):
    model, report = VilaUForConditionalGeneration.from_pretrained(without_depth_transformer, output_loading_info=True)
    assert all(name.startswith("depth_transformer.") for name in report["missing_keys"])
    assert not any(parameter.requires_grad for parameter in model.model.vision_tower.parameters())
    folder = damage(tmp_path / "cut", cut_a_tensor)
    with pytest.raises(ValueError, match="mismatched lm_head.weight"):
        VilaUForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert VilaUForConditionalGeneration.from_pretrained(folder, ignore_mismatched_sizes=True) is not None


def test_the_base_model_of_a_complete_checkpoint_load(config, tmp_path):
    model = VilaUForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    base = VilaUModel.from_pretrained(tmp_path)
    assert torch.equal(base.language_model.embed_tokens.weight, model.get_input_embeddings().weight)
    assert VilaUVisionTower.from_pretrained(f"{TINY_CHECKPOINT}/tower") is not None


def test_rejects_a_tower_with_a_tensor_of_no_module(tmp_path):
    shutil.copytree(f"{TINY_CHECKPOINT}/tower", tmp_path / "tower")
    weights = load_file(tmp_path / "tower" / "model.safetensors")
    weights["vision_tower.image_encoder.layers.40.bias"] = torch.zeros(1)
    save_file(weights, tmp_path / "tower" / "model.safetensors", metadata={"format": "pt"})
    for load in (load_vision_tower, VilaUVisionTowerForPreTraining.from_pretrained):
        with pytest.raises(ValueError, match="unexpected .*image_encoder.layers.40.bias"):
            load(tmp_path / "tower")


def test_rejects_incomplete_models_of_the_library(config, tmp_path):
    siglip = SiglipModel(SiglipConfig(vision_config=VISION["encoder_config"], text_config=TEXT_TOWER))
    siglip.save_pretrained(tmp_path / "siglip")
    assert load_complete(SiglipModel, tmp_path / "siglip") is not None
    weights = siglip.state_dict()
    del weights["logit_scale"]
    siglip.save_pretrained(tmp_path / "siglip", state_dict=weights)
    with pytest.raises(ValueError, match="not those of SiglipModel: missing logit_scale"):
        load_complete(SiglipModel, tmp_path / "siglip")
    language_model = AutoModelForCausalLM.from_config(config.text_config)
    language_model.config.num_hidden_layers = 3
    language_model.save_pretrained(tmp_path / "language_model")
    with pytest.raises(ValueError, match="missing model.layers.2"):
        load_complete(AutoModelForCausalLM, tmp_path / "language_model")


def frozen_names(model):
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize(
    "load",
    [
        VilaUForConditionalGeneration.from_pretrained,
        AutoModelForMultimodalLM.from_pretrained,
        VilaUModel.from_pretrained,
        lambda folder: VilaUForConditionalGeneration.from_pretrained(folder, dtype="bfloat16"),
        lambda folder: VilaUForConditionalGeneration.from_pretrained(folder, device_map="cpu"),
        lambda folder: VilaUPipeline.from_pretrained(folder).model,
        lambda folder: pipeline("text-to-image", model=str(folder)).model,
    ],
    ids=["class", "auto", "base", "dtype", "device-map", "diffusers", "task"],
)
def test_every_loader_freezes_what_the_constructor_froze(load):
    model = load(TINY_CHECKPOINT)
    made = type(model)(model.config)
    assert frozen_names(model) == frozen_names(made)
    assert frozen_names(model) and all("vision_tower." in name for name in frozen_names(model))


def test_the_codebook_of_a_loaded_tower_is_frozen():
    for tower in (
        load_vision_tower(TINY_CHECKPOINT),
        VilaUVisionTowerForPreTraining.from_pretrained(f"{TINY_CHECKPOINT}/tower"),
    ):
        assert {name.removeprefix("vision_tower.") for name in frozen_names(tower)} == {"quantizer.codebook.weight"}


def test_adapters_load_onto_a_frozen_model(tmp_path):
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    base = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    adapted = PeftModel.from_pretrained(base, tmp_path, is_trainable=True)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    # the folder of an adapter names its base model, which the library loads first
    assert VilaUForConditionalGeneration.from_pretrained(tmp_path) is not None


def test_a_depth_transformer_loads_by_itself(config, tmp_path):
    depth_transformer = VilaUForConditionalGeneration(config).depth_transformer
    weights = depth_transformer.state_dict()
    depth_transformer.save_pretrained(tmp_path)
    assert VilaUDepthTransformer.from_pretrained(tmp_path) is not None
    weights.pop(next(iter(weights)))
    depth_transformer.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match="not those of VilaUDepthTransformer: missing"):
        VilaUDepthTransformer.from_pretrained(tmp_path)


def test_an_incomplete_checkpoint_is_not_pushed(without_depth_transformer, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", lambda: pytest.fail("the Hub was asked"))
    with pytest.raises(ValueError, match="missing depth_transformer"):
        hub.push_repository(without_depth_transformer, "me/model")
