"""Runs of the stage `language_model`: every recipe trains at tiny size."""

import itertools
import json
import math
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from transformers import LlamaForCausalLM

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUPipeline, VilaUProcessor
from vilau_hf.data import encode_dataset
from vilau_hf.data.converters import convert_records, write_records
from vilau_hf.drawn import drawn_shapes
from vilau_hf.modeling import VilaUVisionTower
from vilau_hf.training import check_recipe, run_training

from .recipes import EXAMPLES, RECIPES, SHORT, TINY_SFT, layers, read


LANGUAGE_MODEL_RECIPES = [path for path in RECIPES if layers(path)["stage"] == "language_model"]


def small_arguments(recipe, folder):
    """Returns arguments that replace the model and the data of a recipe by the shipped model and data of its size."""
    options = {**SHORT, "output_dir": folder / "out"}
    if recipe.get("config_name_or_path"):
        model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
        language_model = LlamaForCausalLM(model.config.text_config)
        language_model.save_pretrained(folder / "llama")
        for name in ("config", "vision_tower", "processor"):
            options[f"{name}_name_or_path"] = "tiny"
        options["language_model_name_or_path"] = folder / "llama"
    else:
        options["model_name_or_path"] = "tiny"
    if recipe.get("attn_implementation"):
        options["attn_implementation"] = "sdpa"
    if recipe.get("row_format") == "packed":
        options["max_length"] = 512
    if recipe.get("pad_to_multiple_of"):
        options["pad_to_multiple_of"] = 512
    if recipe["dataset"].endswith(".yaml"):
        options["dataset"] = folder / "mixture.yaml"
    elif recipe["dataset"] != "drawn_shapes":
        model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
        processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
        encode_dataset(drawn_shapes(num_samples=24), folder / "encoded", model, processor)
        options["dataset"] = folder / "encoded"
    return options


@pytest.mark.slow
@pytest.mark.parametrize("path", LANGUAGE_MODEL_RECIPES, ids=lambda path: path.stem)
def test_every_recipe_trains_and_saves(path, records):
    written = layers(path)
    recipe = read(path, **small_arguments(written, records))
    trainer = run_training(recipe)
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 2 and all(torch.tensor(log["loss"]).isfinite() for log in logs)
    assert trainer.args.learning_rate == float(written["learning_rate"])
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert trained and not any("vision_tower" in name for name in trained)
    assert (records / "out" / "tokenizer.json").is_file()
    if written.get("lora_r"):
        assert (records / "out" / "adapter_model.safetensors").is_file()
        assert all("lora_" in name or "multi_modal_projector" in name for name in trained)
        assert {each.dtype for each in trainer.model.parameters() if each.requires_grad} == {torch.float32}
        rates = {group["initial_lr"] for group in trainer.optimizer.param_groups}
        assert rates == {2e-4, 2e-5}
        return
    saved = VilaUForConditionalGeneration.from_pretrained(records / "out")
    shipped = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    for name, weight in saved.model.vision_tower.state_dict().items():
        assert torch.equal(weight, shipped.model.vision_tower.state_dict()[name]), name
    if written.get("config_name_or_path") and not path.stem.startswith("tiny"):
        begun = LlamaForCausalLM.from_pretrained(records / "llama").model.embed_tokens.weight
        assert (saved.get_input_embeddings().weight - begun).abs().max() < 1e-3  # two steps of 5e-5


@pytest.mark.slow
def test_frozen_sub_models_stay_frozen_with_adapters(tmp_path):
    options = {**SHORT, "lora_r": 2, "tune_depth_transformer": False, "learning_rate": 0.1, "output_dir": tmp_path}
    trainer = run_training(read(TINY_SFT, **options))
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert any("multi_modal_projector" in name for name in trained)
    assert not any("depth_transformer" in name for name in trained)


@pytest.mark.slow
def test_a_pipeline_loads_the_adapter_that_a_run_saved(tmp_path):
    trainer = run_training(read(TINY_SFT, **SHORT, lora_r=2, learning_rate=0.1, output_dir=tmp_path))
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    plain, trained = (VilaUPipeline(each, processor) for each in (model, trainer.model.eval()))
    settings = {"prompt": "a small red cross", "do_sample": False, "output_type": "codes"}
    before = plain(**settings).images
    expected = trained(**settings).images
    plain.load_lora_weights(tmp_path)
    assert torch.equal(plain(**settings).images, expected) and not torch.equal(expected, before)
    plain.unload_lora_weights()
    assert torch.equal(plain(**settings).images, before)


def test_mixture_of_codes_trains_without_the_vision_tower_and_rejects_codes_of_another(encoded, tmp_path, monkeypatch):
    source = {"name": "shapes", "format": "encoded", "source": str(encoded)}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": [source]}))
    options = {**SHORT, "dataset": tmp_path / "mixture.yaml", "output_dir": tmp_path / "out"}
    report = check_recipe(read(TINY_SFT, **options))
    assert report.num_visual_targets > 0 and all("pixel_values" not in shapes for shapes in report.shapes)
    monkeypatch.setattr(VilaUVisionTower, "encode", None)
    run_training(read(TINY_SFT, **options))
    index = json.loads((encoded / "index.json").read_text())
    index["tower"]["fingerprint"] = "another"
    (encoded / "index.json").write_text(json.dumps(index))
    for run in (check_recipe, run_training):
        with pytest.raises(ValueError, match="are of the tower another"):
            run(read(TINY_SFT, **options))


