"""The identity of a checkpoint in the settings of a run."""

import shutil

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.evaluation.checkpoint_identity import describe_checkpoint


def test_fingerprints_follow_weights_and_settings(tmp_path):
    shutil.copytree(TINY_CHECKPOINT, tmp_path / "a")
    description = describe_checkpoint(TINY_CHECKPOINT)
    copy = describe_checkpoint(str(tmp_path / "a"))
    assert copy == {"name": str(tmp_path / "a"), "fingerprint": description["fingerprint"]}
    (tmp_path / "a" / "README.md").write_text("no weights")
    assert describe_checkpoint(str(tmp_path / "a")) == copy
    for name in ("model.safetensors", "generation_config.json"):
        with (tmp_path / "a" / name).open("ab") as file:
            file.write(b" ")
        assert describe_checkpoint(str(tmp_path / "a"))["fingerprint"] not in (copy["fingerprint"], description)
        copy = describe_checkpoint(str(tmp_path / "a"))


def test_a_model_of_the_hub_has_the_commit_of_the_cache(tmp_path, monkeypatch):
    commit = "a" * 40
    repository = tmp_path / "models--me--tiny"
    (repository / "snapshots" / commit / "tower").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for name in ("config.json", "tower/config.json"):
        (repository / "snapshots" / commit / name).write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for subfolder in ("", "tower"):
        assert describe_checkpoint("me/tiny", None, subfolder) == {"name": "me/tiny", "revision": commit}
    assert describe_checkpoint("me/other", "v1") == {"name": "me/other", "revision": "v1"}
