"""Reads the recipes of examples/recipes with arguments for short runs."""

from pathlib import Path

import yaml

from vilau_hf.training import read_recipe


EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted((EXAMPLES / "recipes").glob("*.yaml"))
TINY_SFT = EXAMPLES / "recipes" / "tiny_sft.yaml"
TINY_TOWER = EXAMPLES / "recipes" / "tower_tiny.yaml"
SHORT = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
}


def layers(path):
    """Merges a recipe with its base recipes, independently of `read_layers`."""
    recipe = yaml.safe_load(path.read_text())
    base = recipe.pop("base_recipe", None)
    return recipe if base is None else {**layers(path.parent / base), **recipe}


def read(recipe, **options):
    """Reads a recipe with options as on the command line; a list becomes several words."""
    words = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(str(each) for each in values)]
    return read_recipe(recipe, words)
