"""Order of training records."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class LengthGroupedBatchSampler(Sampler[int]):
    """
    Indices in which each run of `batch_size` has records of similar length, the runs in random order: batches need
    little padding, and long and short ones alternate.

    Args:
        lengths (`list[int]`): length of each record; only their order matters.
        batch_size (`int`): records of a batch.
        seed (`int`): the epoch's number is added to it.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int):
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        shuffled = torch.randperm(len(self.lengths), generator=generator)
        grouped = shuffled[self.lengths[shuffled].argsort(stable=True)]  # records of equal length stay shuffled
        batches = list(grouped.split(self.batch_size))
        rest = [batches.pop()] if len(batches[-1]) < self.batch_size else []  # a short batch must stay the last one
        order = torch.randperm(len(batches), generator=generator).tolist()
        yield from torch.cat([*(batches[index] for index in order), *rest]).tolist()
