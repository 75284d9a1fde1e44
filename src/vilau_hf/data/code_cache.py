# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Code cache: records whose images and videos were encoded once, so that training runs without the tower."""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, IterableDataset, load_dataset
from torch.utils.data import DataLoader
from transformers.utils import logging

from ..modeling import VilaUVisionTower
from .code_shards import CodeShards, code_dtype
from .media import NoMediaLeftError
from .records import text_part, validate_record
from .tower_fingerprint import describe_tower, differences, vision_tower_of


@dataclass
class EncodingReport:
    """
    What one process did in [`encode_dataset`].

    Args:
        num_records (`int`): records it encoded.
        num_images (`int`): images and frames of videos it encoded.
        num_skipped (`int`): records that the dataset left out.
        num_bytes (`int`): size of the files it wrote.
        seconds (`float`): how long that took, reading and writing included.
        is_complete (`bool`): whether all shards are there, those of other processes too.
    """

    num_records: int = 0
    num_images: int = 0
    num_skipped: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    is_complete: bool = False

    @property
    def images_per_second(self) -> float:
        return self.num_images / max(self.seconds, 1e-9)

    @property
    def bytes_per_image(self) -> float:
        """Bytes of an image with its share of the text."""
        return self.num_bytes / max(1, self.num_images)


def encode_dataset(
    dataset: Dataset,
    folder: str | Path,
    model,
    processor,
    batch_size: int = 64,
    shard_size: int = 5000,
    num_workers: int = 0,
) -> EncodingReport:
    """
    Writes the records of a dataset with codes in place of images and videos, as parquet files of `shard_size` records
    and an `index.json`; [`load_encoded`] reads them.

    Every process of `accelerate launch` encodes its share of the shards. Run again after an interruption, with any
    number of processes, it goes on with the shards that are missing; their content does not depend on that. The
    folder must be one that all processes see.

    Args:
        dataset (`datasets.Dataset`): records with `messages` and, where they have any, open `images` and `videos`.
        folder (`str` or `Path`): new, empty, or of an interrupted run with the same arguments.
        model ([`VilaUVisionTower`] or a model that has one): on the device where it shall run; its tower is put into
            evaluation mode.
        processor ([`VilaUProcessor`]): prepares the pixels.
        batch_size (`int`, *optional*, defaults to 64): images that the tower gets at once, and records read at once.
        shard_size (`int`, *optional*, defaults to 5000): records of a file; what an interruption can cost a process.
        num_workers (`int`, *optional*, defaults to 0): processes that read and prepare images beside this one.

    Returns:
        [`EncodingReport`] of this process.

    Raises:
        TypeError: if `dataset` is a stream.
        ValueError: if the folder was begun with another tower, dataset or `shard_size`, or for a record that breaks
            the schema.
    """
    if not hasattr(dataset, "__len__"):
        raise TypeError(
            f"`dataset` must have a length and slices, got {type(dataset).__name__}: write the records of a stream to "
            "a folder first."
        )
    if not len(dataset):
        raise ValueError("`dataset` has no records.")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    tower, state = vision_tower_of(model), launched_processes()
    shards = CodeShards(folder, describe_tower(tower, processor), len(dataset), shard_size)
    if state.is_main_process:
        shards.begin()
    state.wait_for_everyone()
    missing = shards.missing()  # all look before any writes
    state.wait_for_everyone()
    kept = sorted(set(range(shards.num_shards)) - set(missing))
    for shard in kept[state.process_index :: state.num_processes]:
        _check_first_record(dataset, shards, shard, batch_size)
    started = time.perf_counter()
    mine = missing[state.process_index :: state.num_processes]
    batches = PreparedBatches(dataset, processor, shards, mine, batch_size)
    with logging.tqdm(total=len(batches), unit="batch", disable=not state.is_main_process) as progress:
        report = _encode_shards(batches, shards, tower.eval(), num_workers, progress)
    report.seconds = time.perf_counter() - started
    report.is_complete = shards.finish()
    return report


def launched_processes() -> PartialState:
    """This process among those of the launch; without an accelerator they must be told to talk on the CPU."""
    return PartialState(cpu=not torch.accelerator.is_available())


def _encode_shards(
    batches: "PreparedBatches", shards: CodeShards, tower, num_workers: int, progress
) -> EncodingReport:
    report, rows = EncodingReport(), []
    loader = DataLoader(batches, batch_size=None, shuffle=False, num_workers=num_workers)
    for (shard, begin, end), (records, pixels) in zip(batches.places, loader, strict=True):
        rows += place_codes(records, encode_pixels(pixels, tower, batches.batch_size))
        report.num_images += len(pixels)
        report.num_skipped += end - begin - len(records)
        if end == shards.places(shard).stop:
            report.num_bytes += shards.write(shard, rows)
            report.num_records += len(rows)
            rows = []
        progress.update()
    return report


def _check_first_record(dataset: Dataset, shards: CodeShards, shard: int, batch_size: int):
    """What an interrupted run left must be of this dataset. Batches are read, for records may be skipped."""
    places = shards.places(shard)
    batches = (read_columns(dataset, begin, min(begin + batch_size, places.stop)) for begin in places[::batch_size])
    columns = next(filter(None, batches), None)
    if columns is None:
        return
    record = text_of_record({name: values[0] for name, values in columns.items()}, str(places.start))
    if shards.read_first(shard) != record:
        raise ValueError(
            f"{shards.path(shard)} was not made of `dataset`, whose record {record['id']!r} is another: choose "
            "another folder, or the dataset it was begun with."
        )


