# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Base classes of modules: for those that stay in float32, and for models that the library initialises."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Float32Module(nn.Module):
    """Keeps its dtype when the model that holds it is cast to another (`to`, `half`, ...); devices it changes."""

    def _apply(self, fn, recurse=True):
        # The base method casts as well as moves. Here only the move is wanted. torch has had no public hook for it up
        # to 2.14; this can go when it has one.
        def keep_dtype(tensor):
            applied = fn(tensor)
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
    """
    For models all of whose initialisation goes through `transformers.initialization`: the library treats them like its
    own, and not like code that writes over what was loaded.
    """

    @classmethod
    def is_custom_code(cls) -> bool:
        """No, as far as the initialisation of weights is concerned."""
        return False


__all__ = ["Float32Module", "LibraryInitialization", "float32_parameters"]
