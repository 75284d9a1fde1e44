"""Says which weights a name refers to, so that an interrupted run is not continued with others."""

import hashlib
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache


CONFIG_NAME = "config.json"
# Suffixes of the files of a checkpoint that change what it draws.
_CHECKPOINT_SUFFIXES = (".safetensors", ".json", ".jinja")


def describe_checkpoint(name: str, revision: str | None = None, subfolder: str = "") -> dict[str, Any]:
    """
    Describes the checkpoint that a name refers to.

    Args:
        name (`str`): folder or Hub id, which has been loaded.
        revision (`str`, *optional*): branch, tag or commit on the Hub.
        subfolder (`str`, *optional*, defaults to `""`): folder of the checkpoint in it.

    Returns:
        A dictionary with `name`. For a folder it has `fingerprint`, the SHA-256 of its weights and settings. For a
        Hub id it has `revision`, the commit.
    """
    folder = Path(name, subfolder)
    if folder.is_dir():
        return {"name": str(folder), "fingerprint": _fingerprint(folder)}
    for prefix in (subfolder, "model"):
        found = try_to_load_from_cache(name, f"{prefix}/{CONFIG_NAME}".lstrip("/"), revision=revision)
        if isinstance(found, str):
            # A file is cached as `snapshots/COMMIT/NAME`.
            commit = Path(found).parts[-2 - (prefix != "")]
            return {"name": name, "revision": commit}
    return {"name": name, "revision": revision}


def _fingerprint(folder: Path) -> str:
    """Returns the first 16 digits of the SHA-256 of the files of a checkpoint."""
    digest = hashlib.sha256()
    # With the folders of a pipeline, and without other folders, such as the checkpoints of a training run.
    folders = [folder, folder / "model", folder / "processor"]
    for path in sorted(path for each in folders if each.is_dir() for path in each.iterdir()):
        if path.suffix in _CHECKPOINT_SUFFIXES:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]


__all__ = ["CONFIG_NAME", "describe_checkpoint"]
