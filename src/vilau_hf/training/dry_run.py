"""Checks a recipe against its data, without weights and without training."""

from .dry_run_language_model import LanguageModelDryRunReport, check_language_model
from .dry_run_vision_tower import VisionTowerDryRunReport, check_vision_tower
from .recipe_language_model import LanguageModelRecipe
from .recipe_vision_tower import VisionTowerRecipe


def check_recipe(
    recipe: LanguageModelRecipe | VisionTowerRecipe, num_batches: int = 2
) -> LanguageModelDryRunReport | VisionTowerDryRunReport:
    """
    Reads the first batches of a recipe's data and collates them as for training.

    Args:
        recipe ([`LanguageModelRecipe`] or [`VisionTowerRecipe`]): see [`read_recipe`].
        num_batches (`int`, *optional*, defaults to 2): number of batches.

    Returns:
        [`LanguageModelDryRunReport`] or [`VisionTowerDryRunReport`]: the model and data of a run. Its string is a
        table.

    Raises:
        ValueError: if the data do not fit the recipe.
    """
    if isinstance(recipe, VisionTowerRecipe):
        return check_vision_tower(recipe, num_batches)
    return check_language_model(recipe, num_batches)


__all__ = ["check_recipe"]
