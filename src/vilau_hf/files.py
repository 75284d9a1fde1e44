"""Functions for JSON files, atomic writes and new folders."""

import json
import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """
    Reads the object in a JSON file.

    Args:
        path (`Path`): the file.

    Raises:
        ValueError: if the file cannot be read or holds something other than an object. The message has its name.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}.")
    return content


def read_yaml(path: Path) -> Any:
    """
    Reads a YAML file, as UTF-8 in every locale.

    Args:
        path (`Path`): the file.

    Returns:
        The value that the file holds.

    Raises:
        ValueError: if the file is not valid YAML. The message is one line and has the name of the file.
        OSError: if the file cannot be opened.
    """
    import yaml  # here, since the commands import this file and must show `--help` without a library

    try:
        # `utf-8-sig` removes a byte order mark, which editors on Windows add.
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    # PyYAML raises ValueError for dates such as 2020-13-45, and RecursionError for values that are nested too deeply.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {str(path)!r}: {' '.join(str(error).split())}") from error


def first_five(names: Iterable[str]) -> str:
    """Lists the first five of the sorted `names` and the number of the others, for error messages."""
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


def write_then_rename(path: Path, write: Callable[[Path], object]) -> None:
    """
    Writes a file atomically: after an interruption there is the complete file or the old one.

    Args:
        path (`Path`): the file.
        write (`Callable[[Path], object]`): function that writes a file with the name it gets.
    """
    # In the same folder, since renaming is atomic only within a file system. The random name keeps processes apart.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_new_or_empty(folder: Path) -> bool:
    """Returns whether `folder` does not exist or is an empty folder, so that writing into it overwrites nothing."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
