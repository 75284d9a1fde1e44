# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Code cache: records whose images and videos were encoded once, so that training runs without the tower."""

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
from .tower_fingerprint import describe_tower, differences, vision_tower_of


logger = logging.get_logger(__name__)


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
        model ([`VilaUVisionTower`] or a model that has one): on the device where it shall run.
        processor ([`VilaUProcessor`]): prepares the pixels.
        batch_size (`int`, *optional*, defaults to 64): images that the tower gets at once, and records read at once.
        shard_size (`int`, *optional*, defaults to 5000): records of a file; what an interruption can cost a process.
        num_workers (`int`, *optional*, defaults to 0): processes that read and prepare images beside this one.

    Returns:
        [`EncodingReport`] of this process.

    Raises:
        TypeError: if `dataset` is a stream.
        ValueError: if the folder was begun with another tower, dataset or `shard_size`, or for a record whose
            images and videos are not as many as its messages say.
    """
    if not hasattr(dataset, "__len__"):
        raise TypeError(
            f"`dataset` must have a length and slices, got {type(dataset).__name__}: write the records of a stream to "
            "a folder first."
        )
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    tower, state = vision_tower_of(model), PartialState()
    shards = CodeShards(folder, describe_tower(tower, processor), len(dataset), shard_size)
    if state.is_main_process:
        shards.begin()
    state.wait_for_everyone()
    missing = shards.missing()  # all look before any writes
    state.wait_for_everyone()
    mine = missing[state.process_index :: state.num_processes]
    report, started = EncodingReport(), time.perf_counter()
    batches = RecordBatches(dataset, processor, shards, mine, batch_size)
    loader = DataLoader(batches, batch_size=None, shuffle=False, num_workers=num_workers)
    total = sum(len(shards.places(shard)) for shard in mine)
    with logging.tqdm(total=total, unit="record", disable=not state.is_main_process) as progress:
        rows = []
        for (shard, begin, end), records in zip(batches.places, loader, strict=True):
            rows += encode_records(records, tower, batch_size)
            report.num_skipped += end - begin - len(records)
            report.num_images += sum(record["num_images"] for record in records)
            progress.update(end - begin)
            if end == shards.places(shard).stop:
                report.num_bytes += shards.write(shard, rows)
                report.num_records += len(rows)
                rows = []
    report.seconds = time.perf_counter() - started
    report.is_complete = shards.finish()
    return report


class RecordBatches(torch.utils.data.Dataset):
    """
    Batches of records with prepared pixels, in the order of `shard_indices`; none reaches over the end of a shard, so
    that codes do not depend on which process makes them.

    Attributes:
        places (`list[tuple[int, int, int]]`): shard, begin and end of each batch.
    """

    def __init__(self, dataset: Dataset, processor, shards: CodeShards, shard_indices: list[int], batch_size: int):
        self.dataset = dataset
        self.processor = processor
        self.places = [
            (shard, begin, min(begin + batch_size, shards.places(shard).stop))
            for shard in shard_indices
            for begin in range(shards.places(shard).start, shards.places(shard).stop, batch_size)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> list[dict]:
        _, begin, end = self.places[index]
        columns = self.dataset[begin:end]
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [prepare_record(row, self.processor, str(begin + place)) for place, row in enumerate(rows)]


def prepare_record(record: dict, processor, default_id: str) -> dict:
    """
    The text of a record, and the pixels of all its images and frames in the order of their placeholders.

    Returns:
        `id`, `messages` with lists of parts as content, `pixel_values` (a list of tensors `(F, 3, S, S)`, F = 1 for an
        image) and `num_images`, the sum of F.
    """
    name = default_id if record.get("id") is None else record["id"]
    messages = [{"role": message["role"], "content": _parts(message["content"])} for message in record["messages"]]
    kinds = [part["type"] for message in messages for part in message["content"] if part["type"] != "text"]
    media = {kind: [] if record.get(field) is None else list(record[field]) for kind, field in _FIELDS.items()}
    for kind, items in media.items():
        if kinds.count(kind) != len(items):
            raise ValueError(
                f"the record {name!r} has {len(items)} {_FIELDS[kind]}, but {kinds.count(kind)} parts of that type in "
                "its `messages`."
            )
    pixels = {"image": iter(()), "video": iter(())}
    if media["image"]:
        pixels["image"] = iter(processor.image_processor(media["image"], return_tensors="pt")["pixel_values"][:, None])
    if media["video"]:
        videos = (processor.video_processor([video])["pixel_values_videos"][0] for video in media["video"])
        pixels["video"] = (torch.as_tensor(video) for video in videos)
    items = [next(pixels[kind]) for kind in kinds]
    return {"id": name, "messages": messages, "pixel_values": items, "num_images": sum(map(len, items))}


_FIELDS = {"image": "images", "video": "videos"}


def _parts(content: str | list[dict]) -> list[dict]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [{"type": part["type"], "text": part.get("text")} for part in parts]


@torch.no_grad()
def encode_records(records: list[dict], tower: VilaUVisionTower, batch_size: int) -> list[dict]:
    """Records of `prepare_record` with `codes`, an array `(F, L * D)` for each image and video, in place of pixels."""
    items = [item for record in records for item in record["pixel_values"]]
    frames = torch.cat(items) if items else torch.empty(0)
    parts = (
        [tower.encode(part.to(tower.device)).codes.flatten(1) for part in frames.split(batch_size)] if items else []
    )
    dtype = code_dtype(tower.config.codebook_size)
    arrays = iter(
        np.split(torch.cat(parts).cpu().numpy().astype(dtype), np.cumsum([len(item) for item in items])[:-1])
        if items
        else ()
    )
    return [
        {"id": r["id"], "messages": r["messages"], "codes": [next(arrays) for _ in r["pixel_values"]]} for r in records
    ]


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
    index = CodeShards.read_index(folder)
    own = describe_tower(vision_tower_of(model), processor)
    if index["tower"]["fingerprint"] != own["fingerprint"]:
        raise ValueError(
            f"the codes in {folder} are of the tower {index['tower']['fingerprint']}, but `model` and `processor` have "
            f"the tower {own['fingerprint']}; they differ in {differences(index['tower'], own)}. Encode the dataset "
            "with this model, or train the model that it was encoded with."
        )
    files = CodeShards.files(folder, index)
    return load_dataset("parquet", data_files=[str(file) for file in files], split="train", streaming=streaming)
