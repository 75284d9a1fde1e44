# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Base classes of modules: for modules that stay in float32, and for models that the library initialises."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Float32Module(nn.Module):
    """Keeps its dtype when the model around it is cast (`to`, `half`, ...), but moves to other devices."""

    # The base method applies `fn` to every tensor, which casts as well as moves. Here only the move is wanted. torch
    # has no public hook for it up to 2.14; this can go when it has one.
    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
        def keep_dtype(tensor: torch.Tensor) -> torch.Tensor:
            applied = fn(tensor)
            # moves the original, not the cast tensor, whose values are already rounded
            return applied if applied.dtype == tensor.dtype else tensor.to(applied.device)

        return super()._apply(keep_dtype, recurse)


@contextmanager
def float32_parameters() -> Iterator[None]:
    """
    Creates parameters in float32 inside the context, whatever default dtype the model around them is built with.

    `AutoModel.from_config(config, dtype=torch.float16)` builds a model under that default. Values that are rounded
    there stay rounded, since a [`Float32Module`] is not cast later.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


class LibraryInitialization:
    """Marks models whose initialisation goes through `transformers.initialization` only."""

    # The base method says True for every class outside of transformers. Then modules whose weights are all loaded are
    # not initialised, because foreign code may overwrite loaded weights. `transformers.initialization` skips loaded
    # weights itself, so our classes take the same path as the library's. Read in 5.20.2, 5.23.0 and 5.24.0. It stays
    # as long as the library asks.
    @classmethod
    def is_custom_code(cls) -> bool:
        """Returns `False`, so that the library initialises weights as in its own models."""
        return False


__all__ = ["Float32Module", "LibraryInitialization", "float32_parameters"]
