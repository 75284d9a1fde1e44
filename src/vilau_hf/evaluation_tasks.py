"""Registry of evaluation tasks: name -> class."""

import importlib
from collections.abc import Sequence

from .choices import EVALUATION_TASKS
from .emoji.feature_distances import judge_features
from .evaluation.evaluated_model import EvaluatedModel
from .evaluation.feature_distances import FEATURE_NETWORKS
from .evaluation.lmms_run import LMMS_PREFIX
from .evaluation.task import EvaluationTask, TaskOptions


# Here, because `evaluation` may not import `emoji`.
FEATURE_NETWORKS["judge"] = judge_features


def task_class(name: str) -> type[EvaluationTask]:
    """
    Returns the class of a task.

    Args:
        name (`str`): name of the task.

    Raises:
        ValueError: for an unknown name. The message lists the names.
    """
    if name not in EVALUATION_TASKS:
        raise ValueError(
            f"unknown task {name!r}. The tasks are {', '.join(EVALUATION_TASKS)}, and {LMMS_PREFIX}NAME for a task of "
            "lmms-eval."
        )
    module, _, attribute = EVALUATION_TASKS[name].rpartition(".")
    return getattr(importlib.import_module(f".{module}", __package__), attribute)


def make_tasks(
    names: Sequence[str], model: EvaluatedModel, options: TaskOptions, given: Sequence[str] = ()
) -> list[EvaluationTask]:
    """
    Makes tasks by name.

    Args:
        names (`Sequence[str]`): names of the tasks.
        model ([`EvaluatedModel`]): the model, which the tasks share.
        options ([`TaskOptions`]): options of all tasks.
        given (`Sequence[str]`, *optional*): names of the options that the user has set.

    Raises:
        ValueError: for an unknown or repeated name, and for an option in `given` that no task takes.
    """
    classes = [task_class(name) for name in names]
    if len(set(names)) < len(names):
        raise ValueError(f"each task must be named once, got {', '.join(names)}.")
    taken = {"samples", "seed", *(option for each in classes for option in each.uses)}
    unused = [name for name in given if name not in taken]
    if unused:
        flags = ", ".join(f"`--{name.replace('_', '-')}`" for name in unused)
        raise ValueError(f"{', '.join(names)} do not use {flags}. They use {', '.join(sorted(taken))}.")
    return [each(model, options) for each in classes]


__all__ = ["make_tasks", "task_class"]
