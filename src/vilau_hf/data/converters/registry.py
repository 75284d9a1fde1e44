"""Registry of the supported formats, and the functions that read any of them."""

import functools
import importlib
import inspect
import reprlib
from collections.abc import Iterator
from typing import Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints

from datasets import IterableDataset
from transformers.utils import logging

from ...choices import RECORD_FORMATS
from ...modeling.argument_checks_vilau import Rule, check_value
from .conversion import ConversionReport, Converter
from .encoded_records import EncodedRecordConverter
from .rows import PICKLE_REFUSAL, UnreadableFileError, check_source


logger = logging.get_logger(__name__)


def _converter_class(path: str) -> type[Converter]:
    """Imports a converter class of this folder, given as `"file.Class"`."""
    module, name = path.split(".")
    return getattr(importlib.import_module(f".{module}", __package__), name)


# The table is in `choices.py`, because the command lists the formats without importing torch.
FORMATS: dict[str, type[Converter]] = {name: _converter_class(path) for name, path in RECORD_FORMATS.items()}
# Formats that a stream can read. `vilau records` does not list "encoded": codes cannot become images again.
STREAM_FORMATS: dict[str, type[Converter]] = {**FORMATS, "encoded": EncodedRecordConverter}

# A stream lists its shards in memory.
_MAX_SHARDS = 100_000
_NumShards: TypeAlias = Annotated[int, Rule(f"from 1 to {_MAX_SHARDS}", lambda value: 1 <= value <= _MAX_SHARDS)]


def build_converter(format: str, **options: Any) -> Converter:
    """
    Builds the converter of a format.

    Args:
        format (`str`): one of `FORMATS`, or `"encoded"`.
        options: options of the converter class.

    Raises:
        ValueError: if the format or an option is unknown, or an option is missing. Also for `"pickle"`, which no
            converter reads.
    """
    if format == "pickle":
        raise ValueError(f"`format` 'pickle' is not supported: the source {PICKLE_REFUSAL}")
    if not isinstance(format, str) or format not in STREAM_FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(STREAM_FORMATS)}, got {reprlib.repr(format)}.")
    signature = inspect.signature(STREAM_FORMATS[format])
    # Checked before the call, so that a `TypeError` inside the constructor is not mistaken for a wrong option.
    try:
        signature.bind(**options)
    except TypeError as error:
        raise ValueError(f"Options of the format {format!r} are {signature}: {error}.") from error
    _check_types(format, options)
    return STREAM_FORMATS[format](**options)


def _check_types(format: str, options: dict[str, Any]) -> None:
    """Checks options against the annotations of the constructor, because each row would fail with a wrong one."""
    annotations = get_type_hints(STREAM_FORMATS[format].__init__)
    for name, value in options.items():
        # `list[str]` is checked as `list`: `isinstance` takes no arguments of types.
        accepted = tuple(get_origin(kind) or kind for kind in get_args(annotations[name]) or (annotations[name],))
        if float in accepted:
            accepted = (*accepted, int)
        # `True` is an `int` in Python, but a mistake in a YAML file.
        if not isinstance(value, accepted) or isinstance(value, bool):
            names = " or ".join(str(annotations[name]).removeprefix("<class '").removesuffix("'>").split(" | "))
            raise ValueError(
                f"the option `{name}` of the format {format!r} must be {names}, got {reprlib.repr(value)}."
            )


def convert_records(
    source: str | list[str],
    format: str,
    report: ConversionReport | None = None,
    num_shards: int = 1,
    name: str | None = None,
    **options: Any,
) -> IterableDataset:
    """
    Reads a source of a published format as a stream of records, so that its size does not matter.

    Args:
        source (`str` or `list[str]`): a file, a pattern, a folder, or a list of them. For the formats `"hub"` and
            `"chat"` also the id of a dataset of the Hub.
        format (`str`): one of `FORMATS`; `"records"` is the format of [`write_records`]. Or `"encoded"`, a folder of
            [`encode_dataset`], whose records have `codes` instead of images and videos.
        report ([`ConversionReport`], *optional*): counts records and skipped rows, in the process that iterates.
            Without it, each shard logs its skipped rows when it was read to its end.
        num_shards (`int`, *optional*, defaults to 1): smallest number of shards, at most 100,000. Ranks and workers of
            a loader can read them independently. With fewer files, each file is divided into several shards.
        name (`str`, *optional*): prefix of the ids, as in `"name/id"`.
        options: options of the converter class. Formats of captions have `target`: `"media"` or `"text"`.

    Returns:
        `datasets.IterableDataset` of records with the schema of [`record_features`].

    Example:
    ```python
    >>> records = convert_records("llava_v1_5_mix665k.json", "llava", media_folder="images")  # doctest: +SKIP
    >>> next(iter(records))["messages"]  # doctest: +SKIP

    ```
    """
    converter = build_converter(format, **options)
    check_source(source)
    return stream_records(converter, converter.list_sources(source), report, num_shards, name)


def stream_records(
    converter: Converter,
    files: list[str],
    report: ConversionReport | None = None,
    num_shards: int = 1,
    name: str | None = None,
) -> IterableDataset:
    """
    Reads files with a converter as a stream of records.

    Args:
        converter ([`Converter`]): converts the rows.
        files (`list[str]`): the result of its `list_sources`.
        report ([`ConversionReport`], *optional*): see [`convert_records`].
        num_shards (`int`, *optional*, defaults to 1): see [`convert_records`].
        name (`str`, *optional*): see [`convert_records`].

    Returns:
        `datasets.IterableDataset` of records. The number of its shards is a multiple of `num_shards`.
    """
    check_value("num_shards", num_shards, _NumShards)
    check_value("name", name, str | None)
    shards_of_file = -(-num_shards // len(files))
    units = [(file, shard, shards_of_file) for file in files for shard in range(shards_of_file)]
    # A multiple of `num_shards`: otherwise `datasets` gives each rank single rows of all shards instead of shards.
    count = len(units) // num_shards * num_shards
    return IterableDataset.from_generator(
        functools.partial(_generate, converter, report, name),
        features=converter.features(files),
        gen_kwargs={"shards": [units[index::count] for index in range(count)]},
    )


def _generate(
    converter: Converter, report: ConversionReport | None, name: str | None, shards: list[list[tuple[str, int, int]]]
) -> Iterator[dict]:
    """Yields the records of shards, each of them a list of (file, shard of the file, number of shards of the file)."""
    counts = ConversionReport() if report is None else report
    for units in shards:
        for file, shard, num_shards in units:
            try:
                for record in converter.records(file, shard, num_shards, counts):
                    yield record if name is None else {**record, "id": f"{name}/{record['id']}"}
            except UnreadableFileError as error:
                # A conversion reports the damage and reads the other files. Training has no such report, so it stops.
                if report is None:
                    raise
                counts.skip(f"rest of a file cannot be read ({error.reason})", f"{error.position} in {file}")
    if report is None and (counts.skipped or counts.dropped):
        logger.warning(f"{name or 'A source'}, one pass over one shard of it: {counts}")


__all__ = ["FORMATS", "build_converter", "convert_records", "stream_records"]
