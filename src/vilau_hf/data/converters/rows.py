"""Reads the rows of JSON, JSON lines, parquet, CSV and tar files as a stream."""

import csv
import glob
import gzip
import io
import lzma
import re
import reprlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pyarrow
import pyarrow.parquet

from .csv_rows import read_csv_rows
from .json_rows import BinaryFile, read_json_rows, refuse_utf16


PICKLE_SUFFIXES = (".pkl", ".pickle", ".pk", ".joblib")
PICKLE_REFUSAL = (
    "is a pickle. Loading a pickle can run any code of its author, so no converter loads one. Export it to JSON lines "
    "or parquet on a machine that trusts it. For VFLAN, use the rows of M3IT on the Hub."
)
SUFFIXES = (".json", ".jsonl", ".parquet", ".csv", ".tsv", ".tar")

# The csv module refuses fields over 128 kB, and with such a field it would end the file. This is its largest limit on
# all systems.
_MAX_CSV_FIELD = 2**31 - 1


class UnreadableFileError(ValueError):
    """
    A file cannot be read to its end.

    Args:
        file (`str`): the file.
        reason (`str`): type and text of the error.
        position (`str`): the last row that could be read.
    """

    def __init__(self, file: str, reason: str, position: str) -> None:
        super().__init__(f"Cannot read {file!r}: {reason} ({position})")
        self.reason = reason
        self.position = position


def check_source(source: Any) -> None:
    """Raises a `ValueError` unless `source` is a string or a list of strings, none of them empty."""
    names = source if isinstance(source, (list, tuple)) else [source]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(
            f"`source` must be the name of a file, pattern, folder or dataset, or a list of names, got "
            f"{reprlib.repr(source)}."
        )


def list_sources(source: str | list[str]) -> list[str]:
    """
    Returns the files of a source in a fixed order.

    Args:
        source (`str` or `list[str]`): a file, a pattern as in `data/*.parquet`, a folder (all files of a supported
            type in it and its subfolders), or a list of them.

    Raises:
        ValueError: if the source has no files, or a file is a pickle or of another type.
    """
    if isinstance(source, (list, tuple)):
        return [file for item in source for file in list_sources(item)]
    source = str(Path(source).expanduser())
    if Path(source).is_dir():
        paths = sorted(str(path) for path in Path(source).rglob("*") if path.is_file())
        # Pickles stay in the list, so that they are refused below and not ignored.
        files = [path for path in paths if _suffix(path) or path.endswith(PICKLE_SUFFIXES)]
    else:
        files = [source] if Path(source).is_file() else sorted(glob.glob(source, recursive=True))
    if not files:
        raise ValueError(
            "`source` must be a file, a pattern such as 'data/*.parquet', or a folder with files of the types "
            f"{', '.join(SUFFIXES)}. No such file was found, got {source!r}."
        )
    for file in files:
        refuse_pickle(file)
        if _suffix(file) is None:
            raise ValueError(f"`source` must be a file of one of the types {', '.join(SUFFIXES)}, got {file!r}.")
    return files


def refuse_pickle(file: str) -> None:
    """Raises a `ValueError` for a file that is a pickle by its name or its first bytes (protocol 2 or above)."""
    # Since protocol 2, a pickle begins with the opcode 0x80 and the number of its protocol.
    with open(file, "rb") as binary:
        head = binary.read(2)
    if file.lower().endswith(PICKLE_SUFFIXES) or (head[:1] == b"\x80" and head[1:] in (b"\2", b"\3", b"\4", b"\5")):
        raise ValueError(f"`source` {file!r} {PICKLE_REFUSAL}")


def read_rows(
    file: str, shard: int = 0, num_shards: int = 1, fields: tuple[str, ...] | None = None
) -> Iterator[tuple[str, Any]]:
    """
    Yields names and rows of a file. The file is read as a stream, so its size does not matter.

    Args:
        file (`str`): its suffix says its type.
        shard (`int`, *optional*, defaults to 0): index of the shard to read. A shard has the rows `shard`,
            `shard + num_shards` and so on. In a parquet file with enough row groups, it has whole groups.
        num_shards (`int`, *optional*, defaults to 1): number of shards. Together they have each row once.
        fields (`tuple[str, ...]`, *optional*): needed fields. Other columns of a parquet file are not read.

    Yields:
        The name of a row, and the row. A row is a dictionary, or any other value that the file has at this point.

    Raises:
        UnreadableFileError: if the file cannot be read to its end.
    """
    stem = Path(file).name.split(".")[0]
    # Local variables. If the interpreter exits while a file is being read, modules are cleared before this generator
    # is closed, and the `except` below would fail.
    unreadable = _UNREADABLE
    failure = UnreadableFileError
    suffix = _suffix(file)
    last = "before the first row"
    try:
        if suffix == ".parquet":
            for name, row in _parquet_rows(file, stem, shard, num_shards, fields):
                yield name, row
                last = f"after row {name}"
        elif suffix is not None:
            rows = enumerate(_READERS[suffix](file))
            for index, (given, row) in islice(rows, shard, None, num_shards):
                name = given or f"{stem}:{index}"
                yield name, row
                last = f"after row {name}"
    except unreadable as error:
        # Errors of the system, such as a missing permission, have a number and the name of the file. They must stop a
        # conversion, unlike damaged content.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise failure(file, f"{type(error).__name__}: {error}", last) from error


