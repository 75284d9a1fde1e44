"""Outputs of the lmms-eval adapter in a folder: files of images and videos, and a line for each finished document."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..evaluation.media_files import save_video
from ..evaluation.result_files import ResultFolder
from ..files import write_then_rename


@dataclass(frozen=True)
class Output:
    """
    Holds what the model gave for one request.

    Args:
        text (`str` or `list[str]`, *optional*): the answer, or one for each round.
        files (`tuple[str, ...]`, *optional*): images or videos, names relative to the folder of outputs.
    """

    text: str | list[str] = ""
    files: tuple[str, ...] = ()


class OutputStore:
    """
    Keeps the outputs of finished requests, so that a run that was interrupted continues.

    Each process appends to its file `results-R.jsonl` and reads those of all. A kill loses only requests of the last
    batch.

    Args:
        folder (`Path`): the folder.
        rank (`int`, *optional*, defaults to 0): number of this process.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder.resolve()
        self._files = ResultFolder(self.folder, rank)
        self._finished: dict[str, Output] = {}

    def begin(self, settings: dict[str, Any]) -> None:
        """
        Makes the folder, or checks the settings of an earlier run in it. Only one process may call it.

        Args:
            settings (`dict[str, Any]`): settings that the outputs depend on, values that JSON holds.

        Raises:
            ValueError: if the earlier run had other settings, or if the folder has other files.
        """
        self._files.begin(settings)

    def read(self) -> None:
        """
        Reads what all processes have finished. It comes after `begin`, in every process.

        Raises:
            ValueError: if a line cannot be read. The message names file and line.
        """
        self._files.repair()
        for path in sorted(self.folder.glob("results-*.jsonl")):
            # A line without its end is the last one of a process that was killed, or is being written now.
            for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
                try:
                    fields = json.loads(line)
                    self._finished[fields["key"]] = Output(fields["text"], tuple(fields["files"]))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{path}, line {number} is no output. Delete the line: {error}") from error

    def find(self, key: str) -> Output | None:
        """Returns the output of a finished request, or `None` if there is none or one of its files is missing."""
        output = self._finished.get(key)
        if output is None or not all((self.folder / name).is_file() for name in output.files):
            return None
        return output

    def add(self, outputs: dict[str, Output]) -> None:
        """Stores outputs by the keys of their requests. Their files must be complete."""
        lines = [
            json.dumps({"key": key, "text": output.text, "files": output.files}, ensure_ascii=False) + "\n"
            for key, output in outputs.items()
        ]
        # One call, so that a kill tears only one line.
        with self._files.lines.open("ab") as file:
            file.write("".join(lines).encode())
        self._finished.update(outputs)

    def save_image(self, image: Image.Image, task: str, doc_id: int, sample: int) -> str:
        """Saves an image atomically, and returns its name relative to the folder."""
        return self._save(task, doc_id, sample, ".png", lambda path: image.save(path, format="png"))

    def save_video(self, frames: list[Image.Image], task: str, doc_id: int, sample: int) -> str:
        """Saves the frames of a video atomically, and returns the name of the file relative to the folder."""
        return self._save(task, doc_id, sample, ".mp4", lambda path: save_video(frames, path, ".mp4"))

    def _save(self, task: str, doc_id: int, sample: int, suffix: str, write: Any) -> str:
        path = self.folder / media_name(task, doc_id, sample, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_then_rename(path, write)
        return path.relative_to(self.folder).as_posix()

    def response(self, output: Output, form: str) -> str:
        """
        Returns an output with images or videos as a task expects it.

        Args:
            output ([`Output`]): the output.
            form (`str`): one of `OUTPUT_FORMS`.
        """
        paths = [str(self.folder / name) for name in output.files]
        if form == "folder":
            return str(Path(paths[0]).parent)
        if form == "path":
            return paths[0]
        return json.dumps({"text": output.text, "images": paths}, ensure_ascii=False)


def media_name(task: str, doc_id: int, sample: int, suffix: str) -> str:
    """Returns the name of an image or a video, as the text-to-image tasks of lmms-eval look for it."""
    # `{doc_id:04d}_s{seed}.png` in a folder of the task: GenEval and DPG-Bench (`wan2_1_t2i`, read in 0.7.3).
    return f"{task.replace('/', '_')}/{doc_id:04d}_s{sample}{suffix}"


def request_key(*values: Any) -> str:
    """Returns a short text that differs for requests that differ in one of the values, which JSON holds."""
    return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()[:32]


__all__ = ["Output", "OutputStore", "media_name", "request_key"]
