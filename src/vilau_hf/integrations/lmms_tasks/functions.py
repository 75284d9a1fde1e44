"""Functions that the definitions of the tasks name: prompts and scores of a document."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...evaluation.evaluated_model import EvaluatedModel
from ...evaluation.task import ConversationTask, TaskOptions
from ...evaluation_tasks import task_class
from ...processing.video_decoding_vilau import decode_video


def images(document: Mapping[str, Any]) -> list[Image.Image]:
    """Returns the images of a document, for models that take images and one text."""
    return list(document["images"])


def messages(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the messages of a document with their images, for chat models."""
    given = iter(document["images"])
    return [
        {
            "role": message["role"],
            "content": [
                {"type": "image", "url": next(given)} if part["type"] == "image" else part
                for part in message["content"]
            ],
        }
        for message in json.loads(document["messages"])
    ]


def score(document: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """
    Scores a response as `vilau evaluate` does.

    Args:
        document (`Mapping[str, Any]`): a row of the data that `write_lmms_tasks` writes.
        results (`Sequence[str]`): the response: an answer, JSON with `images`, or the name of a file.

    Returns:
        Metrics of this document. Those that do not apply to it are left out.
    """
    # The sample is made again from its index, since the data cannot hold every kind of reference.
    task = load_task(document["task"])
    conversation = task.conversation(document["index"])
    outputs = [results[0]] if task.mode == "text" else _read_pixels(task.mode, _first_file(results[0]))
    (row,) = task.score([conversation], outputs)
    return {name: float(value) for name, value in row.items() if value is not None}


# lmms-eval scores one document in a call. A judge is loaded once for all.
@lru_cache(maxsize=8)
def load_task(description: str) -> ConversationTask:
    """
    Makes the task of a document. It loads no weights of the model.

    Args:
        description (`str`): JSON with `name`, `model` and `options`, as [`describe_task`] makes it.
    """
    fields = json.loads(description)
    task = task_class(fields["name"])(EvaluatedModel(fields["model"]), TaskOptions(**fields["options"]))
    if not isinstance(task, ConversationTask):
        raise ValueError(f"the samples of task {fields['name']!r} are no conversations, which lmms-eval needs.")
    return task


def describe_task(name: str, model: str, options: TaskOptions) -> str:
    """Returns the description of a task that [`load_task`] reads."""
    chosen = {key: getattr(options, key) for key in ("samples", "seed", "judge", "records")}
    return json.dumps({"name": name, "model": model, "options": chosen})


def _first_file(response: str) -> str:
    """Returns the name of the first file in a response."""
    if not response.startswith("{"):
        return response
    files = json.loads(response)["images"]
    if not files:
        raise ValueError("the response has no image: the model must run in the mode that draws.")
    return files[0]


def _read_pixels(mode: str, file: str) -> torch.Tensor:
    """Returns an image `(1, 3, S, S)` or a video `(1, F, 3, S, S)`, uint8."""
    if mode == "video":
        frames, _ = decode_video(file)
        return torch.from_numpy(frames).permute(0, 3, 1, 2)[None]
    with Image.open(file) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]


__all__ = ["describe_task", "images", "load_task", "messages", "score"]
