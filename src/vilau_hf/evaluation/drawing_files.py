"""Names and writes the files of one prompt, without overwriting any silently."""

import functools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..files import write_then_rename
from .media_files import IMAGE_FORMATS, VIDEO_SUFFIXES, save_image, save_video


LONGEST_STEM = 60  # letters of a name that is made from a prompt


def name_files(
    out: Path | None, prompt: str, seeds: Sequence[int], is_video: bool = False, overwrite: bool = False
) -> list[Path]:
    """
    Names the files of a prompt before they are drawn.

    Args:
        out (`Path`, *optional*): a file, or a folder. A path without a suffix is a folder. By default it is the
            working folder. In a folder, the files get names from prompt and seed that no file has.
        prompt (`str`): the prompt.
        seeds (`Sequence[int]`): seed of each result. If there are several, they get a number before the suffix.
        is_video (`bool`, *optional*, defaults to `False`): whether the results are videos.
        overwrite (`bool`, *optional*, defaults to `False`): whether `out` may be a file that exists.

    Returns:
        The path of each result.

    Raises:
        ValueError: if `out` has an unknown suffix, cannot be written, or is a file that exists and `overwrite` is not
            set.
    """
    if not seeds:
        raise ValueError("`num_images` must be at least 1, got 0.")
    _check_writable(Path() if out is None else out)
    if out is None or out.is_dir() or not out.suffix:
        if out is not None and out.exists() and not out.is_dir():
            raise ValueError(f"`out` ({out}) is a file without a suffix: choose another name.")
        folder = Path() if out is None else out
        suffix = ".mp4" if is_video else ".png"
        return [_free_name(folder, f"{_stem(prompt)}-seed{seed}", suffix) for seed in seeds]
    known = VIDEO_SUFFIXES if is_video else tuple(IMAGE_FORMATS)
    if out.suffix.lower() not in known:
        kind = "a video" if is_video else "an image"
        raise ValueError(f"`out` must have a suffix of {kind}, {', '.join(known)}, got {str(out)!r}.")
    paths = [out]
    if len(seeds) > 1:
        paths = [out.with_stem(f"{out.stem}-{number}") for number in range(len(seeds))]
    _check_absent(paths, overwrite)
    return paths


def write_results(results: Sequence[Any], paths: Sequence[Path], overwrite: bool = False) -> None:
    """
    Writes images or videos, each as a whole or not at all.

    Args:
        results (`Sequence[PIL.Image.Image]` or `Sequence[list[PIL.Image.Image]]`): images, or frames of videos.
        paths (`Sequence[Path]`): the file of each, from [`name_files`].
        overwrite (`bool`, *optional*, defaults to `False`): whether files that exist are replaced.

    Raises:
        ValueError: if a file has come to exist and `overwrite` is not set.
    """
    _check_absent(paths, overwrite)
    for result, path in zip(results, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_then_rename(path, functools.partial(_save, result, path.suffix.lower()))


def _save(result: Any, suffix: str, path: Path) -> None:
    """Writes an image or the frames of a video."""
    if isinstance(result, Image.Image):
        save_image(result, path, suffix)
    else:
        save_video(result, path, suffix)


def _check_absent(paths: Sequence[Path], overwrite: bool) -> None:
    found = [path for path in paths if path.exists()]
    if found and not overwrite:
        raise ValueError(f"{found[0]} exists. Choose another name, or replace it by `--overwrite`.")


def _check_writable(out: Path) -> None:
    """Checks that files can be made in the folder of `out`, or in the first of its folders that exists."""
    folder = out.absolute()
    while not folder.is_dir():
        if folder.exists() and folder != out.absolute():
            raise ValueError(f"`out` ({out}) cannot be written: {folder} is a file.")
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        raise ValueError(f"`out` ({out}) cannot be written: no permission to make files in {folder}.")


def _stem(prompt: str) -> str:
    """Returns the words of a prompt, joined for the name of a file."""
    stem = "-".join(re.findall(r"\w+", prompt.lower()))[:LONGEST_STEM].rstrip("-")
    return stem or "image"


def _free_name(folder: Path, stem: str, suffix: str) -> Path:
    """Returns the first name that no file has: the stem, or the stem with a number from 2."""
    return next(path for path in _names(folder, stem, suffix) if not path.exists())


def _names(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    yield folder / f"{stem}{suffix}"
    number = 2
    while True:
        yield folder / f"{stem}-{number}{suffix}"
        number += 1


__all__ = ["name_files", "write_results"]
