# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Outputs of the pipeline of diffusers, which notebooks show."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ImagePipelineOutput
from diffusers.utils import BaseOutput
from PIL import Image


def _mimebundle(results: Any) -> dict[str, str]:
    """Returns how a notebook shows results. Lists from the processor show themselves, arrays and tensors are text."""
    # The display protocol of Jupyter. An empty result shows the text of the object.
    return results._repr_mimebundle_() if hasattr(results, "_repr_mimebundle_") else {}


@dataclass
class VilaUImagePipelineOutput(ImagePipelineOutput):
    r"""
    Output of [`VilaUPipeline`] for images. A notebook shows them.

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` of shape `(N, S, S, 3)` or `torch.Tensor`): N images. A tensor
            has shape `(N, 3, S, S)`, or `(N, h, w, D)` for codes. Arrays and pixels are in [0, 1]. It is `None` if a
            callback interrupted the call.
    """

    # For type checkers, diffusers exports a placeholder instead of the base class.
    images: list[Image.Image] | np.ndarray | torch.Tensor | None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return _mimebundle(self.images)


@dataclass
class VilaUVideoPipelineOutput(BaseOutput):
    r"""
    Output of [`VilaUPipeline`] for videos. A notebook plays them.

    Args:
        frames (`list[list[PIL.Image.Image]]`, `np.ndarray` of shape `(V, F, S, S, 3)` or `torch.Tensor`): V videos. A
            tensor has shape `(V, F, 3, S, S)`, or `(V, F, h, w, D)` for codes. Arrays and pixels are in [0, 1]. It is
            `None` if a callback interrupted the call.
    """

    frames: list[list[Image.Image]] | np.ndarray | torch.Tensor | None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return _mimebundle(self.frames)


__all__ = ["VilaUImagePipelineOutput", "VilaUVideoPipelineOutput"]
