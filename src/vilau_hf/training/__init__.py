"""Data, collators and trainers of both stages."""

from .data import VilaUDataCollator
from .data_vision_tower import VisionTowerDataCollator
from .discriminator import PatchDiscriminator
from .drawn_records import drawn_shapes
from .losses import PerceptualLoss
from .objective_vision_tower import VisionTowerObjective
from .trainer_vilau import VilaUTrainer, VilaUTrainingArguments
from .trainer_vision_tower import VisionTowerTrainer, VisionTowerTrainingArguments


__all__ = [
    "PatchDiscriminator",
    "PerceptualLoss",
    "VilaUDataCollator",
    "VilaUTrainer",
    "VilaUTrainingArguments",
    "VisionTowerDataCollator",
    "VisionTowerObjective",
    "VisionTowerTrainer",
    "VisionTowerTrainingArguments",
    "drawn_shapes",
]
