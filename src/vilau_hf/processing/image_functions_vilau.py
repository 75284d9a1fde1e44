# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Functions and mixins that the processors of images and videos share; nothing here needs torchvision."""

import os
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.Image import Resampling
from transformers import BatchFeature, ImagesKwargs

from .compat_processing_vilau import SizeDict, is_valid_image, load_image


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


def fetch_pictures(pictures: Any) -> Any:
    """
    Opens file names, URLs and base64 strings as RGB images; keeps the nesting, and images that are already open.

    Args:
        pictures (`str`, `os.PathLike`, `PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or nested lists of them).

    Raises:
        ValueError: for an image that cannot be read, with its name and the reason.
    """
    if isinstance(pictures, (list, tuple)):
        return [fetch_pictures(picture) for picture in pictures]
    if isinstance(pictures, (str, os.PathLike)):
        try:
            return _open_picture(os.fspath(pictures))
        except Exception as error:  # every codec has errors of its own
            name = os.fspath(pictures)[:200]
            reason = str(error)[:300] or type(error).__name__
            raise ValueError(f"Cannot read the image {name!r}: {type(error).__name__}: {reason}") from error
    if is_valid_image(pictures):
        return pictures
    raise TypeError(f"An image must be a PIL image, an array, a tensor or a file name, got {type(pictures).__name__}.")


def _open_picture(source: str) -> Image.Image:
    """What the library's `load_image` gives; a file is not copied twice on the way."""
    if not os.path.isfile(source):
        return load_image(source)
    image = Image.open(source)
    ImageOps.exif_transpose(image, in_place=True)  # reads the pixels, too
    return image if image.mode == "RGB" else image.convert("RGB")


def prepare_picture(
    image: Image.Image,
    do_resize: bool,
    size: SizeDict | None,
    resample: int | None,
    do_convert_rgb: bool,
    resize_before_rgb: bool = False,
    crop_to_square: bool = False,
    pad_to_square: bool = False,
    image_mean: Sequence[float] = (0.5, 0.5, 0.5),
) -> Image.Image:
    """Crops, pads, resizes and converts an image in PIL, which gives the pixels of the original VILA-U exactly."""
    if crop_to_square and image.width != image.height:
        side = min(image.size)
        left = (image.width - side) // 2
        image = image.crop((left, 0, left + side, side))
    if pad_to_square and image.width != image.height:
        side = max(image.size)
        square = Image.new("RGB", (side, side), tuple(int(mean * 255) for mean in image_mean))
        square.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
        image = square
    if do_convert_rgb and not resize_before_rgb and image.mode != "RGB":
        image = image.convert("RGB")
    if do_resize:
        if not (size.height and size.width):
            raise ValueError(f"`size` must have the keys 'height' and 'width', got {dict(size)}.")
        if image.size != (size.width, size.height):
            image = image.resize((size.width, size.height), Resampling.BICUBIC if resample is None else resample)
    if do_convert_rgb and image.mode != "RGB":
        image = image.convert("RGB")
    return image


def pixels_to_images(pixels: torch.Tensor, output_type: str = "pil") -> list[Image.Image] | np.ndarray | torch.Tensor:
    """
    Maps decoded pixels of shape `(N, 3, H, W)` in [-1, 1] to images; values outside are clipped.

    Args:
        pixels (`torch.Tensor` of shape `(N, 3, H, W)`).
        output_type (`str`, *optional*, defaults to `"pil"`): `"pil"` for a list of N PIL images, `"np"` for an array
            `(N, H, W, 3)` and `"pt"` for a tensor `(N, 3, H, W)`, both float32 in [0, 1].
    """
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f"`output_type` must be 'pil', 'np' or 'pt', got {output_type!r}.")
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"`pixels` must have shape (N, 3, H, W), got {tuple(pixels.shape)}.")
    pixels = (pixels.detach().float() / 2 + 0.5).clamp(0, 1)
    if output_type == "pt":
        return pixels
    pixels = pixels.permute(0, 2, 3, 1).cpu()  # (N, H, W, 3)
    if output_type == "np":
        return pixels.numpy()
    return [Image.fromarray(array) for array in (pixels * 255).round().to(torch.uint8).numpy()]


class ExactRescaling:
    """For processors on torchvision: 8-bit pixels become the floats of the PIL backend, equal to the last bit."""

    def rescale_and_normalize(self, images, do_rescale, rescale_factor, do_normalize, image_mean, image_std):
        if do_rescale and rescale_factor == 1 / 255 and images.dtype == torch.uint8:
            # CUDA would multiply by the reciprocal of a Python number
            images = images.float().div_(torch.full((), 255.0, device=images.device))
            return self.normalize(images, image_mean, image_std, inplace=True) if do_normalize else images
        return super().rescale_and_normalize(images, do_rescale, rescale_factor, do_normalize, image_mean, image_std)


class ShortPreprocessing:
    """
    For image processors: 8-bit images on the CPU that `process_image` has brought to their size take a shorter way
    than the library's general one, to the same floats.
    """

    # The base method resizes, rescales and normalises images of any kind, in several passes over the pixels. This one
    # does the usual case in one pass. Our processors give 1.3 times the images per second of the library's own
    # (benchmarks/results/processor.json). Read in 5.20.2, 5.23.0 and 5.24.0. It can go when the library is as fast.
    def _preprocess(self, images: list[np.ndarray | torch.Tensor], return_tensors=None, **kwargs) -> BatchFeature:
        size, mean, std = kwargs["size"], kwargs["image_mean"], kwargs["image_std"]
        wanted, unwanted = ("do_resize", "do_rescale", "do_normalize"), ("do_center_crop", "do_pad")
        is_usual = all(kwargs[name] for name in wanted) and not any(kwargs[name] for name in unwanted)
        is_usual = is_usual and np.ndim(mean) == np.ndim(std) == 1  # by channel
        are_tensors = bool(images) and isinstance(images[0], torch.Tensor)
        if not is_usual or kwargs["rescale_factor"] != 1 / 255 or (are_tensors and not images[0].is_cpu):
            return super()._preprocess(images, return_tensors=return_tensors, **kwargs)
        arrays = [np.ascontiguousarray(image) for image in images]  # channels first in memory, too: faster
        shape = (len(mean), size.height, size.width)
        if not arrays or any(array.dtype != np.uint8 or array.shape != shape for array in arrays):
            return super()._preprocess(images, return_tensors=return_tensors, **kwargs)
        pixels = np.stack(arrays).astype(np.float32)  # (N, C, H, W)
        pixels /= np.float32(255)  # of 8 bits the same floats as a product with the factor in float64
        pixels -= np.array(mean, np.float32)[:, None, None]
        pixels /= np.array(std, np.float32)[:, None, None]
        if return_tensors is None:
            pixels = [torch.from_numpy(each) if are_tensors else each for each in pixels]
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)


class VilaUImageProcessingMixin(ShortPreprocessing):
    """Settings and methods of both image processors; to stand before a backend of transformers in a class's bases."""

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

    def process_image(self, image, do_convert_rgb=None, **kwargs) -> np.ndarray | torch.Tensor:
        """Turns one image into an array or a tensor `(C, H, W)`; a PIL image is resized and converted here."""
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


__all__ = [
    "ExactRescaling",
    "ShortPreprocessing",
    "VilaUImageProcessingMixin",
    "VilaUImageProcessorKwargs",
    "fetch_pictures",
    "pixels_to_images",
    "prepare_picture",
]
