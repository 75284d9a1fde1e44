# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""The files of a code cache: parquet shards that are there whole or not at all, and an index."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, List, Value

from ..files import read_json, write_then_rename
from .records import record_features


INDEX = "index.json"
METADATA_KEY = b"vilau_tower"
ROWS_OF_A_GROUP = 1000


def code_dtype(codebook_size: int) -> np.dtype:
    """The smallest unsigned integer type for codes in `[0, codebook_size)`."""
    return np.min_scalar_type(codebook_size - 1)


def encoded_features(code_length: int, dtype: np.dtype) -> Features:
    """
    The schema of encoded records: `id`, `messages` as in records, and `codes`, for each image and video (in the order
    of their placeholders) and each frame (an image has one) `code_length` = L * D codes, the D codes of a visual token
    beside each other.
    """
    text = {name: feature for name, feature in record_features().items() if name in ("id", "messages")}
    return Features({**text, "codes": List(List(List(Value(np.dtype(dtype).name), length=code_length)))})


class CodeShards:
    """
    The folder of a code cache while it is being written.

    Args:
        folder (`str` or `Path`): where.
        tower (`dict`): what `describe_tower` gave.
        num_records (`int`): records of the dataset.
        shard_size (`int`): records of a file; the last one may have fewer.
    """

    def __init__(self, folder: str | Path, tower: dict[str, Any], num_records: int, shard_size: int):
        if shard_size < 1:
            raise ValueError(f"`shard_size` must be at least 1, got {shard_size}.")
        self.folder = Path(folder)
        config = tower["config"]
        grid = config["image_size"] // config["patch_size"]
        self.plan = {
            "tower": tower,
            "code_shape": [grid * grid, config["code_depth"]],
            "code_dtype": code_dtype(config["codebook_size"]).name,
            "num_records": num_records,
            "shard_size": shard_size,
        }
        self.num_shards = -(-num_records // shard_size)

    def places(self, shard: int) -> range:
        """Places of a shard's records in the dataset."""
        begin = shard * self.plan["shard_size"]
        return range(begin, min(begin + self.plan["shard_size"], self.plan["num_records"]))

    def path(self, shard: int) -> Path:
        return self.folder / "data" / f"train-{shard:05d}-of-{self.num_shards:05d}.parquet"

    def begin(self):
        """
        Notes what is going to be written, or checks that an interrupted run meant the same; for one process.

        Raises:
            ValueError: if it did not, or the folder holds something else.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        left = [*self.folder.glob(f"{INDEX}.*.tmp"), *self.folder.glob("data/train-*.parquet.*.tmp")]
        if (self.folder / INDEX).is_file():
            self._check_begun(_read_index(self.folder))
        elif set(self.folder.iterdir()) - set(left):
            raise ValueError(f"`folder` ({self.folder}) is not empty and has no {INDEX}: choose a new one.")
        else:
            _write_json(self.folder / INDEX, self.plan)
        (self.folder / "data").mkdir(exist_ok=True)
        for path in left:  # by killed processes
            path.unlink()

    def _check_begun(self, begun: dict[str, Any]):
        if begun["tower"]["fingerprint"] != self.plan["tower"]["fingerprint"]:
            raise ValueError(
                f"{self.folder} was begun with the tower {begun['tower']['fingerprint']}, but `model` and `processor` "
                f"have the tower {self.plan['tower']['fingerprint']}: choose another folder."
            )
        for name in ("num_records", "shard_size"):
            if begun[name] != self.plan[name]:
                raise ValueError(
                    f"{self.folder} was begun with `{name}` {begun[name]}, not {self.plan[name]}: choose another "
                    "folder, or the arguments it was begun with."
                )

    def missing(self) -> list[int]:
        """Shards that are not there yet. What is there under its name is whole."""
        return [shard for shard in range(self.num_shards) if not self.path(shard).is_file()]

    def read_first(self, shard: int) -> dict:
        """`id` and `messages` of the first record of a shard."""
        with self._open(shard) as file:
            return next(file.iter_batches(1, columns=["id", "messages"])).to_pylist()[0]

    def write(self, shard: int, rows: list[dict]) -> int:
        """
        Writes the encoded records of a shard.

        Args:
            shard (`int`): which one.
            rows (`list[dict]`): with `id`, `messages` and `codes`, integer arrays `(F, L * D)`.

        Returns:
            The size of the file in bytes.
        """
        length, dtype = int(np.prod(self.plan["code_shape"])), np.dtype(self.plan["code_dtype"])
        schema = encoded_features(length, dtype).arrow_schema
        schema = schema.with_metadata({**schema.metadata, METADATA_KEY: json.dumps(self.plan["tower"]).encode()})
        items = [item for row in rows for item in row["codes"]]
        frames = np.concatenate([np.empty((0, length), dtype), *items])
        if frames.dtype != dtype:
            raise ValueError(f"`codes` must be arrays of {dtype} and shape (F, {length}), got {frames.dtype}.")
        frames = pa.FixedSizeListArray.from_arrays(pa.array(frames.reshape(-1)), length)
        codes = pa.ListArray.from_arrays(_offsets([len(item) for item in items]), frames)
        codes = pa.ListArray.from_arrays(_offsets([len(row["codes"]) for row in rows]), codes)
        columns = [pa.array([row[name] for row in rows], schema.field(name).type) for name in ("id", "messages")]
        table = pa.table([*columns, codes.cast(schema.field("codes").type)], schema=schema)

        def write(path):
            pq.write_table(
                table,
                path,
                row_group_size=ROWS_OF_A_GROUP,
                compression="zstd",
                # codes are close to random: what compresses is their unused bits, split off byte by byte
                use_dictionary=["messages.list.element.role", "messages.list.element.content.list.element.type"],
                column_encoding={"codes.list.element.list.element.list.element": "BYTE_STREAM_SPLIT"},
            )

        write_then_rename(self.path(shard), write)
        return self.path(shard).stat().st_size

    def finish(self) -> bool:
        """
        Completes the index if all shards are there.

        Raises:
            ValueError: for a shard that is damaged or of another tower.
        """
        if self.missing():
            return False
        shards = []
        for shard in range(self.num_shards):
            with self._open(shard) as file:
                name = str(self.path(shard).relative_to(self.folder))
                shards.append({"file": name, "num_records": file.metadata.num_rows})
        _write_json(self.folder / INDEX, {**self.plan, "shards": shards})
        return True

    @contextlib.contextmanager
    def _open(self, shard: int) -> Iterator[pq.ParquetFile]:
        """Opens a shard, which must be whole and of this tower."""
        path, own = self.path(shard), self.plan["tower"]["fingerprint"]
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"cannot read {path}: {error} Delete it and run the encoding again.") from error
        with file:
            found = json.loads(file.schema_arrow.metadata[METADATA_KEY])["fingerprint"]
            if found != own:
                raise ValueError(f"{path} holds codes of the tower {found}, not of {own}.")
            yield file

    @staticmethod
    def read_index(folder: str | Path) -> dict[str, Any]:
        """
        The index of a complete code cache.

        Raises:
            ValueError: if there is none, or it is not complete.
        """
        index = _read_index(Path(folder))
        if "shards" not in index:
            raise ValueError(f"the records in {folder} are not all encoded yet: run the encoding again to go on.")
        return index

    @staticmethod
    def files(folder: str | Path, index: dict[str, Any]) -> list[Path]:
        """
        The shards of a complete code cache.

        Raises:
            ValueError: if one is not there.
        """
        files = [Path(folder) / shard["file"] for shard in index["shards"]]
        for file in files:
            if not file.is_file():
                raise ValueError(f"{file} is not there, but {INDEX} of {folder} names it.")
        return files


def _offsets(lengths: list[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _read_index(folder: Path) -> dict[str, Any]:
    if not (folder / INDEX).is_file():
        raise ValueError(f"{folder} has no {INDEX}: it is no folder of encoded records.")
    index = read_json(folder / INDEX)
    if not {"tower", "num_records", "shard_size"} <= set(index):
        raise ValueError(f"{folder / INDEX} is not that of encoded records.")
    return index


def _write_json(path: Path, content: dict[str, Any]):
    write_then_rename(path, lambda temporary: temporary.write_text(json.dumps(content, indent=2) + "\n"))


__all__ = ["CodeShards"]
