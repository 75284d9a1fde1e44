"""Runs of the stage `vision_tower`: every recipe trains at tiny size."""

import io
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, SiglipConfig, SiglipModel

from vilau_hf import TINY_CHECKPOINT, VilaUImageProcessor, VilaUVisionConfig, VilaUVisionTowerForPreTraining
from vilau_hf.data import MediaError
from vilau_hf.drawn import drawn_shapes
from vilau_hf.training import run_training
from vilau_hf.training.build_vision_tower import build_tower_datasets, load_tower_collator
from vilau_hf.training.recipe_vision_tower import VisionTowerDataArguments, VisionTowerModelArguments

from ..conftest import TEXT_TOWER, VISION
from .recipes import EXAMPLES, RECIPES, TINY_TOWER, layers, read
from .towers import SIDE


TOWER_RECIPES = [path for path in RECIPES if layers(path)["stage"] == "vision_tower"]
TOWER_256 = EXAMPLES / "recipes" / "tower_256.yaml"
SMALL = {
    "latent_channels": 8,
    "block_out_channels": [8, 8, 8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "codebook_size": 16,
    "perceptual_network": "squeeze",
    "discriminator_channels": 4,
    "decoder_latent_size": 4,
}
SHORT = {
    "dataset": "drawn_shapes",
    "num_train_samples": 64,
    "num_eval_samples": 6,
    "rfid": False,
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "dataloader_num_workers": 0,
    "use_cpu": True,
    "report_to": "none",
    "logging_steps": 1,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "disable_tqdm": True,
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


def run(recipe, folder, **options):
    """Trains by a recipe and returns the trainer and the saved vision tower."""
    trainer = run_training(read(recipe, **options, output_dir=folder / "out"))
    return trainer, VilaUVisionTowerForPreTraining.from_pretrained(folder / "out")


def changed(before, after, prefix):
    names = [name for name in before if name.startswith(prefix)]
    assert names
    return any(not torch.equal(before[name], after[name]) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in TOWER_RECIPES if path != TINY_TOWER], ids=lambda path: path.stem)
def test_every_recipe_trains_what_it_says(path, siglip, tmp_path, squeeze_weights):
    name = path.stem
    trainer, tower = run(path, tmp_path, siglip_name_or_path=siglip, **SMALL, **SHORT)
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
        assert (before[f"{kept}.weight"] - after[f"{kept}.weight"]).abs().max() > 0.1  # two steps change less
    else:
        assert (before[f"{kept}.weight"] - after[f"{kept}.weight"]).abs().max() < 0.01
    assert changed(before, after, "text_model.") == (name in ("tower_from_scratch", "tower_trainable_text"))
    assert changed(before, after, "vision_tower.image_encoder.") == (name != "tower_frozen_encoder")
    assert tower.config.code_depth == (16 if name == "tower_384" else 4)


def _sizes(tower):
    names = ("codebook_size", "code_depth", "latent_channels", "block_out_channels", "layers_per_block")
    return {name: getattr(tower.config, name) for name in (*names, "norm_num_groups")}


@pytest.mark.slow
def test_tiny_recipe_starts_from_the_shipped_tower(tmp_path):
    options = {**SHORT, "learning_rate": 1e-6, "num_eval_samples": 30, "adversarial_start_step": 1}
    trainer, _ = run(TINY_TOWER, tmp_path, **options)
    scores = next(log for log in trainer.state.log_history if "eval_psnr" in log)
    assert scores["eval_psnr"] > 33 and scores["eval_zero_shot_accuracy"] > 0.8
    assert {"eval_ema_psnr", "eval_ema_zero_shot_accuracy"} <= set(scores)
    averaged = VilaUVisionTowerForPreTraining.from_pretrained(tmp_path / "out" / "ema")
    assert averaged.config.code_depth == 4


@pytest.mark.slow
def test_checkpoints_are_complete_and_true_resumes_the_last_one(tmp_path):
    options = {**SHORT, "save_strategy": "steps", "save_steps": 1}
    run(TINY_TOWER, tmp_path, **options)
    for folder in (tmp_path / "out", tmp_path / "out/checkpoint-1"):
        assert AutoImageProcessor.from_pretrained(folder).size["height"] == 32
        assert AutoTokenizer.from_pretrained(folder).vocab_size > 0
    shutil.rmtree(tmp_path / "out/checkpoint-2")
    options["resume_from_checkpoint"] = "True"
    trainer, _ = run(TINY_TOWER, tmp_path, **options)
    assert trainer.state.global_step == 2


@pytest.mark.slow
def test_trains_on_any_dataset_of_images_captions_and_labels(siglip, tmp_path, monkeypatch):
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
    trainer, _ = run(TOWER_256, tmp_path, siglip_name_or_path=siglip, **options)
    scores = next(log for log in trainer.state.log_history if "eval_psnr" in log)
    assert round(scores["eval_zero_shot_accuracy"] * 5, 4) in range(6)
    assert trainer.eval_dataset[1]["label"] == 1 and trainer.eval_dataset[0]["caption"] == drawn["caption"][0]


@pytest.mark.slow
def test_images_that_cannot_be_opened_stop_the_run_or_are_skipped(siglip, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    drawn = drawn_shapes("train", 8, SIDE, tasks={"text_to_image": 1})[:]
    (tmp_path / "shapes").mkdir()
    for split in ("train", "test"):
        for index, images in enumerate(drawn["images"]):
            images[0].save(tmp_path / f"{split}-{index}.png")
        for index in (0, 3, 5):
            (tmp_path / f"{split}-{index}.png").write_text("no image")
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
    options |= {"per_device_train_batch_size": 1, "max_steps": 8}
    with pytest.raises(MediaError, match=r"Cannot open images\[0\] .*(train|test)-[035].png"):
        run(TOWER_256, tmp_path, **options)
    trainer, _ = run(TOWER_256, tmp_path, on_bad_media="skip", **options)
    assert trainer.state.global_step == 8 and len(trainer.train_dataset) == 8
    assert "train-3.png" in caplog.text and "test-3.png" in caplog.text and "so far" in caplog.text


def test_images_are_opened_with_the_settings_of_the_tower(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tower = shutil.copytree(Path(TINY_CHECKPOINT) / "tower", tmp_path / "tower")
    settings = {"do_exif_transpose": False, "max_image_pixels": 300}
    VilaUImageProcessor(**settings).save_pretrained(tower)
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = 6
    for name, size in (("a", (12, 8)), ("b", (40, 20))):
        Image.new("RGB", size).save(tmp_path / "photos" / f"{name}.png", exif=exif)
    model = VisionTowerModelArguments(model_name_or_path=str(tower))
    config = VilaUVisionConfig.from_pretrained(tower)
    collator = load_tower_collator(model, config)
    assert {name: getattr(collator.image_processor, name) for name in settings} == settings
    data = VisionTowerDataArguments(dataset=str(tmp_path / "photos"), eval_split=None)
    config.contrastive_loss_weight = 0.0
    rows = build_tower_datasets(data, config, 0, collator.image_processor).train
    assert rows[0]["images"][0].size == (12, 8)
    with pytest.raises(MediaError, match=r"at most `max_image_pixels` \(300\) pixels, got 40 x 20"):
        rows[1]


def test_rejects_labels_that_are_no_classes(siglip, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    images = [record[0] for record in drawn_shapes("train", 2, SIDE, tasks={"text_to_image": 1})[:]["images"]]
    columns = {"image": images, "caption": ["a", "b"], "kind": [0, 1]}
    features = {"image": datasets.Image(), "caption": datasets.Value("string"), "kind": datasets.Value("int64")}
    (tmp_path / "shapes").mkdir()
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    for split in ("train", "test"):
        table.to_parquet(tmp_path / "shapes" / f"{split}.parquet")
    options = {**SMALL, **SHORT, "dataset": tmp_path / "shapes", "label_column": "kind"}
    with pytest.raises(ValueError, match="`label_column` must be a column of type ClassLabel, but 'kind' is Value"):
        run(TOWER_256, tmp_path, siglip_name_or_path=siglip, **options)


def test_images_of_every_kind_have_the_right_levels_and_other_columns_stay_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    files = []
    for values, kind in ((levels.astype(np.uint16) * 257, "PNG"), ((levels / 255).astype(np.float32), "TIFF")):
        files.append(io.BytesIO())
        Image.fromarray(values).save(files[-1], kind)
    features = datasets.Features({"image": datasets.Image(), "thumbnail": datasets.Image()})
    url = {"path": "http://127.0.0.1:9/a.png", "bytes": None}
    rows = [{"image": {"path": None, "bytes": file.getvalue()}, "thumbnail": url} for file in files]
    (tmp_path / "photos").mkdir()
    # `datasets` would store the content of the URL
    table = pyarrow.Table.from_pylist(rows, schema=features.arrow_schema)
    pyarrow.parquet.write_table(table, tmp_path / "photos" / "train.parquet")
    config = VilaUVisionConfig.from_pretrained(Path(TINY_CHECKPOINT) / "tower", contrastive_loss_weight=0.0)
    data = VisionTowerDataArguments(dataset=str(tmp_path / "photos"), eval_split=None)
    for row in build_tower_datasets(data, config, 0).train:
        assert np.array_equal(np.asarray(row["images"][0]), np.repeat(levels[..., None], 3, -1))
