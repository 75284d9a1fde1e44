"""Dry run of the stage `vision_tower`: checks a recipe against its data, without weights and without training."""

from dataclasses import dataclass
from itertools import islice

import torch

from ..modeling import VilaUVisionTowerForPreTraining
from .build_vision_tower import build_tower_datasets, load_empty_tower, load_tower_collator
from .discriminator import PatchDiscriminator
from .dry_run_report import batch_lines, count_parameters, parameter_lines, read_batches
from .objective_vision_tower import check_loss_weights
from .recipe_vision_tower import VisionTowerRecipe
from .trainer_vision_tower import set_trainable_sub_models


@dataclass
class VisionTowerDryRunReport:
    """
    Result of a dry run of the stage `vision_tower`. Its string is a table.

    Args:
        parameters (`dict[str, tuple[int, int]]`): number of trained and of all parameters of each sub-model.
        shapes (`list[dict[str, tuple[int, ...]]]`): shapes of the tensors of each batch.
        records (`int`): number of images for training.
        eval_records (`int`): number of images for evaluation.
        num_classes (`int`): number of classes for zero-shot accuracy, or 0.
        rows_per_step (`int`): number of images in an optimizer step, over all processes.
    """

    parameters: dict[str, tuple[int, int]]
    shapes: list[dict[str, tuple[int, ...]]]
    records: int
    eval_records: int
    num_classes: int
    rows_per_step: int

    def __str__(self) -> str:
        evaluation = f"{self.eval_records:,} images"
        if self.num_classes:
            evaluation += f" of {self.num_classes} classes"
        return "\n".join(
            [
                *parameter_lines(self.parameters),
                f"data: {self.records:,} images, {self.rows_per_step} images an optimizer step",
                f"evaluation: {evaluation}",
                *batch_lines(self.shapes),
                "memory: not estimated for a vision tower",
            ]
        )


def check_vision_tower(recipe: VisionTowerRecipe, num_batches: int) -> VisionTowerDryRunReport:
    """
    Reads the first batches of a recipe's data and collates them as for training.

    Only the configuration of the model is read. Weights of metric networks are not looked for.

    Args:
        recipe ([`VisionTowerRecipe`]): see [`read_recipe`].
        num_batches (`int`): number of batches.

    Returns:
        [`VisionTowerDryRunReport`]

    Raises:
        ValueError: if the data or the weights of the losses do not fit. Also if the images are too small for the
            discriminator.
    """
    args = recipe.training
    tower = load_empty_tower(recipe.model, recipe.config)
    set_trainable_sub_models(tower, args)
    check_loss_weights(tower, args)
    parameters = count_parameters(tower, lambda name: name.removeprefix("vision_tower.").split(".")[0])
    if args.adversarial_loss_weight:
        discriminator = _check_discriminator(recipe, tower)
        parameters.update(count_parameters(discriminator, lambda name: "discriminator"))
    collator = load_tower_collator(recipe.model, tower.config)
    datasets = build_tower_datasets(recipe.data, tower.config, args.seed, collator.image_processor)
    size = args.per_device_train_batch_size
    batches = [collator(records) for records in islice(read_batches(datasets.train, size), num_batches)]
    return VisionTowerDryRunReport(
        parameters=parameters,
        shapes=[
            {name: tuple(value.shape) for name, value in batch.items() if isinstance(value, torch.Tensor)}
            for batch in batches
        ],
        records=len(datasets.train),
        eval_records=0 if datasets.eval is None else len(datasets.eval),
        num_classes=len(datasets.classes or []) if collator.tokenizer is not None else 0,
        rows_per_step=size * args.gradient_accumulation_steps * args.world_size,
    )


def _check_discriminator(recipe: VisionTowerRecipe, tower: VilaUVisionTowerForPreTraining) -> PatchDiscriminator:
    """Builds the discriminator without weights and runs it on one image of the tower's size."""
    with torch.device("meta"):
        discriminator = PatchDiscriminator(
            recipe.training.discriminator_channels, recipe.training.discriminator_num_layers
        )
        side = tower.config.image_size
        discriminator.eval()(torch.zeros(1, 3, side, side))
    return discriminator


__all__ = ["VisionTowerDryRunReport", "check_vision_tower"]
