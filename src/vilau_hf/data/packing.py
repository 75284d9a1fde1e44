# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Packing: short samples share a row, so that little of a batch is padding."""

import bisect
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from transformers.utils import logging


logger = logging.get_logger(__name__)


def best_fit(lengths: list[int], max_length: int) -> list[list[int]]:
    """
    Indices of `lengths` in bins of at most `max_length`, by best fit, longest first. Bins are in order of their first
    index, and the indices of each are, too.
    """
    bins, free = [], []  # `free` holds (room left, bin) of the bins that are not full, in order
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        place = bisect.bisect_left(free, (lengths[index], -1))
        if place == len(free):
            room, chosen = max_length, len(bins)
            bins.append([])
        else:
            room, chosen = free.pop(place)
        bins[chosen].append(index)
        if room > lengths[index]:
            bisect.insort(free, (room - lengths[index], chosen))
    return sorted(sorted(each) for each in bins)


class RecordPacker:
    r"""
    Puts records together so that each pack fills a row of `max_length` tokens as far as possible;
    [`VilaUDataCollator`] makes the rows. Records stay whole, and the same records give the same packs: those of best
    fit, longest records first (Johnson et al., 1974: Worst-case performance bounds for simple one-dimensional packing
    algorithms).

    Datasets with random access are packed by [`PackedDataset`], streams as they are read:

    ```python
    train_dataset = PackedDataset(dataset, RecordPacker(processor, max_length=4096))
    train_dataset = RecordStream(mixture, MediaLoader(processor), packer=RecordPacker(processor, max_length=4096))
    ```

    Args:
        processor ([`VilaUProcessor`]): counts the tokens.
        max_length (`int`): tokens of a row.
        on_too_long (`str`, *optional*, defaults to `"error"`): what becomes of records of more than `max_length`
            tokens: `"error"` stops and names the record, `"skip"` leaves them out, logs and counts them.

    Attributes:
        num_skipped (`int`): records left out so far, in the process that packs.
    """

    def __init__(self, processor, max_length: int, on_too_long: str = "error"):
        if max_length < 1:
            raise ValueError(f"`max_length` must be at least 1, got {max_length}.")
        if on_too_long not in ("error", "skip"):
            raise ValueError(f"`on_too_long` must be 'error' or 'skip', got {on_too_long!r}.")
        self.processor = processor
        self.max_length = max_length
        self.on_too_long = on_too_long
        self.num_skipped = 0

    def __call__(self, columns: dict[str, list]) -> dict[str, list[list[dict]]]:
        """
        Packs the records of a batch, given by columns as `datasets` does.

        Returns:
            `records`, a list of records for each pack.

        Raises:
            ValueError: for a record that is too long, with its id.
        """
        records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        lengths = count_tokens(records, self.processor)
        kept = self.keep([record.get("id") for record in records], lengths)
        packs = best_fit([lengths[index] for index in kept], self.max_length)
        return {"records": [[records[kept[index]] for index in pack] for pack in packs]}

    def keep(self, ids: list, lengths: list[int]) -> list[int]:
        """Places of the records that are not too long."""
        kept = [index for index, length in enumerate(lengths) if length <= self.max_length]
        if len(kept) < len(lengths):
            first = next(index for index, length in enumerate(lengths) if length > self.max_length)
            name = f"the record {ids[first]!r}" if ids[first] is not None else f"a record ({first} of those at hand)"
            message = f"{name} has {lengths[first]} tokens, more than `max_length` ({self.max_length})"
            if self.on_too_long == "error":
                raise ValueError(f"{message}: raise that, or leave such records out with `on_too_long='skip'`.")
            self.num_skipped += len(lengths) - len(kept)
            logger.warning(f"{message}; {self.num_skipped} such records are left out so far")
        return kept


