"""Reading of recipes, and the mixtures and configurations of accelerate that they name."""

import json

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from vilau_hf.cli import main
from vilau_hf.data.converters import build_converter
from vilau_hf.training import LanguageModelRecipe, VisionTowerRecipe, read_recipe

from .recipes import EXAMPLES, RECIPES, TINY_SFT, TINY_TOWER, layers, read


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_reads_every_recipe_of_its_stage(path):
    recipe = read(path, use_cpu=True)
    stages = {"vision_tower": VisionTowerRecipe, "language_model": LanguageModelRecipe}
    assert type(recipe) is stages[layers(path)["stage"]]
    assert recipe.training.output_dir == layers(path)["output_dir"]


@pytest.mark.parametrize("line", ["", "stage: tower\n"])
def test_rejects_a_recipe_without_a_known_stage(line, tmp_path):
    (tmp_path / "recipe.yaml").write_text(line + "model_name_or_path: tiny")
    with pytest.raises(ValueError, match="`stage` in `file` .* must be one of vision_tower, language_model, got"):
        read_recipe(tmp_path / "recipe.yaml")


def test_flags_override_the_recipe_and_loss_weights_are_flags_of_both_stages():
    recipe = read(TINY_SFT, text_loss_weight=0.5, visual_loss_weight=2, max_steps=7)
    assert recipe.model.loss_weights() == {"text_loss_weight": 0.5, "visual_loss_weight": 2.0}
    assert recipe.training.max_steps == 7
    recipe = read(TINY_TOWER, contrastive_loss_weight=0.5, block_out_channels=[8, 16])
    assert recipe.config.given() == {"contrastive_loss_weight": 0.5, "block_out_channels": [8, 16]}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("learning_rat: 1.0", "learning_rat"),
        ("model_name_or_path: tiny\nsiglip_name_or_path: x", "siglip_name_or_path. `vilau train "),
        ("model_name_or_path: tiny\ntext_loss_weight: -1.0", "`text_loss_weight` must be at least 0, got -1.0"),
        (
            "model_name_or_path: tiny\ntext_loss_weight: 0.0\nvisual_loss_weight: 0.0\ndry_run: true",
            "`text_loss_weight` and `visual_loss_weight` are both 0",
        ),
        ("max_steps: 1", "give one of `model_name_or_path` and `config_name_or_path`"),
        ("config_name_or_path: tiny", "needs a trained `vision_tower_name_or_path`"),
        ("model_name_or_path: tiny\nvision_tower_name_or_path: tiny", "are for a new model"),
        ("model_name_or_path: tiny\nrow_format: pact", "`row_format` must be one of padded, packed, padding_free"),
        ("model_name_or_path: tiny\nrow_format: packed", "needs `max_length`"),
        ("model_name_or_path: tiny\nload_in_4bit: true", "`load_in_4bit` needs adapters"),
        ("base_recipe: none.yaml", "none.yaml"),
    ],
)
def test_names_the_fault_of_a_recipe_of_a_language_model(recipe, message, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(f"stage: language_model\noutput_dir: {tmp_path}/out\n{recipe}")
    with pytest.raises(SystemExit) as stop:
        main(["train", str(tmp_path / "recipe.yaml")])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("vilau: ") and message in error


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("stage: vision_tower\nlearning_rat: 1.0", "learning_rat"),
        ("stage: vision_tower\nmax_steps: 1", "give one of `model_name_or_path` and `siglip_name_or_path`"),
        (
            "stage: vision_tower\nmodel_name_or_path: tiny\nfrom_scratch: true",
            "`from_scratch` needs the configuration",
        ),
        ("- max_steps", "must hold arguments, as in `max_steps: 100`, got ['max_steps']"),
    ],
)
def test_names_the_fault_of_a_recipe_of_a_vision_tower(recipe, message, tmp_path, capsys):
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
def test_names_wrong_arguments(options, message, records, tmp_path, capsys):
    options = {name: records / "mixture.yaml" if value == "MIXTURE" else value for name, value in options.items()}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    with pytest.raises(SystemExit):
        main(["train", str(TINY_SFT), "--dry_run", *words])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((EXAMPLES / "mixtures").glob("*.yaml")), ids=lambda path: path.stem)
