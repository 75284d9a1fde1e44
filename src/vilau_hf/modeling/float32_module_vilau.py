# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Modules that stay in float32."""

from torch import nn


class Float32Module(nn.Module):
    """Keeps its dtype when the model that holds it is cast to another (`to`, `half`, ...); devices it changes."""

    def _apply(self, fn, recurse=True):
        def keep_dtype(tensor):
            applied = fn(tensor)
            return applied if applied.dtype == tensor.dtype else tensor.to(applied.device)

        return super()._apply(keep_dtype, recurse)


__all__ = ["Float32Module"]
