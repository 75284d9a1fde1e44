"""Streams of records for training: distributed over ranks and workers, shuffled, with media opened, and resumable."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypedDict

import datasets
import numpy as np
import torch
from datasets.distributed import split_dataset_by_node
from torch.utils.data import get_worker_info

from ..modeling.argument_checks_vilau import PositiveInt, check_value
from .media import MediaLoader
from .mixture import Mixture, closed_feature


class ResumableStream(torch.utils.data.IterableDataset, ABC):
    """
    Defines what a trainer needs of a stream, to split it between ranks and to resume it.

    `state_dict` is called where the stream is read: in the workers of the loader.
    """

    @abstractmethod
    def split(self, rank: int, world_size: int) -> "ResumableStream":
        """Returns the share of one rank."""

    @abstractmethod
    def state_dict(self) -> dict:
        """
        Returns the position of the stream after its last item.

        Values are numbers, strings, tensors, and lists and dictionaries of them.
        """

    @abstractmethod
    def load_state_dict(self, state: dict) -> None:
        """Makes the next iteration continue at the position of `state`."""


# Position of a [`RecordStream`]: after `position` items of block `block` of a pass. `dataset` is the state of the
# dataset before this block, `None` at the beginning of a pass. Checkpoints hold these keys.
_StreamState = TypedDict(
    "_StreamState", {"pass": int, "block": int, "position": int, "dataset": dict[str, Any] | None}
)


class RecordStream(ResumableStream):
    r"""
    Gives the records of a mixture with their media open, in repeated passes.

    Ranks and workers of a loader share each pass without duplicates or losses. A resumed stream continues with the
    first record that it has not given yet. Each record, or pack of records, has the number of its pass as `pass`,
    from 0.

    Records are shuffled within blocks of `shuffle_block`. In each pass the shards of the sources are read in another
    order. A resumed stream reads its current block again, so a state does not hold records.

    Args:
        source ([`Mixture`] or `datasets.IterableDataset`): a mixture, or a stream of records with enough shards for
            all ranks and workers.
        media ([`MediaLoader`], *optional*): opens images and videos, and handles those that cannot be opened. Without
            it, records are given as the source has them.
        packer (`Callable`, *optional*): groups the records of a block, given as a dictionary of lists, into packs
            `{"records": list[list[dict]]}`. The stream then gives packs `{"records": [...]}`. Media are opened after
            packing.
        shuffle_block (`int`, *optional*, defaults to 1000): records that are shuffled together, 1 keeps the order. A
            worker holds this many records in memory, with the bytes of their media unless these are separate files.
        seed (`int`, *optional*, defaults to 0): seed of the shuffling, at least 0. The seed of a mixture is used, too.
        num_passes (`int`, *optional*): number of passes. By default the stream never ends, and `max_steps` ends the
            training.
    """

    def __init__(
        self,
        source: Mixture | datasets.IterableDataset,
        media: MediaLoader | None = None,
        packer: Callable[[dict[str, list]], dict[str, list[list[dict]]]] | None = None,
        shuffle_block: int = 1000,
        seed: int = 0,
        num_passes: int | None = None,
    ) -> None:
        for name, value in (("shuffle_block", shuffle_block), ("num_passes", num_passes)):
            check_value(name, value, PositiveInt | None)
        if not isinstance(source, (Mixture, datasets.IterableDataset)):
            raise TypeError(f"`source` must be a Mixture or an IterableDataset, got {type(source).__name__}.")
        self.source = source
        self.media = media
        self.packer = packer
        self.shuffle_block = shuffle_block
        self.seed = seed
        self.num_passes = num_passes
        self.rank = 0
        self.world_size = 1
        self._state = self._start = _start_of_pass(0)

    def split(self, rank: int, world_size: int) -> "RecordStream":
        """Returns the share of one rank, from the beginning."""
        if not 0 <= rank < world_size:
            raise ValueError(f"`rank` must be in [0, {world_size}), got {rank}.")
        share = RecordStream(self.source, self.media, self.packer, self.shuffle_block, self.seed, self.num_passes)
        share.rank = rank
        share.world_size = world_size
        return share

    def state_dict(self) -> dict:
        """Returns the position after the last item, and the number of skipped records."""
        return {**self._state, "num_skipped": 0 if self.media is None else self.media.num_skipped}

    def load_state_dict(self, state: dict) -> None:
        """Makes the next iteration continue at the position of `state`."""
        self._state = self._start = _StreamState(
            **{name: state[name] for name in _start_of_pass(0)}  # type: ignore[typeddict-item]  # keys of that type
        )
        if self.media is not None:
            self.media.num_skipped = state["num_skipped"]

    def __iter__(self) -> Iterator[dict]:
        worker = get_worker_info()
        worker_id = 0 if worker is None else worker.id
        num_workers = 1 if worker is None else worker.num_workers
        source = self.source
        if isinstance(source, Mixture):
            # A multiple of this number: `datasets` then gives ranks and workers whole shards.
            source = source.stream(num_shards=self.world_size * num_workers)
        elif self.media is not None and source.features and closed_feature(source.features) != source.features:
            source = source.decode(False)  # `datasets` would open media itself, also from URLs
        self._state = self._start
        self._start = _start_of_pass(0)  # a loaded state applies to one iteration only
        while self.num_passes is None or self._state["pass"] < self.num_passes:
            # A new dataset for each pass. `set_epoch` stores the epoch in shared memory, but the workers of a loader
            # are not in the same pass at the same time.
            share = split_dataset_by_node(source, self.rank, self.world_size)
            # `datasets` distributes the shards of a rank to its workers. This worker would have none.
            if worker_id >= share.num_shards:
                return
            index = self._state["pass"]
            is_whole = self._state == _start_of_pass(index)
            is_empty = True
            share.set_epoch(self._order_of_pass(index))
            for record in self._one_pass(share, worker_id):
                is_empty = False
                yield {**record, "pass": index}
            # Without this check, a worker without records would loop forever. A resumed pass may rightly be empty.
            if is_whole and is_empty and self.num_passes is None:
                raise ValueError(
                    f"`source` gave no record to worker {worker_id} of rank {self.rank}: it has fewer records than "
                    "there are workers, or all of them were skipped."
                )
            self._state = _start_of_pass(index + 1)

    def _order_of_pass(self, index: int) -> int:
        """Returns the epoch number from which `datasets` derives the order of files and the draws of sources."""
        seeds = [self.seed, self.source.seed if isinstance(self.source, Mixture) else 0, index]
        # `datasets` (5.2.0, `IterableDataset._prepare_ex_iterable_for_iteration`) has no other seed for the order of
        # files, and does not shuffle them in epoch 0. Hence the `1 +`.
        return 1 + int(np.random.SeedSequence(seeds).generate_state(1)[0])

    def _one_pass(self, share: datasets.IterableDataset, worker_id: int) -> Iterator[dict]:
        """Yields the rest of a pass, block by block."""
        index = self._state["pass"]
        block = self._state["block"]
        position = self._state["position"]
        before = self._state["dataset"]
        if before is not None:
            share.load_state_dict(before)
        records = iter(share)
        while rows := list(islice(records, self.shuffle_block)):
            after = share.state_dict()
            # The key makes the order of a block the same when a resumed stream reads the block again.
            key = (self.seed, index, self.rank, worker_id, block)
            rows = [rows[row] for row in np.random.default_rng(key).permutation(len(rows))]
            items: list[dict] | list[list[dict]] = rows
            if self.packer is not None:
                items = self.packer({name: [row[name] for row in rows] for name in rows[0]})["records"]
            for number in range(position, len(items)):
                # Set before `yield`: `state_dict` is called while the generator is suspended there.
                self._state = {"pass": index, "block": block, "position": number + 1, "dataset": before}
                item = self._open(items[number])
                if item is not None:
                    yield item
            block += 1
            position = 0
            before = after

    def _open(self, item: dict | list[dict]) -> dict | None:
        """Opens the media of a record or a pack of records. Returns `None` if all of it is skipped."""
        if isinstance(item, dict):
            return item if self.media is None else self.media.load(item)
        opened = item if self.media is None else [self.media.load(record) for record in item]
        kept = [record for record in opened if record is not None]
        return {"records": kept} if kept else None


def _start_of_pass(index: int) -> _StreamState:
    return {"pass": index, "block": 0, "position": 0, "dataset": None}


__all__ = ["RecordStream", "ResumableStream"]
