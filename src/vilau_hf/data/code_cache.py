# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Code cache: records whose images and videos were encoded once, so that training runs without the vision tower."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset, load_dataset
from torch.utils.data import DataLoader
from transformers.utils import logging

from ..modeling import VilaUVisionTower
from ..modeling.argument_checks_vilau import PositiveInt, check_value
from .code_shards import CodeShards, code_dtype
from .media import NoMediaLeftError
from .records import text_content_part, validate_record
from .tower_fingerprint import describe_tower, differences, vision_tower_of


if TYPE_CHECKING:
    from ..processing import VilaUProcessor


class SlicedRecords(Protocol):
    """Records with a length and slices, such as `datasets.Dataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> dict[str, list]: ...


@dataclass
class EncodingReport:
    """
    Counts what one process encoded in [`encode_dataset`].

    Args:
        num_records (`int`): encoded records.
        num_images (`int`): encoded images and frames of videos.
        num_skipped (`int`): records that the dataset left out.
        num_repeated_videos (`int`): videos that were too short, so that their frames were repeated.
        num_bytes (`int`): size of the written files.
        seconds (`float`): time for reading, encoding and writing.
        is_complete (`bool`): whether all shards are written, including those of other processes.
    """

    num_records: int = 0
    num_images: int = 0
    num_skipped: int = 0
    num_repeated_videos: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    is_complete: bool = False

    @property
    def images_per_second(self) -> float:
        """Returns the encoded images and frames per second."""
        return self.num_images / max(self.seconds, 1e-9)

    @property
    def bytes_per_image(self) -> float:
        """Returns the bytes in files for each image, including its share of the text."""
        return self.num_bytes / max(1, self.num_images)


def encode_dataset(
    dataset: SlicedRecords,
    folder: str | Path,
    model: torch.nn.Module,
    processor: "VilaUProcessor",
    batch_size: int = 64,
    shard_size: int = 5000,
    num_workers: int = 0,
) -> EncodingReport:
    """
    Writes the records of a dataset with codes instead of images and videos.

    The folder gets parquet files of `shard_size` records and an `index.json`. [`load_encoded`] reads them.

    Each process of `accelerate launch` encodes its share of the shards. All processes must see the same folder. After
    an interruption, the same call with any number of processes encodes the shards that are missing. The content of a
    shard does not depend on the number of processes.

    Args:
        dataset (`datasets.Dataset`): records with `messages`, and with open `images` and `videos` if they have any.
        folder (`str` or `Path`): a new or empty folder, or the folder of an interrupted run with the same arguments.
        model ([`VilaUVisionTower`] or a model that has one): a model on the device that encodes. Its tower is set to
            evaluation mode.
        processor ([`VilaUProcessor`]): prepares the pixels.
        batch_size (`int`, *optional*, defaults to 64): images that the tower encodes at once, and records that are
            read at once.
        shard_size (`int`, *optional*, defaults to 5000): records of a file. An interrupted process loses at most this
            many records.
        num_workers (`int`, *optional*, defaults to 0): additional processes that read and prepare images.

    Returns:
        [`EncodingReport`] of this process.

    Raises:
        TypeError: if `dataset` is a stream.
        ValueError: if the folder was begun with another tower, dataset or `shard_size`, or if a record does not follow
            the schema.
    """
    if not hasattr(dataset, "__len__"):
        raise TypeError(
            f"`dataset` must have a length and slices, got {type(dataset).__name__}. Write the records of a stream to "
            "a folder first."
        )
    if not len(dataset):
        raise ValueError("`dataset` has no records.")
    check_value("batch_size", batch_size, PositiveInt)
    tower = vision_tower_of(model)
    state = launched_processes()
    shards = CodeShards(folder, describe_tower(tower, processor), len(dataset), shard_size)
    if state.is_main_process:
        shards.begin()
    # `begin` deletes temporary files, so no process may write before it has ended.
    state.wait_for_everyone()
    # All processes list the missing shards before any process writes, so that they divide the same list.
    missing = shards.missing()
    state.wait_for_everyone()
    kept = sorted(set(range(shards.num_shards)) - set(missing))
    for shard in kept[state.process_index :: state.num_processes]:
        _check_first_record(dataset, shards, shard, batch_size)
    started = time.perf_counter()
    assigned = missing[state.process_index :: state.num_processes]
    batches = PreparedBatches(dataset, processor, shards, assigned, batch_size)
    # `None` shows the bar in terminals alone, so that logs have none.
    disable = None if state.is_main_process else True
    with logging.tqdm(total=len(batches), unit="batch", disable=disable) as progress:
        report = _encode_shards(batches, shards, tower.eval(), num_workers, progress.update)
    report.seconds = time.perf_counter() - started
    report.is_complete = shards.finish()
    return report


def launched_processes() -> PartialState:
    """Returns accelerate's state of this process: its rank and the number of launched processes."""
    # Without an accelerator, accelerate has to be told to communicate on the CPU.
    return PartialState(cpu=not torch.accelerator.is_available())


