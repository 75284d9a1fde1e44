"""Values of all kinds, valid and odd, from which the entry points draw arguments."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from .classification import Given


FLOATS = ("float16", "float32", "float64")
INTEGERS = ("uint8", "int8", "int16", "uint16", "int32", "int64")
NOT_NUMBERS = [
    None,
    True,
    "",
    "x",
    "1",
    [],
    [None],
    ["x"],
    {},
    {"a": 1},
    (),
    b"x",
    1j,
    math.nan,
    Given("object()", lambda folder: object()),
]
NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    5,
    7,
    10**6,
    2**31,
    2**63,
    -(2**63) - 1,
    0.0,
    0.5,
    1.0,
    1.5,
    -0.5,
    1e9,
    1e300,
    math.inf,
    -math.inf,
]


def odd() -> st.SearchStrategy[Any]:
    """Draws a value that few arguments accept."""
    return st.sampled_from([*NOT_NUMBERS, *NUMBERS]) | st.builds(tensor, *[st.just("float32"), st.just((2, 3))])


def number() -> st.SearchStrategy[Any]:
    """Draws a number, which can be too large, infinite or not a number."""
    return st.sampled_from([*NUMBERS, math.nan, True])


def text() -> st.SearchStrategy[str]:
    """Draws a text of any alphabet, which can have special tokens in it."""
    pieces = st.sampled_from(
        ["a", " ", "\n", "red circle", "</s>", "<s>", "<image_start>", "<image_end>", "<pad>", "ASSISTANT:", "USER:"]
    ) | st.text(max_size=6)
    return st.lists(pieces, max_size=5).map("".join)


def array_values(dtype: str, shape: tuple[int, ...], low: float, high: float, seed: int) -> np.ndarray:
    """Returns evenly distributed values of a dtype from `low` to `high`, both included in large arrays."""
    values = np.random.default_rng(seed).uniform(low, high, shape)
    if dtype == "bool":
        return values > (low + high) / 2
    return values.astype(dtype) if dtype in FLOATS else np.rint(values).astype(dtype)


def array(dtype: str, shape: tuple[int, ...], low: float = 0, high: float = 1, seed: int = 0) -> Given:
    """Returns an array with values from `low` to `high`."""
    return Given(
        f"array({dtype}, {shape}, {low}..{high}, seed {seed})",
        lambda folder: array_values(dtype, shape, low, high, seed),
    )


def tensor(dtype: str, shape: tuple[int, ...], low: float = 0, high: float = 1, seed: int = 0) -> Given:
    """Returns a tensor with values from `low` to `high`."""
    return Given(
        f"tensor({dtype}, {shape}, {low}..{high}, seed {seed})",
        lambda folder: torch.from_numpy(np.array(array_values(dtype, shape, low, high, seed))),
    )


def file(name: str, content: bytes) -> Given:
    """Returns the path of a file with some content."""

    def write(folder: Path) -> str:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    return Given(f"file({name!r}, {content[:60]!r}, {len(content)} bytes)", write)
