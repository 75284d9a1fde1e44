"""Settings of FSDP2: the vision tower is whole and in float32 on every rank, and the rest is in shards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from accelerate import FullyShardedDataParallelPlugin
from torch.distributed.fsdp import StateDictType


# accelerate matches the full name of a module. The first group is the prefix in a model that peft has wrapped.
VISION_TOWER = r"(base_model\.model\.)?model\.vision_tower"


def keep_tower_whole(plugin: FullyShardedDataParallelPlugin) -> None:
    """
    Changes the settings of FSDP2 so that it does not change codes.

    FSDP2 would gather the shards of the vision tower in the dtype of mixed precision, and cast inputs to that dtype.
    Rounded weights or pixels give other codes. Outputs are not cast either, so losses are float32.

    Args:
        plugin (`accelerate.FullyShardedDataParallelPlugin`): settings of the run, changed in place.

    Raises:
        ValueError: for FSDP1, for `cpu_ram_efficient_loading`, and if `ignored_modules` is set by the user.
    """
    if plugin.fsdp_version != 2:
        raise ValueError(f"`fsdp_version` must be 2, got {plugin.fsdp_version}.")
    if plugin.cpu_ram_efficient_loading:
        raise ValueError(
            "`fsdp_cpu_ram_efficient_loading` must be false, got true: accelerate can send shards to the other ranks, "
            "but not the vision tower, which is whole, and not buffers."
        )
    if plugin.ignored_modules not in (None, VISION_TOWER):
        raise ValueError(
            f"`fsdp_ignored_modules` must not be given, got {plugin.ignored_modules!r}: the trainer sets it to the "
            "vision tower."
        )
    plugin.ignored_modules = VISION_TOWER
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = replace(
            plugin.mixed_precision_policy, cast_forward_inputs=False, output_dtype=None
        )


@contextmanager
def whole_state_dict(plugin: FullyShardedDataParallelPlugin) -> Iterator[None]:
    """
    Makes [`Trainer`] save whole weights inside the context, for every `state_dict_type` of the checkpoints.

    Args:
        plugin (`accelerate.FullyShardedDataParallelPlugin`): settings of the run, restored at the end.
    """
    state_dict_type = plugin.state_dict_type
    plugin.state_dict_type = StateDictType.FULL_STATE_DICT
    try:
        yield
    finally:
        plugin.state_dict_type = state_dict_type


__all__ = ["keep_tower_whole", "whole_state_dict"]
