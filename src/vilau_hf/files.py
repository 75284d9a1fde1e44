"""Functions for JSON files, atomic writes and new folders."""

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.utils import WeakFileLock
from safetensors import SafetensorError


# Names of temporary files and folders end with 32 random digits, so no file of a user has such a name.
_TEMPORARY_FILE = re.compile(r".+\.[0-9a-f]{32}\.tmp")
_LOCK = re.compile(r"\.vilau-[0-9a-f]{32}\.lock")
# Seconds to wait for the lock of a temporary folder. Whoever holds it keeps it until the folder is finished.
_LOCK_TIMEOUT = 0.1


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


def temporary_files(folder: Path, pattern: str) -> list[Path]:
    """
    Lists the temporary files of [`write_then_rename`] in a folder. Unless it runs now, its processes were killed.

    Args:
        folder (`Path`): the folder.
        pattern (`str`): glob pattern of the final names.
    """
    return [path for path in folder.glob(f"{pattern}.*.tmp") if _TEMPORARY_FILE.fullmatch(path.name)]


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """
    Converts errors of safetensors in the context, such as a full disk, to an `OSError`.

    Args:
        folder (`Path`): the folder that is written, for the error message.
    """
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"cannot write to {folder}: {error}") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """
    Writes a folder atomically: it gets its name at the end of the context, if there was no error.

    Until then it is a hidden folder beside it. The next call beside it deletes what a killed process left.

    Args:
        folder (`Path`): the folder, new or empty.

    Yields:
        `Path`: an empty folder on the same disk, to write to.
    """
    folder = folder.resolve()
    with temporary_folder(folder.parent) as temporary, disk_errors(folder):
        content = temporary / folder.name
        content.mkdir()
        yield content
        if folder.exists():  # it is empty, and not all systems rename over a folder
            folder.rmdir()
        content.rename(folder)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """
    Makes a hidden folder for the time of the context, and deletes those of killed processes.

    Args:
        parent (`Path`): the folder in which it is made.

    Yields:
        `Path`: the hidden folder.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _remove_temporary_folders(parent)
    folder = parent / f".vilau-{uuid.uuid4().hex}"
    lock = folder.with_name(f"{folder.name}.lock")
    # filelock 4 waits for ever where no file can be made, for example in /proc. This raises an error there.
    with tempfile.TemporaryFile(dir=parent):
        pass
    try:
        # The system releases the lock of a killed process, so a folder whose lock is free belongs to nobody.
        with WeakFileLock(lock):
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder)
    finally:
        lock.unlink(missing_ok=True)


def _remove_temporary_folders(parent: Path) -> None:
    """Deletes the temporary folders in `parent` whose process has ended."""
    for lock in parent.iterdir():
        if not _LOCK.fullmatch(lock.name):
            continue
        try:
            with WeakFileLock(lock, timeout=_LOCK_TIMEOUT):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        except (TimeoutError, PermissionError):
            continue  # its process runs, or it is of another user
        lock.unlink(missing_ok=True)


def is_new_or_empty(folder: Path) -> bool:
    """Returns whether `folder` does not exist or is an empty folder, so that writing into it overwrites nothing."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
