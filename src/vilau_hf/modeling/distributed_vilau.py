# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""
Collective operations of ranks, and questions about sharded modules.

Ranks wait in a collective operation until all have joined it. Each call of a sharded module is one, because it gathers
weights from all ranks.
"""

import torch
from torch import nn


def is_distributed() -> bool:
    """Returns whether there is a process group, and so ranks."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def world_size() -> int:
    """Returns the number of ranks, 1 without a process group."""
    return torch.distributed.get_world_size() if is_distributed() else 1


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Sums `tensor` over all ranks in place, and returns it."""
    if is_distributed():
        torch.distributed.all_reduce(tensor)
    return tensor


def is_sharded(module: nn.Module) -> bool:
    """Returns whether a weight of `module` is sharded by FSDP2 or DeepSpeed's ZeRO-3."""
    if not is_distributed():
        return False
    # imported here, because a build of torch without distributed packages lacks it
    from torch.distributed.tensor import DTensor

    # FSDP2 makes DTensors of weights, and ZeRO-3 gives them an attribute `ds_id`
    return any(isinstance(weight, DTensor) or hasattr(weight, "ds_id") for weight in module.parameters())


def largest_of_ranks(count: int, module: nn.Module) -> int:
    """
    Returns the largest `count` of all ranks if `module` is sharded, else `count`.

    All ranks must call it together. They then know how many calls of the module match those of the other ranks.

    Args:
        count (`int`): calls that this rank needs.
        module (`nn.Module`): the module that is called.
    """
    # A compiled graph cannot wait for a number from the device.
    if torch.compiler.is_compiling() or not is_sharded(module):
        return count
    largest = torch.tensor(count, device=next(module.parameters()).device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest)


__all__ = ["is_distributed", "is_sharded", "largest_of_ranks", "sum_over_ranks", "world_size"]
