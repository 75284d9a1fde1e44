# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Image processor of VILA-U on torchvision."""

from .compat_processing_vilau import TorchvisionBackend
from .image_functions_vilau import ExactRescaling, VilaUImageProcessingMixin


class VilaUImageProcessor(VilaUImageProcessingMixin, ExactRescaling, TorchvisionBackend):
    r"""
    Image processor of VILA-U on torchvision: resize to `size`, rescale to [0, 1], normalise to [-1, 1]. A PIL image or
    a file is resized by PIL, exactly as in the original; an array or a tensor is resized by torchvision.

    Example:

    ```python
    >>> from PIL import Image
    >>> processor = VilaUImageProcessor(size={"height": 32, "width": 32})
    >>> processor(Image.new("RGB", (50, 40)), return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 3, 32, 32])

    ```
    """


__all__ = ["VilaUImageProcessor"]
