"""The script behind docs/experiments.md runs with few steps, and reuses models that are already trained."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[1] / "examples" / "run_experiments.py"


def run(*arguments, cwd):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], cwd=cwd, capture_output=True, text=True)


def table(printed, first):
    """Returns the cells of the printed table whose first column has the title `first`, by row and column."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    head = next(index for index, line in enumerate(lines) if line[0] == first)
    rows = {}
    for line in lines[head + 2 :]:
        if line[0] in rows or line[0] == first:
            break
        rows[line[0]] = dict(zip(lines[head][1:], line[1:], strict=True))
    return rows


def test_guidance_table_has_a_row_for_each_scale(tmp_path):
    done = run("guidance", "--samples", "4", "--out", "results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "results" / "guidance.json").read_text())
    assert list(scores) == ["1.0", "2.0", "3.0", "5.0"]
    rows = table(done.stdout, "guidance")
    for scale, entry in scores.items():
        share = entry["scores"]["picture_all"]
        assert share in (0, 0.25, 0.5, 0.75, 1)
        error = (share * (1 - share) / 4) ** 0.5
        assert rows[scale]["all"] == f"{100 * share:.1f} ± {100 * error:.1f}"
    # the shipped checkpoint follows its captions
    assert scores["2.0"]["scores"]["picture_color_and_shape"] >= 0.75


@pytest.mark.slow
def test_training_tables_share_a_model_and_reject_other_settings(tmp_path):
    short = ("--steps", "0.001", "--samples", "4", "--questions", "24", "--out", "results")
    done = run("code-depth", *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = tmp_path / "results"
    arms = json.loads((results / "code-depth.json").read_text())
    assert {depth: arm["settings"]["code_depth"] for depth, arm in arms.items()} == {"1": 1, "2": 2, "4": 4}
    for depth in arms:
        config = json.loads((results / f"contrastive-depth{depth}-seed0" / "config.json").read_text())
        assert config["depth_config"]["code_depth"] == config["vision_config"]["code_depth"] == int(depth)
    assert set(table(done.stdout, "code depth D")) == {"1", "2", "4"}

    finished = results / "contrastive-depth4-seed0.json"
    before = finished.stat().st_mtime_ns
    done = run("contrastive", *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert finished.stat().st_mtime_ns == before
    rows = json.loads((results / "contrastive.json").read_text())
    assert rows["with"] == arms["4"]
    steps = [row["settings"]["siglip_steps"] + row["settings"]["tower_steps"] for row in rows.values()]
    assert len(rows) == 3 and len(set(steps)) == 1  # equally many steps of stage 1 with and without the loss

    done = run("contrastive", *short[:-2], "--language-steps", "5000", "--out", "results", cwd=tmp_path)
    assert done.returncode != 0 and "other settings" in done.stderr
