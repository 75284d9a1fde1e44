"""Data, collators and trainers of both stages."""

from .checkpointing import checkpoint_to_resume
from .code_cache import EncodingReport, check_tower, encode_dataset, load_encoded
from .converters import ConversionReport, convert_records, write_records
from .data import VilaUDataCollator
from .data_vision_tower import VisionTowerDataCollator
from .discriminator import PatchDiscriminator
from .dry_run import DryRunReport, check_recipe
from .losses import PerceptualLoss
from .media import MediaError, MediaLoader, ReadableRows
from .mixture import Mixture, MixtureSource, add_lengths
from .objective_vision_tower import VisionTowerObjective
from .packing import PackedDataset, RecordPacker
from .preference import DPOLossOutput, dpo_loss
from .recipe import Recipe, read_layers, read_recipe
from .records import RecordError, record_features, validate_record
from .run import run_training
from .stream import RecordStream, ResumableStream
from .trainer_vilau import VilaUTrainer, VilaUTrainingArguments
from .trainer_vision_tower import VisionTowerTrainer, VisionTowerTrainingArguments


__all__ = [
    "ConversionReport",
    "DPOLossOutput",
    "DryRunReport",
    "EncodingReport",
    "MediaError",
    "MediaLoader",
    "Mixture",
    "MixtureSource",
    "PackedDataset",
    "PatchDiscriminator",
    "PerceptualLoss",
    "ReadableRows",
    "Recipe",
    "RecordError",
    "RecordPacker",
    "RecordStream",
    "ResumableStream",
    "VilaUDataCollator",
    "VilaUTrainer",
    "VilaUTrainingArguments",
    "VisionTowerDataCollator",
    "VisionTowerObjective",
    "VisionTowerTrainer",
    "VisionTowerTrainingArguments",
    "add_lengths",
    "check_recipe",
    "check_tower",
    "checkpoint_to_resume",
    "convert_records",
    "dpo_loss",
    "encode_dataset",
    "load_encoded",
    "read_layers",
    "read_recipe",
    "record_features",
    "run_training",
    "validate_record",
    "write_records",
]
