# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""
Checks arguments by their annotations.

A function calls `check_arguments(function, locals())` before it does any work. A [`Rule`] inside `typing.Annotated`
describes values that the type alone does not rule out, for example in `PositiveInt`. A new argument needs an
annotation and no code.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import unwrap
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import torch


# Logits that are divided by smaller numbers are infinite or NaN in float32, so that no choice is left.
SMALLEST_DIVISOR = 1e-30


@dataclass(frozen=True)
class Rule:
    """
    Rule for the values of a type, as metadata of `typing.Annotated`.

    Args:
        accepted (`str`): the valid values, as in "an integer {accepted}".
        is_valid (`Callable`): returns whether a value of the type is valid.
    """

    accepted: str
    is_valid: Callable[[Any], bool]


def _is_ids(value: torch.Tensor) -> bool:
    return value.ndim == 2 and value.numel() > 0 and value.dtype in (torch.int32, torch.int64)


def is_integer_tensor(value: torch.Tensor) -> bool:
    """Returns whether a tensor has an integer dtype, of any size and sign."""
    return not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)


def as_int64(codes: torch.Tensor, name: str = "codes") -> torch.Tensor:
    """
    Returns `codes` as int64; they may have any integer dtype.

    Codes are stored in small dtypes. There a codebook size or an index such as 256 would wrap to 0.

    Args:
        codes (`torch.Tensor`): integers of any shape.
        name (`str`, *optional*, defaults to `"codes"`): name of the argument in errors.

    Raises:
        ValueError: if the dtype is not one of integers.
    """
    if not is_integer_tensor(codes):
        raise ValueError(f"`{name}` must be integers, got {codes.dtype}.")
    return codes.long()


def _is_mask(value: torch.Tensor) -> bool:
    if value.is_complex() or value.numel() == 0:
        return False
    if value.ndim != 2:  # an additive mask by query and key, as the library's models accept it
        return not bool(value.isnan().any())
    return bool(((value == 0) | (value == 1)).all())


PositiveInt: TypeAlias = Annotated[int, Rule("of at least 1", lambda value: value >= 1)]
NonNegativeInt: TypeAlias = Annotated[int, Rule("of at least 0", lambda value: value >= 0)]
NonNegativeFloat: TypeAlias = Annotated[float, Rule("of at least 0", lambda value: value >= 0)]
# Prompts have at least one row and one token. The embedding table accepts no smaller integers.
TokenIds: TypeAlias = Annotated[
    torch.Tensor, Rule("of integers of shape (rows, T), int32 or int64, with at least one of each", _is_ids)
]
AttentionMask: TypeAlias = Annotated[torch.Tensor, Rule("of zeros and ones", _is_mask)]
IntegerTensor: TypeAlias = Annotated[
    torch.Tensor, Rule("of integers that is not empty", lambda value: is_integer_tensor(value) and value.numel() > 0)
]
FilledTensor: TypeAlias = Annotated[torch.Tensor, Rule("that is not empty", lambda value: value.numel() > 0)]
# The library refuses temperatures of 0 and below with advice, so these are left to it.
Temperature: TypeAlias = Annotated[
    float, Rule(f"of at least {SMALLEST_DIVISOR}", lambda value: value <= 0 or value >= SMALLEST_DIVISOR)
]
# The library accepts floats only, except for 1, which is no penalty. It divides logits by a penalty or multiplies.
Penalty: TypeAlias = Annotated[
    float,
    Rule(
        f"above 0, as a float from {SMALLEST_DIVISOR} to {1 / SMALLEST_DIVISOR}",
        lambda value: (type(value) is float or value == 1) and SMALLEST_DIVISOR <= value <= 1 / SMALLEST_DIVISOR,
    ),
]
Functions: TypeAlias = Annotated[list, Rule("of functions", lambda value: all(map(callable, value)))]
Streamer: TypeAlias = Annotated[
    Any,
    Rule(
        "an object with the methods `put` and `end`",
        lambda value: callable(getattr(value, "put", None)) and callable(getattr(value, "end", None)),
    ),
]

