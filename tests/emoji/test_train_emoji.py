"""The training script of the emoji model, on the emoji of the fixtures and for a few steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vilau_hf import VilaUPipeline, VilaUVisionTowerForPreTraining


EXAMPLES = Path(__file__).parents[2] / "examples" / "emoji"


def run(script, *arguments, cwd):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_training_saves_a_model_that_draws_and_continues_where_it_stopped(records_folder, tmp_path):
    arguments = ["--records", records_folder, "--work", "runs", "--out", "emoji", "--steps", "0.001"]
    log = run("train_emoji.py", *arguments, cwd=tmp_path)
    entries = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert any("contrastive_loss" in entry for entry in entries) and any("visual_loss" in entry for entry in entries)
    pipe = VilaUPipeline.from_pretrained(tmp_path / "emoji")
    assert pipe("cat, flat style", generator=torch.Generator().manual_seed(0)).images[0].size == (64, 64)
    tower = VilaUVisionTowerForPreTraining.from_pretrained(tmp_path / "emoji" / "tower")
    assert tower.config.image_size == 64
    training_log = json.loads((tmp_path / "emoji" / "training_log.json").read_text())
    assert training_log["arguments"]["steps"] == 0.001
    assert [stage[-1]["step"] for stage in training_log["stages"].values()] == [3, 4, 10]
    # a finished stage has nothing left to do
    again = run("train_emoji.py", *arguments, "--stage", "siglip", cwd=tmp_path)
    assert '"loss"' not in again
