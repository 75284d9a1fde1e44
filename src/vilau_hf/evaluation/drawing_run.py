"""Draws all prompts of a benchmark into its layout: resumable, on several processes, with its settings beside it."""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from accelerate import PartialState
from PIL import Image
from tqdm.auto import tqdm

from ..data.code_cache import launched_processes
from ..files import first_five, read_json
from ..modeling.argument_checks_vilau import PositiveInt, check_value
from ..pipelines import VilaUPipeline
from .benchmark_layouts import Layout, PlannedFile
from .drawing_settings import DrawingOptions, check_prompt_lengths, describe_drawing
from .media_files import image_grid, save_image, save_video
from .prompt_files import Prompt


SETTINGS_NAME = "settings.json"
METADATA_NAME = "metadata.jsonl"
# Names of unfinished files, so that what a killed process left can be told from files of a user.
_UNFINISHED = re.compile(r"[0-9a-f]{32}\.unfinished")
# Processes wait for the slowest one. The default of gloo is half an hour, but a run can take days.
_LONGEST_WAIT = timedelta(days=30)


@dataclass(frozen=True)
class DrawingReport:
    """
    Counts the files of a finished run.

    Args:
        folder (`Path`): the folder that the scorer reads.
        num_files (`int`): its images, grids or videos.
        num_drawn (`int`): those that this process drew in this call.
    """

    folder: Path
    num_files: int
    num_drawn: int


@dataclass(frozen=True)
class _Drawing:
    """One file that is to be drawn, with its prompt."""

    index: int
    prompt: Prompt
    file: PlannedFile


def draw_prompts(
    pipe: VilaUPipeline,
    prompts: Sequence[Prompt],
    layout: Layout,
    out: str | Path,
    options: DrawingOptions,
    model: Mapping[str, Any],
    batch_size: int = 8,
) -> DrawingReport:
    """
    Draws prompts into the layout of a benchmark. Each launched process calls it and draws a share of the files.

    All processes must see the same folder. After an interruption, the same call with any number of processes draws
    the files that are missing. Files are complete or absent. The files are those of an uninterrupted run of one
    process: exactly in float32, and up to rounding in other dtypes, which depends on the batch.

    Args:
        pipe ([`VilaUPipeline`]): the pipeline that draws.
        prompts (`Sequence[Prompt]`): the prompts, see [`read_prompts`].
        layout ([`Layout`]): the layout, see [`get_layout`].
        out (`str` or `Path`): a new or empty folder, or the folder of an interrupted run with the same settings.
        options ([`DrawingOptions`]): what is drawn.
        model (`Mapping[str, Any]`): name and identity of the model, from `describe_checkpoint`.
        batch_size (`int`, *optional*, defaults to 8): images that are drawn at once.

    Returns:
        [`DrawingReport`] of this process, after all processes have finished.

    Raises:
        ValueError: before anything is drawn, if a prompt or an option does not fit, or if the folder was begun with
            other settings.
    """
    out = Path(out)
    check_value("batch_size", batch_size, PositiveInt)
    num_images = layout.num_samples if options.num_images is None else options.num_images
    layout.check(num_images, options.is_video)
    prompts = layout.select(prompts)
    check_seeds(options.seed, len(prompts) * num_images)
    arguments = options.pipeline_arguments(pipe)
    state = launched_processes()
    folder = DrawingFolder(out, layout)
    if state.is_main_process:
        check_prompt_lengths(pipe, prompts, options)
        run = {"batch_size": batch_size, "num_processes": state.num_processes}
        folder.begin(describe_drawing(pipe, prompts, layout, options, model), run)
    with _all_processes(state) as wait_for_all:
        # `begin` deletes unfinished files, so no process may write before it has ended.
        wait_for_all()
        plan = [
            _Drawing(index, prompt, file)
            for index, prompt in enumerate(prompts)
            for file in layout.files(index, prompt, num_images)
        ]
        # All processes list the missing files before any process writes, so that they divide the same list.
        missing = [drawing for drawing in plan if not folder.has(drawing)]
        wait_for_all()
        share = missing[state.process_index :: state.num_processes]

        def draw(rows: list[tuple[_Drawing, int]]) -> list:
            seeds = [options.seed + drawing.index * num_images + sample for drawing, sample in rows]
            return draw_rows(pipe, [drawing.prompt.text for drawing, _ in rows], seeds, arguments)

        _draw_files(share, folder, draw, batch_size, show_progress=state.is_main_process)
        wait_for_all()
        if state.is_main_process and layout.name == "plain":
            folder.write_metadata(plan, options.seed, num_images)
    return DrawingReport(out / layout.scorer_folder, len(plan), len(share))


