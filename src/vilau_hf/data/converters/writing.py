"""Writes records as parquet files that `load_dataset` reads."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow
import pyarrow.parquet
from datasets import Features

from ...files import is_new_or_empty, new_folder
from ...modeling.argument_checks_vilau import PositiveInt, check_value
from ..records import record_features


# Rows held in memory while writing. They may hold the bytes of images.
ROW_GROUP = 100


def write_records(
    records: Iterable[dict], folder: str | Path, records_per_file: int = 10_000, features: Features | None = None
) -> list[str]:
    """
    Writes records as `train-00000-of-00042.parquet` and so on.

    The folder gets its name after all files are written. A killed process leaves a hidden folder, which the next call
    beside it deletes. Media that are files are not copied.

    Args:
        records (`Iterable[dict]`): the result of [`convert_records`].
        folder (`str` or `Path`): a folder that is new or empty.
        records_per_file (`int`, *optional*, defaults to 10000): records of a file.
        features (`datasets.Features`, *optional*): schema with further columns (default: [`record_features`]).

    Returns:
        The names of the files.

    Raises:
        ValueError: if `folder` has files, or there is no record.
    """
    folder = Path(folder)
    check_value("records_per_file", records_per_file, PositiveInt)
    if not is_new_or_empty(folder):
        raise ValueError(f"`folder` must be new or empty, got {str(folder)!r}.")
    remaining = iter(records)
    count = 0
    with new_folder(folder) as unfinished:
        while _write_file(islice(remaining, records_per_file), unfinished / str(count), features or record_features()):
            count += 1
        if count == 0:
            raise ValueError(f"`records` has no records, so {str(folder)!r} was not written.")
        # Names have the number of files, which is known only now.
        names = [f"train-{index:05d}-of-{count:05d}.parquet" for index in range(count)]
        for index, name in enumerate(names):
            os.replace(unfinished / str(index), unfinished / name)
    return [str(folder / name) for name in names]


def _write_file(records: Iterator[dict], path: Path, features: Features) -> bool:
    """Writes one file, and returns whether there was a record for it."""
    rows = list(islice(records, ROW_GROUP))
    if not rows:
        return False
    with pyarrow.parquet.ParquetWriter(path, features.arrow_schema) as writer:
        while rows:
            # Turns paths, arrays and PIL images into dictionaries with `path` and `bytes`.
            rows = [features.encode_example(row) for row in rows]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=features.arrow_schema))
            rows = list(islice(records, ROW_GROUP))
    return True


__all__ = ["write_records"]