class PackedDataset(torch.utils.data.Dataset):
    """
    Packs `{"records": [...]}` of the records of a dataset, found when it is made; no stored media are opened for that.

    Args:
        dataset (`datasets.Dataset`): records, with [`MediaLoader`] as their transform; shuffle it before. Where that
            skips records, put the packs into [`ReadableRows`].
        packer ([`RecordPacker`]).
        window (`int`, *optional*, defaults to 1000): successive records that are packed together.

    Attributes:
        packs (`list[list[int]]`): places of the records of each pack.
        fill (`float`): share of the rows that is tokens and not padding.
        num_skipped (`int`): records left out because they are too long.

    Raises:
        TypeError: if `dataset` is a stream.
        ValueError: for a record that is too long, with its id or place.
    """

    def __init__(self, dataset: Dataset, packer: RecordPacker, window: int = 1000):
        if not isinstance(dataset, Dataset):
            raise TypeError(
                f"`dataset` must be a datasets.Dataset, got {type(dataset).__name__}: streams are packed by "
                "`RecordStream(..., packer=RecordPacker(...))`."
            )
        if window < 1:
            raise ValueError(f"`window` must be at least 1, got {window}.")
        self.dataset = dataset
        self.packs, tokens = [], 0
        for begin, ids, lengths in _lengths_by_window(dataset, packer.processor, window):
            kept = packer.keep([begin + place if name is None else name for place, name in enumerate(ids)], lengths)
            tokens += sum(lengths[place] for place in kept)
            packs = best_fit([lengths[place] for place in kept], packer.max_length)
            self.packs += [[begin + kept[place] for place in pack] for pack in packs]
        self.fill = tokens / max(1, len(self.packs) * packer.max_length)
        self.num_skipped = packer.num_skipped

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> dict[str, list[dict]]:
        columns = self.dataset[self.packs[index]]
        return {"records": [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]}


def _lengths_by_window(dataset: Dataset, processor, window: int) -> Iterator[tuple[int, list, list[int]]]:
    """First index, ids and tokens of each run of records. A transform that opens their media is not called."""
    is_stored = "messages" in dataset.column_names
    if is_stored:
        names = [name for name in ("id", "messages", "videos", "codes") if name in dataset.column_names]
        dataset = dataset.select_columns(names).with_format("arrow")
    for begin in range(0, len(dataset), window):
        columns = dataset[begin : begin + window]
        if is_stored:
            columns = {name: _stand_in(name, columns[name]) for name in columns.column_names}
        records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        yield begin, [record.get("id") for record in records], count_tokens(records, processor)


def _stand_in(name: str, column: pa.ChunkedArray) -> list:
    """A column as Python objects; of frames and codes their number alone, for they are many."""
    if name not in ("videos", "codes") or not pa.types.is_nested(column.type):
        return column.to_pylist()
    frames = column.type.value_type
    if not pa.types.is_nested(frames) or pa.types.is_struct(frames):  # files, not lists of frames
        return [None] * len(column)
    return [
        [[None] * length for length in row.values.value_lengths().to_pylist()] if row.is_valid else None
        for row in column
    ]


def count_tokens(records: list[dict], processor) -> list[int]:
    """Tokens of each record in a row of its own, as [`VilaUDataCollator`] makes it where it drops no prompt."""
    frames = [num_frames(record, processor.video_processor) for record in records]
    return processor.count_training_tokens([record["messages"] for record in records], frames)


def num_frames(record: dict, video_processor) -> list[int]:
    """Frames of the images (1) and videos of a record, in the order of their placeholders."""
    if record.get("codes") is not None:
        return [len(item) for item in record["codes"]]
    videos = iter(() if record.get("videos") is None else record["videos"])
    kinds = [
        item["type"]
        for message in record["messages"]
        if not isinstance(message["content"], str)
        for item in message["content"]
    ]
    return [
        1 if kind == "image" else _frames_of_video(next(videos, None), video_processor)
        for kind in kinds
        if kind in ("image", "video")
    ]


def _frames_of_video(video, video_processor) -> int:
    """Frames that the processor takes: all of those that are given, or so many of a file."""
    if isinstance(video, (list, tuple, np.ndarray, torch.Tensor)) and not video_processor.do_sample_frames:
        return len(video)
    if video_processor.fps is not None:
        raise ValueError(
            "`processor.video_processor` samples by `fps`, and how long a video file is would be known too late: "
            "set `num_frames` instead."
        )
    return video_processor.num_frames


__all__ = ["PackedDataset", "RecordPacker", "best_fit"]
