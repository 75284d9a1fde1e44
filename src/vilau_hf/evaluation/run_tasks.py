"""Runs evaluation tasks: in batches, on several processes, with resume, and with one JSON file of all results."""

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from PIL import Image, ImageSequence
from tqdm.auto import tqdm

from ..data.code_cache import launched_processes
from ..environment import describe_environment
from ..files import read_json, write_then_rename
from ..modeling.argument_checks_vilau import PositiveInt, check_value
from .intervals import Score
from .result_files import ResultFolder, json_number
from .sheets import beside, contact_sheet
from .task import EvaluationTask, StoredResult


RESULTS_NAME = "results.json"
SHEET_NAME = "sheet.png"
NUM_SHOWN = 24
# packages whose versions must be the same in a resumed run
VERSIONS = ("torch", "transformers")


def run_tasks(
    tasks: Sequence[EvaluationTask],
    out: Path,
    batch_size: int = 16,
    on_task: Callable[[str, dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """
    Runs tasks. Every launched process calls it, and each computes a share of the samples.

    A sample that is finished in `out` is not computed again. So the same call continues an interrupted run.

    Args:
        tasks (`Sequence[EvaluationTask]`): the tasks.
        out (`Path`): output folder. Each task has a subfolder, and `results.json` has the scores of all.
        batch_size (`int`, *optional*, defaults to 16): samples in a batch. The results do not depend on it.
        on_task (`Callable[[str, dict], object]`, *optional*): called in the main process with name and results of
            each finished task.

    Returns:
        The content of `results.json`: name of a task -> scores, settings, environment and seconds, also of earlier
        tasks in `out`. It is empty in other processes than the main one.

    Raises:
        ValueError: if `out` has results of a run with other settings, or a task does not fit its model or data.
    """
    check_value("batch_size", batch_size, PositiveInt)
    state = launched_processes()
    # All checks are made before the first task runs, which can take hours.
    for task in tasks:
        task.check()
    content: dict[str, Any] = {"tasks": {}}
    for task in tasks:
        results = _run_task(task, out / task.name, batch_size, state)
        if not state.is_main_process:
            continue
        content = add_results(out, {task.name: results})
        if on_task is not None:
            on_task(task.name, results)
    return content if state.is_main_process else {}


def add_results(out: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    """
    Adds results of tasks to `results.json` in a folder. Only one process may call it.

    Args:
        out (`Path`): the folder.
        entries (`Mapping[str, Any]`): name of a task -> its results. They replace earlier results of the same task.

    Returns:
        The new content of the file.
    """
    path = out / RESULTS_NAME
    content: dict[str, Any] = read_json(path) if path.is_file() else {"tasks": {}}
    content["tasks"].update(entries)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_then_rename(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
    return content


def _run_task(task: EvaluationTask, folder: Path, batch_size: int, state: PartialState) -> dict[str, Any]:
    """Computes the missing samples of a task, and returns its entry of `results.json` in the main process."""
    files = ResultFolder(folder, state.process_index)
    environment: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if state.is_main_process:
        environment = describe_environment()
        settings = _all_settings(task, environment)
        files.begin(settings)
    # The folder must exist before another process reads it.
    state.wait_for_everyone()
    finished = files.read()
    missing = [index for index in range(len(task)) if index not in finished]
    # All processes list the missing samples before one adds a result, so that they divide the same list.
    state.wait_for_everyone()
    files.repair()
    _run_samples(task, files, missing[state.process_index :: state.num_processes], batch_size, state)
    state.wait_for_everyone()
    if not state.is_main_process:
        return {}
    began = time.perf_counter()
    results = list(files.read().values())
    scores = task.summarize(results)
    sheet = draw_sheet(task, results)
    if sheet is not None:
        write_then_rename(folder / SHEET_NAME, lambda path: sheet.save(path, format="png", optimize=True))
    return {
        "description": task.description,
        "scores": {name: score_to_json(score) for name, score in scores.items()},
        "settings": settings,
        "environment": {**environment, "processor": platform.processor() or platform.machine()},
        "num_processes": state.num_processes,
        "seconds": {
            "samples": round(sum(result.seconds for result in results), 1),
            "summary": round(time.perf_counter() - began, 1),
        },
    }


def _all_settings(task: EvaluationTask, environment: dict[str, Any]) -> dict[str, Any]:
    """Returns everything that the results depend on, which a resumed run must not change."""
    versions = {name: environment["packages"][name] for name in VERSIONS}
    return {
        **task.settings(),
        "model": task.model.describe(),
        "versions": {"vilau_hf": environment["vilau_hf"], **versions},
    }


def _run_samples(
    task: EvaluationTask, files: ResultFolder, indices: Sequence[int], batch_size: int, state: PartialState
) -> None:
    # `None` shows the bar in terminals alone, so that logs have none.
    disable = None if state.is_main_process else True
    with tqdm(total=len(indices), desc=task.name, unit="sample", disable=disable) as progress:
        for begin in range(0, len(indices), batch_size):
            batch = indices[begin : begin + batch_size]
            began = time.perf_counter()
            with torch.no_grad():
                results = task.run(batch)
            files.write(results, time.perf_counter() - began)
            progress.update(len(batch))


def score_to_json(score: Score | float) -> dict[str, Any] | float | None:
    """Returns a score as a value for JSON. NaN and infinite numbers become `None`, which is `null` in JSON."""
    if isinstance(score, Score):
        ends = {name: json_number(getattr(score, name)) for name in ("value", "low", "high")}
        return {**ends, "count": score.count}
    return json_number(score)


def draw_sheet(task: EvaluationTask, results: Sequence[StoredResult]) -> Image.Image | None:
    """
    Draws a contact sheet of the first samples with images.

    Args:
        task ([`EvaluationTask`]): tells the captions, and the metric that gives a green or a red frame.
        results (`Sequence[StoredResult]`): the results.

    Returns:
        The sheet; `None` if no sample has an image.
    """
    shown = [result for result in results if result.media][:NUM_SHOWN]
    if not shown:
        return None
    strips = [_strip(list(result.media.values())) for result in shown]
    width = max(strip.width for strip in strips)
    # a sheet has images of one size
    padded = []
    for strip in strips:
        image = Image.new("RGB", (width, max(each.height for each in strips)), (255, 255, 255))
        image.paste(strip, (0, 0))
        padded.append(image)
    right = None if task.right is None else [bool(result.metrics.get(task.right)) for result in shown]
    columns = max(1, 1200 // width)
    return contact_sheet(padded, [task.caption(result) for result in shown], right, columns)


def _strip(files: Sequence[Path]) -> Image.Image:
    """Joins the images and frames of one sample, each at least 96 pixels high."""
    frames = []
    for file in files:
        with Image.open(file) as image:
            frames += [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]
    side = max(96, frames[0].height)
    strip: Image.Image | None = None
    for frame in frames:
        resized = frame.resize((frame.width * side // frame.height, side), Image.Resampling.NEAREST)
        strip = resized if strip is None else beside(strip, resized)
    if strip is None:
        raise ValueError("`files` must name at least one image, got none.")
    return strip


__all__ = ["NUM_SHOWN", "RESULTS_NAME", "SHEET_NAME", "add_results", "draw_sheet", "run_tasks", "score_to_json"]
