"""Every recipe of the vision tower runs, at tiny size."""

import runpy
import shutil
import sys
from pathlib import Path

import datasets
import pyarrow.parquet
import pytest
import torch
from transformers import AutoImageProcessor, AutoTokenizer, SiglipConfig, SiglipModel

from vilau_hf import TINY_CHECKPOINT, VilaUVisionTowerForPreTraining
from vilau_hf.data import MediaError
from vilau_hf.drawn import drawn_shapes

from ..conftest import TEXT_TOWER, VISION
from .judge_weights import squeeze_weights  # noqa: F401
from .towers import SIDE


EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted(path.stem for path in (EXAMPLES / "recipes").glob("tower_*.yaml"))
SMALL = {
    "latent_channels": "8",
    "block_out_channels": "8 8 8 8",
    "layers_per_block": "1",
    "norm_num_groups": "4",
    "codebook_size": "16",
    "perceptual_network": "squeeze",
    "discriminator_channels": "4",
    "decoder_latent_size": "4",
}
SHORT = {
    "dataset": "drawn_shapes",
    "num_train_samples": "64",
    "num_eval_samples": "6",
    "rfid": "false",
    "max_steps": "2",
    "per_device_train_batch_size": "4",
    "dataloader_num_workers": "0",
    "use_cpu": "true",
    "report_to": "none",
    "logging_steps": "1",
    "learning_rate": "1e-3",
    "warmup_steps": "0",
    "disable_tqdm": "true",
    "eval_strategy": "no",
}


@pytest.fixture
def siglip(tmp_path):
    """A folder with a SigLIP model of random weights and a tokenizer."""
    encoder = {**VISION["encoder_config"], "image_size": SIDE, "patch_size": 8}
    config = SiglipConfig(vision_config=encoder, text_config={**TEXT_TOWER, "vocab_size": 640})
    SiglipModel(config).save_pretrained(tmp_path / "siglip")
    for path in Path(TINY_CHECKPOINT, "tower").glob("tokenizer*"):
        shutil.copy(path, tmp_path / "siglip")
    return tmp_path / "siglip"


def run(monkeypatch, recipe, folder, **options):
    arguments = [word for name, value in options.items() for word in (f"--{name}", *str(value).split())]
    monkeypatch.setattr(
        sys, "argv", ["train_vision_tower.py", str(recipe), *arguments, "--output_dir", str(folder / "out")]
    )
    trainer = runpy.run_path(str(EXAMPLES / "train_vision_tower.py"), run_name="__main__")["trainer"]
    return trainer, VilaUVisionTowerForPreTraining.from_pretrained(folder / "out")


def changed(before, after, prefix):
    names = [name for name in before if name.startswith(prefix)]
    assert names
    return any(not torch.equal(before[name], after[name]) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RECIPES if name != "tower_tiny"])
def test_recipe(name, siglip, tmp_path, monkeypatch, squeeze_weights):  # noqa: F811
    trainer, tower = run(
        monkeypatch, EXAMPLES / "recipes" / f"{name}.yaml", tmp_path, siglip_name_or_path=siglip, **SMALL, **SHORT
    )
    log = trainer.state.log_history[0]
    assert {"reconstruction_loss", "perceptual_loss", "discriminator_loss", "adversarial_weight"} <= set(log)
    assert ("contrastive_loss" in log) == (name != "tower_reconstruction_only")
    scores = next(log for log in trainer.state.log_history if "eval_psnr" in log)
    assert ("eval_zero_shot_accuracy" in scores) == (name != "tower_reconstruction_only")
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()

    before = VilaUVisionTowerForPreTraining.from_siglip(SiglipModel.from_pretrained(siglip), **_sizes(tower))
    before, after = before.state_dict(), tower.state_dict()
    kept = "vision_tower.image_encoder.embeddings.position_embedding"
    if name == "tower_from_scratch":
        assert (before[f"{kept}.weight"] - after[f"{kept}.weight"]).abs().max() > 0.1  # more than two steps can do
    else:
        assert (before[f"{kept}.weight"] - after[f"{kept}.weight"]).abs().max() < 0.01
    assert changed(before, after, "text_model.") == (name in ("tower_from_scratch", "tower_trainable_text"))
    assert changed(before, after, "vision_tower.image_encoder.") == (name != "tower_frozen_encoder")
    assert tower.config.code_depth == (16 if name == "tower_384" else 4)


def _sizes(tower):
    names = ("codebook_size", "code_depth", "latent_channels", "block_out_channels", "layers_per_block")
    return {name: getattr(tower.config, name) for name in (*names, "norm_num_groups")}


@pytest.mark.slow
def test_the_tiny_recipe_goes_on_from_the_shipped_tower(tmp_path, monkeypatch):
    options = {**SHORT, "learning_rate": "1e-6", "num_eval_samples": "30", "adversarial_start_step": "1"}
    trainer, _ = run(monkeypatch, EXAMPLES / "recipes" / "tower_tiny.yaml", tmp_path, **options)
    scores = next(log for log in trainer.state.log_history if "eval_psnr" in log)
    assert scores["eval_psnr"] > 33 and scores["eval_zero_shot_accuracy"] > 0.8
    assert {"eval_ema_psnr", "eval_ema_zero_shot_accuracy"} <= set(scores)
    averaged = VilaUVisionTowerForPreTraining.from_pretrained(tmp_path / "out" / "ema")
    assert averaged.config.code_depth == 4


