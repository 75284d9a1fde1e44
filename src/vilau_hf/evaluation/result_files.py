"""Files of a run: one line of JSON for each finished sample, its images and videos, and the settings of the run."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import first_five, read_json, temporary_files, write_then_rename
from .sheets import save_animation
from .task import Medium, SampleResult, StoredResult


class ResultFolder:
    """
    The results of one task in a folder. A kill at any time loses only samples that were not finished.

    - `settings.json`: the settings of the run.
    - `results-R.jsonl`: the samples that process R has finished.
    - `samples/NAME/INDEX.png` or `.gif`: images and videos.

    Args:
        folder (`Path`): the folder.
        process (`int`, *optional*, defaults to 0): index of this process.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        self.folder = folder
        self.lines = folder / f"results-{process}.jsonl"

    def begin(self, settings: dict[str, Any]) -> None:
        """
        Makes the folder, or checks that an earlier run in it had the same settings. Only one process may call it.

        Args:
            settings (`dict[str, Any]`): settings that the results depend on, values that JSON can hold.

        Raises:
            ValueError: if the earlier run had other settings, or if the folder has other files.
        """
        path = self.folder / "settings.json"
        # as they are read back: tuples become lists, and keys strings
        settings = json.loads(json.dumps(settings))
        if path.is_file():
            _check_same(self.folder, read_json(path), settings)
            # what a killed process has left
            for folder in self.folder.glob("samples/*"):
                for leftover in temporary_files(folder, "*"):
                    leftover.unlink()
            return
        if self.folder.is_dir() and any(entry.name != path.name for entry in self.folder.iterdir()):
            names = first_five(entry.name for entry in self.folder.iterdir())
            raise ValueError(f"{self.folder} is no folder of an evaluation: it has {names} and no settings.json.")
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
        write_then_rename(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))

    def write(self, results: Sequence[SampleResult], seconds: float) -> None:
        """
        Stores finished samples.

        Args:
            results (`Sequence[SampleResult]`): the results.
            seconds (`float`): time that they took together.
        """
        lines = []
        for result in results:
            media = {name: self._save(name, result.index, medium) for name, medium in result.media.items()}
            line = {
                "index": result.index,
                "metrics": result.metrics,
                "texts": result.texts,
                "media": media,
                "seconds": round(seconds / len(results), 4),
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        # After the images, so that every line names complete files. One call, so that few lines can be torn.
        with self.lines.open("ab") as file:
            file.write("".join(lines).encode())

    def repair(self) -> None:
        """Removes the last line of this process's file if a kill has torn it, so that lines can be appended."""
        if not self.lines.is_file():
            return
        content = self.lines.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete != len(content):
            os.truncate(self.lines, complete)

    def read(self) -> dict[int, StoredResult]:
        """
        Reads the finished samples of all processes, also of runs with another number of processes.

        Returns:
            Index -> result, sorted by index.

        Raises:
            ValueError: if a line other than a torn last one is no result. The message names file and line.
        """
        results = {}
        for path in sorted(self.folder.glob("results-*.jsonl")):
            # A line without its end is the last one, torn by a kill.
            complete = path.read_bytes().split(b"\n")[:-1]
            for number, line in enumerate(complete, start=1):
                result = self._parse(path, number, line)
                results[result.index] = result
        return dict(sorted(results.items()))

    def _parse(self, path: Path, number: int, line: bytes) -> StoredResult:
        try:
            fields = json.loads(line)
            media = {name: self.folder / file for name, file in fields["media"].items()}
            return StoredResult(fields["index"], fields["metrics"], fields["texts"], media, fields["seconds"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number} is no result of a sample. Delete the line: {error}") from error

    def _save(self, name: str, index: int, medium: Medium) -> str:
        """Saves an image or a video atomically, and returns its path in the folder."""
        suffix = ".gif" if isinstance(medium, list) else ".png"
        path = self.folder / "samples" / name / f"{index:06d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)

        def write(unfinished: Path) -> None:
            if isinstance(medium, list):
                save_animation(medium, unfinished, image_format="gif")
            else:
                medium.save(unfinished, format="png")

        write_then_rename(path, write)
        return path.relative_to(self.folder).as_posix()


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises an error that names the settings in which two runs differ."""
    first = _flat(before)
    second = _flat(now)
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    if names:
        changes = ", ".join(f"`{name}` ({first.get(name)!r} there, {second.get(name)!r} now)" for name in names[:5])
        raise ValueError(
            f"{folder} has results with other settings: {changes}. Give the same settings, or another output folder."
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings with names such as `options.seed`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def json_number(value: float) -> float | None:
    """Returns a number that strict JSON can hold: `None` for infinite values and NaN."""
    return value if math.isfinite(value) else None


__all__ = ["ResultFolder", "json_number"]
