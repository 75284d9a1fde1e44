"""The script of the contrastive question, on the emoji of the fixtures and for a few steps."""

import json
import subprocess

import pytest

from .test_train_emoji import run


ARMS = ["siglip, contrastive", "siglip, reconstruction"]


@pytest.mark.slow
def test_script_compares_arms_over_seeds_and_trains_nothing_twice(records_folder, tmp_path):
    arguments = ["--records", records_folder, "--out", "found", "--steps", "0.001", "--samples", "4", "--arms", *ARMS]
    run("contrastive.py", *arguments, "--seeds", "0", cwd=tmp_path)
    weights = tmp_path / "found" / "siglip-contrastive-seed0" / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    printed = run("contrastive.py", *arguments, "--seeds", "0", "1", cwd=tmp_path)
    assert weights.stat().st_mtime_ns == before
    assert "| contrastive loss, from SigLIP | " in printed
    found = json.loads((tmp_path / "found" / "contrastive.json").read_text())
    assert list(found["runs"]) == ARMS and list(found["runs"][ARMS[0]]) == ["0", "1"]
    assert found["runs"][ARMS[0]]["0"]["names"]["count"] == 4
    assert list(found["differences"]) == ["contrastive loss, from SigLIP"]
    for rows in (found["arms"], found["differences"]):
        for scores in rows.values():
            for score in scores.values():
                assert score["low"] <= score["value"] <= score["high"] and score["count"] == 2
    # The decoders of both arms were trained, but with different losses.
    assert found["differences"]["contrastive loss, from SigLIP"]["PSNR"]["value"] != 0


@pytest.mark.slow
def test_script_rejects_a_folder_of_other_settings(records_folder, tmp_path):
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "settings.json").write_text('{"steps": 1.0}')
    with pytest.raises(subprocess.CalledProcessError) as error:
        run("contrastive.py", "--records", records_folder, "--out", "found", cwd=tmp_path)
    assert "settings.json has other settings" in error.value.stderr