def test_mixtures_name_formats_and_options_that_exist(path):
    for source in yaml.safe_load(path.read_text())["datasets"]:
        target = {"target": source["target"]} if "target" in source else {}
        build_converter(source["format"], **target, **source.get("options", {}))


@pytest.mark.parametrize("path", sorted((EXAMPLES / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_the_configurations_of_the_examples(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 8 * config.num_machines
    names = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "multi_node": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    assert config.distributed_type.value == names[path.stem]
    if "zero" in path.stem:
        config = json.loads((EXAMPLES.parent / config.deepspeed_config["deepspeed_config_file"]).read_text())
        assert config["zero_optimization"]["stage"] == int(path.stem[-1])
    if names[path.stem] == "FSDP":
        assert config.fsdp_config == load_config_from_file(str(EXAMPLES / "accelerate" / "fsdp2.yaml")).fsdp_config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_steps: [", "cannot read '.*recipe.yaml': while parsing"),
        ("a: b: c", "cannot read '.*recipe.yaml': mapping values are not allowed here"),
        ("{[]: 1}", "cannot read|must be names of arguments"),
        ("? {a: 1}\n: 2", "cannot read"),
        ("day: 2020-13-45", "cannot read '.*recipe.yaml': month must be in 1..12"),
        ("[" * 3000, "cannot read '.*recipe.yaml': maximum recursion depth exceeded"),
        ("1: 2", "keys in `file` '.*recipe.yaml' must be names of arguments, got 1"),
        ("null: 2", "must be names of arguments, got None"),
        ("base_recipe: 5", "`base_recipe` in `file` '.*recipe.yaml' must be the name of a file, got 5"),
        ("base_recipe: [a.yaml]", "`base_recipe` in `file` .* must be the name of a file"),
        (
            "base_recipe: recipe.yaml",
            "`base_recipe` must not lead back to the same file, got a cycle at '.*recipe.yaml'",
        ),
        ("base_recipe: ../{folder}/link.yaml", "`base_recipe` must not lead back to the same file"),
        ("stage: [vision_tower]", "`stage` in `file` .* must be one of .*, got .'vision_tower'."),
        ("stage: language_model\nmax_steps: [1]", r"`max_steps` in `file` '.*recipe.yaml' must be int, got \[1\]"),
        ("stage: language_model\nmax_steps: 1.5", "`max_steps` in `file` .* must be int, got 1.5"),
        ("stage: language_model\nmax_steps: true", "`max_steps` in `file` .* must be int, got True"),
        ("stage: language_model\nlearning_rate: {}", "`learning_rate` in `file` .* must be float, got {}"),
        ("stage: language_model\ndataset: 5", "`dataset` in `file` .* must be str, got 5"),
        ("stage: language_model\nmedia_roots: {a: b}", "`media_roots` in `file` .* must be .*, got"),
    ],
)
def test_reports_a_recipe_that_is_not_valid_in_one_line(text, message, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text.format(folder=tmp_path.name) if "{folder}" in text else text)
    (tmp_path / "link.yaml").symlink_to(tmp_path / "recipe.yaml")
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe(tmp_path / "recipe.yaml")
    assert "\n" not in str(caught.value)


def test_accepts_the_types_that_yaml_gives(tmp_path):
    recipe = read(TINY_SFT, learning_rate=1, resume_from_checkpoint=True, media_roots=[str(tmp_path)], run_name="run")
    assert recipe.training.learning_rate == 1 and recipe.data.media_roots == [str(tmp_path)]


@pytest.mark.parametrize("base", ["''", "3", "[]"])
def test_rejects_a_base_recipe_that_is_no_name(tmp_path, base):
    (tmp_path / "recipe.yaml").write_text(f"stage: language_model\nbase_recipe: {base}\n")
    with pytest.raises(ValueError, match="`base_recipe` in `file` .*recipe.yaml' must be the name of a file"):
        read_recipe(tmp_path / "recipe.yaml")
