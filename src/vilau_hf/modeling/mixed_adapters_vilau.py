# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Generation in which each row of a batch has a LoRA adapter of its choice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .adapters_vilau import check_adapters_exist, has_adapters
from .compat_modeling_vilau import adapter_names_of_hooks


# peft's name for rows without an adapter.
BASE_NAME = "__base__"
# Modules whose inputs have one row for each image, visual token or code. The row of the batch is not known there.
_OTHER_ROWS = (
    "model.vision_tower.",
    "model.multi_modal_projector.",
    "depth_transformer.in_proj_code",
    "depth_transformer.depth_embedding",
)


def adapters_of_rows(
    model: Any, adapter_names: Sequence[str] | None, num_prompts: int, num_beams: int | None = None
) -> list[str] | None:
    """
    Returns the adapters of the rows of a `generate` call after it has checked them.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        adapter_names (`Sequence[str]`, *optional*): argument of the call.
        num_prompts (`int`): number of prompts.
        num_beams (`int`, *optional*): argument of the call.

    Returns:
        One name for each prompt or each of its beams, or `None` if all rows use the active adapters.

    Raises:
        ValueError: if there are other numbers of names, or a name or its adapter cannot be used.
    """
    # `PeftModel.generate` keeps `adapter_names` to itself and gives the names to hooks of the layers.
    of_peft = adapter_names_of_hooks(model) if adapter_names is None and has_adapters(model) else None
    if adapter_names is None and of_peft is None:
        return None
    names = list(adapter_names or of_peft or ())
    # peft has repeated its names for beams.
    if len(names) != num_prompts * (num_beams or 1 if of_peft else 1):
        raise ValueError(f"`adapter_names` must have one name for each of the {num_prompts} prompts, got {names}.")
    used = sorted(set(names) - {BASE_NAME})
    check_adapters_exist(model, used)
    if model.training:
        raise ValueError("`adapter_names` needs a model in evaluation mode: call `model.eval()`.")
    if model.position_graphs is not None:
        raise ValueError(
            "`adapter_names` does not work on compiled positions: call `compile_generation(False)` first."
        )
    for name in used:
        _check_config(name, model.peft_config[name])
    for module_name, module in _lora_layers(model):
        _check_layer(module_name, module, [name for name in used if _has_adapter(module, name)])
    return names


@contextmanager
def mixed_adapters(
    model: Any, names: list[str] | None, num_branches: int = 1, num_results: int | None = None
) -> Iterator[None]:
    """
    Returns a context manager in which each row runs through its adapter.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        names (`list[str]`, *optional*): result of `adapters_of_rows`.
        num_branches (`int`, *optional*, defaults to 1): number of guidance branches. Each has all rows.
        num_results (`int`, *optional*): results of each prompt, which follow one another. By default it is found from
            the number of rows.
    """
    if names is None:
        yield
        return

    def pass_names(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        num_rows = len(args[0])
        times = num_results or num_rows // len(names)
        rows = [name for name in names for _ in range(times)]
        # The rows of a branch follow those of the branch before. Heads run on the rows of one branch.
        branches = num_branches if num_rows == len(rows) * num_branches else 1
        return args, {**kwargs, "adapter_names": rows * branches}

    # peft's layers take the names as an argument of `forward`, and compare their number with that of the rows.
    handles = [layer.register_forward_pre_hook(pass_names, with_kwargs=True) for _, layer in _lora_layers(model)]
    # Modules that the active adapter has trained in full belong to none of the named adapters.
    wrappers = [each for each in model.modules() if hasattr(each, "original_module") and not each.disable_adapters]
    for wrapper in wrappers:
        wrapper.enable_adapters(False)
    try:
        yield
    finally:
        for wrapper in wrappers:
            wrapper.enable_adapters(True)
        for handle in handles:
            handle.remove()


def _lora_layers(model: Any) -> list[tuple[str, Any]]:
    """Lists names and modules of all LoRA layers."""
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_embedding_A")]


def _has_adapter(layer: Any, name: str) -> bool:
    return name in layer.lora_A or name in layer.lora_embedding_A


def _check_config(name: str, config: Any) -> None:
    """Raises a `ValueError` if rows of one batch cannot use different adapters of this kind."""
    if getattr(config.peft_type, "value", None) != "LORA" or getattr(config, "use_dora", False):
        raise ValueError(f"`adapter_names`: {name!r} must be a LoRA adapter without DoRA. Draw its rows alone.")
    in_full = list(getattr(config, "modules_to_save", None) or ())
    if in_full or getattr(config, "trainable_token_indices", None):
        raise ValueError(
            f"`adapter_names`: {name!r} has weights that were trained in full ({', '.join(in_full) or 'tokens'}), "
            "which rows of one batch cannot choose. Draw its rows alone after `set_adapters`, or train it with an "
            "empty list of `lora_trained_modules`."
        )


def _check_layer(module_name: str, layer: Any, used: list[str]) -> None:
    """Raises a `ValueError` if the adapters `used` in a LoRA layer cannot be chosen by rows."""
    if not used:
        return
    if module_name.startswith(_OTHER_ROWS):
        raise ValueError(
            f"`adapter_names`: {used[0]!r} changes `{module_name}`, whose inputs are not the rows of the batch. Draw "
            "its rows alone after `set_adapters`."
        )
    if layer.merged or layer.disable_adapters:
        state = "merged into the weights" if layer.merged else "disabled"
        raise ValueError(f"`adapter_names` needs adapters that are neither merged nor disabled; they are {state}.")


__all__ = ["adapters_of_rows", "mixed_adapters"]
