# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""What ranks do together: sums, and calls of a module in shards, in each of which all ranks take part."""

import torch
from torch import nn


def is_distributed() -> bool:
    """Returns whether there is a process group, and so ranks."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def world_size() -> int:
    """Returns the number of ranks, 1 without a process group."""
    return torch.distributed.get_world_size() if is_distributed() else 1


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Adds up `tensor` over all ranks in place, and returns it."""
    if is_distributed():
        torch.distributed.all_reduce(tensor)
    return tensor


def is_sharded(module: nn.Module) -> bool:
    """Whether a weight of `module` is in shards of FSDP2 or of DeepSpeed's ZeRO-3, and gathered when it is called."""
    if not is_distributed():
        return False
    from torch.distributed.tensor import DTensor

    return any(isinstance(weight, DTensor) or hasattr(weight, "ds_id") for weight in module.parameters())


def largest_of_ranks(count: int, module: nn.Module) -> int:
    """`count`, or where `module` is sharded the largest `count` of all ranks, which all must ask for."""
    if torch.compiler.is_compiling() or not is_sharded(module):
        return count
    largest = torch.tensor(count, device=next(module.parameters()).device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest)


__all__ = ["is_distributed", "is_sharded", "largest_of_ranks", "sum_over_ranks", "world_size"]
