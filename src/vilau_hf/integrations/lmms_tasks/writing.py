"""Writes the data of the tasks beside their definitions, so that lmms-eval finds both."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value

from ...drawn.dataset import drawn_shapes
from ...drawn.shapes import COLORS
from ...files import is_new_or_empty, new_folder


FOLDER = Path(__file__).parent
_TEXT = Value("string")
_ATTRIBUTES = {name: _TEXT for name in ("color", "shape", "size", "place", "background")}


def _questions(records: Dataset) -> Iterator[dict[str, Any]]:
    """Yields an image, a question and its answer for each record of the task `image_to_text`."""
    for record in records:
        question, answer = (message["content"][-1]["text"] for message in record["messages"])
        yield {"image": record["images"][0], "question": question, "answer": answer}


def _choices(records: Dataset) -> Iterator[dict[str, Any]]:
    """Yields the question for the color of each record, with all colors as choices."""
    for record in records:
        answer = record["drawing"]["color"]
        row = {"image": record["images"][0], "question": "what color is the shape?", "answer": answer}
        yield {**row, "choices": list(COLORS)}


def _captions(records: Dataset) -> Iterator[dict[str, Any]]:
    """Yields the caption of each record, and the attributes of its drawing."""
    for record in records:
        yield {"question": record["caption"], "answer": record["caption"], **record["drawing"]}


_QUESTION = {"image": Image(), "question": _TEXT, "answer": _TEXT}
# name of a task -> task of `drawn_shapes`, documents of its records, and their features
TASKS: dict[str, tuple[str, Callable[[Dataset], Iterator[dict[str, Any]]], dict[str, Any]]] = {
    "vilau_shapes_vqa": ("image_to_text", _questions, _QUESTION),
    "vilau_shapes_choice": ("image_to_text", _choices, {**_QUESTION, "choices": List(_TEXT)}),
    "vilau_shapes_t2i": ("text_to_image", _captions, {"question": _TEXT, "answer": _TEXT, **_ATTRIBUTES}),
}


def write_lmms_tasks(folder: Path, num_samples: int = 200, image_size: int = 32, seed: int = 0) -> list[str]:
    """
    Writes definitions and data of all tasks into one folder, for `--include_path` of lmms-eval.

    Args:
        folder (`Path`): the folder, new or empty.
        num_samples (`int`, *optional*, defaults to 200): documents of each task.
        image_size (`int`, *optional*, defaults to 32): side of the images in pixels.
        seed (`int`, *optional*, defaults to 0): seed that chooses the documents.

    Returns:
        Names of the tasks.

    Raises:
        ValueError: if the folder has files, or a number is out of range.
    """
    folder = Path(folder)
    if not is_new_or_empty(folder):
        raise ValueError(f"`folder` must be new or empty, got {str(folder)!r}.")
    with new_folder(folder) as unfinished:
        for name, (task, documents, features) in TASKS.items():
            records = drawn_shapes("test", num_samples, image_size, tasks={task: 1}, seed=seed)
            data = Dataset.from_list(list(documents(records)), features=Features(features))
            # lmms-eval looks for `data_files` beside the definition, but for no folder of `save_to_disk`
            # (`_maybe_resolve_yaml_local_data_files`, read in 0.7.3).
            data.to_parquet(unfinished / f"{name}.parquet")
            shutil.copy(FOLDER / f"{name}.yaml", unfinished)
    return list(TASKS)


__all__ = ["FOLDER", "TASKS", "write_lmms_tasks"]