def _encode_shards(
    batches: "PreparedBatches",
    shards: CodeShards,
    tower: VilaUVisionTower,
    num_workers: int,
    on_batch: Callable[[], object],
) -> EncodingReport:
    """Encodes all batches, writes each shard after its last batch, and calls `on_batch` after each batch."""
    report = EncodingReport()
    rows: list[dict] = []
    # `PreparedBatches` gives whole batches, so the loader must not collate them again.
    loader = DataLoader(batches, batch_size=None, shuffle=False, num_workers=num_workers)
    for (shard, begin, end), (records, pixels) in zip(batches.ranges, loader, strict=True):
        rows += attach_codes(records, encode_pixels(pixels, tower, batches.batch_size))
        report.num_images += len(pixels)
        report.num_skipped += end - begin - len(records)
        report.num_repeated_videos += sum(record["repeated_videos"] for record in records)
        if end == shards.record_range(shard).stop:
            report.num_bytes += shards.write(shard, rows)
            report.num_records += len(rows)
            rows = []
        on_batch()
    return report


def _check_first_record(dataset: SlicedRecords, shards: CodeShards, shard: int, batch_size: int) -> None:
    """Checks that a shard of an interrupted run was made from this dataset."""
    indices = shards.record_range(shard)
    # Batches are read until one has a record, because the first records of a shard may be skipped.
    batches = (read_columns(dataset, begin, min(begin + batch_size, indices.stop)) for begin in indices[::batch_size])
    columns = next(filter(None, batches), None)
    if columns is None:
        return
    # Only text is compared. Comparing codes would need the tower, and another tower has another fingerprint.
    record = text_of_record({name: values[0] for name, values in columns.items()}, str(indices.start))
    if shards.read_first(shard) != record:
        raise ValueError(
            f"{shards.path(shard)} was not made from `dataset`: its record {record['id']!r} differs. Choose another "
            "folder, or the dataset that the folder was begun with."
        )


class PreparedBatches(torch.utils.data.Dataset):
    """
    Batches of [`prepare_records`], in the order of `shard_indices`.

    No batch crosses the end of a shard, so the codes of a shard do not depend on which process encodes it.

    Args:
        dataset (`datasets.Dataset`): records with open media.
        processor ([`VilaUProcessor`]): prepares the pixels.
        shards ([`CodeShards`]): the shards of the dataset.
        shard_indices (`list[int]`): the shards to read.
        batch_size (`int`): records that are read at once.

    Attributes:
        ranges (`list[tuple[int, int, int]]`): shard, begin and end of each batch.
    """

    def __init__(
        self,
        dataset: SlicedRecords,
        processor: "VilaUProcessor",
        shards: CodeShards,
        shard_indices: list[int],
        batch_size: int,
    ) -> None:
        self.dataset = dataset
        self.processor = processor
        self.batch_size = batch_size
        self.ranges = [
            (shard, begin, min(begin + batch_size, shards.record_range(shard).stop))
            for shard in shard_indices
            for begin in shards.record_range(shard)[::batch_size]
        ]

    def __len__(self) -> int:
        return len(self.ranges)

    def __getitem__(self, index: int) -> tuple[list[dict], torch.Tensor]:
        _, begin, end = self.ranges[index]
        return prepare_records(self.dataset, begin, end, self.processor)


def prepare_records(
    dataset: SlicedRecords, begin: int, end: int, processor: "VilaUProcessor"
) -> tuple[list[dict], torch.Tensor]:
    """
    Reads the records from `begin` to `end` and prepares their pixels.

    Args:
        dataset (`datasets.Dataset`): records with open media.
        begin (`int`): index of the first record.
        end (`int`): index after the last record.
        processor ([`VilaUProcessor`]): prepares the pixels.

    Returns:
        The records, and the pixels `(N, 3, S, S)` of all their images and frames. A record has `id`, `messages`,
        `num_frames` and `repeated_videos`. `num_frames` is a list with the number of frames at each placeholder: 1 for
        an image. `repeated_videos` is the number of its videos whose frames were repeated.
    """
    columns = read_columns(dataset, begin, end)
    records: list[dict] = []
    pixels: list[torch.Tensor] = []
    for index, values in enumerate(zip(*columns.values(), strict=True)):
        raw = dict(zip(columns, values, strict=True))
        record = text_of_record(raw, str(begin + index))
        frames = _frames(raw, record, processor)
        counts = {"num_frames": [len(each) for each in frames], "repeated_videos": raw.get("repeated_videos") or 0}
        records.append({**record, **counts})
        pixels += frames
    return records, torch.cat(pixels) if pixels else torch.empty(0)


def read_columns(dataset: SlicedRecords, begin: int, end: int) -> dict[str, list]:
    """Returns the records from `begin` to `end` by columns, or an empty dictionary if all are skipped."""
    try:
        return dataset[begin:end]
    except NoMediaLeftError:
        return {}


