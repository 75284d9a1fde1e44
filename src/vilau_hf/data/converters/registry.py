"""One door to all formats."""

import functools
import inspect
from collections.abc import Iterator

from datasets import IterableDataset
from transformers.utils import logging

from .chat import ChatConverter
from .conversion import ConversionReport, Converter
from .encoded_records import EncodedRecordConverter
from .hub_captions import HubCaptionConverter
from .llava import LlavaConverter
from .mmc4 import Mmc4Converter
from .openvid import OpenVidConverter
from .parquet_captions import ParquetCaptionConverter
from .question_answer import QuestionAnswerConverter
from .rows import PICKLE_REFUSAL
from .stored_records import StoredRecordConverter
from .webdataset import WebdatasetConverter


logger = logging.get_logger(__name__)

FORMATS: dict[str, type[Converter]] = {
    "records": StoredRecordConverter,
    "llava": LlavaConverter,
    "mmc4": Mmc4Converter,
    "parquet": ParquetCaptionConverter,
    "webdataset": WebdatasetConverter,
    "openvid": OpenVidConverter,
    "vflan": QuestionAnswerConverter,
    "hub": HubCaptionConverter,
    "chat": ChatConverter,
}
# formats of streams: codes cannot be turned into records with images
STREAM_FORMATS: dict[str, type[Converter]] = {**FORMATS, "encoded": EncodedRecordConverter}


def build_converter(format: str, **options) -> Converter:
    """
    The converter of a format.

    Args:
        format (`str`): one of `FORMATS`, or `"encoded"`.
        options: those of the converter's class.

    Raises:
        ValueError: for an unknown format or option, or one that is missing; for `"pickle"`, which no converter reads.
    """
    if format == "pickle":
        raise ValueError(f"`format` 'pickle': a source that {PICKLE_REFUSAL}")
    if format not in STREAM_FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(STREAM_FORMATS)}, got {format!r}.")
    signature = inspect.signature(STREAM_FORMATS[format])
    try:
        signature.bind(**options)
    except TypeError as error:
        raise ValueError(f"Options of the format {format!r} are {signature}: {error}.") from error
    return STREAM_FORMATS[format](**options)


def convert_records(
    source: str | list[str],
    format: str,
    report: ConversionReport | None = None,
    num_shards: int = 1,
    name: str | None = None,
    **options,
) -> IterableDataset:
    """
    Reads a source of a published format as records, one at a time, whatever its size.

    Args:
        source (`str` or `list[str]`): a file, a pattern, a folder or a list of them; for the formats `"hub"` and
            `"chat"` also the id of a dataset of the Hub.
        format (`str`): `"records"` (written by [`write_records`]), `"llava"`, `"mmc4"`, `"parquet"`, `"webdataset"`,
            `"openvid"`, `"vflan"`, `"hub"` or `"chat"`; or `"encoded"` (a folder of [`encode_dataset`], whose records
            have `codes` in place of images and videos).
        report ([`ConversionReport`], *optional*): counts what is given and skipped, in the process that iterates.
            Without, each part of the source logs what it skipped when it was read to its end.
        num_shards (`int`, *optional*, defaults to 1): least number of parts that can be read apart from each other
            (by ranks and workers of a loader). Where there are fewer files, each part reads its file and takes every
            n-th row.
        name (`str`, *optional*): put before the ids, as in `"name/id"`.
        options: of the converter's class, for captions among them `target`: `"media"` or `"text"`.

    Returns:
        `datasets.IterableDataset` of records as in [`record_features`].

    Example:

    ```python
    >>> records = convert_records("llava_v1_5_mix665k.json", "llava", media_folder="images")  # doctest: +SKIP
    >>> next(iter(records))["messages"]  # doctest: +SKIP

    ```
    """
    converter = build_converter(format, **options)
    return stream_records(converter, converter.list_sources(source), report, num_shards, name)


def stream_records(
    converter: Converter,
    files: list[str],
    report: ConversionReport | None = None,
    num_shards: int = 1,
    name: str | None = None,
) -> IterableDataset:
    """As [`convert_records`], with a converter and its files."""
    if num_shards < 1:
        raise ValueError(f"`num_shards` must be at least 1, got {num_shards}.")
    parts = -(-num_shards // len(files))
    units = [(file, part, parts) for file in files for part in range(parts)]
    count = len(units) // num_shards * num_shards
    return IterableDataset.from_generator(
        functools.partial(_generate, converter, report, name),
        features=converter.features(files),
        gen_kwargs={"shards": [units[index::count] for index in range(count)]},
    )


def _generate(converter: Converter, report: ConversionReport | None, name: str | None, shards: list) -> Iterator[dict]:
    counts = ConversionReport() if report is None else report
    for shard in shards:
        for file, part, num_parts in shard:
            for record in converter.records(file, part, num_parts, counts):
                yield record if name is None else {**record, "id": f"{name}/{record['id']}"}
    if report is None and (counts.skipped or counts.dropped):
        logger.warning(f"{name or 'A source'}, one pass over one part of it: {counts}")


__all__ = ["FORMATS", "build_converter", "convert_records", "stream_records"]
