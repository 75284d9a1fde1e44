"""Every recipe runs at tiny size; what is wrong with one is said."""

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from PIL import Image
from transformers import LlamaForCausalLM

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.cli import main
from vilau_hf.data import encode_dataset
from vilau_hf.data.converters import build_converter, convert_records, write_records
from vilau_hf.drawn import drawn_shapes
from vilau_hf.modeling import VilaUVisionTower
from vilau_hf.training import check_recipe, read_recipe, run_training


EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted(path for path in (EXAMPLES / "recipes").glob("*.yaml") if not path.stem.startswith("tower_"))
SHORT = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
}


def read(recipe, **options):
    return read_recipe(recipe, [word for name, value in options.items() for word in (f"--{name}", str(value))])


@pytest.fixture
def records(tmp_path):
    """LLaVA-style conversations about pictures of one colour."""
    (tmp_path / "pictures").mkdir()
    rows = []
    for index, color in enumerate(["red", "green", "blue", "yellow"] * 3):
        Image.new("RGB", (40, 30), color).save(tmp_path / "pictures" / f"{index}.png")
        turns = [{"from": "human", "value": "<image>\nwhat color is it?"}, {"from": "gpt", "value": color}]
        rows.append({"id": str(index), "image": f"{index}.png", "conversations": turns})
    (tmp_path / "chats.json").write_text(json.dumps(rows))
    source = {"name": "chats", "format": "llava", "source": str(tmp_path / "chats.json")}
    source["options"] = {"media_folder": str(tmp_path / "pictures")}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": [source]}))
    return tmp_path


@pytest.fixture
def encoded(tmp_path):
    """A folder with the codes of 24 drawn shapes."""
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    encode_dataset(
        drawn_shapes(num_samples=24), tmp_path / "encoded", model, VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    )
    return tmp_path / "encoded"


def small(recipe, folder):
    """Arguments that put the shipped model and data of its size in place of a recipe's."""
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


def layers(path):
    recipe = yaml.safe_load(path.read_text())
    base = recipe.pop("base_recipe", None)
    return recipe if base is None else {**layers(path.parent / base), **recipe}


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe(path, records):
    written = layers(path)
    recipe = read(path, **small(written, records))
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
def test_parts_that_are_not_tuned_stay_with_adapters_too(tmp_path):
    options = {**SHORT, "lora_r": 2, "tune_depth_transformer": False, "learning_rate": 0.1, "output_dir": tmp_path}
    trainer = run_training(read(EXAMPLES / "recipes" / "tiny_sft.yaml", **options))
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert any("multi_modal_projector" in name for name in trained)
    assert not any("depth_transformer" in name for name in trained)


@pytest.mark.slow
def test_a_row_format_changes_rows_and_not_tokens(tmp_path):
    reports = {}
    for name in ("padded", "packed", "padding_free"):
        options = {**SHORT, "row_format": name, "max_length": 2000, "unconditional_probability": 0.0}
        options |= {"num_train_samples": 8, "per_device_train_batch_size": 8, "output_dir": tmp_path}
        reports[name] = check_recipe(read(EXAMPLES / "recipes" / "tiny_sft.yaml", **options))
    assert len({report.num_tokens for report in reports.values()}) == 1
    assert len({report.num_visual_targets for report in reports.values()}) == 1
    assert reports["padding_free"].num_rows == 1
    assert reports["padded"].num_rows == 8 > reports["packed"].num_rows


def test_a_dry_run_counts_what_is_in_the_data(tmp_path, records):
    recipe = read(
        EXAMPLES / "recipes" / "tiny_sft.yaml",
        **{**SHORT, "dataset": records / "mixture.yaml", "tune_language_model": False, "output_dir": tmp_path / "out"},
    )
    report = check_recipe(recipe, num_batches=3)
    assert report.num_rows == 6 and report.records is None and report.rows_per_step == 2
    assert report.num_visual_targets == 0 and 6 < report.num_text_targets < 30
    assert report.parameters["language_model"][0] == report.parameters["vision_tower"][0] == 0
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    assert sum(total for _, total in report.parameters.values()) == sum(each.numel() for each in model.parameters())
    assert report.shapes[0]["pixel_values"] == (2, 3, 32, 32)
    assert not (tmp_path / "out").exists()
    rows, length = max((shapes["input_ids"] for shapes in report.shapes), key=math.prod)
    assert f"{rows} x {length} positions" in report.memory.title and "0 visual targets" in report.memory.title
    assert report.memory.size("gradients") == 4 * sum(trained for trained, _ in report.parameters.values())


