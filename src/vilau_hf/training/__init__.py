"""Trainers of both stages and runs by recipe."""

from .callback_vision_tower import VisionTowerEvaluationCallback
from .checkpointing import checkpoint_to_resume
from .discriminator import PatchDiscriminator
from .dry_run import DryRunReport, check_recipe
from .losses import PerceptualLoss
from .objective_vision_tower import VisionTowerObjective
from .preference import DPOLossOutput, dpo_loss
from .recipe import Recipe, read_layers, read_recipe
from .run import run_training
from .trainer_vilau import VilaUTrainer, VilaUTrainingArguments
from .trainer_vision_tower import VisionTowerTrainer, VisionTowerTrainingArguments


__all__ = [
    "DPOLossOutput",
    "DryRunReport",
    "PatchDiscriminator",
    "PerceptualLoss",
    "Recipe",
    "VilaUTrainer",
    "VilaUTrainingArguments",
    "VisionTowerEvaluationCallback",
    "VisionTowerObjective",
    "VisionTowerTrainer",
    "VisionTowerTrainingArguments",
    "check_recipe",
    "checkpoint_to_resume",
    "dpo_loss",
    "read_layers",
    "read_recipe",
    "run_training",
]
