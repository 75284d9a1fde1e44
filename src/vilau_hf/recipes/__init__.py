"""Configurations of the published models as YAML files."""

from pathlib import Path

import yaml

from ..modeling import VilaUConfig


FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """Names of all recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_recipe(name: str) -> VilaUConfig:
    """
    The configuration of a recipe.

    Args:
        name (`str`): `"vilau-7b-256"` or `"vilau-7b-384"`, the files of this folder.

    Raises:
        ValueError: if there is no such recipe.
    """
    if name not in recipe_names():
        raise ValueError(f"`name` must be one of {', '.join(recipe_names())}, got {name!r}.")
    return VilaUConfig(**yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
