"""Data, collators and trainers of both stages."""

from .code_cache import EncodingReport, encode_dataset, load_encoded
from .data import VilaUDataCollator
from .data_vision_tower import VisionTowerDataCollator
from .drawn_records import drawn_shapes
from .packing import PackedDataset, RecordPacker, pack_records
from .trainer_vilau import VilaUTrainer, VilaUTrainingArguments
from .trainer_vision_tower import VisionTowerTrainer, VisionTowerTrainingArguments


__all__ = [
    "EncodingReport",
    "PackedDataset",
    "RecordPacker",
    "VilaUDataCollator",
    "VilaUTrainer",
    "VilaUTrainingArguments",
    "VisionTowerDataCollator",
    "VisionTowerTrainer",
    "VisionTowerTrainingArguments",
    "drawn_shapes",
    "encode_dataset",
    "load_encoded",
    "pack_records",
]
