"""Converters of published dataset formats into records, one file for each format."""

from .conversion import ConversionReport, Converter, SkipRow
from .registry import FORMATS, build_converter, convert_records, stream_records
from .writing import write_records


__all__ = [
    "FORMATS",
    "ConversionReport",
    "Converter",
    "SkipRow",
    "build_converter",
    "convert_records",
    "stream_records",
    "write_records",
]
