"""Reads recipes: YAML files with the arguments of a training run. The command line overrides them."""

import argparse
import dataclasses
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import torch
from transformers import HfArgumentParser

from ..files import read_yaml
from .recipe_language_model import LanguageModelRecipe
from .recipe_vision_tower import VisionTowerRecipe


# The values of the key `stage`, and the arguments of each stage.
RECIPES: dict[str, type[LanguageModelRecipe] | type[VisionTowerRecipe]] = {
    "vision_tower": VisionTowerRecipe,
    "language_model": LanguageModelRecipe,
}


class RecipeParser(HfArgumentParser):
    """Parser that raises its errors."""

    # The base class prints the usage, which is hundreds of lines here, and exits.
    def error(self, message: str) -> NoReturn:
        """
        Raises a `ValueError`.

        Args:
            message (`str`): what is wrong.
        """
        raise ValueError(message)


def read_layers(file: str | Path) -> dict[str, Any]:
    """
    Reads the arguments in the file of a recipe.

    The key `base_recipe` names another file in the same folder. Its arguments are used where this file has none.

    Args:
        file (`str` or `Path`): YAML file.

    Returns:
        `dict[str, Any]`: arguments by name, without `base_recipe`.

    Raises:
        ValueError: if a file is not valid YAML or does not hold arguments by name, and for cycles of `base_recipe`.
        OSError: if the file is missing.
    """
    recipe: dict[str, Any] = {}
    path: Path | None = Path(file)
    files: list[Path] = []
    while path is not None:
        if path.resolve() in files:
            raise ValueError(f"`base_recipe` must not lead back to the same file, got a cycle at {str(path)!r}.")
        files.append(path.resolve())
        layer = read_yaml(path)
        if not isinstance(layer, dict):
            raise ValueError(
                f"`file` {str(path)!r} must hold arguments, as in `max_steps: 100`, got {reprlib.repr(layer)}."
            )
        for key in layer:
            if not isinstance(key, str):
                raise ValueError(f"keys in `file` {str(path)!r} must be names of arguments, got {reprlib.repr(key)}.")
        base = layer.pop("base_recipe", None)
        if base is not None and not (isinstance(base, str) and base):
            raise ValueError(
                f"`base_recipe` in `file` {str(path)!r} must be the name of a file, got {reprlib.repr(base)}."
            )
        recipe = {**layer, **recipe}
        path = None if base is None else path.parent / base
    return recipe


def read_recipe(file: str | Path, overrides: Sequence[str] = ()) -> LanguageModelRecipe | VisionTowerRecipe:
    """
    Reads a recipe.

    The key `stage` of the file says what is trained: `vision_tower` or `language_model`. It decides which other keys
    are accepted.

    Args:
        file (`str` or `Path`): YAML file (see [`read_layers`]).
        overrides (`list[str]`, *optional*): arguments of the command line, as in `["--max_steps", "100"]`. They
            override those of the file.

    Returns:
        [`VisionTowerRecipe`] or [`LanguageModelRecipe`]

    Raises:
        ValueError: if `stage` is missing or unknown, and for unknown keys, arguments and combinations.
    """
    recipe = read_layers(file)
    stage = recipe.pop("stage", None)
    if not isinstance(stage, str) or stage not in RECIPES:
        raise ValueError(
            f"`stage` in `file` {str(file)!r} must be one of {', '.join(RECIPES)}, got {reprlib.repr(stage)}: it says "
            "what is trained."
        )
    recipe_class = RECIPES[stage]
    parser = RecipeParser(tuple(get_type_hints(recipe_class).values()))
    unknown = sorted(set(recipe) - {action.dest for action in parser._actions})
    if unknown:
        raise ValueError(
            f"unknown keys in `file` {str(file)!r}: {', '.join(unknown)}. `vilau train {file} --help` lists the keys "
            f"of `stage` {stage}."
        )
    for arguments in get_type_hints(recipe_class).values():
        _check_types(arguments, recipe, file)
    # Without an accelerator, several processes find each other only with `use_cpu`. Otherwise each would train alone.
    parser.set_defaults(**{"use_cpu": not torch.accelerator.is_available(), **recipe})
    try:
        return recipe_class(*parser.parse_args_into_dataclasses(args=list(overrides)))
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error


def _check_types(arguments: type, recipe: dict[str, Any], file: str | Path) -> None:
    """Raises a `ValueError` for a value that the annotation of its argument does not accept."""
    annotations = get_type_hints(arguments)
    for field in dataclasses.fields(arguments):
        value = recipe.get(field.name, field.default)
        # The parser converts strings, as those of the command line, and reports those that it cannot convert.
        if field.name not in recipe or isinstance(value, str) or value is field.default:
            continue
        annotation = annotations[field.name]
        accepted = [get_origin(kind) or kind for kind in get_args(annotation) or (annotation,)]
        if get_origin(annotation) in (list, dict):
            accepted = [get_origin(annotation)]
        # YAML reads `1` as an integer, also where a float is meant. It reads `true` as a boolean, also where arguments
        # of the command line are texts (`resume_from_checkpoint`). `True` is an `int` in Python, but not in YAML.
        also_accepted = {int: float, bool: str}.get(type(value))
        is_accepted = type(value) in accepted or (also_accepted is not None and also_accepted in accepted)
        if not is_accepted:
            names = str(getattr(annotation, "__name__", annotation))
            raise ValueError(f"`{field.name}` in `file` {str(file)!r} must be {names}, got {reprlib.repr(value)}.")


__all__ = ["RecipeParser", "read_layers", "read_recipe"]
