"""`vilau evaluate`."""

import argparse
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import TINY_CHECKPOINT
from ..choices import EVALUATION_TASKS


HELP = "measure a model by tasks, with intervals of confidence; resumable, on one or several processes"
# options of the command that are fields of `TaskOptions`
OPTIONS = (
    "samples",
    "seed",
    "data",
    "split",
    "classes",
    "templates",
    "instruction",
    "prompts",
    "reference",
    "features",
    "judge",
    "records",
    "download_metric_weights",
)
# those that the adapter for lmms-eval uses, too
USED_BY_LMMS_EVAL = ("samples", "seed", "generation")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.epilog = (
        f"The tasks are {', '.join(EVALUATION_TASKS)}, and lmms:NAME for a task of lmms-eval. On several GPUs: "
        "accelerate launch -m vilau_hf.cli evaluate TASK --out DIR. After an interruption, the same command continues "
        "the run."
    )
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="name of a task (see below)")
    parser.add_argument(
        "--model",
        default=TINY_CHECKPOINT,
        help="folder or Hub id of the model or vision tower (default: the shipped checkpoint)",
    )
    parser.add_argument("--processor", help="folder or Hub id of the processor (default: the processor of the model)")
    parser.add_argument(
        "--tower",
        help="folder or Hub id of the vision tower with its text encoder (default: the subfolder tower of the model)",
    )
    parser.add_argument("--out", type=Path, required=True, help="output folder: new, or from an interrupted run")
    parser.add_argument("--samples", type=int, help="number of samples of each task (default: the number of the task)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of sampling: sample i has seed + i (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=16,
        help="number of samples in a batch; it does not change the scores (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="dtype of the weights (default: %(default)s, the dtype of the checkpoint)",
    )
    parser.add_argument(
        "--data",
        help="for reconstruction, rfid and zero-shot: folder with one subfolder of images for each class, or Hub id "
        "of a dataset with images and labels; for vqa: .jsonl file with image or video, question and answers in each "
        "line, or Hub id",
    )
    parser.add_argument("--split", help="subfolder of the data, or split of a Hub dataset (default: validation)")
    parser.add_argument(
        "--classes", metavar="FILE", help="names of the classes, one a line in the order of the labels (zero-shot)"
    )
    parser.add_argument(
        "--templates",
        metavar="FILE",
        help="texts with {} for the name of a class, one a line (zero-shot; default: a photo of a {}.)",
    )
    parser.add_argument("--instruction", metavar="TEXT", help="text in a new line after each question (vqa)")
    parser.add_argument("--prompts", metavar="FILE", help=".txt, .jsonl, .csv or .json file of prompts (fid)")
    parser.add_argument("--reference", metavar="DIR", help="folder of real images, also in subfolders (fid)")
    parser.add_argument(
        "--features",
        metavar="NETWORK",
        help="network whose features give FID and KID: inception, tower or judge; the last two need no download "
        "(fid and rfid; default: inception)",
    )
    parser.add_argument("--judge", metavar="DIR", help="folder of the judge of emoji")
    parser.add_argument(
        "--records", metavar="DIR", help="records of vilau records emoji (default: the few that are shipped)"
    )
    parser.add_argument(
        "--metrics", nargs="+", metavar="METRIC", help="metrics of reconstructions: psnr, ssim, lpips (default: all)"
    )
    parser.add_argument(
        "--download-metric-weights",
        action="store_true",
        help="download missing weights of metric networks (default: an error with their address)",
    )
    parser.add_argument(
        "--generation",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="generation settings that replace those of the model, for example visual_guidance_scale=3",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the content of results.json on one line instead of tables"
    )
    parser.add_argument(
        "--lmms-args",
        default="",
        metavar="TEXT",
        help='further arguments of lmms-eval for tasks such as lmms:gqa, for example "--include_path DIR" with the '
        "folder of vilau lmms-tasks",
    )


def run(args: argparse.Namespace) -> None:
    """Runs the tasks in each launched process, and prints a table of scores in the main process."""
    from ..data.code_cache import launched_processes
    from ..evaluation.evaluated_model import EvaluatedModel
    from ..evaluation.lmms_run import LMMS_PREFIX
    from ..evaluation.run_tasks import RESULTS_NAME, run_tasks
    from ..evaluation.task import TaskOptions
    from ..evaluation_tasks import make_tasks, task_class
    from ..files import read_json

    names = [name for name in args.tasks if not name.startswith(LMMS_PREFIX)]
    of_lmms_eval = [name.removeprefix(LMMS_PREFIX) for name in args.tasks if name.startswith(LMMS_PREFIX)]
    values = {name: getattr(args, name) for name in OPTIONS}
    values["generation"] = parse_settings(args.generation)
    if args.metrics is not None:
        values["metrics"] = tuple(args.metrics)
    options = TaskOptions(**values)
    default = TaskOptions()
    given = [name for name in values if values[name] != getattr(default, name)]
    # All names and settings are checked before a model is read.
    for name in names:
        task_class(name)
    arguments: list[str] = []
    if of_lmms_eval:
        if not names:
            _reject_unused(args, given)
        arguments = _lmms_arguments(args, of_lmms_eval, options.generation)
    state = launched_processes()
    if names:
        model = EvaluatedModel(args.model, args.tower, args.processor, state.device, args.dtype)
        tasks = make_tasks(names, model, options, given)
        run_tasks(tasks, args.out, args.batch_size, _print_nothing if args.json else _print_scores)
    if of_lmms_eval:
        _run_lmms_eval(args.out, arguments, state.is_main_process, _print_nothing if args.json else _print_scores)
    if state.is_main_process and args.json:
        print(json.dumps(read_json(args.out / RESULTS_NAME), ensure_ascii=False))
    elif state.is_main_process:
        print(f"Written to {(args.out / RESULTS_NAME).resolve()}")