def draw_rows(pipe: VilaUPipeline, prompts: list[str], seeds: list[int], arguments: Mapping[str, Any]) -> list:
    """
    Draws an image or a video for each prompt, each with its seed.

    Args:
        pipe ([`VilaUPipeline`]): the pipeline that draws.
        prompts (`list[str]`): N prompts.
        seeds (`list[int]`): N seeds.
        arguments (`Mapping[str, Any]`): further arguments of the pipeline.

    Returns:
        N images, or N lists of frames.
    """
    # On the device of the model: numbers from the CPU would be copied at each visual position.
    generators = [torch.Generator(pipe.model.device).manual_seed(seed) for seed in seeds]
    result: Any = pipe(prompts, generator=generators, return_dict=False, **arguments)
    return result[0]


def check_seeds(seed: int, number: int) -> None:
    """
    Checks that all seeds from `seed` fit into 64 bits.

    Args:
        seed (`int`): the first seed.
        number (`int`): how many seeds are used.

    Raises:
        ValueError: if one does not.
    """
    if not 0 <= seed <= seed + number <= 2**63:
        raise ValueError(f"`seed` must be from 0 to 2^63 - {number}, got {seed}.")


def _draw_files(
    drawings: Sequence[_Drawing],
    folder: "DrawingFolder",
    draw: Callable[[list[tuple[_Drawing, int]]], list],
    batch_size: int,
    show_progress: bool,
) -> None:
    """Draws the samples of all files in batches, and writes each file when its last sample is there."""
    rows = [(drawing, sample) for drawing in drawings for sample in drawing.file.samples]
    waiting: list = []
    # `None` shows the bar in terminals alone, so that logs have none.
    with tqdm(total=len(rows), unit="image", disable=None if show_progress else True) as progress:
        for begin in range(0, len(rows), batch_size):
            batch = rows[begin : begin + batch_size]
            for (drawing, sample), result in zip(batch, draw(batch), strict=True):
                waiting.append(result)
                if sample == drawing.file.samples[-1]:
                    folder.write(drawing, waiting)
                    waiting = []
            progress.update(len(batch))


@contextlib.contextmanager
def _all_processes(state: PartialState) -> Iterator[Callable[[], object]]:
    """Yields a function that waits for all processes."""
    if state.num_processes == 1:
        yield lambda: None
        return
    # With gloo, since NCCL ends a process that waits for ten minutes.
    group: Any = torch.distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT)
    yield lambda: torch.distributed.barrier(group)


