# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Packing: short records share a row, so that a batch has little padding."""

import bisect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from transformers.utils import logging

from ..modeling.argument_checks_vilau import PositiveInt, check_value
from .message_media import collect_media


if TYPE_CHECKING:
    from ..processing import VilaUProcessor, VilaUVideoProcessor


logger = logging.get_logger(__name__)


def best_fit(lengths: list[int], max_length: int) -> list[list[int]]:
    """
    Distributes lengths to bins by best fit decreasing: the longest first, each into the fullest bin with enough room.

    Args:
        lengths (`list[int]`): lengths of at most `max_length` each.
        max_length (`int`): size of a bin.

    Returns:
        The indices of `lengths` in each bin, in ascending order. Bins are ordered by their first index.
    """
    bins: list[list[int]] = []
    # (room left, index of the bin) of the bins that are not full, in ascending order: bisection finds the fullest bin
    # that a length fits into
    free: list[tuple[int, int]] = []
    # The sort is stable, so equal lengths stay in their order and the result depends on `lengths` only.
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fullest = bisect.bisect_left(free, (lengths[index], -1))
        if fullest == len(free):
            room = max_length
            chosen = len(bins)
            bins.append([])
        else:
            room, chosen = free.pop(fullest)
        bins[chosen].append(index)
        if room > lengths[index]:
            bisect.insort(free, (room - lengths[index], chosen))
    return sorted(sorted(each) for each in bins)


class RecordPacker:
    r"""
    Groups records into packs, so that each pack fills a row of `max_length` tokens as far as possible.

    [`VilaUDataCollator`] makes the rows. Records are never split, and the same records give the same packs. The
    algorithm is best fit decreasing (Johnson et al., 1974: Worst-case performance bounds for simple one-dimensional
    packing algorithms).

    [`PackedDataset`] packs a dataset with random access. A stream is packed while it is read:

    ```python
    train_dataset = PackedDataset(dataset, RecordPacker(processor, max_length=4096))
    train_dataset = RecordStream(mixture, MediaLoader(processor), packer=RecordPacker(processor, max_length=4096))
    ```

    Args:
        processor ([`VilaUProcessor`]): counts the tokens.
        max_length (`int`): tokens of a row.
        on_too_long (`str`, *optional*, defaults to `"error"`): what happens to records of more than `max_length`
            tokens. `"error"` raises an error that names the record. `"skip"` leaves them out, logs and counts them.

    Attributes:
        num_skipped (`int`): records left out so far, in the process that packs.
    """

    def __init__(self, processor: "VilaUProcessor", max_length: int, on_too_long: str = "error") -> None:
        check_value("max_length", max_length, PositiveInt)
        if on_too_long not in ("error", "skip"):
            raise ValueError(f"`on_too_long` must be 'error' or 'skip', got {on_too_long!r}.")
        self.processor = processor
        self.max_length = max_length
        self.on_too_long = on_too_long
        self.num_skipped = 0

    def __call__(self, columns: dict[str, list]) -> dict[str, list[list[dict]]]:
        """
        Packs the records of a batch.

        Args:
            columns (`dict[str, list]`): a list for each field of the records, as `datasets` gives a batch.

        Returns:
            `records`, a list of records for each pack.

        Raises:
            ValueError: for a record that is too long, with its id.
        """
        records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        lengths = count_tokens(records, self.processor)
        kept = self.keep([record.get("id") for record in records], lengths)
        # `best_fit` gives indices of `kept`, not of `records`.
        packs = best_fit([lengths[index] for index in kept], self.max_length)
        return {"records": [[records[kept[index]] for index in pack] for pack in packs]}

    def keep(self, ids: Sequence[str | int | None], lengths: list[int]) -> list[int]:
        """
        Returns the indices of the records that are not too long.

        Args:
            ids (`Sequence`): the id of each record, for the error. It may be `None`.
            lengths (`list[int]`): tokens of each record.

        Raises:
            ValueError: for a record that is too long, with `on_too_long="error"`.
        """
        kept = [index for index, length in enumerate(lengths) if length <= self.max_length]
        if len(kept) < len(lengths):
            first = next(index for index, length in enumerate(lengths) if length > self.max_length)
            name = f"the record {ids[first]!r}" if ids[first] is not None else f"the record {first} of a batch"
            message = f"{name} has {lengths[first]} tokens, more than `max_length` ({self.max_length})"
            if self.on_too_long == "error":
                raise ValueError(f"{message}. Raise `max_length`, or skip such records with `on_too_long='skip'`.")
            self.num_skipped += len(lengths) - len(kept)
            logger.warning(f"{message}; {self.num_skipped} such records are left out so far")
        return kept


