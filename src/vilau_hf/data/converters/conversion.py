"""The base class of all converters, the report of a conversion, and helpers that read fields of a row."""

import base64
import binascii
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Features

from ..records import MEDIA_FIELDS, RecordError, record_features, validate_record
from .rows import list_sources, read_rows


NUM_EXAMPLES = 3


class SkipRow(Exception):
    """
    A row cannot become a record.

    The text is the reason. It is the same for all rows with this fault, because the report counts rows by reason.
    """


@dataclass
class ConversionReport:
    """
    Counts the records and the skipped rows of a conversion, in the process that runs it.

    Its string is a table.

    Args:
        num_records (`int`): converted records.
        skipped (`Counter`): skipped rows, by reason.
        examples (`dict[str, list[str]]`): ids of the first skipped rows for each reason.
        dropped (`Counter`): items left out of rows that were kept, such as an image of a document, by reason.
        media (`Counter`): images and videos of the records, by where they are stored: in a file, in the record, or at
            a URL.
    """

    num_records: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    dropped: Counter[str] = field(default_factory=Counter)
    media: Counter[str] = field(default_factory=Counter)

    def skip(self, reason: str, row_id: str) -> None:
        """Counts a skipped row."""
        self.skipped[reason] += 1
        # A few ids are enough to look at the rows, and a report of millions of rows stays small.
        if len(self.examples[reason]) < NUM_EXAMPLES:
            self.examples[reason].append(row_id)

    def add(self, record: dict) -> None:
        """Counts a record and its media."""
        self.num_records += 1
        for kind, name in MEDIA_FIELDS.items():
            for item in record[name]:
                self.media[f"{kind}s {_storage_of(item)}"] += 1

    def __str__(self) -> str:
        lines = [f"{self.num_records} records, {self.skipped.total()} rows skipped"]
        for reason, count in self.skipped.most_common():
            lines.append(f"  {count:>8}  {reason}  ({', '.join(self.examples[reason])})")
        if self.dropped:
            lines.append("left out of records")
            lines += [f"  {count:>8}  {reason}" for reason, count in self.dropped.most_common()]
        lines += [f"{count} {where}" for where, count in sorted(self.media.items())]
        return "\n".join(lines)


def _storage_of(item: Any) -> str:
    """Returns where an image or a video is stored, in words for the report."""
    path = item.get("path") if isinstance(item, dict) else item
    if isinstance(item, bytes) or (isinstance(item, dict) and item.get("bytes") is not None):
        return "within the records"
    if isinstance(path, str) and path.startswith(("http://", "https://")):
        return "by URL, to be downloaded before training"
    return "in files"


class Converter(ABC):
    """
    Converts the rows of one published format into records.

    A subclass takes its options as arguments of `__init__`, and returns the record of a row in `convert`. A source of
    rows is a file, a pattern, a folder or a dataset of the Hub.

    Attributes:
        fields (`tuple[str, ...]`, *optional*): fields of a row that `convert` reads, `None` for all. Other columns of
            a parquet file are not read from the disk.
    """

    fields: tuple[str, ...] | None = None

    def list_sources(self, source: str | list[str]) -> list[str]:
        """Returns the files of `source` in a fixed order."""
        return list_sources(source)

    def features(self, files: list[str]) -> Features:
        """Returns the schema of the records of `files`."""
        return record_features()

    def rows(self, source: str, shard: int, num_shards: int) -> Iterator[tuple[str, Any]]:
        """
        Yields names and rows of one shard of a file.

        Args:
            source (`str`): the file.
            shard (`int`): index of the shard.
            num_shards (`int`): number of shards. Together they have each row of the file once.
        """
        return read_rows(source, shard, num_shards, self.fields)

    @abstractmethod
    def convert(self, row_id: str, row: dict, source: str, report: ConversionReport) -> dict:
        """
        Returns the record of a row.

        Args:
            row_id (`str`): name of the row, for a row without an id.
            row (`dict`): the fields of the row.
            source (`str`): the file of the row.
            report ([`ConversionReport`]): counts what is left out of the record.

        Raises:
            SkipRow: if the row cannot become a record.
        """

    def records(self, source: str, shard: int, num_shards: int, report: ConversionReport) -> Iterator[dict]:
        """
        Yields the valid records of one shard of a file, and counts the skipped rows.

        Args:
            source (`str`): the file.
            shard (`int`): index of the shard.
            num_shards (`int`): number of shards of the file.
            report ([`ConversionReport`]): counts records and skipped rows.
        """
        for row_id, row in self.rows(source, shard, num_shards):
            try:
                if not isinstance(row, dict):
                    raise SkipRow("malformed row")
                record = {"images": [], "videos": [], **self.convert(row_id, row, source, report)}
                # Also finds faults that `convert` cannot see, such as a number of placeholders that does not fit.
                validate_record(record)
            except SkipRow as skip:
                report.skip(str(skip), row_id)
            except RecordError as error:
                report.skip(error.reason, row_id)
            else:
                report.add(record)
                yield record


def get_text(row: dict, name: str) -> str:
    """Returns the field `name` of a row, which must be a text that is not empty."""
    if name not in row:
        raise SkipRow(f"no field {name!r}")
    text = row[name]
    if not isinstance(text, str):
        raise SkipRow(f"field {name!r} is not a text")
    if not text.strip():
        raise SkipRow(f"field {name!r} is empty")
    return text.strip()


def get_id(row: dict, name: str | None, row_id: str) -> str:
    """Returns the field `name` of a row as a string, or the name of the row without such a field."""
    return row_id if name is None or row.get(name) is None else str(row[name])


def as_list(value: Any) -> list:
    """Returns a list as it is, no items for `None`, and any other value as a list of one item."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def decode_base64(value: Any) -> bytes:
    """Returns the bytes of an image that is encoded in base64."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise SkipRow("image is not base64") from error


def find_media(value: Any, folder: str | None, source: str) -> dict[str, Any]:
    """
    Returns an image or a video of a row as a record stores it, `{"path": ..., "bytes": ...}`.

    Args:
        value (`Any`): bytes, a dictionary with 'bytes' or 'path', a URL, or the name of a file, which must exist.
        folder (`str`, *optional*): folder of files with relative names. By default the folder of `source`.
        source (`str`): the file of the row.

    Raises:
        SkipRow: if there is no image or video.
    """
    path = value.get("path") if isinstance(value, dict) else value
    data = value.get("bytes") if isinstance(value, dict) else None
    if isinstance(path, (bytes, bytearray)):
        return {"path": None, "bytes": bytes(path)}
    if data is not None:
        return {"path": path, "bytes": data}
    if path is None or path == "":
        raise SkipRow("no image or video")
    if not isinstance(path, str):
        raise SkipRow("an image or video is neither bytes nor a file name")
    # Conversion downloads nothing. The report counts URLs, and `MediaLoader` refuses them.
    if "://" in path:
        return {"path": path, "bytes": None}
    file = (Path(source).parent if folder is None else Path(folder)) / path
    if not file.is_file():
        raise SkipRow("file of an image or video is missing")
    return {"path": str(file.absolute()), "bytes": None}


__all__ = [
    "ConversionReport",
    "Converter",
    "SkipRow",
    "as_list",
    "decode_base64",
    "find_media",
    "get_id",
    "get_text",
]
