"""Streams of records for training: shared out, shuffled, opened, and resumed at the next record."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice

import datasets
import numpy as np
import torch
from datasets.distributed import split_dataset_by_node
from torch.utils.data import get_worker_info

from .media import MediaLoader
from .mixture import Mixture


class ResumableStream(torch.utils.data.IterableDataset, ABC):
    """
    What a trainer asks of a stream to share it out and to resume it. `state_dict` is asked where the stream is read,
    in the workers of the loader.
    """

    @abstractmethod
    def split(self, rank: int, world_size: int) -> "ResumableStream":
        """The share of one rank."""

    @abstractmethod
    def state_dict(self) -> dict:
        """Where the stream is, after what it gave last; numbers, strings, tensors, and lists and dictionaries of
        them."""

    @abstractmethod
    def load_state_dict(self, state: dict):
        """Makes the next iteration go on where `state` was taken."""


class RecordStream(ResumableStream):
    r"""
    Records of a mixture, over and over, with their media opened. Ranks and workers of a loader share each pass without
    duplicates or losses, and a resumed stream goes on with the next record that was not given.

    Each record, or pack of records, also has the number of its `pass`, from 0.

    Records are shuffled within blocks of `shuffle_block`, and the parts of the sources are taken in another order in
    every pass; a block is read anew on resuming, so no state has to hold it.

    Args:
        source ([`Mixture`] or `datasets.IterableDataset`): the latter of records, with enough shards for all ranks
            and workers.
        media ([`MediaLoader`], *optional*): opens images and videos, and says what happens to bad ones. Without,
            records are given as the source has them.
        packer (`Callable`, *optional*): puts the records of a block together, given as a dictionary of lists, into
            packs `{"records": list[list[dict]]}`; the stream then gives packs `{"records": [...]}`. Media are opened
            after that.
        shuffle_block (`int`, *optional*, defaults to 1000): 1 keeps the order. A worker holds that many records, with
            the bytes of their media where these are not files of their own.
        seed (`int`, *optional*, defaults to 0): of the shuffling, at least 0; the seed of a mixture counts, too.
        num_passes (`int`, *optional*): by default the stream never ends; training is bounded by `max_steps`.
    """

    def __init__(
        self,
        source: Mixture | datasets.IterableDataset,
        media: MediaLoader | None = None,
        packer: Callable[[dict[str, list]], dict[str, list[list[dict]]]] | None = None,
        shuffle_block: int = 1000,
        seed: int = 0,
        num_passes: int | None = None,
    ):
        for name, value in (("shuffle_block", shuffle_block), ("num_passes", num_passes)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if not isinstance(source, (Mixture, datasets.IterableDataset)):
            raise TypeError(f"`source` must be a Mixture or an IterableDataset, got {type(source).__name__}.")
        self.source = source
        self.media = media
        self.packer = packer
        self.shuffle_block = shuffle_block
        self.seed = seed
        self.num_passes = num_passes
        self.rank, self.world_size = 0, 1
        self._state = self._start = _start_of_pass(0)

    def split(self, rank: int, world_size: int) -> "RecordStream":
        if not 0 <= rank < world_size:
            raise ValueError(f"`rank` must be in [0, {world_size}), got {rank}.")
        share = RecordStream(self.source, self.media, self.packer, self.shuffle_block, self.seed, self.num_passes)
        share.rank, share.world_size = rank, world_size
        return share

    def state_dict(self) -> dict:
        return {**self._state, "num_skipped": 0 if self.media is None else self.media.num_skipped}

    def load_state_dict(self, state: dict):
        self._state = self._start = {name: state[name] for name in _start_of_pass(0)}
        if self.media is not None:
            self.media.num_skipped = state["num_skipped"]

    def __iter__(self) -> Iterator[dict]:
        worker = get_worker_info()
        worker_id, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        source = self.source
        if isinstance(source, Mixture):
            source = source.stream(num_shards=self.world_size * num_workers)
        self._state, self._start = self._start, _start_of_pass(0)  # the next iteration starts anew
        while self.num_passes is None or self._state["pass"] < self.num_passes:
            # a dataset for each pass: the number of the pass is shared memory, and workers are not in the same pass
            share = split_dataset_by_node(source, self.rank, self.world_size)
            if worker_id >= share.num_shards:
                return
            index, is_whole, is_empty = self._state["pass"], self._state == _start_of_pass(self._state["pass"]), True
            share.set_epoch(self._order_of_pass(index))
            for record in self._one_pass(share, worker_id):
                is_empty = False
                yield {**record, "pass": index}
            if is_whole and is_empty and self.num_passes is None:
                raise ValueError(
                    f"`source` gave no record to worker {worker_id} of rank {self.rank}: it has fewer records than "
                    "there are workers, or all of them were skipped."
                )
            self._state = _start_of_pass(index + 1)

    def _order_of_pass(self, index: int) -> int:
        """The number that `datasets` shuffles files and draws sources by; it would shuffle nothing by 0."""
        seeds = [self.seed, self.source.seed if isinstance(self.source, Mixture) else 0, index]
        return 1 + int(np.random.SeedSequence(seeds).generate_state(1)[0])

    def _one_pass(self, share: datasets.IterableDataset, worker_id: int) -> Iterator[dict]:
        """The rest of a pass, block by block. The state of a block is that of the dataset before it."""
        index, block, position, before = self._state.values()
        if before is not None:
            share.load_state_dict(before)
        records = iter(share)
        while rows := list(islice(records, self.shuffle_block)):
            after = share.state_dict()
            key = (self.seed, index, self.rank, worker_id, block)
            rows = [rows[row] for row in np.random.default_rng(key).permutation(len(rows))]
            if self.packer is not None:
                rows = self.packer({name: [row[name] for row in rows] for name in rows[0]})["records"]
            for place in range(position, len(rows)):
                self._state = {"pass": index, "block": block, "position": place + 1, "dataset": before}
                item = self._open(rows[place])
                if item is not None:
                    yield item
            block, position, before = block + 1, 0, after

    def _open(self, item: dict | list[dict]) -> dict | None:
        """A record, or a pack of records, with its media open; `None` if nothing of it is left."""
        if self.packer is None:
            return item if self.media is None else self.media.load(item)
        records = item if self.media is None else [self.media.load(record) for record in item]
        records = [record for record in records if record is not None]
        return {"records": records} if records else None


def _start_of_pass(index: int) -> dict:
    return {"pass": index, "block": 0, "position": 0, "dataset": None}


__all__ = ["RecordStream", "ResumableStream"]
