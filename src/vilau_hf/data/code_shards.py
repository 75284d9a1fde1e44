# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""The files of a code cache: parquet shards, each written atomically, and an index."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, List, Value

from ..files import read_json, temporary_files, write_then_rename
from ..modeling.argument_checks_vilau import PositiveInt, check_value
from .records import record_features
from .tower_fingerprint import TowerDescription


INDEX = "index.json"
# The tower is in the metadata of each shard, too, so that a shard cannot be mistaken for one of another tower.
METADATA_KEY = b"vilau_tower"
# A stream reads one row group at a time, and shares a file between workers by row groups.
ROWS_OF_A_GROUP = 1000


class ShardHeader(TypedDict):
    """
    What all shards of a code cache have in common. It is the content of the index while shards are missing.

    Args:
        tower ([`TowerDescription`]): the vision tower that encodes.
        code_shape (`list[int]`): `[L, D]`, the codes of an image.
        code_dtype (`str`): name of an unsigned integer type.
        num_records (`int`): records of the dataset.
        shard_size (`int`): records of a shard. The last shard may have fewer.
    """

    tower: TowerDescription
    code_shape: list[int]
    code_dtype: str
    num_records: int
    shard_size: int


class ShardFile(TypedDict):
    """
    One shard, as the index lists it.

    Args:
        file (`str`): path of the file, relative to the folder.
        num_records (`int`): records in it. It can be smaller than planned if records were skipped.
    """

    file: str
    num_records: int


class ShardIndex(ShardHeader):
    """
    The index of a complete code cache.

    Args:
        shards (`list[ShardFile]`): all shards in order.
    """

    shards: list[ShardFile]


def code_dtype(codebook_size: int) -> np.dtype:
    """Returns the smallest unsigned integer type for codes in `[0, codebook_size)`."""
    return np.min_scalar_type(codebook_size - 1)


def encoded_features(code_length: int, dtype: np.dtype) -> Features:
    """
    Returns the schema of encoded records: `id`, `messages` as in records, and `codes`.

    `codes` has an item for each image and video, in the order of their placeholders. An item has `code_length` codes
    for each frame, where an image is one frame. The D codes of a visual token are adjacent.

    Args:
        code_length (`int`): codes of a frame, `L * D`.
        dtype (`np.dtype`): type of the codes.
    """
    text = {name: feature for name, feature in record_features().items() if name in ("id", "messages")}
    return Features({**text, "codes": List(List(List(Value(np.dtype(dtype).name), length=code_length)))})


