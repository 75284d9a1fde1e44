"""`vilau train`."""

import argparse
from pathlib import Path


HELP = "train a model by a recipe: pretraining, fine-tuning, LoRA"


def add_arguments(parser: argparse.ArgumentParser):
    parser.epilog = (
        "On several GPUs: accelerate launch -m vilau_hf.cli train RECIPE. Recipes to begin with: examples/recipes. "
        "All arguments of a recipe: vilau train RECIPE --help."
    )
    parser.add_argument("recipe", type=Path, help="YAML file of arguments")
    parser.add_argument(
        "overrides",
        nargs=argparse.REMAINDER,
        help="arguments that replace those of the recipe, as in --max_steps 100; --dry_run checks the recipe only",
    )


def run(args: argparse.Namespace):
    from ..training import check_recipe, read_recipe, run_training

    recipe = read_recipe(args.recipe, args.overrides)
    if recipe.run.dry_run:
        print(check_recipe(recipe))
        return
    trainer = run_training(recipe)
    if trainer.is_world_process_zero():
        print(f"Written to {Path(recipe.training.output_dir).resolve()}")
