"""Reads recipes: YAML files with the arguments of a training run. The command line overrides them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import torch
import yaml
from transformers import HfArgumentParser

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
        ValueError: if the file does not hold arguments by name.
        OSError: if the file is missing.
    """
    recipe: dict[str, Any] = {}
    path: Path | None = Path(file)
    while path is not None:
        layer = yaml.safe_load(path.read_text())
        if not isinstance(layer, dict):
            raise ValueError(f"`file` {str(path)!r} must hold arguments, as in `max_steps: 100`, got {layer!r}.")
        base = layer.pop("base_recipe", None)
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
    if stage not in RECIPES:
        raise ValueError(
            f"`stage` in `file` {str(file)!r} must be one of {', '.join(RECIPES)}, got {stage!r}: it says what is "
            "trained."
        )
    recipe_class = RECIPES[stage]
    parser = RecipeParser(tuple(get_type_hints(recipe_class).values()))
    unknown = sorted(set(recipe) - {action.dest for action in parser._actions})
    if unknown:
        raise ValueError(
            f"unknown keys in `file` {str(file)!r}: {', '.join(unknown)}. `vilau train {file} --help` lists the keys "
            f"of `stage` {stage}."
        )
    # Without an accelerator, several processes find each other only with `use_cpu`. Otherwise each would train alone.
    parser.set_defaults(**{"use_cpu": not torch.accelerator.is_available(), **recipe})
    try:
        return recipe_class(*parser.parse_args_into_dataclasses(args=list(overrides)))
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error


__all__ = ["RecipeParser", "read_layers", "read_recipe"]
