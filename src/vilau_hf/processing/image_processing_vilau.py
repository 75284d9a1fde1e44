# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Image processor of VILA-U on torchvision."""

from .compat_processing_vilau import TorchvisionBackend
from .image_functions_vilau import ExactRescaling, VilaUImageProcessingMixin


class VilaUImageProcessor(  # type: ignore[misc]  # the mixins take wider arguments than the backend
    VilaUImageProcessingMixin, ExactRescaling, TorchvisionBackend
):
    r"""
    Image processor of VILA-U on torchvision: resizes to `size`, rescales to [0, 1], normalises to [-1, 1].

    PIL resizes images that are given as files or PIL images, exactly as in the original release. torchvision resizes
    arrays and tensors.

    Example:
    ```python
    >>> from PIL import Image
    >>> processor = VilaUImageProcessor(size={"height": 32, "width": 32})
    >>> processor(Image.new("RGB", (50, 40)), return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 3, 32, 32])

    ```
    """


__all__ = ["VilaUImageProcessor"]
