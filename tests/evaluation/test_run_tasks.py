"""The runner, with a task that needs no model, and with the shipped checkpoint on one and two processes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from vilau_hf.cli import main
from vilau_hf.evaluation.intervals import Score
from vilau_hf.evaluation.run_tasks import run_tasks, score_to_json
from vilau_hf.evaluation.task import EvaluationTask, SampleResult, TaskOptions


ON_CPU = {**os.environ, "ACCELERATE_USE_CPU": "true"}


class NoModel:
    def describe(self):
        return {"model": "none"}


class Counting(EvaluationTask):
    """Sample i has the value i, and an image of this brightness."""

    name = "counting"
    description = "count"
    right = "even"
    stop_at = None

    def __init__(self, options=None):
        super().__init__(NoModel(), options)
        self.batches = []

    def __len__(self):
        return self.options.samples or 7

    def run(self, indices):
        self.batches.append(list(indices))
        if self.stop_at in indices:
            raise KeyboardInterrupt
        return [
            SampleResult(
                index,
                {"even": index % 2 == 0, "value": float(index), "of_even": float(index) if index % 2 == 0 else None},
                {"prompt": f"sample {index}"},
                {"generated": Image.new("RGB", (8, 8), (index, 0, 0))},
            )
            for index in indices
        ]


def scores_of(content, name="counting"):
    return content["tasks"][name]["scores"]


def test_results_have_scores_with_intervals_settings_and_times(tmp_path):
    content = run_tasks([Counting()], tmp_path, batch_size=3)
    assert content == json.loads((tmp_path / "results.json").read_text())
    entry = content["tasks"]["counting"]
    assert entry["scores"]["even"]["value"] == pytest.approx(4 / 7) and entry["scores"]["even"]["count"] == 7
    assert entry["scores"]["value"]["low"] < 3 < entry["scores"]["value"]["high"]
    assert entry["scores"]["of_even"] == {"value": 3.0, "low": pytest.approx(1, abs=1), "high": 5.0, "count": 4}
    assert entry["settings"]["seed"] == 0 and entry["settings"]["versions"]["torch"]
    assert entry["environment"]["python"] and entry["seconds"]["samples"] >= 0
    with Image.open(tmp_path / "counting" / "sheet.png") as sheet:
        assert sheet.width > 7 * 96


def test_an_interrupted_run_continues_without_repeating_samples(tmp_path):
    expected = run_tasks([Counting()], tmp_path / "whole", batch_size=2)
    stopped = Counting()
    stopped.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        run_tasks([stopped], tmp_path / "out", batch_size=2)
    assert not (tmp_path / "out" / "results.json").exists()
    task = Counting()
    content = run_tasks([task], tmp_path / "out", batch_size=2)
    assert task.batches == [[4, 5], [6]]
    assert scores_of(content) == scores_of(expected)
    again = Counting()
    assert scores_of(run_tasks([again], tmp_path / "out", batch_size=2)) == scores_of(expected)
    assert again.batches == []


def test_the_batch_size_is_no_setting_of_a_run(tmp_path):
    first = run_tasks([Counting()], tmp_path / "out", batch_size=1)
    second = run_tasks([Counting()], tmp_path / "out", batch_size=5)
    assert first["tasks"]["counting"]["settings"] == second["tasks"]["counting"]["settings"]


def test_rejects_a_resumed_run_with_another_seed(tmp_path):
    run_tasks([Counting()], tmp_path)
    with pytest.raises(ValueError, match=r"`seed` \(0 there, 1 now\)"):
        run_tasks([Counting(TaskOptions(seed=1))], tmp_path)


def test_all_tasks_are_checked_before_the_first_runs(tmp_path):
    class Broken(Counting):
        name = "broken"

        def check(self):
            raise ValueError("no data")

    first = Counting()
    with pytest.raises(ValueError, match="no data"):
        run_tasks([first, Broken()], tmp_path)
    assert first.batches == []


def test_rejects_sizes_below_one(tmp_path):
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1, got 0"):
        run_tasks([Counting()], tmp_path, batch_size=0)
    with pytest.raises(ValueError, match="`samples` must be an integer of at least 1, got 0"):
        TaskOptions(samples=0)


def test_undefined_scores_are_null_in_json():
    assert score_to_json(float("nan")) is None
    assert score_to_json(Score(float("inf"), 1.0, float("nan"), 3)) == {
        "value": None,
        "low": 1.0,
        "high": None,
        "count": 3,
    }


ARGUMENTS = ["evaluate", "shapes-text-to-image", "shapes-questions", "--samples", "5"]


def command(out, *launcher):
    return [sys.executable, *launcher, "-m", "vilau_hf.cli", *ARGUMENTS, "--batch-size", "2", "--out", str(out)]


def scores_in(out):
    tasks = json.loads((out / "results.json").read_text())["tasks"]
    return {name: entry["scores"] for name, entry in tasks.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns the scores of one process without interruption, in another batch size."""
    out = tmp_path_factory.mktemp("whole") / "out"
    main([*ARGUMENTS, "--batch-size", "5", "--out", str(out)])
    return scores_in(out)


@pytest.mark.slow
def test_a_killed_run_gives_the_scores_of_an_uninterrupted_one(tmp_path, whole):
    process = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = tmp_path / "shapes-text-to-image" / "results-0.jsonl"
    while process.poll() is None and not (lines.is_file() and lines.read_bytes()):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = lines.read_bytes()
    assert kept and not (tmp_path / "results.json").exists()
    main([*ARGUMENTS, "--out", str(tmp_path)])
    assert scores_in(tmp_path) == whole
    assert lines.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one(tmp_path, whole):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2"]
    subprocess.run(command(tmp_path, *launcher), check=True, capture_output=True, env=ON_CPU)
    assert scores_in(tmp_path) == whole
    assert len(list((tmp_path / "shapes-questions").glob("results-*.jsonl"))) == 2
