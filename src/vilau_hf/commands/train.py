"""`vilau train`."""

import argparse
from pathlib import Path


HELP = "train a model by a recipe: pretraining, fine-tuning, LoRA"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.epilog = (
        "On several GPUs: accelerate launch -m vilau_hf.cli train RECIPE. Example recipes: examples/recipes. "
        "All arguments of a recipe: vilau train RECIPE --help."
    )
    parser.add_argument("recipe", type=Path, help="YAML file with the arguments of the training run")
    parser.add_argument(
        "overrides",
        nargs=argparse.REMAINDER,
        help="arguments that replace those of the recipe, for example --max_steps 100; --dry_run only "
        "checks the recipe",
    )


def run(args: argparse.Namespace) -> None:
    """Trains by a recipe, or checks the recipe with `--dry_run`."""
    from ..training import check_recipe, read_recipe, run_training

    recipe = read_recipe(args.recipe, args.overrides)
    if recipe.run.dry_run:
        print(check_recipe(recipe))
        return
    trainer = run_training(recipe)
    output_dir = recipe.training.output_dir
    if output_dir is not None and trainer.is_world_process_zero():
        print(f"Written to {Path(output_dir).resolve()}")
