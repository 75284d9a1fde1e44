# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Ranges of configuration fields, by their names, and errors of configurations that are `ValueError`s."""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias, TypeVar

import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import (
    StrictDataclassClassValidationError,
    StrictDataclassError,
    StrictDataclassFieldValidationError,
)
from transformers import PreTrainedConfig

from .argument_checks_vilau import NonNegativeFloat, NonNegativeInt, PositiveInt, Rule, check_value
from .compat_modeling_vilau import ACT2FN


# A larger number of layers is a mistake, and building them would take minutes. Published models have at most 126.
_MAX_LAYERS = 1000
# Sizes of tensors. Above this bound, products of sizes leave the 64 bits in which torch counts, also without memory.
_MAX_SIZE = 2**31 - 1
_Size: TypeAlias = Annotated[int, Rule(f"from 1 to {_MAX_SIZE}", lambda value: 1 <= value <= _MAX_SIZE)]
_Layers: TypeAlias = Annotated[int, Rule(f"from 1 to {_MAX_LAYERS}", lambda value: 1 <= value <= _MAX_LAYERS)]

# Types of fields, by name, in our configurations and in those of encoders and language models. `@strict` checks no
# ranges, and the library divides by sizes before validators run.
_FIELDS: dict[str, Any] = {
    **dict.fromkeys(
        (
            "hidden_size",
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "vocab_size",
            "image_size",
            "patch_size",
            "num_channels",
            "codebook_size",
            "code_depth",
            "code_dim",
            "backbone_hidden_size",
            "latent_channels",
            "norm_num_groups",
            "decoder_latent_size",
        ),
        _Size,
    ),
    "max_position_embeddings": PositiveInt,
    "num_hidden_layers": _Layers,
    # diffusers builds one residual block more than it says
    "layers_per_block": Annotated[int, Rule(f"from 0 to {_MAX_LAYERS}", lambda value: 0 <= value <= _MAX_LAYERS)],
    **dict.fromkeys(("image_token_id", "video_token_id"), NonNegativeInt),
    "block_out_channels": Annotated[
        list[_Size] | tuple[_Size, ...], Rule("with at least one entry", lambda value: len(value) > 0)
    ],
    # fields of the base class, which reads them without a check of their types
    "model_type": str,
    "architectures": list[str],
    "dtype": str | torch.dtype | Mapping,
    **dict.fromkeys(
        ("hidden_act", "hidden_activation", "activation_function"),
        Annotated[str, Rule("that names an activation function of transformers", lambda value: value in ACT2FN)],
    ),
    **dict.fromkeys(("id2label", "label2id"), Mapping),
    "start_marker_prefix_ids": list[NonNegativeInt] | tuple[NonNegativeInt, ...],
    **dict.fromkeys(
        (
            "initializer_range",
            "layer_norm_eps",
            "codebook_epsilon",
            *(f"{name}_loss_weight" for name in ("contrastive", "reconstruction", "mse", "l1", "commitment")),
            *(f"{name}_loss_weight" for name in ("text", "visual")),
        ),
        NonNegativeFloat,
    ),
    "codebook_decay": Annotated[float, Rule("from 0 to 1", lambda value: 0 <= value <= 1)],
}


_Config = TypeVar("_Config")


class InvalidConfigError(StrictDataclassError, ValueError):
    """Error of a configuration, which is a `ValueError` as other errors of arguments."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)


class InvalidFieldError(InvalidConfigError, StrictDataclassFieldValidationError):
    """Error of the type of a field."""


class InvalidRelationError(InvalidConfigError, StrictDataclassClassValidationError):
    """Error of fields that do not fit one another."""


def strict_config(config_class: type[_Config]) -> type[_Config]:
    """
    Validates the fields of a configuration class like `@strict`, but raises errors that are `ValueError`s.

    The errors of `@strict` are neither `ValueError` nor `TypeError`. Ours are of its classes, too.

    Args:
        config_class (`type`): the class, which is changed.
    """
    strict(config_class)  # changes the class
    for name in ("__init__", "__setattr__", "validate"):
        setattr(config_class, name, _with_value_errors(getattr(config_class, name)))
    return config_class


def _with_value_errors(function: Callable[..., None]) -> Callable[..., None]:
    """Wraps a method so that the errors of `@strict` that it raises are `ValueError`s."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except StrictDataclassError as error:
            # A nested configuration of ours has raised it already.
            if isinstance(error, ValueError):
                raise
            if isinstance(error, StrictDataclassFieldValidationError):
                raise InvalidFieldError(str(error)) from error
            if isinstance(error, StrictDataclassClassValidationError):
                raise InvalidRelationError(str(error)) from error
            raise InvalidConfigError(str(error)) from error

    return wrapped


def check_fields(fields: Mapping[str, Any], prefix: str = "") -> None:
    """
    Checks the values of configuration fields by their names, also inside of nested configurations.

    Args:
        fields (`Mapping`): fields by name; `None` stands for a default.
        prefix (`str`, *optional*, defaults to `""`): name of the nested configuration in errors.

    Raises:
        ValueError: if a field has another type or is out of range.
    """
    for name, value in fields.items():
        if name in _FIELDS and value is not None:
            # Families with their own vision towers have pairs as sizes, and their own validators.
            if name in ("image_size", "patch_size") and isinstance(value, (list, tuple)):
                continue
            check_value(f"{prefix}{name}", value, _FIELDS[name])
        nested = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
        if name.endswith("_config") and isinstance(value, (Mapping, PreTrainedConfig)):
            check_fields(nested, f"{prefix}{name}.")


__all__ = ["InvalidConfigError", "check_fields", "strict_config"]
