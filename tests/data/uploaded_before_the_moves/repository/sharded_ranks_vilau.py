"""What ranks with shards of one model must agree on: each call of a sharded module is a meeting of all of them."""

import torch
from torch import nn


def is_sharded(module: nn.Module) -> bool:
    """Whether a weight of `module` is in shards of FSDP2 or of DeepSpeed's ZeRO-3, and gathered when it is called."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
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