def test_checkpoints_are_complete_and_true_resumes_the_last_one(encoded, tmp_path):
    options = {**SHORT, "dataset": encoded, "save_strategy": "steps", "save_steps": 1, "output_dir": tmp_path / "out"}
    whole = run_training(read(TINY_SFT, **options))
    processor = VilaUProcessor.from_pretrained(tmp_path / "out/checkpoint-1")
    assert processor.to_dict() == VilaUProcessor.from_pretrained(tmp_path / "out").to_dict()
    assert "<image>" in processor.tokenizer.get_vocab() and processor.chat_template
    saved = VilaUForConditionalGeneration.from_pretrained(tmp_path / "out/checkpoint-1")
    shipped = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(saved.generation_config, name) == getattr(shipped.generation_config, name)
        assert getattr(saved.config.text_config, name) == getattr(shipped.config.text_config, name)
    shutil.rmtree(tmp_path / "out/checkpoint-2")
    resumed = run_training(read(TINY_SFT, **options, resume_from_checkpoint="True"))
    assert [log["step"] for log in resumed.state.log_history if "loss" in log] == [1, 2]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_groups_batches_of_codes_by_length(encoded, tmp_path):
    options = {**SHORT, "dataset": encoded, "unconditional_probability": 0.0, "max_steps": 6, "output_dir": tmp_path}
    options |= {"train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 4}
    trainer, lengths = run_training(read(TINY_SFT, **options)), []
    for batch in trainer.get_train_dataloader():
        lengths += batch["attention_mask"].sum(1).view(-1, 4).tolist()
    assert sorted(itertools.chain(*lengths)) == sorted(trainer.train_dataset.with_format(None)["length"])
    spans = sorted((min(each), max(each)) for each in lengths)
    assert len(spans) == 6 and all(low[1] <= high[0] for low, high in itertools.pairwise(spans))


@pytest.mark.parametrize("row_format", ["padded", "packed"])
def test_skips_bad_media_with_batches_of_one(records, row_format):
    chats = records / "chats.json"
    converted = convert_records(str(chats), "llava", media_folder=str(records / "images"))
    write_records(converted, records / "records")
    for index in (0, 1, 2, 7, 11):
        (records / "images" / f"{index}.png").write_text("no image")
    options = {**SHORT, "per_device_train_batch_size": 1, "max_steps": 12, "on_bad_media": "skip"}
    options |= {"dataset": records / "records", "eval_dataset": records / "records", "eval_split": "train"}
    options |= {"row_format": row_format, "max_length": 120, "output_dir": records / "out"}
    recipe = read(TINY_SFT, **options)
    assert check_recipe(recipe, num_batches=4).num_rows == 4
    trainer = run_training(recipe)
    assert trainer.state.global_step == 12 and math.isfinite(trainer.evaluate()["eval_loss"])


def test_loss_weights_of_a_recipe_scale_the_losses(encoded, tmp_path):
    options = {**SHORT, "dataset": encoded, "max_steps": 1, "output_dir": tmp_path / "out"}
    trainer = run_training(read(TINY_SFT, **options, text_loss_weight=0.5, visual_loss_weight=2.0))
    log = trainer.state.log_history[0]
    assert log["loss"] == pytest.approx(0.5 * log["text_loss"] + 2 * log["visual_loss"], rel=1e-4)
    config = VilaUForConditionalGeneration.from_pretrained(tmp_path / "out").config
    assert (config.text_loss_weight, config.visual_loss_weight) == (0.5, 2.0)
    plain = run_training(read(TINY_SFT, **options)).state.log_history[0]
    assert plain["text_loss"] == log["text_loss"] and plain["visual_loss"] == log["visual_loss"]


def launch(launcher, options):
    """Runs `vilau train` of the tiny recipe with a launcher and returns what it prints."""
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", *launcher, "-m", "vilau_hf.cli", "train"]
    command += [str(TINY_SFT), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=EXAMPLES.parent, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def torchrun(processes, options):
    return launch(["torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"], options)


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(tmp_path):
    options = {**SHORT, "optim": "sgd", "learning_rate": 0.1, "unconditional_probability": 0, "max_steps": 3}
    options |= {"lr_scheduler_type": "constant", "warmup_steps": 0}
    weights = []
    for processes, rows in ((1, 4), (2, 2)):
        options |= {"per_device_train_batch_size": rows, "output_dir": tmp_path / str(processes)}
        printed = torchrun(processes, options)
        assert printed.count("Written to") == 1
        weights.append(VilaUForConditionalGeneration.from_pretrained(tmp_path / str(processes)).state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, msg=lambda text, name=name: f"{name}: {text}")
    begun = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    assert (weights[0]["lm_head.weight"] - begun.lm_head.weight).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_shards_train_like_whole_copies(tmp_path, stage):
    """The first batch of one process has a video, and that of the other has none."""
    pytest.importorskip("deepspeed")
    options = {**SHORT, "per_device_train_batch_size": 4, "unconditional_probability": 0, "max_steps": 3}
    options |= {"save_strategy": "steps", "save_steps": 3, "learning_rate": 1e-4}
    launcher = ["accelerate.commands.launch", "--config_file", EXAMPLES / "accelerate" / f"zero{stage}.yaml"]
    launch([*map(str, launcher), "--num_processes", "2"], {**options, "output_dir": tmp_path / "shards"})
    torchrun(2, {**options, "output_dir": tmp_path / "copies", "bf16": True})
    losses = [
        [step["loss"] for step in json.loads((checkpoint / "trainer_state.json").read_text())["log_history"][:3]]
        for checkpoint in (tmp_path / "shards/checkpoint-3", tmp_path / "copies/checkpoint-3")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=2**-6)  # bfloat16 has a relative error of 2**-8
    saved = VilaUForConditionalGeneration.from_pretrained(tmp_path / "shards").state_dict()
    for name, weight in VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).state_dict().items():
        assert torch.equal(saved[name], weight) == ("vision_tower" in name), name  # the vision tower is not rounded
