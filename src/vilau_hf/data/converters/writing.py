"""Records on disk: parquet in the layout that `load_dataset` reads."""

import os
import shutil
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pyarrow
import pyarrow.parquet
from datasets import Features

from ...files import is_new_or_empty
from ..records import record_features


ROW_GROUP = 100


def write_records(
    records: Iterable[dict], folder: str | Path, records_per_file: int = 10_000, features: Features | None = None
) -> list[str]:
    """
    Writes records as `train-00000-of-00042.parquet` and so on. The folder appears when all of them are written; what
    a killed process leaves is beside it, with `.incomplete` in the name. Media that are files stay where they are.

    Args:
        records (`Iterable[dict]`): as [`convert_records`] gives them.
        folder (`str` or `Path`): new, or empty.
        records_per_file (`int`, *optional*, defaults to 10000).
        features (`datasets.Features`, *optional*): schema with further columns (default: [`record_features`]).

    Returns:
        The files.

    Raises:
        ValueError: if `folder` has files, or there is no record.
    """
    folder = Path(folder)
    if records_per_file < 1:
        raise ValueError(f"`records_per_file` must be at least 1, got {records_per_file}.")
    if not is_new_or_empty(folder):
        raise ValueError(f"`folder` must be new or empty, got {str(folder)!r}.")
    temporary = folder.with_name(folder.name + ".incomplete")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    records, count = iter(records), 0
    while _write_file(islice(records, records_per_file), temporary / str(count), features or record_features()):
        count += 1
    if count == 0:
        temporary.rmdir()
        raise ValueError(f"`records` has none, nothing is written to {str(folder)!r}.")
    names = [f"train-{index:05d}-of-{count:05d}.parquet" for index in range(count)]
    for index, name in enumerate(names):
        os.replace(temporary / str(index), temporary / name)
    if folder.exists():
        folder.rmdir()
    os.replace(temporary, folder)
    return [str(folder / name) for name in names]


def _write_file(records: Iterable[dict], path: Path, features: Features) -> bool:
    """Writes one file if there is a record."""
    rows = list(islice(records, ROW_GROUP))
    if not rows:
        return False
    with pyarrow.parquet.ParquetWriter(path, features.arrow_schema) as writer:
        while rows:
            rows = [features.encode_example(row) for row in rows]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=features.arrow_schema))
            rows = list(islice(records, ROW_GROUP))
    return True


__all__ = ["write_records"]
