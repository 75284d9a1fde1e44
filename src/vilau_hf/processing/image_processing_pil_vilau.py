# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Image processor of VILA-U that needs no torchvision."""

from transformers import PilBackend

from .image_functions_vilau import VilaUImageProcessingMixin


class VilaUImageProcessorPil(VilaUImageProcessingMixin, PilBackend):  # type: ignore[misc]  # wider arguments
    r"""
    Image processor of VILA-U on PIL and numpy: resizes to `size`, rescales to [0, 1], normalises to [-1, 1].

    Example:
    ```python
    >>> from PIL import Image
    >>> processor = VilaUImageProcessorPil(size={"height": 32, "width": 32})
    >>> processor(Image.new("RGB", (50, 40)), return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 3, 32, 32])

    ```
    """


__all__ = ["VilaUImageProcessorPil"]