def text_of_record(record: Mapping[str, Any], default_id: str) -> dict[str, Any]:
    """Returns `id` and `messages` of a record as they are stored, with `content` as a list of content parts."""
    messages = []
    for message in record["messages"]:
        content = message["content"]
        content_parts = [text_content_part(content)] if isinstance(content, str) else content
        content_parts = [
            {"type": content_part["type"], "text": content_part.get("text")} for content_part in content_parts
        ]
        messages.append({"role": message["role"], "content": content_parts})
    return {"id": default_id if record.get("id") is None else record["id"], "messages": messages}


def _frames(raw: dict, record: dict, processor: "VilaUProcessor") -> list[torch.Tensor]:
    """Returns pixels `(F, 3, S, S)` of the images (F = 1) and videos of a record, in the order of placeholders."""
    validate_record({**raw, **record})
    kinds = [
        content_part["type"]
        for message in record["messages"]
        for content_part in message["content"]
        if content_part["type"] != "text"
    ]
    images = [] if raw.get("images") is None else raw["images"]
    videos = [] if raw.get("videos") is None else raw["videos"]
    pixels: dict[str, list[torch.Tensor]] = {"image": [], "video": []}
    if images:
        pixels["image"] = list(processor.image_processor(images, return_tensors="pt")["pixel_values"][:, None])
    # One by one, because videos of different lengths cannot be stacked.
    for video in videos:
        pixels["video"].append(torch.as_tensor(processor.video_processor([video])["pixel_values_videos"][0]))
    return [pixels[kind].pop(0) for kind in kinds]


@torch.no_grad()
def encode_pixels(pixels: torch.Tensor, tower: VilaUVisionTower, batch_size: int) -> np.ndarray:
    """
    Encodes images.

    Args:
        pixels (`torch.Tensor` of shape `(N, 3, S, S)`): prepared images.
        tower ([`VilaUVisionTower`]): the vision tower.
        batch_size (`int`): images that are encoded at once.

    Returns:
        Codes `(N, L * D)`, of the smallest integer type for this codebook.
    """
    config = tower.config
    chunks = [
        tower.encode(chunk.to(tower.device)).codes.flatten(1) for chunk in pixels.split(batch_size) if len(chunk)
    ]
    codes = torch.cat(chunks) if chunks else torch.empty(0, config.grid_size**2 * config.code_depth)
    return codes.cpu().numpy().astype(code_dtype(config.codebook_size))


def attach_codes(records: list[dict], codes: np.ndarray) -> list[dict]:
    """Returns records of [`prepare_records`] with `codes`, an array `(F, L * D)` for each image and video."""
    rows = []
    begin = 0
    for record in records:
        ends = begin + np.cumsum([0, *record["num_frames"]])
        items = [codes[first:last] for first, last in itertools.pairwise(ends)]
        rows.append({"id": record["id"], "messages": record["messages"], "codes": items})
        begin = ends[-1]
    return rows


def check_tower(folders: Sequence[str | Path], model: torch.nn.Module, processor: "VilaUProcessor") -> None:
    """
    Checks that stored codes were made by the vision tower of a model.

    Args:
        folders (`list[str]` or `list[Path]`): complete folders of [`encode_dataset`].
        model ([`VilaUForConditionalGeneration`] or another model with a tower): the model to train.
        processor ([`VilaUProcessor`]): the processor of the model.

    Raises:
        ValueError: if encoding was not finished, or if the codes were made by another tower or from images that were
            prepared in another way.
    """
    if not folders:
        return
    towers = {folder: CodeShards.read_index(folder)["tower"] for folder in folders}
    expected = describe_tower(vision_tower_of(model), processor)
    for folder, tower in towers.items():
        if tower["fingerprint"] != expected["fingerprint"]:
            raise ValueError(
                f"the codes in {folder} are of the tower {tower['fingerprint']}, but `model` and `processor` "
                f"have the tower {expected['fingerprint']}; they differ in {differences(tower, expected)}. Encode the "
                "dataset with this model, or train the model that it was encoded with."
            )


def load_encoded(
    folder: str | Path, model: torch.nn.Module, processor: "VilaUProcessor", streaming: bool = False
) -> Dataset | IterableDataset:
    """
    Loads encoded records for [`VilaUDataCollator`]: `id`, `messages` and `codes`.

    Args:
        folder (`str` or `Path`): a complete folder of [`encode_dataset`].
        model ([`VilaUForConditionalGeneration`] or another model with a tower): the model to train.
        processor ([`VilaUProcessor`]): the processor of the model.
        streaming (`bool`, *optional*, defaults to `False`): whether to read the files one by one during training.

    Returns:
        `datasets.Dataset`, or `datasets.IterableDataset` with `streaming=True`.

    Raises:
        ValueError: if encoding was not finished, or if the codes were made by another tower or from images that were
            prepared in another way.
    """
    check_tower([folder], model, processor)
    files = CodeShards.files(folder, CodeShards.read_index(folder))
    return load_dataset("parquet", data_files=[str(file) for file in files], split="train", streaming=streaming)


__all__ = [
    "EncodingReport",
    "check_tower",
    "encode_dataset",
    "encode_pixels",
    "load_encoded",
    "attach_codes",
    "prepare_records",
]
