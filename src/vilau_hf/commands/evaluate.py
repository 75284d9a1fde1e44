"""`vilau evaluate`."""

import argparse
import json
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
        "of a dataset with images and labels; for vqa: .jsonl file with image, question and answers in each line, or "
        "Hub id",
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
        "--lmms-args", default="", metavar="TEXT", help="further arguments of lmms-eval for tasks such as lmms:gqa"
    )


def run(args: argparse.Namespace) -> None:
    """Runs the tasks in each launched process, and prints a table of scores in the main process."""
    from ..data.code_cache import launched_processes
    from ..evaluation.evaluated_model import EvaluatedModel
    from ..evaluation.lmms_run import LMMS_PREFIX, require_lmms_eval
    from ..evaluation.run_tasks import RESULTS_NAME, run_tasks
    from ..evaluation.task import TaskOptions
    from ..evaluation_tasks import make_tasks, task_class
    from ..files import read_json

    names = [name for name in args.tasks if not name.startswith(LMMS_PREFIX)]
    of_lmms_eval = [name.removeprefix(LMMS_PREFIX) for name in args.tasks if name.startswith(LMMS_PREFIX)]
    for name in names:
        task_class(name)  # before the model is read
    if of_lmms_eval:
        require_lmms_eval()
    state = launched_processes()
    values = {name: getattr(args, name) for name in OPTIONS}
    values["generation"] = parse_settings(args.generation)
    if args.metrics is not None:
        values["metrics"] = tuple(args.metrics)
    options = TaskOptions(**values)
    if names:
        default = TaskOptions()
        given = [name for name in values if values[name] != getattr(default, name)]
        model = EvaluatedModel(args.model, args.tower, args.processor, state.device, args.dtype)
        tasks = make_tasks(names, model, options, given)
        run_tasks(tasks, args.out, args.batch_size, _print_nothing if args.json else _print_scores)
    if of_lmms_eval:
        _run_lmms_eval(args, of_lmms_eval, values["generation"], state.is_main_process)
    if state.is_main_process and args.json:
        print(json.dumps(read_json(args.out / RESULTS_NAME), ensure_ascii=False))
    elif state.is_main_process:
        print(f"Written to {(args.out / RESULTS_NAME).resolve()}")


def _run_lmms_eval(
    args: argparse.Namespace, names: list[str], generation: dict[str, Any], is_main_process: bool
) -> None:
    """Runs tasks of lmms-eval, and adds their scores to those of the other tasks."""
    from ..evaluation.lmms_run import FOLDER_NAME, lmms_arguments, run_lmms_eval
    from ..evaluation.run_tasks import add_results

    out = args.out / FOLDER_NAME
    model_args = {"pretrained": args.model, "dtype": args.dtype, "seed": args.seed, **generation}
    arguments = lmms_arguments(names, model_args, out, args.batch_size, args.samples, args.lmms_args.split())
    entries = run_lmms_eval(arguments, out, is_main_process)
    if is_main_process:
        add_results(args.out, entries)
        if args.json:
            return
        for name, entry in entries.items():
            _print_scores(name, entry)


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
