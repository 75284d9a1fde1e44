# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""
Names of transformers and diffusers that this island needs and that are not documented as public.

A layout test forbids such imports in all other files. When a new version moves a name, change it here.
Each entry says why it is needed, in which versions of transformers it was read, and when it can go.
"""

from typing import Any

import torch
from diffusers.models.autoencoders.vae import Decoder as PixelDecoder
from transformers import Cache, PreTrainedConfig
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.configuration_utils import SubConfigSpec
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.siglip.modeling_siglip import (
    SiglipAttention,
    SiglipEncoderLayer,
    SiglipMultiheadAttentionPoolingHead,
    SiglipPreTrainedModel,
    SiglipVisionEmbeddings,
)
from transformers.utils import torch_compilable_check
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.import_utils import is_tracing
from transformers.utils.output_capturing import capture_outputs


# PixelDecoder: diffusers exports whole autoencoders only, and the tower has its own encoder. Read in diffusers 0.40.0
# and 0.42.1. It can go when diffusers exports its decoder.
#
# ACT2FN: names of the activation functions that configurations accept. A wrong name would be a KeyError when the model
# is built. Read in 5.20.2, 5.23.0 and 5.24.0. It can go when the library's configurations check the name.
#
# init: initialisers that skip weights which a checkpoint has filled. `_init_weights` of the library's own models uses
# them. Read in 5.20.2, 5.23.0 and 5.24.0. It can go when the library exports the module.
#
# SubConfigSpec: the library's way to declare nested configurations. 5.20.2 accepts instances of it only, later
# versions also accept a class. Read in 5.20.2, 5.23.0 and 5.24.0. It can go when the library exports it.
#
# Siglip*: the image encoder is SigLIP without its last layer, so it is built from SigLIP's layers. Encoders of other
# families are built by `AutoModel`. SigLIP's is not, because published checkpoints name its weights otherwise. Read in
# 5.20.2, 5.23.0 and 5.24.0. They can go when the library exports them.
#
# torch_compilable_check: raises outside of a compiled graph and is an assertion inside. Read in 5.20.2, 5.23.0
# and 5.24.0. It can go when torch offers one call for both.
#
# is_tracing: tells whether a graph is compiled or captured, or a tensor has no values, so that a check must not read
# one. Read in 5.20.2, 5.23.0 and 5.24.0. It can go when torch offers one call for all these cases.
#
# can_return_tuple, merge_with_config_defaults, capture_outputs: the decorators behind `return_dict`, configuration
# defaults and recorded hidden states of the library's own models. Read in 5.20.2, 5.23.0 and 5.24.0. They can go when
# the library exports them.

# Both names of the cache. The first is that of the newest version.
CACHE_NAMES = ("cache", "past_key_values")

# Name of the cache, both as an argument of a language model's `forward` and as a field of its output. It is
# "past_key_values" up to 5.23 and "cache" from 5.24 on. The constant can go when 5.24 is the oldest supported version.
CACHE_NAME = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"

# Whether layers with activation checkpointing drop the cache in training mode, also without gradients
# (`GradientCheckpointingLayer`). From 5.24 on they keep it without gradients. Read in 5.20.2, 5.23.0 and 5.24.0. It
# can go when 5.24 is the oldest supported version.
CHECKPOINTING_DROPS_CACHE = CACHE_NAME == "past_key_values"

# Whether `_prefill` may call the chunks of a prompt later iterations (`is_first_iteration=False`), as 5.20 does. From
# 5.24 on, reading the length of a static cache at each token would be the only wait for the device. Read in 5.20.2,
# 5.23.0 and 5.24.0. It can go when 5.24 is the oldest supported version.
CHUNKS_ARE_LATER_ITERATIONS = CACHE_NAME == "past_key_values"


def cache_arguments(cache: Cache | None, past_key_values: Cache | None) -> dict[str, Any]:
    """
    Returns the arguments that pass a cache to a language model, with the name that the installed version knows.

    Up to transformers 5.23, continuous batching passes a paged cache as `cache`, which the attention layers read. It
    is no `Cache` and keeps its name. The function can go together with `CACHE_NAME`.

    Args:
        cache (`Cache`, *optional*): the cache by its new name.
        past_key_values (`Cache`, *optional*): the cache by its old name.

    Raises:
        ValueError: if both are given.
    """
    if CACHE_NAME == "past_key_values" and cache is not None and not isinstance(cache, Cache):
        return {"cache": cache, "past_key_values": past_key_values}
    if cache is not None and past_key_values is not None:
        raise ValueError("`cache` and `past_key_values` are two names of one argument: give one of them.")
    return {CACHE_NAME: past_key_values if cache is None else cache}


def rename_cache(kwargs: dict[str, Any]) -> None:
    """
    Renames the cache in the arguments `kwargs` of a `generate` call to the name that the installed version knows.

    The function can go together with `CACHE_NAME`.

    Raises:
        ValueError: if the cache is given by both names.
    """
    given = {name: kwargs.pop(name, None) for name in CACHE_NAMES}
    kwargs.update({name: value for name, value in cache_arguments(**given).items() if value is not None})


def make_causal_mask(config: PreTrainedConfig, inputs_embeds: torch.Tensor) -> torch.Tensor | None:
    """
    Returns the causal mask of `inputs_embeds` `(M, T, W)` in the form that the configured attention function reads.

    The fourth parameter of `create_causal_mask`, the cache, changed its name in 5.24, so it is passed by position.
    Read in 5.20.2, 5.23.0 and 5.24.0. The function can go when `create_causal_mask` is exported.
    """
    return create_causal_mask(config, inputs_embeds, None, None)


def adapter_names_of_hooks(model: torch.nn.Module) -> list[str] | None:
    """
    Returns the argument `adapter_names` of the `PeftModel.generate` call that runs now, or `None`.

    `PeftModel.generate` removes the argument. It registers hooks on its layers that hold it, and torch has no public
    way to list hooks. Read in peft 0.20.0 and 0.21.2. The function can go when peft passes the argument on.

    Args:
        model (`torch.nn.Module`): the model inside of the `PeftModel`.
    """
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            names = getattr(hook, "keywords", {}).get("adapter_names")
            if names is not None:
                return names
    return None


__all__ = [
    "ACT2FN",
    "CACHE_NAME",
    "CACHE_NAMES",
    "CHECKPOINTING_DROPS_CACHE",
    "CHUNKS_ARE_LATER_ITERATIONS",
    "PixelDecoder",
    "SiglipAttention",
    "SiglipEncoderLayer",
    "SiglipMultiheadAttentionPoolingHead",
    "SiglipPreTrainedModel",
    "SiglipVisionEmbeddings",
    "SubConfigSpec",
    "adapter_names_of_hooks",
    "cache_arguments",
    "can_return_tuple",
    "capture_outputs",
    "init",
    "make_causal_mask",
    "merge_with_config_defaults",
    "rename_cache",
    "is_tracing",
    "torch_compilable_check",
]
