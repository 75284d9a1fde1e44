"""Records from the layouts in which datasets are published, one file for each."""

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