def test_a_mixture_of_codes_trains_without_the_tower_and_refuses_those_of_another(encoded, tmp_path, monkeypatch):
    source = {"name": "shapes", "format": "encoded", "source": str(encoded)}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": [source]}))
    options = {**SHORT, "dataset": tmp_path / "mixture.yaml", "output_dir": tmp_path / "out"}
    report = check_recipe(read(EXAMPLES / "recipes" / "tiny_sft.yaml", **options))
    assert report.num_visual_targets > 0 and all("pixel_values" not in shapes for shapes in report.shapes)
    monkeypatch.setattr(VilaUVisionTower, "encode", None)
    run_training(read(EXAMPLES / "recipes" / "tiny_sft.yaml", **options))
    index = json.loads((encoded / "index.json").read_text())
    index["tower"]["fingerprint"] = "another"
    (encoded / "index.json").write_text(json.dumps(index))
    for run in (check_recipe, run_training):
        with pytest.raises(ValueError, match="are of the tower another"):
            run(read(EXAMPLES / "recipes" / "tiny_sft.yaml", **options))


def test_checkpoints_are_whole_and_the_last_one_is_resumed_by_true(encoded, tmp_path):
    options = {**SHORT, "dataset": encoded, "save_strategy": "steps", "save_steps": 1, "output_dir": tmp_path / "out"}
    whole = run_training(read(EXAMPLES / "recipes" / "tiny_sft.yaml", **options))
    processor = VilaUProcessor.from_pretrained(tmp_path / "out/checkpoint-1")
    assert processor.to_dict() == VilaUProcessor.from_pretrained(tmp_path / "out").to_dict()
    assert "<image>" in processor.tokenizer.get_vocab() and processor.chat_template
    saved = VilaUForConditionalGeneration.from_pretrained(tmp_path / "out/checkpoint-1")
    shipped = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(saved.generation_config, name) == getattr(shipped.generation_config, name)
        assert getattr(saved.config.text_config, name) == getattr(shipped.config.text_config, name)
    shutil.rmtree(tmp_path / "out/checkpoint-2")
    resumed = run_training(read(EXAMPLES / "recipes" / "tiny_sft.yaml", **options, resume_from_checkpoint="True"))
    assert [log["step"] for log in resumed.state.log_history if "loss" in log] == [1, 2]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_batches_of_codes_are_grouped_by_length(encoded, tmp_path):
    options = {**SHORT, "dataset": encoded, "unconditional_probability": 0.0, "max_steps": 6, "output_dir": tmp_path}
    options |= {"train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 4}
    trainer, lengths = run_training(read(EXAMPLES / "recipes" / "tiny_sft.yaml", **options)), []
    for batch in trainer.get_train_dataloader():
        lengths += batch["attention_mask"].sum(1).view(-1, 4).tolist()
    assert sorted(itertools.chain(*lengths)) == sorted(trainer.train_dataset.with_format(None)["length"])
    spans = sorted((min(each), max(each)) for each in lengths)
    assert len(spans) == 6 and all(low[1] <= high[0] for low, high in itertools.pairwise(spans))


@pytest.mark.parametrize("change", [{"dataset": "MIXTURE"}, {"row_format": "packed", "max_length": 2000}])
@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
def test_mixtures_and_packs_cannot_be_grouped_by_length(records, change, strategy):
    options = {**SHORT, **change, "train_sampling_strategy": strategy, "output_dir": records / "out"}
    if "dataset" in change:
        options["dataset"] = records / "mixture.yaml"
    with pytest.raises(ValueError, match=f"`train_sampling_strategy` must be .*, got '{strategy}'"):
        check_recipe(read(EXAMPLES / "recipes" / "tiny_sft.yaml", **options))


@pytest.mark.parametrize("row_format", ["padded", "packed"])
def test_bad_media_are_skipped_whatever_the_size_of_a_batch(records, row_format):
    chats = records / "chats.json"
    converted = convert_records(str(chats), "llava", media_folder=str(records / "pictures"))
    write_records(converted, records / "records")
    for index in (0, 1, 2, 7, 11):
        (records / "pictures" / f"{index}.png").write_text("no picture")
    options = {**SHORT, "per_device_train_batch_size": 1, "max_steps": 12, "on_bad_media": "skip"}
    options |= {"dataset": records / "records", "eval_dataset": records / "records", "eval_split": "train"}
    options |= {"row_format": row_format, "max_length": 120, "output_dir": records / "out"}
    recipe = read(EXAMPLES / "recipes" / "tiny_sft.yaml", **options)
    assert check_recipe(recipe, num_batches=4).num_rows == 4
    trainer = run_training(recipe)
    assert trainer.state.global_step == 12 and math.isfinite(trainer.evaluate()["eval_loss"])


def test_a_dry_run_estimates_the_memory_of_a_cluster(tmp_path):
    options = {**SHORT, "output_dir": tmp_path, "gpus": 4, "bf16": True}
    alone, shared = (
        check_recipe(read(EXAMPLES / "recipes" / "tiny_sft.yaml", **options, strategy=strategy)).memory
        for strategy in ("ddp", "fsdp")
    )
    assert shared.size("gradients") == math.ceil(alone.size("gradients") / 4)
    with pytest.raises(ValueError, match="`strategy` must be one of ddp, fsdp, zero2, zero3, got 'zero1'"):
        check_recipe(read(EXAMPLES / "recipes" / "tiny_sft.yaml", **options, strategy="zero1"))


def test_train_prints_a_dry_run(capsys, tmp_path):
    recipe = EXAMPLES / "recipes" / "tiny_sft.yaml"
    main(["train", str(recipe), "--dry_run", "--per_device_train_batch_size", "2", "--output_dir", str(tmp_path)])
    printed = capsys.readouterr().out
    for words in ("language_model", "200,000 rows, 2 rows an optimizer step", "batch 2: input_ids (2, ", "targets: "):
        assert words in printed


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_read(path):
    recipe = read(path, use_cpu=True)
    assert recipe.training.output_dir == layers(path)["output_dir"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("learning_rat: 1.0", "learning_rat"),
        ("model_name_or_path: tiny\nsiglip_name_or_path: x", "examples/train_vision_tower.py"),
        ("max_steps: 1", "give one of `model_name_or_path` and `config_name_or_path`"),
        ("config_name_or_path: tiny", "needs a trained `vision_tower_name_or_path`"),
        ("model_name_or_path: tiny\nvision_tower_name_or_path: tiny", "are for a new model"),
        ("model_name_or_path: tiny\nrow_format: pact", "`row_format` must be one of padded, packed, padding_free"),
        ("model_name_or_path: tiny\nrow_format: packed", "needs `max_length`"),
        ("model_name_or_path: tiny\nload_in_4bit: true", "`load_in_4bit` needs adapters"),
        ("- model_name_or_path", "must hold arguments"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(recipe, message, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(recipe)
    with pytest.raises(SystemExit) as stop:
        main(["train", str(tmp_path / "recipe.yaml")])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("vilau: ") and message in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_lenght": 3}, "max_lenght"),
        ({"dataset": "MIXTURE", "max_steps": -1}, "a mixture has no end: give `max_steps`"),
        ({"row_format": "packed", "max_length": 20, "num_train_samples": 4}, "more than `max_length` (20)"),
    ],
)
def test_wrong_arguments_are_named(options, message, records, tmp_path, capsys):
    options = {name: records / "mixture.yaml" if value == "MIXTURE" else value for name, value in options.items()}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    with pytest.raises(SystemExit):
        main(["train", str(EXAMPLES / "recipes" / "tiny_sft.yaml"), "--dry_run", *words])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((EXAMPLES / "mixtures").glob("*.yaml")), ids=lambda path: path.stem)
def test_mixtures_name_formats_and_options_that_exist(path):
    for source in yaml.safe_load(path.read_text())["datasets"]:
        target = {"target": source["target"]} if "target" in source else {}
        build_converter(source["format"], **target, **source.get("options", {}))


@pytest.mark.parametrize("path", sorted((EXAMPLES / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_configurations(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 8 * config.num_machines
    names = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "multi_node": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    assert config.distributed_type.value == names[path.stem]
    if "zero" in path.stem:
        config = json.loads((EXAMPLES.parent / config.deepspeed_config["deepspeed_config_file"]).read_text())
        assert config["zero_optimization"]["stage"] == int(path.stem[-1])
    if names[path.stem] == "FSDP":
        assert config.fsdp_config == load_config_from_file(str(EXAMPLES / "accelerate" / "fsdp2.yaml")).fsdp_config


def launch(launcher, options):
    """What `vilau train` of the tiny recipe prints under a launcher, `["torch.distributed.run", ...]`."""
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", *launcher, "-m", "vilau_hf.cli", "train"]
    command += [str(EXAMPLES / "recipes" / "tiny_sft.yaml"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=EXAMPLES.parent, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def torchrun(processes, options):
    return launch(["torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"], options)


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path):
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
def test_shards_of_deepspeed_train_as_whole_copies(tmp_path, stage):
    """The first batch of one process has a video, that of the other has none."""
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
    assert losses[0] == pytest.approx(losses[1], rel=2**-6)  # bfloat16 rounds by 2**-8
    saved = VilaUForConditionalGeneration.from_pretrained(tmp_path / "shards").state_dict()
    for name, weight in VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).state_dict().items():
        assert torch.equal(saved[name], weight) == ("vision_tower" in name), name  # which is not rounded
