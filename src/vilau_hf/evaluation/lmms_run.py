"""Runs tasks of lmms-eval by name, with the adapter of this package, and reads their results."""

import importlib.util
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

from ..data.code_cache import launched_processes
from ..environment import describe_environment
from ..files import read_json
from .intervals import CONFIDENCE, Score
from .run_tasks import score_to_json


# Begins the name of a task of lmms-eval in `vilau evaluate`.
LMMS_PREFIX = "lmms:"
FOLDER_NAME = "lmms-eval"


def require_lmms_eval() -> None:
    """
    Checks that lmms-eval is installed.

    Raises:
        ImportError: if it is missing. The message names the command that installs it.
    """
    if importlib.util.find_spec("lmms_eval") is None:
        raise ImportError(f'tasks such as {LMMS_PREFIX}gqa need lmms-eval: `pip install "vilau_hf[evaluation]"`.')


def lmms_arguments(
    names: Sequence[str],
    model_args: Mapping[str, Any],
    out: Path,
    batch_size: int = 1,
    samples: int | None = None,
    further: Sequence[str] = (),
) -> list[str]:
    """
    Returns the arguments of the command of lmms-eval.

    Args:
        names (`Sequence[str]`): names of tasks of lmms-eval.
        model_args (`Mapping[str, Any]`): arguments of the adapter, such as `pretrained` and `seed`.
        out (`Path`): folder for results and outputs.
        batch_size (`int`, *optional*, defaults to 1): documents in a batch.
        samples (`int`, *optional*): documents of each task (default: all).
        further (`Sequence[str]`, *optional*): further arguments of lmms-eval.

    Raises:
        ValueError: if a value has a comma, which separates the values for lmms-eval.
    """
    for name, value in model_args.items():
        if "," in str(value):
            raise ValueError(f"`{name}` must have no comma for a task of lmms-eval, got {value!r}.")
    arguments = ["--model", "vilau", "--tasks", ",".join(names), "--batch_size", str(batch_size)]
    arguments += ["--model_args", ",".join(f"{name}={value}" for name, value in model_args.items())]
    arguments += ["--output_path", str(out), "--log_samples"]
    if samples is not None:
        arguments += ["--limit", str(samples)]
    return [*arguments, *further]


def run_lmms_eval(arguments: Sequence[str], out: Path, is_main_process: bool) -> dict[str, dict[str, Any]]:
    """
    Runs lmms-eval in this process, and reads the results that it writes.

    Args:
        arguments (`Sequence[str]`): arguments of its command, as [`lmms_arguments`] returns them.
        out (`Path`): the folder of its results.
        is_main_process (`bool`): whether this process writes the results.

    Returns:
        Name of each task, with `LMMS_PREFIX` -> its entry of `results.json`; empty in other processes.

    Raises:
        ImportError: if lmms-eval is not installed.
        ValueError: if lmms-eval has written no results. It prints the reason.
    """
    require_lmms_eval()
    from lmms_eval.__main__ import cli_evaluate

    before = set(out.rglob("*_results.json"))
    given = sys.argv
    # In this process, because lmms-eval then uses the launched processes. Its function reads `sys.argv`.
    sys.argv = ["lmms_eval", *arguments]
    try:
        cli_evaluate()
    finally:
        sys.argv = given
    if not is_main_process:
        return {}
    # lmms-eval prints errors of an evaluation and then ends as if there had been none (0.7.3, `__main__.py`).
    written = sorted(set(out.rglob("*_results.json")) - before)
    if not written:
        raise ValueError("lmms-eval has written no results. It has printed the reason above.")
    return read_lmms_results(read_json(written[-1]), arguments)


def read_lmms_results(content: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """
    Converts the results of lmms-eval to entries of `results.json`.

    Args:
        content (`Mapping[str, Any]`): the content of its file.
        arguments (`Sequence[str]`): arguments of its command, which become the settings.

    Returns:
        Name of each task, with `LMMS_PREFIX` -> scores, settings and environment, as those of other tasks. A score
        has an interval if lmms-eval gives its standard error.
    """
    environment = {**describe_environment(), "processor": platform.processor() or platform.machine()}
    num_processes = launched_processes().num_processes
    entries = {}
    for name, values in content["results"].items():
        count = content.get("n-samples", {}).get(name, {}).get("effective", 0)
        scores = {}
        for key, value in values.items():
            metric, _, filtered = key.partition(",")
            # `acc_stderr,none` and `acc_stderr_clt,none` are standard errors of `acc,none`.
            if isinstance(value, int | float) and "_stderr" not in metric:
                error = values.get(f"{metric}_stderr,{filtered}")
                scores[metric] = score_to_json(_with_error(float(value), error, count))
        entries[f"{LMMS_PREFIX}{name}"] = {
            "description": f"task {name} of lmms-eval",
            "scores": scores,
            "settings": {"samples": count, "arguments": list(arguments)},
            "environment": environment,
            "num_processes": num_processes,
            "seconds": {"samples": float(content.get("total_evaluation_time_seconds") or 0), "summary": 0.0},
        }
    return entries


def _with_error(value: float, error: Any, count: int) -> Score | float:
    """Returns a value with the normal interval of its standard error, or the value if there is no number."""
    if not isinstance(error, int | float) or not math.isfinite(error):
        return value
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
    return Score(value, value - half, value + half, count)


__all__ = [
    "FOLDER_NAME",
    "LMMS_PREFIX",
    "lmms_arguments",
    "read_lmms_results",
    "require_lmms_eval",
    "run_lmms_eval",
]
