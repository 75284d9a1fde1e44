"""Writes tasks of `vilau evaluate` as tasks of lmms-eval: their definitions, with the data beside them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Image, List, Value

from ... import TINY_CHECKPOINT
from ...drawn.shapes import BACKGROUNDS, COLORS, PLACES, SHAPES, SIZES
from ...evaluation.task import Conversation, ConversationTask, TaskOptions
from ...files import is_new_or_empty, new_folder
from ..lmms_modes import MODE_KEY
from .functions import describe_task, load_task


# tasks that need no data
DEFAULT_TASKS = ("shapes-questions", "shapes-captions", "shapes-text-to-image", "shapes-text-to-video", "shapes-edits")
# Questions of this task are written as a choice too, by the log-probability of each answer.
CHOICE_TASK = "shapes-questions"
# The answers to choose from are the words of one attribute.
VOCABULARIES = tuple(list(words) for words in (COLORS, SHAPES, SIZES, PLACES, BACKGROUNDS))
MODES = {"text": "understanding", "image": "generate", "video": "video"}

_FUNCTIONS = __name__.rpartition(".")[0] + ".functions"
# lmms-eval looks for relative `data_files` beside the definition, but not for a folder of `save_to_disk`
# (`_maybe_resolve_yaml_local_data_files`, read in 0.7.3). Without `until`, answers would end at an empty line.
_DEFINITION = """\
# {description}
task: {name}
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {name}.parquet
test_split: test
output_type: generate_until
doc_to_visual: !function {functions}.images
doc_to_text: prompt
doc_to_messages: !function {functions}.messages
doc_to_target: answer
generation_kwargs:
  max_new_tokens: {max_new_tokens}
  do_sample: false
  until: []
process_results: !function {functions}.score
metric_list:
{metrics}
metadata:
  version: 1.0
  {mode_key}: {mode}
"""
_CHOICE_DEFINITION = """\
# {description}, as a choice by the log-probability of each answer
# Run it with `--force_simple`.
task: {name}
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {name}.parquet
test_split: test
output_type: multiple_choice
doc_to_visual: !function {functions}.images
doc_to_text: prompt
doc_to_target: answer
doc_to_choice: choices
metric_list:
{metrics}
metadata:
  version: 1.0
  {mode_key}: {mode}
"""
_METRIC = "  - metric: {name}\n    aggregation: mean\n    higher_is_better: true"
_TEXT = Value("string")
_FEATURES = {
    "task": _TEXT,
    "index": Value("int64"),
    "prompt": _TEXT,
    "messages": _TEXT,
    "images": List(Image()),
    "answer": _TEXT,
}


def write_lmms_tasks(
    folder: Path,
    tasks: Sequence[str] = DEFAULT_TASKS,
    model: str = TINY_CHECKPOINT,
    options: TaskOptions | None = None,
) -> dict[str, str]:
    """
    Writes tasks into one folder, for `--include_path` of lmms-eval.

    Scores are those of `vilau evaluate`, by the same functions.

    Args:
        folder (`Path`): the folder, new or empty.
        tasks (`Sequence[str]`, *optional*, defaults to the tasks of shapes): tasks of `vilau evaluate`.
        model (`str`, *optional*): folder or Hub id of the model, whose image size and number of frames the tasks have
            (default: the shipped checkpoint).
        options ([`TaskOptions`], *optional*): `samples`, `seed`, `judge` and `records` of the tasks.

    Returns:
        Names of the tasks in lmms-eval -> the mode of the adapter that they need, which their definitions name.

    Raises:
        ValueError: if the folder has files, or a task is unknown or has no conversations.
    """
    folder = Path(folder)
    if not is_new_or_empty(folder):
        raise ValueError(f"`folder` must be new or empty, got {str(folder)!r}.")
    options = TaskOptions() if options is None else options
    loaded = {name: load_task(describe_task(name, model, options)) for name in tasks}
    for task in loaded.values():
        task.check()
    written: dict[str, str] = {}
    with new_folder(folder) as unfinished:
        for name, task in loaded.items():
            conversations = [task.conversation(index) for index in range(len(task))]
            rows = _rows(describe_task(name, model, options), conversations)
            mode = "edit" if task.mode == "image" and conversations[0].images else MODES[task.mode]
            names = _metric_names(task, conversations[0])
            written |= _write(unfinished, task, _DEFINITION, mode, rows, names, _FEATURES)
            if name == CHOICE_TASK:
                choices = [{**row, "choices": _vocabulary(row["answer"])} for row in rows]
                features = {**_FEATURES, "choices": List(_TEXT)}
                written |= _write(unfinished, task, _CHOICE_DEFINITION, mode, choices, ["acc"], features, "_choice")
    return written


def _rows(description: str, conversations: Sequence[Conversation]) -> list[dict[str, Any]]:
    """
    Returns the documents of a task.

    Raises:
        ValueError: if a video is continued, for which tasks of lmms-eval have no form.
    """
    if conversations[0].first_frames:
        raise ValueError(f"a task of lmms-eval cannot give first frames of a video, as {description} does.")
    return [
        {
            "task": description,
            "index": index,
            "prompt": conversation.prompt,
            "messages": json.dumps(conversation.messages),
            "images": conversation.images,
            "answer": str(conversation.reference),
        }
        for index, conversation in enumerate(conversations)
    ]


def _write(
    folder: Path,
    task: ConversationTask,
    definition: str,
    mode: str,
    rows: list[dict[str, Any]],
    metrics: Sequence[str],
    features: Mapping[str, Any],
    suffix: str = "",
) -> dict[str, str]:
    """Writes definition and data of one task, and returns its name and mode."""
    name = f"vilau_{task.name}{suffix}".replace("-", "_")
    Dataset.from_list(rows, features=Features(features)).to_parquet(folder / f"{name}.parquet")
    text = definition.format(
        name=name,
        description=task.description,
        mode_key=MODE_KEY,
        mode=mode,
        functions=_FUNCTIONS,
        max_new_tokens=task.max_new_tokens,
        metrics="\n".join(_METRIC.format(name=metric) for metric in metrics),
    )
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return {name: mode}


def _metric_names(task: ConversationTask, conversation: Conversation) -> list[str]:
    """Returns the names of a task's metrics, from the scores of an empty answer or a black image."""
    side = task.model.image_size
    output: Any = [""]
    if task.mode == "image":
        output = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    elif task.mode == "video":
        output = torch.zeros(1, task.model.num_frames, 3, side, side, dtype=torch.uint8)
    (row,) = task.score([conversation], output)
    return list(row)


def _vocabulary(answer: str) -> list[str]:
    """Returns the words of the attribute that an answer names. No word names two attributes."""
    return next(words for words in VOCABULARIES if answer in words)


__all__ = ["DEFAULT_TASKS", "write_lmms_tasks"]
