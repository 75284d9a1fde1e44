"""Rows of files, one after the other: JSON, JSON lines, parquet, CSV, tar archives, datasets of the Hub."""

import csv
import glob
import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet


PICKLE_SUFFIXES = (".pkl", ".pickle", ".pk", ".joblib")
PICKLE_REFUSAL = (
    "is a pickle. Reading one runs whatever code its author put in, so no converter does. Export it to JSON lines or "
    "parquet where it comes from and is trusted (for VFLAN: the rows of M3IT on the Hub, before they were pickled)."
)


def list_sources(source: str | list[str]) -> list[str]:
    """
    Files of a source in a fixed order.

    Args:
        source (`str` or `list[str]`): a file, a pattern as in `data/*.parquet`, a folder (all files below it that
            have rows), or a list of them.

    Raises:
        ValueError: for a source without files, or a pickle.
    """
    if isinstance(source, (list, tuple)):
        return [file for item in source for file in list_sources(item)]
    source = str(Path(source).expanduser())
    if Path(source).is_dir():
        paths = sorted(str(path) for path in Path(source).rglob("*") if path.is_file())
        files = [path for path in paths if _suffix(path) or path.endswith(PICKLE_SUFFIXES)]
    else:
        files = [source] if Path(source).is_file() else sorted(glob.glob(source, recursive=True))
    if not files:
        raise ValueError(f"`source` must be a file, a pattern or a folder with {', '.join(_READERS)}, got {source!r}.")
    for file in files:
        refuse_pickle(file)
        if _suffix(file) is None:
            raise ValueError(f"`source` must be of the kinds {', '.join(_READERS)}, got {file!r}.")
    return files


def refuse_pickle(file: str):
    """Raises a `ValueError` for a file that is a pickle by its name or its first bytes (protocol 2 or above)."""
    with open(file, "rb") as stream:
        head = stream.read(2)
    if file.lower().endswith(PICKLE_SUFFIXES) or (head[:1] == b"\x80" and head[1:] in (b"\2", b"\3", b"\4", b"\5")):
        raise ValueError(f"`source` {file!r} {PICKLE_REFUSAL}")


def read_rows(file: str, part: int = 0, num_parts: int = 1, fields: tuple[str, ...] | None = None):
    """
    Names and rows of a file. Nothing is kept, whatever the size of the file.

    Args:
        file (`str`): its name says what it is.
        part (`int`), num_parts (`int`): only rows `part`, `part + num_parts`, ... (of parquet files with that many
            row groups: groups). All parts together are the file.
        fields (`tuple[str, ...]`, *optional*): fields that are needed; of parquet files only these are read.

    Returns:
        An iterator of `(name, row)`. A row is a dictionary, or anything else where the file has something else.
    """
    stem = Path(file).name.split(".")[0]
    # a local name: where the interpreter ends in the middle of a file, modules are gone before this generator is
    unreadable = (ValueError, EOFError, csv.Error, tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile)
    try:
        if _suffix(file) == ".parquet":
            yield from _parquet_rows(file, stem, part, num_parts, fields)
            return
        rows = enumerate(_READERS[_suffix(file)](file))
        for index, (name, row) in islice(rows, part, None, num_parts):
            yield name or f"{stem}:{index}", row
    except unreadable as error:
        raise ValueError(f"Cannot read {file!r}: {type(error).__name__}: {error}") from error


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if it is a gzip, or a zip with one file."""
    if file.endswith(".gz"):
        with gzip.open(file) as stream:
            yield stream
    elif file.endswith(".zip"):
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise ValueError(f"a zip archive must hold one file, it has {len(names)}.")
            with archive.open(names[0]) as stream:
                yield stream
    else:
        with open(file, "rb") as stream:
            yield stream


def _json_rows(file: str) -> Iterator[tuple[None, Any]]:
    """Elements of the array that a JSON file holds, or lines of JSON."""
    with _opened(file) as stream:
        if not stream.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            for line in stream:
                if line.strip():
                    yield None, _parsed(line)
            return
        try:
            from ijson import JSONError, items
        except ImportError as error:
            raise ImportError(f"To read {file!r} piece by piece: pip install 'vilau_hf[data]' (ijson).") from error
        try:
            for row in items(stream, "item", use_float=True):
                yield None, row
        except JSONError as error:
            raise ValueError(f"no valid JSON array: {error}") from error


def _parsed(line: bytes) -> Any:
    """The value of a line of JSON, or the line itself if it has none: such a row is skipped and counted."""
    try:
        return json.loads(line)
    except ValueError:
        return line


def _parquet_rows(file: str, stem: str, part: int, num_parts: int, fields) -> Iterator[tuple[str, dict]]:
    with pyarrow.parquet.ParquetFile(file) as table:
        columns = None if fields is None else [name for name in table.schema_arrow.names if name in fields]
        groups, by_group = range(table.num_row_groups), table.num_row_groups >= num_parts
        first = 0
        for group in groups:
            mine = not by_group or group % num_parts == part
            batches = table.iter_batches(64, [group], columns) if mine else ()
            index = first
            for batch in batches:
                for row in batch.to_pylist():
                    if by_group or index % num_parts == part:
                        yield f"{stem}:{index}", row
                    index += 1
            first += table.metadata.row_group(group).num_rows


def _csv_rows(file: str, delimiter: str = ",") -> Iterator[tuple[None, dict]]:
    with _opened(file) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        for row in csv.DictReader(text, delimiter=delimiter):
            yield None, row


def _tar_rows(file: str) -> Iterator[tuple[str, dict]]:
    """Files of a tar archive that share a name up to the first dot, in a row by the rest of their names."""
    name, row = None, {}
    with tarfile.open(file, "r|*") as archive:
        for member in archive:
            match = re.fullmatch(r"((?:.*/)?[^./]+)\.([^/]+)", member.name)
            if not member.isfile() or match is None:
                continue
            if match[1] != name:
                if row:
                    yield name, row
                name, row = match[1], {}
            row[match[2].lower()] = archive.extractfile(member).read()
    if row:
        yield name, row


_READERS: dict[str, Callable[[str], Iterator[tuple[str | None, Any]]]] = {
    ".json": _json_rows,
    ".jsonl": _json_rows,
    ".parquet": _parquet_rows,
    ".csv": _csv_rows,
    ".tsv": lambda file: _csv_rows(file, "\t"),
    ".tar": _tar_rows,
}


def _suffix(file: str) -> str | None:
    """The kind of a file, without its compression."""
    suffix = Path(re.sub(r"\.(gz|zip)$", "", file.lower().replace(".tgz", ".tar.gz"))).suffix
    return suffix if suffix in _READERS else None


__all__ = ["PICKLE_REFUSAL", "list_sources", "read_rows", "refuse_pickle"]
