"""Data, collators and trainers of both stages."""

from .data import VilaUDataCollator
from .drawn_shapes import drawn_shapes
from .trainer_vilau import VilaUTrainer, VilaUTrainingArguments
from .trainer_vision_tower import VisionTowerTrainer, VisionTowerTrainingArguments


__all__ = [
    "VilaUDataCollator",
    "VilaUTrainer",
    "VilaUTrainingArguments",
    "VisionTowerTrainer",
    "VisionTowerTrainingArguments",
    "drawn_shapes",
]