class PackedDataset(torch.utils.data.Dataset):
    """
    Gives the records of a dataset in packs `{"records": [...]}`.

    All packs are computed when the object is created. For that, no stored media are opened.

    Args:
        dataset (`datasets.Dataset`): records, shuffled, with [`MediaLoader`] as their transform. If the loader skips
            records, wrap the packed dataset in [`ReadableRows`].
        packer ([`RecordPacker`]): forms the packs.
        window (`int`, *optional*, defaults to 1000): number of successive records that are packed together.

    Attributes:
        packs (`list[list[int]]`): indices of the records of each pack.
        fill (`float`): share of the rows that holds tokens and not padding.
        num_skipped (`int`): records left out because they are too long.

    Raises:
        TypeError: if `dataset` is a stream.
        ValueError: for a record that is too long, with its id or its index.
    """

    def __init__(self, dataset: Dataset, packer: RecordPacker, window: int = 1000) -> None:
        if not isinstance(dataset, Dataset):
            raise TypeError(
                f"`dataset` must be a datasets.Dataset, got {type(dataset).__name__}. Pack a stream with "
                "`RecordStream(..., packer=RecordPacker(...))`."
            )
        check_value("window", window, PositiveInt)
        self.dataset = dataset
        self.packs: list[list[int]] = []
        num_tokens = 0
        for begin, ids, lengths in _lengths_by_window(dataset, packer.processor, window):
            kept = packer.keep([begin + index if name is None else name for index, name in enumerate(ids)], lengths)
            num_tokens += sum(lengths[index] for index in kept)
            packs = best_fit([lengths[index] for index in kept], packer.max_length)
            self.packs += [[begin + kept[index] for index in pack] for pack in packs]
        self.fill = num_tokens / max(1, len(self.packs) * packer.max_length)
        self.num_skipped = packer.num_skipped

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> dict[str, list[dict]]:
        columns = self.dataset[self.packs[index]]
        return {"records": [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]}


def _lengths_by_window(
    dataset: Dataset, processor: "VilaUProcessor", window: int
) -> Iterator[tuple[int, list[str | None], list[int]]]:
    """Yields the first index, the ids and the token counts of each window of records."""
    # A dataset of stored records has the column `messages`. Its transform, which would open media, is replaced by the
    # Arrow format. Other datasets (the drawn shapes) make their records in the transform, so it has to run.
    is_stored = "messages" in dataset.column_names
    if is_stored:
        names = [name for name in ("id", "messages", "videos", "codes") if name in dataset.column_names]
        dataset = dataset.select_columns(names).with_format("arrow")
    for begin in range(0, len(dataset), window):
        columns = dataset[begin : begin + window]
        if is_stored:
            columns = {name: _column_without_media(name, columns[name]) for name in columns.column_names}
        records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        yield begin, [record.get("id") for record in records], count_tokens(records, processor)


def _column_without_media(name: str, column: pa.ChunkedArray) -> list:
    """Returns a column as Python objects. Frames and codes become lists of `None` with the right lengths."""
    # Only their number matters here, and as Python objects they would need much memory and time.
    if name not in ("videos", "codes") or not pa.types.is_nested(column.type):
        return column.to_pylist()
    frames = column.type.value_type
    if not pa.types.is_nested(frames) or pa.types.is_struct(frames):  # files, not lists of frames
        return [None] * len(column)
    return [
        [[None] * length for length in row.values.value_lengths().to_pylist()] if row.is_valid else None
        for row in column
    ]


def count_tokens(records: list[dict], processor: "VilaUProcessor") -> list[int]:
    """Returns the tokens of each record in a row of [`VilaUDataCollator`], with its prompt."""
    records = [collect_media(record) for record in records]
    frames = [num_frames(record, processor.video_processor) for record in records]
    return processor.count_training_tokens([record["messages"] for record in records], frames)


def num_frames(record: dict, video_processor: "VilaUVideoProcessor") -> list[int]:
    """Returns the frames of the images (1) and videos of a record, in the order of their placeholders."""
    if record.get("codes") is not None:
        return [len(item) for item in record["codes"]]
    videos = iter(() if record.get("videos") is None else record["videos"])
    kinds = [
        content_part["type"]
        for message in record["messages"]
        if not isinstance(message["content"], str)
        for content_part in message["content"]
    ]
    return [
        1 if kind == "image" else _frames_of_video(next(videos, None), video_processor)
        for kind in kinds
        if kind in ("image", "video")
    ]


def _frames_of_video(video: Any, video_processor: "VilaUVideoProcessor") -> int:
    """Returns the number of frames that the processor uses: all given frames, or those it samples from a file."""
    # `do_sample_frames` also samples from frames that are given.
    if isinstance(video, (list, tuple, np.ndarray, torch.Tensor)) and not video_processor.do_sample_frames:
        return len(video)
    if video_processor.fps is not None:
        raise ValueError(
            "`processor.video_processor` samples by `fps`, so the number of frames is not known before a video file "
            "is opened. Set `num_frames` instead."
        )
    return video_processor.num_frames


__all__ = ["PackedDataset", "RecordPacker", "best_fit"]
