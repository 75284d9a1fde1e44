"""FSDP2 as this model needs it: the vision tower whole and in float32 on every rank, the rest in shards."""

from contextlib import contextmanager
from dataclasses import replace

from accelerate import FullyShardedDataParallelPlugin
from torch.distributed.fsdp import StateDictType


# accelerate matches the whole name of a module, in the model or in one that peft has wrapped
VISION_TOWER = r"(base_model\.model\.)?model\.vision_tower"


def keep_tower_whole(plugin: FullyShardedDataParallelPlugin):
    """
    Keeps FSDP2 from what would change codes: shards of the tower, which are gathered in the dtype of mixed precision,
    and inputs cast to it. Outputs are not cast either, so that losses are float32.

    Args:
        plugin (`accelerate.FullyShardedDataParallelPlugin`): of the run, changed in place.

    Raises:
        ValueError: for FSDP1, for `cpu_ram_efficient_loading`, and for `ignored_modules` of one's own.
    """
    if plugin.fsdp_version != 2:
        raise ValueError(f"`fsdp_version` must be 2, got {plugin.fsdp_version}.")
    if plugin.cpu_ram_efficient_loading:
        raise ValueError(
            "`fsdp_cpu_ram_efficient_loading` must be false, got true: accelerate can send shards to the other ranks, "
            "but neither the vision tower, which is whole, nor buffers."
        )
    if plugin.ignored_modules not in (None, VISION_TOWER):
        raise ValueError(
            f"`fsdp_ignored_modules` must not be given, got {plugin.ignored_modules!r}: it is the vision tower."
        )
    plugin.ignored_modules = VISION_TOWER
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = replace(
            plugin.mixed_precision_policy, cast_forward_inputs=False, output_dtype=None
        )


@contextmanager
def whole_state_dict(plugin: FullyShardedDataParallelPlugin):
    """Makes `Trainer` save whole weights inside, whatever `state_dict_type` its checkpoints have."""
    state_dict_type, plugin.state_dict_type = plugin.state_dict_type, StateDictType.FULL_STATE_DICT
    try:
        yield
    finally:
        plugin.state_dict_type = state_dict_type