# What readers raise for damaged or unsupported content. RuntimeError is raised by zipfile for an encrypted archive,
# OverflowError by tarfile and pyarrow for sizes out of range.
_UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    OverflowError,
    RuntimeError,
    csv.Error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    pyarrow.ArrowException,
)


@contextmanager
def _opened(file: str) -> Iterator[BinaryFile]:
    """Opens a file for reading, and decompresses a gzip file or a zip archive that holds one file."""
    if file.endswith(".gz"):
        with gzip.open(file) as unpacked:
            yield unpacked
    elif file.endswith(".zip"):
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise ValueError(f"a zip archive must hold exactly one file, got {len(names)} files.")
            with archive.open(names[0]) as member:
                yield cast(zipfile.ZipExtFile, member)  # annotated as `IO[bytes]` in typeshed
    else:
        with open(file, "rb") as binary:
            yield binary


def _json_rows(file: str) -> Iterator[tuple[None, Any]]:
    """Yields the elements of a JSON array, or the values of JSON lines."""
    with _opened(file) as binary:
        for row in read_json_rows(binary):
            yield None, row


def _parquet_rows(
    file: str, stem: str, shard: int, num_shards: int, fields: tuple[str, ...] | None
) -> Iterator[tuple[str, Any]]:
    """Yields names and rows of one shard of a parquet file."""
    with pyarrow.parquet.ParquetFile(file) as table:
        columns = None if fields is None else [name for name in table.schema_arrow.names if name in fields]
        # With enough groups a shard reads only its groups. Otherwise each shard reads the file and takes its rows.
        by_group = table.num_row_groups >= num_shards
        first = 0
        for group in range(table.num_row_groups):
            is_read = not by_group or group % num_shards == shard
            # Small batches, because rows may hold the bytes of images.
            batches = table.iter_batches(64, [group], columns) if is_read else ()
            index = first
            for batch in batches:
                for row in _rows_of_batch(batch):
                    if by_group or index % num_shards == shard:
                        yield f"{stem}:{index}", row
                    index += 1
            # Counted from the metadata, so that names do not depend on which groups a shard reads.
            first += table.metadata.row_group(group).num_rows


def _rows_of_batch(batch: pyarrow.RecordBatch) -> Iterator[Any]:
    """Yields the rows of a batch, and `None` for a row with a value that Python cannot hold."""
    # Examples are text that is not UTF-8, and dates after the year 9999. They must not cost the other rows.
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError, pyarrow.ArrowException):
        pass
    for index in range(batch.num_rows):
        try:
            row = batch.slice(index, 1).to_pylist()[0]
        except (ValueError, OverflowError, pyarrow.ArrowException):
            row = None
        yield row


def _csv_rows(file: str, delimiter: str = ",") -> Iterator[tuple[None, Any]]:
    csv.field_size_limit(_MAX_CSV_FIELD)
    with _opened(file) as binary:
        refuse_utf16(binary)
        # `utf-8-sig` removes a byte order mark. With `newline=""`, the csv module keeps line breaks within quotes.
        # Bytes that are not UTF-8 become surrogates. The check of records skips these rows alone.
        text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
        with text:
            for row in read_csv_rows(text, delimiter):
                yield None, row


def _tar_rows(file: str) -> Iterator[tuple[str, dict]]:
    """Yields the samples of a tar archive: successive files with the same name up to the first dot."""
    name = ""
    row: dict[str, bytes] = {}
    # `r|*` reads the archive once from beginning to end, so its list of members is not read first.
    with tarfile.open(file, "r|*") as archive:
        for member in archive:
            match = re.fullmatch(r"((?:.*/)?[^./]+)\.([^/]+)", member.name)
            # A sparse file can be larger than the memory, while its archive is small.
            content = archive.extractfile(member) if member.isfile() and not member.issparse() else None
            if content is None or match is None:
                continue
            if match[1] != name:
                if row:
                    yield name, row
                name = match[1]
                row = {}
            row[match[2].lower()] = content.read()
    if row:
        yield name, row


# Readers of all types but parquet, whose rows are divided into shards by the reader.
_READERS: dict[str, Callable[[str], Iterator[tuple[str | None, Any]]]] = {
    ".json": _json_rows,
    ".jsonl": _json_rows,
    ".csv": _csv_rows,
    ".tsv": lambda file: _csv_rows(file, "\t"),
    ".tar": _tar_rows,
}


def _suffix(file: str) -> str | None:
    """Returns the suffix of a supported file without its compression, or `None` for other files."""
    # `.tgz` has a compression without a suffix of its archive.
    suffix = Path(re.sub(r"\.(gz|zip)$", "", file.lower().replace(".tgz", ".tar.gz"))).suffix
    return suffix if suffix in SUFFIXES else None


__all__ = [
    "PICKLE_REFUSAL",
    "SUFFIXES",
    "UnreadableFileError",
    "check_source",
    "list_sources",
    "read_rows",
    "refuse_pickle",
]
