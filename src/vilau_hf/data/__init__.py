"""From raw files to batches: records, converters, media, mixtures, streams, packing, collators, code cache."""

from .arguments import DataArguments
from .code_cache import EncodingReport, check_tower, encode_dataset, load_encoded
from .collator_vilau import VilaUDataCollator
from .collator_vision_tower import VisionTowerDataCollator
from .converters import ConversionReport, convert_records, write_records
from .media import MediaError, MediaLoader, ReadableRows
from .mixture import Mixture, MixtureSource, add_lengths
from .packing import PackedDataset, RecordPacker
from .records import RecordError, record_features, validate_record
from .stream import RecordStream, ResumableStream


__all__ = [
    "ConversionReport",
    "DataArguments",
    "EncodingReport",
    "MediaError",
    "MediaLoader",
    "Mixture",
    "MixtureSource",
    "PackedDataset",
    "ReadableRows",
    "RecordError",
    "RecordPacker",
    "RecordStream",
    "ResumableStream",
    "VilaUDataCollator",
    "VisionTowerDataCollator",
    "add_lengths",
    "check_tower",
    "convert_records",
    "encode_dataset",
    "load_encoded",
    "record_features",
    "validate_record",
    "write_records",
]