def _reject_unused(args: argparse.Namespace, given: list[str]) -> None:
    """Raises a `ValueError` for options that tasks of lmms-eval do not use."""
    unused = [name for name in given if name not in USED_BY_LMMS_EVAL]
    unused += [name for name in ("tower", "processor") if getattr(args, name) is not None]
    if unused:
        flags = ", ".join(f"`--{name.replace('_', '-')}`" for name in unused)
        raise ValueError(f"tasks of lmms-eval do not use {flags}. They use {', '.join(USED_BY_LMMS_EVAL)}.")


def _lmms_arguments(args: argparse.Namespace, names: list[str], generation: Mapping[str, Any]) -> list[str]:
    """
    Returns the arguments of the command of lmms-eval.

    Raises:
        ImportError: if lmms-eval is not installed.
        ValueError: if a task, a setting or a folder does not fit. It is raised before a model is loaded.
    """
    from ..evaluation.lmms_run import FOLDER_NAME, lmms_arguments, require_lmms_eval
    from ..integrations.lmms_modes import choose_mode, find_modes
    from ..integrations.lmms_settings import AdapterSettings

    require_lmms_eval()
    try:
        further = shlex.split(args.lmms_args)
    except ValueError as error:
        raise ValueError(f"`--lmms-args` cannot be split into arguments ({error}): {args.lmms_args!r}.") from error
    out = args.out / FOLDER_NAME
    flags = {"pretrained": args.model, "dtype": args.dtype, "seed": args.seed}
    # null is the default of the adapter, whose text form would be another value.
    chosen = {name: value for name, value in generation.items() if value is not None}
    for name, value in flags.items():
        if chosen.get(name, value) != value:
            flag = "model" if name == "pretrained" else name
            raise ValueError(f"`--generation {name}={chosen[name]}` contradicts `--{flag} {value}`.")
    # A folder for each mode of the user, since the outputs in it must have been made with the same settings.
    name = "outputs" if "mode" not in chosen else f"outputs-{chosen['mode']}"
    folder = Path(chosen.pop("output_dir", out / name))
    if not folder.resolve().is_relative_to(args.out.resolve()):
        raise ValueError(f"`output_dir` must be in the folder of `--out`, {str(args.out)!r}, got {str(folder)!r}.")
    model_args = {**flags, **chosen}
    settings = AdapterSettings.from_arguments(model_args)
    names = [each for name in names for each in name.split(",")]
    for task, named in find_modes(names, _include_path(further)).items():
        settings.check_image_guidance(choose_mode(task, named, settings.mode))
    return lmms_arguments(names, {**model_args, "output_dir": folder}, out, args.batch_size, args.samples, further)


def _include_path(further: list[str]) -> str | None:
    """Returns the folder of tasks in the arguments of lmms-eval."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--include_path")
    return parser.parse_known_args(further)[0].include_path


def _run_lmms_eval(
    out: Path, arguments: list[str], is_main_process: bool, report: Callable[[str, dict[str, Any]], None]
) -> None:
    """Runs tasks of lmms-eval, adds their scores to those of the other tasks, and reports them."""
    from ..evaluation.lmms_run import FOLDER_NAME, run_lmms_eval
    from ..evaluation.run_tasks import add_results

    entries = run_lmms_eval(arguments, out / FOLDER_NAME, is_main_process)
    if is_main_process:
        add_results(out, entries)
        for name, entry in entries.items():
            report(name, entry)


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """
    Parses generation settings of the command line.

    Args:
        settings (`list[str]`): settings such as `"visual_guidance_scale=3"`. A value that is not JSON is a string.

    Raises:
        ValueError: for a setting without `=`.
    """
    parsed = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not name or not sign:
            raise ValueError(f"`--generation` takes settings such as visual_top_p=0.9, got {setting!r}.")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed


def _print_nothing(name: str, results: dict[str, Any]) -> None:
    """Prints no scores of a task, because the scores of all tasks are printed at the end."""


def _print_scores(name: str, results: dict[str, Any]) -> None:
    seconds = results["seconds"]["samples"] + results["seconds"]["summary"]
    print(f"{name}: {results['settings']['samples']} samples, {seconds:.0f} s")
    for metric, score in results["scores"].items():
        print(f"  {metric:<28} {format_score(score)}", flush=True)


def format_score(score: dict[str, Any] | float | None) -> str:
    """Returns a score of `results.json` as text: the value, with its interval if it has one."""
    if not isinstance(score, dict):
        return "undefined" if score is None else f"{score:.4f}"
    if score["value"] is None:
        return f"undefined, n = {score['count']}"
    return f"{score['value']:.4f} [{score['low']:.4f}, {score['high']:.4f}], n = {score['count']}"
