"""Checks of arguments by their annotations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytest
import torch

from vilau_hf.modeling.argument_checks_vilau import (
    AttentionMask,
    Functions,
    IntegerTensor,
    NonNegativeInt,
    PositiveInt,
    Streamer,
    TokenIds,
    as_int64,
    check_arguments,
    check_value,
)


NAN = float("nan")
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64)


@pytest.mark.parametrize(
    ("annotation", "valid", "invalid"),
    [
        (int, [0, -3], [True, 1.0, "1", None, torch.tensor(1)]),
        (float, [0, 1.5], [True, NAN, float("inf"), "1", None]),
        (bool, [True], [1, 0, None, "no", torch.tensor(True)]),
        (PositiveInt, [1], [0, -1, True, 1.0]),
        (NonNegativeInt | None, [0, None], [-1, "0"]),
        (list[int] | int, [[1, 2], 3, []], [[1, 2.5], (1,), "ab", [True]]),
        (Sequence[str], [["a"], ("a",)], ["ab", [1], None]),
        (Literal["a", 1], ["a", 1], ["b", True, 2]),
        (Callable | None, [print, None], ["print"]),
        (Mapping, [{}], [[]]),
        (Any, [None, "x"], []),
        (torch.Generator, [torch.Generator()], [0]),
        (TokenIds, [torch.ones(1, 2, dtype=torch.long)], [torch.ones(1, 0).long(), torch.ones(2).long(), [[1]]]),
        (TokenIds, [torch.ones(1, 2, dtype=torch.int32)], [torch.ones(1, 2), torch.ones(1, 2, dtype=torch.uint8)]),
        (AttentionMask, [torch.ones(1, 2), torch.ones(1, 2).bool()], [torch.tensor([[NAN]]), torch.tensor([[2]])]),
        (IntegerTensor, [torch.ones(1, dtype=dtype) for dtype in INTEGERS], [torch.ones(1), torch.ones(1).bool()]),
        (Functions, [[], [abs]], [abs, [1]]),
        (Streamer, [], ["x", object()]),
    ],
)
def test_accepts_the_values_of_an_annotation_only(annotation, valid, invalid):
    for value in valid:
        check_value("x", value, annotation)
    for value in invalid:
        with pytest.raises(ValueError, match="`x` must be .*, got "):
            check_value("x", value, annotation)


def test_checks_the_parameters_of_a_function():
    def function(first: PositiveInt, second: "Unknown" = None, *, third: list[str] | None = None, **kwargs: int):  # noqa: F821
        check_arguments(function, locals())

    function(1, second=object(), third=["a"], other="b")
    with pytest.raises(ValueError, match="`first` must be an integer of at least 1, got 0"):
        function(0)
    with pytest.raises(ValueError, match=r"`third` must be a list of strings, got \[1\]"):
        function(1, third=[1])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_codes_of_every_integer_type_become_int64(dtype):
    assert torch.equal(as_int64(torch.tensor([5, 100]).to(dtype)), torch.tensor([5, 100]))


def test_long_values_are_shortened_in_errors():
    with pytest.raises(ValueError, match=r"got \[0, 1, .*\.\.\.\.$"):
        check_value("x", list(range(1000)), int)
