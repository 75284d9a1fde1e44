"""Files and folders that are written whole or not at all, and the reading of JSON files."""

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path


def read_json(path: Path) -> dict:
    """
    The object in a JSON file.

    Raises:
        ValueError: if it is not there or holds something else, with its name.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}.")
    return content


def first_five(names) -> str:
    """The first five of `names` in order, and how many more there are."""
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def write_then_rename(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path and gives what it wrote its name: there is a whole file or none."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_new_or_empty(folder: Path) -> bool:
    """Whether `folder` is not there yet, or is a folder without content, so that writing there destroys nothing."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