class PreparedBatches(torch.utils.data.Dataset):
    """
    Batches as [`prepare_records`] gives them, in the order of `shard_indices`; none reaches over the end of a shard,
    so that codes do not depend on which process makes them.

    Attributes:
        places (`list[tuple[int, int, int]]`): shard, begin and end of each batch.
    """

    def __init__(self, dataset: Dataset, processor, shards: CodeShards, shard_indices: list[int], batch_size: int):
        self.dataset = dataset
        self.processor = processor
        self.batch_size = batch_size
        self.places = [
            (shard, begin, min(begin + batch_size, shards.places(shard).stop))
            for shard in shard_indices
            for begin in range(shards.places(shard).start, shards.places(shard).stop, batch_size)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[list[dict], torch.Tensor]:
        _, begin, end = self.places[index]
        return prepare_records(self.dataset, begin, end, self.processor)


def prepare_records(dataset: Dataset, begin: int, end: int, processor) -> tuple[list[dict], torch.Tensor]:
    """
    Reads the records from `begin` to `end`.

    Returns:
        The records with `id`, `messages`, and `num_frames` of each image (1) and video in the order of their
        placeholders; and the pixels of all of these, `(N, 3, S, S)`.
    """
    columns = read_columns(dataset, begin, end)
    records, pixels = [], []
    for place, values in enumerate(zip(*columns.values(), strict=True)):
        raw = dict(zip(columns, values, strict=True))
        record = text_of_record(raw, str(begin + place))
        frames = _frames(raw, record, processor)
        records.append({**record, "num_frames": [len(each) for each in frames]})
        pixels += frames
    return records, torch.cat(pixels) if pixels else torch.empty(0)


def read_columns(dataset: Dataset, begin: int, end: int) -> dict[str, list]:
    """The records from `begin` to `end` by columns; none if all of them are skipped."""
    try:
        return dataset[begin:end]
    except NoMediaLeftError:
        return {}


def text_of_record(record: dict, default_id: str) -> dict:
    """`id` and `messages` of a record as they are stored, content as a list of parts."""
    messages = []
    for message in record["messages"]:
        content = message["content"]
        parts = [text_part(content)] if isinstance(content, str) else content
        parts = [{"type": part["type"], "text": part.get("text")} for part in parts]
        messages.append({"role": message["role"], "content": parts})
    return {"id": default_id if record.get("id") is None else record["id"], "messages": messages}


def _frames(raw: dict, record: dict, processor) -> list[torch.Tensor]:
    """Pixels `(F, 3, S, S)` of the images (F = 1) and videos of a record in the order of their placeholders."""
    validate_record({**raw, **record})
    kinds = [part["type"] for message in record["messages"] for part in message["content"] if part["type"] != "text"]
    images, videos = ([] if raw.get(name) is None else raw[name] for name in ("images", "videos"))
    pixels = {"image": [], "video": []}
    if images:
        pixels["image"] = list(processor.image_processor(images, return_tensors="pt")["pixel_values"][:, None])
    for video in videos:
        pixels["video"].append(torch.as_tensor(processor.video_processor([video])["pixel_values_videos"][0]))
    return [pixels[kind].pop(0) for kind in kinds]


@torch.no_grad()
def encode_pixels(pixels: torch.Tensor, tower: VilaUVisionTower, batch_size: int) -> np.ndarray:
    """Codes `(N, L * D)` of `pixels` `(N, 3, S, S)`, of the smallest type that holds them."""
    config = tower.config
    parts = [tower.encode(part.to(tower.device)).codes.flatten(1) for part in pixels.split(batch_size) if len(part)]
    codes = torch.cat(parts) if parts else torch.empty(0, config.grid_size**2 * config.code_depth)
    return codes.cpu().numpy().astype(code_dtype(config.codebook_size))


def place_codes(records: list[dict], codes: np.ndarray) -> list[dict]:
    """Records of [`prepare_records`] with `codes`, an array `(F, L * D)` for each image and video."""
    rows, begin = [], 0
    for record in records:
        ends = begin + np.cumsum([0, *record["num_frames"]])
        items = [codes[first:last] for first, last in itertools.pairwise(ends)]
        rows.append({"id": record["id"], "messages": record["messages"], "codes": items})
        begin = ends[-1]
    return rows


def check_tower(folders: list[str | Path], model, processor):
    """
    Checks that codes are those of a model's tower.

    Args:
        folders (`list[str]` or `list[Path]`): what [`encode_dataset`] wrote, complete.
        model ([`VilaUForConditionalGeneration`] or another model with a tower): the model to train.
        processor ([`VilaUProcessor`]): its processor.

    Raises:
        ValueError: if encoding was not finished, or the codes are those of another tower or of images prepared in
            another way.
    """
    towers = {folder: CodeShards.read_index(folder)["tower"] for folder in folders}
    own = describe_tower(vision_tower_of(model), processor) if towers else None
    for folder, tower in towers.items():
        if tower["fingerprint"] != own["fingerprint"]:
            raise ValueError(
                f"the codes in {folder} are of the tower {tower['fingerprint']}, but `model` and `processor` "
                f"have the tower {own['fingerprint']}; they differ in {differences(tower, own)}. Encode the "
                "dataset with this model, or train the model that it was encoded with."
            )


def load_encoded(folder: str | Path, model, processor, streaming: bool = False) -> Dataset | IterableDataset:
    """
    Encoded records for [`VilaUDataCollator`]: `id`, `messages` and `codes`.

    Args:
        folder (`str` or `Path`): what [`encode_dataset`] wrote.
        model ([`VilaUForConditionalGeneration`] or another model with a tower): the model to train.
        processor ([`VilaUProcessor`]): its processor.
        streaming (`bool`, *optional*, defaults to `False`): read the files one after the other while training.

    Raises:
        ValueError: if encoding was not finished, or the codes are those of another tower or of images prepared in
            another way.
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
    "place_codes",
    "prepare_records",
]
