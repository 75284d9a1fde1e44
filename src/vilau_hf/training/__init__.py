"""Data, collators and trainers of both stages."""

from .code_cache import EncodingReport, encode_dataset, load_encoded
from .converters import ConversionReport, convert_records, write_records
from .data import VilaUDataCollator
from .data_vision_tower import VisionTowerDataCollator
from .drawn_records import drawn_shapes
from .media import MediaError, MediaLoader
from .mixture import Mixture, MixtureSource, add_lengths
from .packing import PackedDataset, RecordPacker
from .preference import DPOLossOutput, dpo_loss
from .records import RecordError, record_features, validate_record
from .stream import RecordStream, ResumableStream
from .trainer_vilau import VilaUTrainer, VilaUTrainingArguments
from .trainer_vision_tower import VisionTowerTrainer, VisionTowerTrainingArguments


__all__ = [
    "ConversionReport",
    "DPOLossOutput",
    "EncodingReport",
    "MediaError",
    "MediaLoader",
    "Mixture",
    "MixtureSource",
    "PackedDataset",
    "RecordError",
    "RecordPacker",
    "RecordStream",
    "ResumableStream",
    "VilaUDataCollator",
    "VilaUTrainer",
    "VilaUTrainingArguments",
    "VisionTowerDataCollator",
    "VisionTowerTrainer",
    "VisionTowerTrainingArguments",
    "add_lengths",
    "convert_records",
    "dpo_loss",
    "drawn_shapes",
    "encode_dataset",
    "load_encoded",
    "record_features",
    "validate_record",
    "write_records",
]