@pytest.mark.slow
def test_checkpoints_are_whole_and_the_last_one_is_resumed_by_true(tmp_path, monkeypatch):
    options = {**SHORT, "save_strategy": "steps", "save_steps": "1"}
    run(monkeypatch, EXAMPLES / "recipes" / "tower_tiny.yaml", tmp_path, **options)
    for folder in (tmp_path / "out", tmp_path / "out/checkpoint-1"):
        assert AutoImageProcessor.from_pretrained(folder).size["height"] == 32
        assert AutoTokenizer.from_pretrained(folder).vocab_size > 0
    shutil.rmtree(tmp_path / "out/checkpoint-2")
    options["resume_from_checkpoint"] = "True"
    trainer, _ = run(monkeypatch, EXAMPLES / "recipes" / "tower_tiny.yaml", tmp_path, **options)
    assert trainer.state.global_step == 2


@pytest.mark.slow
def test_any_dataset_of_pictures_captions_and_labels_will_do(siglip, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for split, count in (("train", 8), ("test", 5)):
        drawn = drawn_shapes(split, count, SIDE, tasks={"text_to_image": 1})[:]
        columns = {
            "picture": [images[0] for images in drawn["images"]],
            "text": drawn["caption"],
            "kind": [0, 1] * (count // 2) + [0] * (count % 2),
        }
        features = {
            "picture": datasets.Image(),
            "text": datasets.Value("string"),
            "kind": datasets.ClassLabel(names=["red_thing", "other"]),
        }
        table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        (tmp_path / "shapes").mkdir(exist_ok=True)
        table.to_parquet(tmp_path / "shapes" / f"{split}.parquet")
    columns = {"image_column": "picture", "caption_column": "text", "label_column": "kind"}
    options = {**SMALL, **SHORT, "dataset": tmp_path / "shapes", "perceptual_loss_weight": 0, **columns}
    trainer, _ = run(
        monkeypatch, EXAMPLES / "recipes" / "tower_256.yaml", tmp_path, siglip_name_or_path=siglip, **options
    )
    scores = next(log for log in trainer.state.log_history if "eval_psnr" in log)
    assert round(scores["eval_zero_shot_accuracy"] * 5, 4) in range(6)
    assert trainer.eval_dataset[1]["label"] == 1 and trainer.eval_dataset[0]["caption"] == drawn["caption"][0]


@pytest.mark.slow
def test_pictures_that_cannot_be_opened_stop_the_run_or_are_skipped(siglip, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    drawn = drawn_shapes("train", 8, SIDE, tasks={"text_to_image": 1})[:]
    (tmp_path / "shapes").mkdir()
    for split in ("train", "test"):
        for index, images in enumerate(drawn["images"]):
            images[0].save(tmp_path / f"{split}-{index}.png")
        for index in (0, 3, 5):
            (tmp_path / f"{split}-{index}.png").write_text("no picture")
        columns = {
            "image": [str(tmp_path / f"{split}-{index}.png") for index in range(8)],
            "caption": drawn["caption"],
        }
        features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
        table = pyarrow.table(
            {"image": [{"bytes": None, "path": path} for path in columns["image"]], "caption": columns["caption"]},
            schema=features.arrow_schema,
        )
        pyarrow.parquet.write_table(table, tmp_path / "shapes" / f"{split}.parquet")
    options = {
        **SMALL,
        **SHORT,
        "dataset": tmp_path / "shapes",
        "perceptual_loss_weight": 0,
        "siglip_name_or_path": siglip,
    }
    options |= {"per_device_train_batch_size": "1", "max_steps": "8"}
    recipe = EXAMPLES / "recipes" / "tower_256.yaml"
    with pytest.raises(MediaError, match=r"Cannot open images\[0\] .*(train|test)-[035].png"):
        run(monkeypatch, recipe, tmp_path, **options)
    trainer, _ = run(monkeypatch, recipe, tmp_path, on_bad_media="skip", **options)
    assert trainer.state.global_step == 8 and len(trainer.train_dataset) == 8
    assert "train-3.png" in caplog.text and "test-3.png" in caplog.text and "so far" in caplog.text


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("learning_rat: 1.0", {}, "unknown keys in the recipe: learning_rat"),
        ("- max_steps", {}, "must hold arguments, as in `max_steps: 100`, got ['max_steps']"),
        ("base_recipe: none.yaml", {}, "none.yaml"),
        ("max_steps: 1", {}, "give one of `model_name_or_path` and `siglip_name_or_path`"),
        ("model_name_or_path: tiny\nfrom_scratch: true", {}, "`from_scratch` needs the configuration"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(recipe, options, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "recipe.yaml").write_text(recipe)
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path / "recipe.yaml", tmp_path, **options)
    assert message in capsys.readouterr().err
