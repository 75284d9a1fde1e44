"""The script of ablations, with a model of shapes and a judge that has learned nothing."""

import json

import pytest
import torch

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.emoji.dataset import concept_names
from vilau_hf.emoji.judge import EmojiJudge

from .test_train_emoji import run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "settings", "metrics"),
    [
        ("alignment", None, ["distance"]),
        ("guidance", ["1", "1.5", "2", "3", "4", "6"], ["top_1", "style"]),
        ("few-shot", ["0", "1", "2", "4", "8"], ["top_1", "style"]),
        ("order", ["0", "1", "2", "3", "differs"], ["top_1", "style"]),
        ("prompts", None, ["right"]),
    ],
)
def test_script_saves_scores_with_intervals_and_a_plot(records_folder, tmp_path, command, settings, metrics):
    pytest.importorskip("matplotlib", reason="needs the extra `plots`")
    torch.manual_seed(0)
    EmojiJudge(concept_names(records_folder), image_size=32).save(tmp_path / "judge")
    arguments = [command, "--records", records_folder, "--model", TINY_CHECKPOINT, "--judge", "judge"]
    run("ablations.py", *arguments, "--out", "found", "--samples", "2", cwd=tmp_path)
    scores = json.loads((tmp_path / "found" / f"{command}.json").read_text())["scores"]
    assert len(scores) > 3 and (settings is None or list(scores) == settings)
    for of_setting in scores.values():
        for name in metrics:
            score = of_setting[name]
            assert score["low"] <= score["value"] <= score["high"] and score["count"] >= 1
    assert (tmp_path / "found" / f"{command}.png").read_bytes().startswith(b"\x89PNG")
