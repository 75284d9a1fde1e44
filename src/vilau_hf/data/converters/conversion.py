"""What all converters share: sources of rows, the report of what was skipped, and the way from a row to a record."""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from datasets import Features

from ..records import MEDIA_FIELDS, RecordError, record_features, validate_record
from .rows import list_sources, read_rows


NUM_EXAMPLES = 3


class SkipRow(Exception):
    """A row that gives no record. Its text is the reason, the same for all rows it holds for."""


@dataclass
class ConversionReport:
    """
    Counts what a conversion gave and left out, in the process that runs it. Its string is a table.

    Args:
        num_records (`int`): records given.
        skipped (`Counter`): rows left out, by reason.
        examples (`dict[str, list[str]]`): ids of the first rows left out for each reason.
        dropped (`Counter`): parts left out of rows that were kept (an image of a document), by reason.
        media (`Counter`): images and videos of the records, by where they are: a file, within the record, a URL.
    """

    num_records: int = 0
    skipped: Counter = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    dropped: Counter = field(default_factory=Counter)
    media: Counter = field(default_factory=Counter)

    def skip(self, reason: str, row_id: str):
        self.skipped[reason] += 1
        if len(self.examples[reason]) < NUM_EXAMPLES:
            self.examples[reason].append(row_id)

    def add(self, record: dict):
        self.num_records += 1
        for kind, name in MEDIA_FIELDS.items():
            for item in record[name]:
                self.media[f"{kind}s {_place(item)}"] += 1

    def __str__(self) -> str:
        lines = [f"{self.num_records} records, {self.skipped.total()} rows skipped"]
        for reason, count in self.skipped.most_common():
            lines.append(f"  {count:>8}  {reason}  ({', '.join(self.examples[reason])})")
        if self.dropped:
            lines.append("left out of records")
            lines += [f"  {count:>8}  {reason}" for reason, count in self.dropped.most_common()]
        lines += [f"{count} {where}" for where, count in sorted(self.media.items())]
        return "\n".join(lines)


def _place(item: Any) -> str:
    path = item.get("path") if isinstance(item, dict) else item
    if isinstance(item, bytes) or (isinstance(item, dict) and item.get("bytes") is not None):
        return "within the records"
    if isinstance(path, str) and path.startswith(("http://", "https://")):
        return "by URL, to be downloaded before training"
    return "in files"


class Converter(ABC):
    """
    Turns the rows of one published layout into records. A subclass names its options in `__init__` and says in
    `convert` what a row becomes; where rows come from is told by the source: a file, a pattern, a folder, or a
    dataset of the Hub.
    """

    # fields of a row that are read, `None` for all
    fields: ClassVar[tuple[str, ...] | None] = None

    def list_sources(self, source: str | list[str]) -> list[str]:
        """Files of `source` in a fixed order."""
        return list_sources(source)

    def features(self, files: list[str]) -> Features:
        """The schema of the records of `files`."""
        return record_features()

    def rows(self, source: str, part: int, num_parts: int) -> Iterator[tuple[str, Any]]:
        """Names and rows of one file, every `num_parts`-th of them or another fixed share."""
        return read_rows(source, part, num_parts, self.fields)

    @abstractmethod
    def convert(self, row_id: str, row: dict, source: str, report: ConversionReport) -> dict:
        """
        The record of a row.

        Args:
            row_id (`str`): name of the row, for rows that have no id of their own.
            row (`dict`).
            source (`str`): the file it stands in.
            report ([`ConversionReport`]): for what is left out of the record.

        Raises:
            SkipRow: if the row gives no record.
        """

    def records(self, source: str, part: int, num_parts: int, report: ConversionReport) -> Iterator[dict]:
        """Valid records of one file; the others are counted."""
        for row_id, row in self.rows(source, part, num_parts):
            try:
                if not isinstance(row, dict):
                    raise SkipRow("malformed row")
                record = {"images": [], "videos": [], **self.convert(row_id, row, source, report)}
                validate_record(record)
            except SkipRow as skip:
                report.skip(str(skip), row_id)
            except RecordError as error:
                report.skip(error.reason, row_id)
            else:
                report.add(record)
                yield record


def get_text(row: dict, name: str) -> str:
    """The field `name` of a row, which must be a text that is not empty."""
    if name not in row:
        raise SkipRow(f"no field {name!r}")
    text = row[name]
    if not isinstance(text, str):
        raise SkipRow(f"field {name!r} is no text")
    if not text.strip():
        raise SkipRow(f"field {name!r} is empty")
    return text.strip()


def get_id(row: dict, name: str | None, row_id: str) -> str:
    """The field `name` of a row as a string, or the name of the row."""
    return row_id if name is None or row.get(name) is None else str(row[name])


def find_media(value: Any, folder: str | None, source: str) -> dict:
    """
    An image or a video of a row: bytes, a dictionary with 'bytes' or 'path', a URL, or a file, relative to `folder`
    (by default that of `source`) and existing.
    """
    path, data = (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (value, None)
    if isinstance(path, (bytes, bytearray)):
        path, data = None, bytes(path)
    if data is not None:
        return {"path": path, "bytes": data}
    if path is None or path == "":
        raise SkipRow("no image or video")
    if not isinstance(path, str):
        raise SkipRow("an image or video that is neither bytes nor a file name")
    if "://" in path:
        return {"path": path, "bytes": None}
    file = (Path(source).parent if folder is None else Path(folder)) / path
    if not file.is_file():
        raise SkipRow("file of an image or video is missing")
    return {"path": str(file.absolute()), "bytes": None}


__all__ = ["ConversionReport", "Converter", "SkipRow", "find_media", "get_id", "get_text"]
