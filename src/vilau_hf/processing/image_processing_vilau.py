# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Image processor of VILA-U on torchvision."""

import torch
from PIL import Image
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import ImagesKwargs, Unpack

from .image_processing_pil_vilau import (
    ExactRescaling,
    ShortPreprocessing,
    fetch_pictures,
    pixels_to_images,
    prepare_picture,
)


class VilaUImageProcessorKwargs(ImagesKwargs, total=False):
    r"""
    resize_before_rgb (`bool`, *optional*, defaults to `False`):
        Whether a PIL image is resized in its own mode (palette, alpha) and converted to RGB after that, as the
        original VILA-U did for understanding. By default it is converted first.
    crop_to_square (`bool`, *optional*, defaults to `False`):
        Whether a PIL image is first cut to a square, centred in width and from the top in height, as the original
        VILA-U did with the images it learned to generate.
    pad_to_square (`bool`, *optional*, defaults to `False`):
        Whether a PIL image is first padded to a square, in RGB with `image_mean` on both sides, as the original VILA-U
        did with the aspect ratio "pad".
    """

    resize_before_rgb: bool | None
    crop_to_square: bool | None
    pad_to_square: bool | None


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

    resample = PILImageResampling.BICUBIC
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
