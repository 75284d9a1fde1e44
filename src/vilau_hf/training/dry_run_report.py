"""Reads batches, counts parameters and formats report lines for the dry runs of both stages."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from torch import nn

from ..data.stream import ResumableStream


def read_batches(dataset: Any, size: int) -> Iterator[list[dict]]:
    """
    Reads the records of a dataset in order, in lists of `size`.

    Args:
        dataset ([`ResumableStream`] or `torch.utils.data.Dataset`): the records.
        size (`int`): number of records in a list; the last list may have fewer.

    Yields:
        `list[dict]`: records.
    """
    rows = iter(dataset) if isinstance(dataset, ResumableStream) else (dataset[row] for row in range(len(dataset)))
    while batch := list(islice(rows, size)):
        yield batch


def count_parameters(model: nn.Module, group_of: Callable[[str], str]) -> dict[str, tuple[int, int]]:
    """
    Counts the parameters of a model by groups.

    Args:
        model (`nn.Module`): the model, possibly on the device `meta`.
        group_of (`Callable`): maps the name of a parameter to its group.

    Returns:
        `dict[str, tuple[int, int]]`: number of trained and of all parameters of each group.
    """
    trained: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for name, parameter in model.named_parameters():
        group = group_of(name)
        total[group] += parameter.numel()
        trained[group] += parameter.numel() * parameter.requires_grad
    return {group: (trained[group], total[group]) for group in total}


def parameter_lines(parameters: dict[str, tuple[int, int]]) -> list[str]:
    """
    Formats counts of parameters.

    Args:
        parameters (`dict[str, tuple[int, int]]`): see [`count_parameters`].

    Returns:
        `list[str]`: a title, and a line for each group.
    """
    lines = [f"  {group:<18} {trained:>14,} of {total:,}" for group, (trained, total) in parameters.items()]
    return ["parameters, trained of all", *lines]


def batch_lines(shapes: list[dict[str, tuple[int, ...]]]) -> list[str]:
    """
    Formats the shapes of batches.

    Args:
        shapes (`list[dict[str, tuple[int, ...]]]`): shapes of the tensors of each batch, by name.

    Returns:
        `list[str]`: a line for each batch.
    """
    return [
        f"batch {index}: " + ", ".join(f"{name} {shape}" for name, shape in batch.items())
        for index, batch in enumerate(shapes, start=1)
    ]


__all__ = ["batch_lines", "count_parameters", "parameter_lines", "read_batches"]
