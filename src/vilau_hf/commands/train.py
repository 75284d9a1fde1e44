"""`vilau train`."""

import argparse
from pathlib import Path


HELP = "train a model by a recipe: vision tower, pretraining, fine-tuning, LoRA"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Adds the arguments of the command.

    Args:
        parser (`argparse.ArgumentParser`): parser of the command, changed in place.
    """
    parser.epilog = (
        "The key `stage` of a recipe says what is trained: `vision_tower` or `language_model`. There are recipes in "
        "examples/recipes. `vilau train RECIPE --help` lists all arguments of a recipe's stage. On several GPUs: "
        "accelerate launch -m vilau_hf.cli train RECIPE."
    )
    parser.add_argument("recipe", type=Path, help="YAML file with the arguments of a training run")
    parser.add_argument(
        "overrides",
        nargs=argparse.REMAINDER,
        help="arguments that override those of the recipe, as in --max_steps 100; --dry_run only checks the recipe",
    )


def run(args: argparse.Namespace) -> None:
    """
    Trains a model, or checks the recipe.

    Args:
        args (`argparse.Namespace`): the parsed arguments.
    """
    from ..training import check_recipe, read_recipe, run_training

    recipe = read_recipe(args.recipe, args.overrides)
    if recipe.run.dry_run:
        print(check_recipe(recipe))
        return
    trainer = run_training(recipe)
    if trainer.is_world_process_zero():
        print(f"Written to {Path(str(recipe.training.output_dir)).resolve()}")