class CodeShards:
    """
    Writes and checks the folder of a code cache.

    Args:
        folder (`str` or `Path`): the folder of the code cache.
        tower ([`TowerDescription`]): the result of `describe_tower`.
        num_records (`int`): records of the dataset.
        shard_size (`int`): records of a shard. The last shard may have fewer.
    """

    def __init__(self, folder: str | Path, tower: TowerDescription, num_records: int, shard_size: int) -> None:
        check_value("shard_size", shard_size, PositiveInt)
        self.folder = Path(folder)
        config = tower["config"]
        grid = config["image_size"] // config["patch_size"]
        self.header: ShardHeader = {
            "tower": tower,
            "code_shape": [grid * grid, config["code_depth"]],
            "code_dtype": code_dtype(config["codebook_size"]).name,
            "num_records": num_records,
            "shard_size": shard_size,
        }
        self.num_shards = -(-num_records // shard_size)

    def record_range(self, shard: int) -> range:
        """Returns the indices in the dataset of the records of a shard."""
        begin = shard * self.header["shard_size"]
        return range(begin, min(begin + self.header["shard_size"], self.header["num_records"]))

    def path(self, shard: int) -> Path:
        """Returns the file of a shard."""
        return self.folder / "data" / f"train-{shard:05d}-of-{self.num_shards:05d}.parquet"

    def begin(self) -> None:
        """
        Writes the index with the header, or compares the index of an interrupted run with it. Call it in one process.

        Raises:
            ValueError: if the interrupted run had other arguments, or the folder has other content.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # temporary files of killed processes, see `write_then_rename`
        leftovers = [
            *temporary_files(self.folder, INDEX),
            *temporary_files(self.folder / "data", "train-*-of-*.parquet"),
        ]
        if (self.folder / INDEX).is_file():
            self._check_header(_read_header(self.folder))
        elif set(self.folder.iterdir()) - set(leftovers):
            raise ValueError(f"`folder` ({self.folder}) is not empty and has no {INDEX}: choose a new one.")
        else:
            _write_json(self.folder / INDEX, self.header)
        (self.folder / "data").mkdir(exist_ok=True)
        # Only after the checks, so that nothing is deleted from a folder that is refused.
        for path in leftovers:
            path.unlink()

    def _check_header(self, found: ShardHeader) -> None:
        """Compares the header of an interrupted run with the header of this run."""
        expected = self.header["tower"]["fingerprint"]
        if found["tower"]["fingerprint"] != expected:
            raise ValueError(
                f"{self.folder} was begun with the tower {found['tower']['fingerprint']}, but `model` and `processor` "
                f"have the tower {expected}. Choose another folder."
            )
        for name, begun, given in (
            ("num_records", found["num_records"], self.header["num_records"]),
            ("shard_size", found["shard_size"], self.header["shard_size"]),
        ):
            if begun != given:
                raise ValueError(
                    f"{self.folder} was begun with `{name}` {begun}, not {given}. Choose another folder, or the "
                    "arguments that it was begun with."
                )

    def missing(self) -> list[int]:
        """Returns the shards that are not written yet. A file with the name of a shard is always complete."""
        return [shard for shard in range(self.num_shards) if not self.path(shard).is_file()]

    def read_first(self, shard: int) -> dict:
        """Returns `id` and `messages` of the first record of a shard."""
        with self._open(shard) as file:
            return next(file.iter_batches(1, columns=["id", "messages"])).to_pylist()[0]

    def write(self, shard: int, rows: list[dict]) -> int:
        """
        Writes the encoded records of a shard.

        Args:
            shard (`int`): index of the shard.
            rows (`list[dict]`): records with `id`, `messages` and `codes`, integer arrays `(F, L * D)`.

        Returns:
            The size of the file in bytes.

        Raises:
            ValueError: for codes of another type than that of the header.
        """
        table = self._table(rows)

        def write(path: Path) -> None:
            pq.write_table(
                table,
                path,
                row_group_size=ROWS_OF_A_GROUP,
                compression="zstd",
                # Codes are nearly random, so only their unused high bits can be compressed. This encoding stores all
                # first bytes, then all second bytes, which puts those bits next to each other.
                use_dictionary=["messages.list.element.role", "messages.list.element.content.list.element.type"],
                column_encoding={"codes.list.element.list.element.list.element": "BYTE_STREAM_SPLIT"},
            )

        write_then_rename(self.path(shard), write)
        return self.path(shard).stat().st_size

    def _table(self, rows: list[dict]) -> pa.Table:
        """Returns encoded records as an Arrow table, with the tower in its metadata."""
        length = int(np.prod(self.header["code_shape"]))
        dtype = np.dtype(self.header["code_dtype"])
        schema = encoded_features(length, dtype).arrow_schema
        schema = schema.with_metadata({**schema.metadata, METADATA_KEY: json.dumps(self.header["tower"]).encode()})
        items = [item for row in rows for item in row["codes"]]
        frames = np.concatenate([np.empty((0, length), dtype), *items])
        if frames.dtype != dtype:
            raise ValueError(f"`codes` must be arrays of {dtype} and shape (F, {length}), got {frames.dtype}.")
        # The nested lists are built from one array and offsets. As Python lists, each code would be an object.
        frame_codes = pa.FixedSizeListArray.from_arrays(pa.array(frames.reshape(-1)), length)
        item_codes = pa.ListArray.from_arrays(_offsets([len(item) for item in items]), frame_codes)
        row_codes = pa.ListArray.from_arrays(_offsets([len(row["codes"]) for row in rows]), item_codes)
        columns = [pa.array([row[name] for row in rows], schema.field(name).type) for name in ("id", "messages")]
        return pa.table([*columns, row_codes.cast(schema.field("codes").type)], schema=schema)

    def finish(self) -> bool:
        """
        Completes the index if no shard is missing.

        Returns:
            Whether the code cache is complete.

        Raises:
            ValueError: for a shard that is damaged or of another tower.
        """
        if self.missing():
            return False
        shards: list[ShardFile] = []
        for shard in range(self.num_shards):
            with self._open(shard) as file:
                name = str(self.path(shard).relative_to(self.folder))
                shards.append({"file": name, "num_records": file.metadata.num_rows})
        _write_json(self.folder / INDEX, {**self.header, "shards": shards})
        return True

    @contextlib.contextmanager
    def _open(self, shard: int) -> Iterator[pq.ParquetFile]:
        """Opens a shard and checks that it is complete and of this tower."""
        path = self.path(shard)
        expected = self.header["tower"]["fingerprint"]
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"cannot read {path}: {error} Delete it and run the encoding again.") from error
        with file:
            found = json.loads(file.schema_arrow.metadata[METADATA_KEY])["fingerprint"]
            if found != expected:
                raise ValueError(f"{path} holds codes of the tower {found}, not of {expected}.")
            yield file

    @staticmethod
    def read_index(folder: str | Path) -> ShardIndex:
        """
        Returns the index of a complete code cache.

        Args:
            folder (`str` or `Path`): the folder of the code cache.

        Raises:
            ValueError: if there is none, or it is not complete.
        """
        index = _read_header(Path(folder))
        if "shards" not in index:
            raise ValueError(f"the records in {folder} are not all encoded yet: run the encoding again to continue.")
        return cast(ShardIndex, index)  # the key that it has more than a header was just found

    @staticmethod
    def files(folder: str | Path, index: ShardIndex) -> list[Path]:
        """
        Returns the files of a complete code cache.

        Args:
            folder (`str` or `Path`): the folder of the code cache.
            index ([`ShardIndex`]): its index.

        Raises:
            ValueError: if a file is missing.
        """
        files = [Path(folder) / shard["file"] for shard in index["shards"]]
        for file in files:
            if not file.is_file():
                raise ValueError(f"{file} does not exist, but {INDEX} of {folder} lists it.")
        return files


def _offsets(lengths: list[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _read_header(folder: Path) -> ShardHeader:
    if not (folder / INDEX).is_file():
        raise ValueError(f"{folder} has no {INDEX}: it is not a folder of encoded records.")
    index = read_json(folder / INDEX)
    if not {"tower", "num_records", "shard_size"} <= set(index):
        raise ValueError(f"{folder / INDEX} is not an index of encoded records.")
    return cast(ShardHeader, index)  # written by `begin`, its keys were just checked


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    write_then_rename(
        path, lambda temporary: temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    )


__all__ = ["CodeShards"]