class DrawingFolder:
    """
    The output folder of a run.

    Args:
        folder (`Path`): the folder.
        layout ([`Layout`]): its layout.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout

    def begin(self, settings: dict[str, Any], run: dict[str, Any]) -> None:
        """
        Writes the settings, or compares them with those of an interrupted run. Call it in one process.

        Args:
            settings (`dict[str, Any]`): all that the files depend on.
            run (`dict[str, Any]`): further facts about the run, which are stored and not compared.

        Raises:
            ValueError: if the interrupted run had other settings, or the folder has other files.
        """
        self.check_usable()
        self.folder.mkdir(parents=True, exist_ok=True)
        # A folder with nothing but settings has no file that was drawn with them, for example after an error.
        is_begun = bool(self._names() - {SETTINGS_NAME})
        if is_begun:
            self._check_same(read_json(self.folder / SETTINGS_NAME), settings)
        # Only after the checks, so that nothing is deleted from a folder that is refused.
        for path in self.folder.iterdir():
            if _UNFINISHED.fullmatch(path.name):
                path.unlink()
        if not is_begun:
            text = json.dumps({**settings, "run": run}, indent=2, ensure_ascii=False) + "\n"
            self._write_text(SETTINGS_NAME, text)

    def check_usable(self) -> None:
        """
        Checks that the folder is new or empty, or of an interrupted run.

        Raises:
            ValueError: if it has other files.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"`out` must be a folder, got {self.folder}, which is a file.")
        names = self._names()
        if names and SETTINGS_NAME not in names:
            raise ValueError(
                f"`out` ({self.folder}) has {first_five(names)} and no {SETTINGS_NAME}: choose a new folder."
            )

    def _names(self) -> set[str]:
        """Returns the names in the folder, without unfinished files."""
        if not self.folder.is_dir():
            return set()
        return {path.name for path in self.folder.iterdir() if not _UNFINISHED.fullmatch(path.name)}

    def _check_same(self, begun: dict[str, Any], given: dict[str, Any]) -> None:
        """Compares the settings of an interrupted run with those of this run."""
        old = dict(_leaves(begun))
        new = dict(_leaves(given))
        for name in sorted({**old, **new}):
            # Neither the run nor the name of a model changes a file: a folder may have moved.
            if name.split(".")[0] == "run" or name in ("model.name", "model.tower.name", "seeds"):
                continue
            if old.get(name) != new.get(name):
                raise ValueError(
                    f"{self.folder} was begun with `{name}` {old.get(name)!r}, not {new.get(name)!r}. Choose another "
                    "folder, or the settings that it was begun with."
                )

    def has(self, drawing: _Drawing) -> bool:
        """
        Returns whether a file and the text files of its prompt are there.

        Args:
            drawing: the file.
        """
        paths = [drawing.file.path, *self.layout.texts(drawing.index, drawing.prompt)]
        return all((self.folder / path).is_file() for path in paths)

    def write(self, drawing: _Drawing, results: Sequence[Any]) -> None:
        """
        Writes a file, after the text files of its prompt.

        Args:
            drawing: the file.
            results (`Sequence[PIL.Image.Image]` or `Sequence[list[PIL.Image.Image]]`): its images or its video.
        """
        for path, text in self.layout.texts(drawing.index, drawing.prompt).items():
            if not (self.folder / path).is_file():
                self._write_text(path, text)
        suffix = PurePosixPath(drawing.file.path).suffix
        if not isinstance(results[0], Image.Image):
            self._write(drawing.file.path, lambda path: save_video(results[0], path, suffix))
            return
        image = results[0] if len(results) == 1 else image_grid(list(results), columns=2)
        self._write(drawing.file.path, lambda path: save_image(image, path, suffix))

    def write_metadata(self, plan: Sequence[_Drawing], seed: int, num_images: int) -> None:
        """
        Writes file name, prompt and seed of all files, as the loaders `imagefolder` and `videofolder` read them.

        Args:
            plan: all files.
            seed (`int`): seed of the first image.
            num_images (`int`): images of each prompt.
        """
        lines = []
        for drawing in plan:
            number = seed + drawing.index * num_images + drawing.file.samples[0]
            line = {"file_name": drawing.file.path, "text": drawing.prompt.text, "seed": number}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        self._write_text(METADATA_NAME, "".join(lines))

    def _write_text(self, path: str, text: str) -> None:
        self._write(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))

    def _write(self, path: str, write: Callable[[Path], object]) -> None:
        """Writes a file atomically."""
        # Not `files.write_then_rename`: its temporary file is beside the file, where a scorer would find what a killed
        # process left. Its name is also longer, and names of VBench can have the largest length.
        unfinished = self.folder / f"{uuid.uuid4().hex}.unfinished"
        try:
            write(unfinished)
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(unfinished, self.folder / path)
        finally:
            unfinished.unlink(missing_ok=True)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values of nested dictionaries, with names such as `model.dtype`."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, each in value.items():
        yield from _leaves(each, f"{name}.{key}" if name else key)


__all__ = [
    "METADATA_NAME",
    "SETTINGS_NAME",
    "DrawingFolder",
    "DrawingReport",
    "check_seeds",
    "draw_prompts",
    "draw_rows",
]
