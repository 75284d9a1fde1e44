"""Modes of tasks: what the definition of a task names, and what the user gives."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .lmms_settings import MODES


# Key in `metadata` of a task's definition, which names the mode that the task needs. lmms-eval copies `metadata` to
# each request (`Task.build_all_requests`, read in 0.7.3).
MODE_KEY = "vilau_mode"


def choose_mode(task: str, named: str | None, given: str | None) -> str:
    """
    Chooses the mode of a task.

    Args:
        task (`str`): name of the task.
        named (`str`, *optional*): the mode that the definition of the task names. Published tasks name none.
        given (`str`, *optional*): the mode that the user gives for all tasks.

    Returns:
        The mode of the user, or that of the definition, or `"understanding"`.

    Raises:
        ValueError: if the definition and the user name modes that do not fit, or the definition names an unknown mode.
    """
    if named is not None and named not in MODES:
        raise ValueError(f"task {task!r} names the unknown mode {named!r}. The modes are {', '.join(MODES)}.")
    if given is None:
        return named or "understanding"
    # Both answer in text, which is what the task scores.
    is_answer = (named, given) == ("understanding", "visual_cot")
    if named is not None and given != named and not is_answer:
        raise ValueError(
            f"task {task!r} needs `mode={named}`, got `mode={given}`. Leave out `mode`: each task has its mode."
        )
    return given


def find_modes(names: Sequence[str], include_path: str | None = None) -> dict[str, str | None]:
    """
    Reads the modes that the definitions of tasks name. No data and no model is loaded.

    Args:
        names (`Sequence[str]`): names of tasks, groups and tags of lmms-eval, patterns with `*`, or YAML files.
        include_path (`str`, *optional*): folder of further tasks.

    Returns:
        Name of each task, also of those in a group -> its mode, or `None` if its definition names none.

    Raises:
        ValueError: if a task or the folder does not exist.
    """
    # Here, since lmms-eval is optional.
    from lmms_eval.tasks import TaskManager

    if include_path is not None and not Path(include_path).is_dir():
        raise ValueError(f"`--include_path` must be a folder of tasks of lmms-eval, got {include_path!r}.")
    manager = TaskManager("ERROR", include_path=include_path, model_name="vilau")
    modes: dict[str, str | None] = {}
    for name in names:
        found = manager.match_tasks([name])
        if not found and Path(name).is_file():
            definition = _read(name)
            modes[str(definition.get("task", name))] = _named_mode(definition)
        elif not found:
            raise ValueError(_unknown_task(name, manager, include_path))
        for match in found:
            modes.update(_modes_below(match, manager.task_index))
    return modes


def _modes_below(name: str, index: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str | None]]:
    """Yields name and mode of a task, or of all tasks in a group or a tag."""
    entry = index[name]
    if entry["type"] == "tag":
        members = entry["task"]
    elif entry["type"] == "group":
        members = _read(entry["yaml_path"])["task"]
    else:
        yield name, _named_mode(_read(entry["yaml_path"]))
        return
    for member in members:
        # A member with changed settings is a dictionary.
        below = member if isinstance(member, str) else member.get("task")
        if isinstance(below, str) and below in index:
            yield from _modes_below(below, index)


def _read(path: str) -> dict[str, Any]:
    """Returns the definition of a task, without loading the functions that it names."""
    from lmms_eval.utils import load_yaml_config

    return load_yaml_config(path, mode="simple")


def _named_mode(definition: Mapping[str, Any]) -> str | None:
    """Returns the mode that a definition names."""
    # Published definitions have a list of dictionaries, too.
    metadata = definition.get("metadata")
    return metadata.get(MODE_KEY) if isinstance(metadata, dict) else None


def _unknown_task(name: str, manager: Any, include_path: str | None) -> str:
    """Returns the text of the error for a name that is no task."""
    sentences = [f"unknown task of lmms-eval: {name!r}."]
    close = difflib.get_close_matches(name, manager.all_tasks)
    if close:
        sentences.append(f"Similar names are {', '.join(close)}.")
    if include_path is not None:
        folder = Path(include_path).resolve()
        # A tag has no file, but -1.
        files = {task: str(entry["yaml_path"]) for task, entry in manager.task_index.items()}
        local = sorted(task for task, file in files.items() if Path(file).resolve().is_relative_to(folder))
        sentences.append(f"The tasks in {include_path} are {', '.join(local)}.")
    sentences.append("`python -m lmms_eval --tasks list` prints all names.")
    return " ".join(sentences)


__all__ = ["MODE_KEY", "choose_mode", "find_modes"]
