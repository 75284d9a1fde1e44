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

from ..media_paths import MediaPathError, find_local_file, is_url
from ..records import MEDIA_FIELDS, RecordError, record_features, text_content_part, validate_record
from .rows import list_sources, read_rows


NUM_EXAMPLES = 3
# Folders that may hold the media of rows: one, several, or the folder of the source.
MediaFolder = str | list[str] | None
URL_REASON = "an image or video is a URL: download it first, for example with img2dataset"
# Raised by code that reads a value of a type it does not expect.
_WRONG_TYPE_ERRORS = (TypeError, AttributeError, LookupError, ValueError, ArithmeticError, RecursionError)


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
        examples (`dict[str, list[str]]`): the first rows for each reason: position and file.
        dropped (`Counter`): items left out of rows that were kept, such as an image of a document, by reason.
        media (`Counter`): images and videos of the records, by where they are stored: in a file or in the record.
    """

    num_records: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    dropped: Counter[str] = field(default_factory=Counter)
    media: Counter[str] = field(default_factory=Counter)

    def skip(self, reason: str, row: str) -> None:
        """
        Counts a skipped row.

        Args:
            reason (`str`): why it is skipped.
            row (`str`): position and file of the row.
        """
        self.skipped[reason] += 1
        self._keep_example(reason, row)

    def drop(self, reason: str, row: str) -> None:
        """
        Counts an item that is left out of a row.

        Args:
            reason (`str`): why it is left out.
            row (`str`): position and file of the row.
        """
        self.dropped[reason] += 1
        self._keep_example(reason, row)

    def _keep_example(self, reason: str, row: str) -> None:
        # A few rows are enough to look at, and a report of millions of rows stays small.
        if len(self.examples[reason]) < NUM_EXAMPLES:
            self.examples[reason].append(row)

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
            for reason, count in self.dropped.most_common():
                lines.append(f"  {count:>8}  {reason}  ({', '.join(self.examples[reason])})")
        lines += [f"{count} {where}" for where, count in sorted(self.media.items())]
        return "\n".join(lines)


def _storage_of(item: Any) -> str:
    """Returns where an image or a video is stored, in words for the report."""
    is_stored = isinstance(item, bytes) or (isinstance(item, dict) and item.get("bytes") is not None)
    return "within the records" if is_stored else "in files"


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
                record = _storable(record)
            except SkipRow as skip:
                report.skip(str(skip), f"{row_id} in {source}")
            except RecordError as error:
                report.skip(error.reason, f"{row_id} in {source}")
            # A row may hold any value, and one row must not end a conversion of millions. So an error here is a reason
            # like the others, counted and reported.
            except _WRONG_TYPE_ERRORS as error:
                report.skip(f"malformed row ({type(error).__name__})", f"{row_id} in {source}")
            else:
                report.add(record)
                yield record


def _storable(record: dict) -> dict:
    """Returns a valid record with the fields of the schema only, as a parquet file stores them."""
    messages = [
        {"role": message["role"], "content": _storable_content(message["content"])} for message in record["messages"]
    ]
    media = {name: [_storable_item(item) for item in record[name] or []] for name in MEDIA_FIELDS.values()}
    return {**record, "messages": messages, **media}


def _storable_content(content: Any) -> list[dict]:
    if isinstance(content, str):
        return [text_content_part(content)]
    return [{"type": part["type"], "text": part["text"] if part["type"] == "text" else None} for part in content]


def _storable_item(item: Any) -> Any:
    if isinstance(item, dict):
        item = {"path": item.get("path"), "bytes": item.get("bytes")}
    name = item["path"] if isinstance(item, dict) and item["bytes"] is None else item
    if isinstance(name, str) and is_url(name):
        raise SkipRow(URL_REASON)
    return item


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
    value = None if name is None else row.get(name)
    if _is_missing(value):
        return row_id
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise SkipRow(f"field {name!r} is neither a text nor a number")
    return str(value)


def _is_missing(value: Any) -> bool:
    """Returns whether a value is `None`, or the NaN that pandas stores in its place."""
    return value is None or (isinstance(value, float) and value != value)


def as_list(value: Any) -> list:
    """Returns a list as it is, no items for `None` and NaN, and any other value as a list of one item."""
    if _is_missing(value):
        return []
    return value if isinstance(value, list) else [value]


def decode_base64(value: Any) -> bytes:
    """Returns the bytes of an image that is encoded in base64."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise SkipRow("image is not base64") from error


def find_media(value: Any, folder: MediaFolder, source: str) -> dict[str, Any]:
    """
    Returns an image or a video of a row as a record stores it, `{"path": ..., "bytes": ...}`.

    Args:
        value (`Any`): bytes, a dictionary with 'bytes' or 'path', or the name of a file, which must exist in
            `folder`.
        folder (`str` or `list[str]`, *optional*): folders that may hold media. Relative names are in the first one. By
            default the folder of `source`.
        source (`str`): the file of the row.

    Raises:
        SkipRow: if there is no image or video, if it is a URL, or its file is outside of `folder`.
    """
    path = value.get("path") if isinstance(value, dict) else value
    data = value.get("bytes") if isinstance(value, dict) else None
    if isinstance(path, (bytes, bytearray)):
        data = path
        path = None
    if not _is_missing(data):
        if not isinstance(data, (bytes, bytearray)):
            raise SkipRow("the bytes of an image or video are no bytes")
        if not data:
            raise SkipRow("no image or video")
        return {"path": path if isinstance(path, str) else None, "bytes": bytes(data)}
    if _is_missing(path) or path == "":
        raise SkipRow("no image or video")
    if not isinstance(path, str):
        raise SkipRow("an image or video is neither bytes nor a file name")
    # Conversion downloads nothing, and training refuses URLs.
    if is_url(path):
        raise SkipRow(URL_REASON)
    roots = _media_roots(folder, source)
    try:
        return {"path": find_local_file(Path(roots[0]) / path, roots), "bytes": None}
    except MediaPathError as error:
        raise SkipRow(f"an image or video cannot be used: {error}") from error
    except (OSError, UnicodeError) as error:  # missing, or a name that is too long or that no file can have
        raise SkipRow("file of an image or video is missing") from error


def _media_roots(folder: MediaFolder, source: str) -> list[str]:
    if folder is None:
        # A source is a file, or a folder that `load_dataset` reads.
        return [source if Path(source).is_dir() else str(Path(source).parent)]
    return [folder] if isinstance(folder, str) else folder


__all__ = [
    "ConversionReport",
    "Converter",
    "MediaFolder",
    "SkipRow",
    "as_list",
    "decode_base64",
    "find_media",
    "get_id",
    "get_text",
]
