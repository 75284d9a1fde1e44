"""Training of both stages: recipes, trainers, losses, dry runs."""

from .arguments_vision_tower import VisionTowerTrainingArguments
from .callback_vision_tower import VisionTowerEvaluationCallback
from .checkpointing import checkpoint_to_resume
from .discriminator import PatchDiscriminator
from .dry_run import check_recipe
from .dry_run_language_model import LanguageModelDryRunReport
from .dry_run_vision_tower import VisionTowerDryRunReport
from .losses import PerceptualLoss
from .objective_vision_tower import VisionTowerObjective
from .preference import DPOLossOutput, dpo_loss
from .recipe import read_layers, read_recipe
from .recipe_language_model import LanguageModelRecipe
from .recipe_vision_tower import VisionTowerRecipe
from .run import run_training
from .trainer_base import VilaUBaseTrainer, VilaUTrainingArguments
from .trainer_dpo import PreferencePairCollator, VilaUDPOTrainer, VilaUDPOTrainingArguments
from .trainer_vilau import VilaUTrainer
from .trainer_vision_tower import VisionTowerTrainer


__all__ = [
    "DPOLossOutput",
    "LanguageModelDryRunReport",
    "LanguageModelRecipe",
    "PatchDiscriminator",
    "PerceptualLoss",
    "PreferencePairCollator",
    "VilaUBaseTrainer",
    "VilaUDPOTrainer",
    "VilaUDPOTrainingArguments",
    "VilaUTrainer",
    "VilaUTrainingArguments",
    "VisionTowerDryRunReport",
    "VisionTowerEvaluationCallback",
    "VisionTowerObjective",
    "VisionTowerRecipe",
    "VisionTowerTrainer",
    "VisionTowerTrainingArguments",
    "check_recipe",
    "checkpoint_to_resume",
    "dpo_loss",
    "read_layers",
    "read_recipe",
    "run_training",
]
