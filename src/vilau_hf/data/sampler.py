"""Order of training records."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from ..modeling.argument_checks_vilau import PositiveInt, check_value


class LengthGroupedBatchSampler(Sampler[int]):
    """
    Yields indices such that each batch has records of similar length, and batches are in random order.

    So batches need little padding, and long and short batches alternate.

    Args:
        lengths (`list[int]`): length of each record. Only the order of the lengths matters.
        batch_size (`int`): records of a batch.
        seed (`int`): seed of the order. The number of the epoch is added to it.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int) -> None:
        check_value("batch_size", batch_size, PositiveInt)
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the number of the epoch, which changes the order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        shuffled = torch.randperm(len(self.lengths), generator=generator)
        # A stable sort keeps records of equal length in their shuffled order.
        grouped = shuffled[self.lengths[shuffled].argsort(stable=True)]
        batches = list(grouped.split(self.batch_size))
        # The loader cuts the indices into batches of equal size. A short batch that is not last would shift the rest.
        rest = [batches.pop()] if len(self.lengths) % self.batch_size else []
        order = torch.randperm(len(batches), generator=generator).tolist()
        for batch in [*(batches[index] for index in order), *rest]:
            yield from batch.tolist()
