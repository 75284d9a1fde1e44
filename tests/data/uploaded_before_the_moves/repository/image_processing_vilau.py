# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Image processor of VILA-U on torchvision."""

from typing import Unpack

import torch
from PIL import Image
from PIL.Image import Resampling

from .compat_processing_vilau import TorchvisionBackend
from .image_processing_pil_vilau import (
    ExactRescaling,
    ShortPreprocessing,
    VilaUImageProcessorKwargs,
    fetch_pictures,
    pixels_to_images,
    prepare_picture,
)


class VilaUImageProcessor(ShortPreprocessing, ExactRescaling, TorchvisionBackend):
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

    resample = Resampling.BICUBIC
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    size = {"height": 256, "width": 256}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    resize_before_rgb = False
    crop_to_square = False
    pad_to_square = False
    valid_kwargs = VilaUImageProcessorKwargs

    def __init__(self, **kwargs: Unpack[VilaUImageProcessorKwargs]):
        super().__init__(**kwargs)

    def fetch_images(self, image_url_or_urls):
        """Opens file names and URLs, see `fetch_pictures`."""
        return fetch_pictures(image_url_or_urls)

    def process_image(self, image, do_convert_rgb=None, **kwargs) -> torch.Tensor:
        """Turns one image into a tensor `(C, H, W)`; a PIL image is resized and converted here."""
        if isinstance(image, Image.Image):
            names = (
                "do_resize",
                "size",
                "resample",
                "resize_before_rgb",
                "crop_to_square",
                "pad_to_square",
                "image_mean",
            )
            image = prepare_picture(image, do_convert_rgb=do_convert_rgb, **{name: kwargs[name] for name in names})
            do_convert_rgb = False
        return super().process_image(image, do_convert_rgb=do_convert_rgb, **kwargs)

    def postprocess(self, pixels: torch.Tensor, output_type: str = "pil"):
        """Maps pixels `(N, 3, H, W)` in [-1, 1] to images, see `pixels_to_images`."""
        return pixels_to_images(pixels, output_type)


__all__ = ["VilaUImageProcessor"]
