"""Dry runs of both stages."""

import math

import pytest
import torch

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUVisionTowerForPreTraining
from vilau_hf.cli import main
from vilau_hf.training import check_recipe
from vilau_hf.training.dry_run_language_model import count_tokens

from .recipes import SHORT, TINY_SFT, TINY_TOWER, read


@pytest.mark.slow
def test_row_format_changes_the_rows_and_not_the_tokens(tmp_path):
    reports = {}
    for name in ("padded", "packed", "padding_free"):
        options = {**SHORT, "row_format": name, "max_length": 2000, "unconditional_probability": 0.0}
        options |= {"num_train_samples": 8, "per_device_train_batch_size": 8, "output_dir": tmp_path}
        reports[name] = check_recipe(read(TINY_SFT, **options))
    assert len({report.num_tokens for report in reports.values()}) == 1
    assert len({report.num_visual_targets for report in reports.values()}) == 1
    assert reports["padding_free"].num_rows == 1
    assert reports["padded"].num_rows == 8 > reports["packed"].num_rows


def test_counts_tokens_targets_and_parameters(tmp_path, records):
    recipe = read(
        TINY_SFT,
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


@pytest.mark.parametrize("change", [{"dataset": "MIXTURE"}, {"row_format": "packed", "max_length": 2000}])
@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
def test_rejects_grouping_of_mixtures_and_packs_by_length(records, change, strategy):
    options = {**SHORT, **change, "train_sampling_strategy": strategy, "output_dir": records / "out"}
    if "dataset" in change:
        options["dataset"] = records / "mixture.yaml"
    with pytest.raises(ValueError, match=f"`train_sampling_strategy` must be .*, got '{strategy}'"):
        check_recipe(read(TINY_SFT, **options))


def test_estimates_the_memory_of_a_cluster(tmp_path):
    options = {**SHORT, "output_dir": tmp_path, "gpus": 4, "bf16": True}
    alone, shared = (check_recipe(read(TINY_SFT, **options, strategy=strategy)).memory for strategy in ("ddp", "fsdp"))
    assert shared.size("gradients") == math.ceil(alone.size("gradients") / 4)
    with pytest.raises(ValueError, match="`strategy` must be one of ddp, fsdp, zero2, zero3, got 'zero1'"):
        check_recipe(read(TINY_SFT, **options, strategy="zero1"))


def test_command_prints_the_report(capsys, tmp_path):
    main(["train", str(TINY_SFT), "--dry_run", "--per_device_train_batch_size", "2", "--output_dir", str(tmp_path)])
    printed = capsys.readouterr().out
    for words in ("language_model", "200,000 rows, 2 rows an optimizer step", "batch 2: input_ids (2, ", "targets: "):
        assert words in printed


def test_counts_images_and_parameters_of_a_vision_tower(tmp_path):
    options = {**SHORT, "num_train_samples": 12, "num_eval_samples": 6, "output_dir": tmp_path / "out"}
    report = check_recipe(read(TINY_TOWER, **options, tune_encoder=False))
    assert report.records == 12 and report.eval_records == 6 and report.rows_per_step == 2
    assert report.num_classes == 24
    assert [shapes["pixel_values"] for shapes in report.shapes] == [(2, 3, 32, 32)] * 2
    tower = VilaUVisionTowerForPreTraining.from_pretrained(f"{TINY_CHECKPOINT}/tower")
    totals = {name: total for name, (_, total) in report.parameters.items() if name != "discriminator"}
    assert sum(totals.values()) == sum(parameter.numel() for parameter in tower.parameters())
    assert report.parameters["image_encoder"][0] == report.parameters["text_model"][0] == 0
    assert report.parameters["discriminator"][0] == report.parameters["discriminator"][1] > 0
    assert "memory: not estimated for a vision tower" in str(report)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrastive_loss_weight": 0, "reconstruction_loss_weight": 0}, "are both 0: nothing to train"),
        ({"reconstruction_loss_weight": 0}, "must be 0 if `reconstruction_loss_weight` of the vision tower is 0"),
        ({"discriminator_num_layers": 5}, "images must have at least 96 pixels a side"),
    ],
)
def test_rejects_losses_that_do_not_fit_a_vision_tower(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        check_recipe(read(TINY_TOWER, **SHORT, **options, output_dir=tmp_path))


def test_rejects_the_estimate_of_memory_for_a_vision_tower(tmp_path):
    with pytest.raises(ValueError, match="--gpus"):
        read(TINY_TOWER, **SHORT, gpus=4, output_dir=tmp_path)


def test_counts_tokens_if_the_padding_is_the_token_that_ends_a_sample():
    """GPT-2 pads with its end token, and its configuration has no `pad_token_id`."""
    rows = {
        "input_ids": torch.tensor([[1, 5, 2, 1, 6, 2, 2, 2], [1, 5, 5, 2, 1, 6, 6, 2]]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 0, 1], [0, 1, 2, 3, 0, 1, 2, 3]]),
    }
    assert count_tokens(rows, pad_token_id=2) == 6 + 8