_NAMES = {
    int: ("an integer", "integers"),
    float: ("a finite number", "finite numbers"),
    bool: ("True or False", "booleans"),
    str: ("a string", "strings"),
    torch.Tensor: ("a tensor", "tensors"),
    NoneType: ("None", "None"),
    list: ("a list", "lists"),
    tuple: ("a tuple", "tuples"),
    dict: ("a dictionary", "dictionaries"),
    set: ("a set", "sets"),
    Sequence: ("a sequence", "sequences"),
    Mapping: ("a mapping", "mappings"),
    Callable: ("a function", "functions"),
}


def check_arguments(function: Callable, values: Mapping[str, Any]) -> None:
    """
    Checks arguments by the annotations of a function.

    Args:
        function (`Callable`): the function or method; parameters without annotation are not checked.
        values (`dict`): the arguments by name, for example `locals()`. Other names are ignored.

    Raises:
        ValueError: for the first argument that its annotation does not accept.
    """
    for name, annotation in _annotations(unwrap(getattr(function, "__func__", function))).items():
        if name in values:
            check_value(name, values[name], annotation)


@cache
def _annotations(function: Callable) -> dict[str, Any]:
    """Returns the annotations of the parameters of a function, without those of `*args` and `**kwargs`."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    # Not `get_type_hints`: a name that is imported for type checkers only, as a string, has no value here.
    return {name: function.__annotations__[name] for name in names if name in function.__annotations__}


def check_value(name: str, value: Any, annotation: Any) -> None:
    """
    Checks one value.

    Args:
        name (`str`): its name in errors.
        value: the value.
        annotation: the type that it must have.

    Raises:
        ValueError: if the annotation does not accept the value.
    """
    if not _accepts(annotation, value):
        *others, last = _options(annotation)
        accepted = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"`{name}` must be {accepted}, got {_described(value)}.")


def _accepts(annotation: Any, value: Any) -> bool:
    """Returns whether an annotation accepts a value."""
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        return _accepts(arguments[0], value) and all(rule.is_valid(value) for rule in arguments[1:])
    if origin in (Union, UnionType):
        return any(_accepts(each, value) for each in arguments)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in arguments)
    if annotation is Any or isinstance(annotation, str):
        return True
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(value, origin or annotation):
        return False
    if origin in (list, set, tuple, Sequence) and arguments:
        # a text is a sequence of texts, which nobody means
        return not isinstance(value, (str, bytes)) and all(_accepts(arguments[0], each) for each in value)
    return True


def _options(annotation: Any) -> list[str]:
    """Returns descriptions of the values that an annotation accepts, without `None`."""
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        rules = " and ".join(rule.accepted for rule in arguments[1:])
        return [rules if arguments[0] is Any else f"{_options(arguments[0])[0]} {rules}"]
    if origin in (Union, UnionType):
        return [option for each in arguments if each is not NoneType for option in _options(each)]
    if origin is Literal:
        return [f"one of {', '.join(map(repr, arguments))}"]
    if origin in (list, set, tuple, Sequence) and arguments:
        plural = _NAMES[arguments[0]][1] if arguments[0] in _NAMES else _options(arguments[0])[0].removeprefix("a ")
        return [f"{_NAMES[origin][0]} of {plural}"]
    known = _NAMES.get(origin or annotation)
    return [known[0] if known else f"a `{annotation.__name__}`"]


def _described(value: Any) -> str:
    """Returns a short description of a value for errors."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} of {value.dtype}"
    if isinstance(value, (bool, int, float, str, list, tuple, set, dict, NoneType)):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:77]}..."
    return f"an object of type {type(value).__name__}"


__all__ = [
    "AttentionMask",
    "FilledTensor",
    "Functions",
    "IntegerTensor",
    "NonNegativeFloat",
    "NonNegativeInt",
    "SMALLEST_DIVISOR",
    "Penalty",
    "PositiveInt",
    "Rule",
    "Streamer",
    "Temperature",
    "TokenIds",
    "as_int64",
    "check_arguments",
    "check_value",
    "is_integer_tensor",
]
