"""The scoring script of the emoji model, with a model of shapes and a judge that has learned nothing."""

import json

import pytest
import torch

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.emoji.dataset import concept_names
from vilau_hf.emoji.judge import EmojiJudge

from .test_train_emoji import run


@pytest.mark.slow
def test_script_saves_scores_with_intervals_and_sheets(records_folder, tmp_path):
    torch.manual_seed(0)
    EmojiJudge(concept_names(records_folder), image_size=32).save(tmp_path / "judge")
    arguments = ["--records", records_folder, "--model", TINY_CHECKPOINT, "--judge", "judge", "--out", "scores"]
    run("score_emoji.py", *arguments, "--samples", "4", "--clip-repeats", "1", cwd=tmp_path)
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    expected = ["reconstruction_psnr", "zero_shot_top_1", "answer_name", "answer_is_it", "draw_seen_top_1_ratio"]
    expected += ["draw_new_top_1_ratio", "draw_new_style_ratio", "restyle_to_new_top_1", "restyle_from_new_style"]
    expected += ["clip_all", "best_of_4_gain", "nearer_to_truth"]
    for name in expected:
        assert scores[name]["count"] >= 1
        if scores[name]["value"] == scores[name]["value"]:  # a ratio to a judge that is never right is NaN
            assert scores[name]["low"] <= scores[name]["value"] <= scores[name]["high"]
    assert scores["new_fid"] >= 0 and "real_kid" in scores
    for name in ("drawings_seen", "drawings_new", "restyles_to_new", "restyles_from_new", "clips", "nearest"):
        assert (tmp_path / "scores" / f"{name}.png").stat().st_size > 1000
