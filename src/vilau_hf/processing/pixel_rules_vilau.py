# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""The one rule for pixels: which images and frames are accepted, and how their values become 8-bit levels."""

import struct
import zlib
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps


# Pillow refuses larger images by default (12.0.0 and 13.0.0: twice `Image.MAX_IMAGE_PIXELS`).
MAX_IMAGE_PIXELS = 178_956_970
# Pillow's resizing needs memory and time in proportion to the longer side, whatever the number of pixels: 3.3 GiB for
# an image of 1 x 170,000,000 pixels. With both limits, no side is longer than 1.4 million pixels.
MAX_ASPECT_RATIO = 10_000
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
# La is grey with premultiplied alpha. Pillow converts it to LA only.
CONVERTIBLE_MODES = ("1", "L", "P", "RGB", "RGBA", "RGBX", "RGBa", "LA", "La", "PA", "CMYK", "YCbCr", "HSV", "LAB")
# Pillow's decoders and its reader of EXIF data raise these for damaged files.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")
# Integers that are wider than a pixel. `numpy.random.randint` and `torch.randint` give int64, for example.
WIDE_TYPES = ("int16", "int32", "int64", "uint32", "uint64")
ACCEPTED_VALUES = "booleans, 8-bit integers (0 to 255), uint16 (0 to 65535) or floats in [0, 1]"


def check_size(
    width: int,
    height: int,
    max_image_pixels: int | None = MAX_IMAGE_PIXELS,
    max_aspect_ratio: float | None = MAX_ASPECT_RATIO,
) -> None:
    """
    Raises a `ValueError` for an image without pixels, or one that is too large or too narrow.

    Args:
        width (`int`): width in pixels.
        height (`int`): height in pixels.
        max_image_pixels (`int`, *optional*, defaults to 178,956,970): largest number of pixels. `None` for no limit.
        max_aspect_ratio (`float`, *optional*, defaults to 10,000): largest ratio of the longer to the shorter side.
            `None` for no limit.
    """
    if width < 1 or height < 1:
        raise ValueError(f"An image must have at least one pixel, got a size of {width} x {height}.")
    if max_image_pixels is not None and width * height > max_image_pixels:
        raise ValueError(
            f"An image must have at most `max_image_pixels` ({max_image_pixels}) pixels, got {width} x {height}."
        )
    if max_aspect_ratio is not None and max(width, height) > max_aspect_ratio * min(width, height):
        raise ValueError(
            f"The longer side of an image must be at most `max_aspect_ratio` ({max_aspect_ratio}) times the shorter "
            f"side, got {width} x {height}."
        )


def check_image(image: Any, **limits: float | None) -> None:
    """
    Raises a `ValueError` unless an open image has pixels that are accepted.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): an image, or an array `(N, ...)` of N images.
        limits: arguments of `check_size`.
    """
    if isinstance(image, Image.Image):
        check_size(*image.size, **limits)  # type: ignore[arg-type]  # one type for both limits
        _read_pixels(image)
        _check_mode(image)
        return
    if image.ndim not in (2, 3, 4):
        raise ValueError(
            "An array of an image must have shape (h, w), (h, w, C) or (C, h, w). An array of several images must "
            f"have four dimensions. Got shape {tuple(image.shape)}."
        )
    if image.ndim == 4 and not len(image):
        raise ValueError(f"An array of images must have at least one image, got shape {tuple(image.shape)}.")
    _check_array_size(image, **limits)
    check_values(image)


def check_video(frames: np.ndarray | torch.Tensor, **limits: float | None) -> None:
    """
    Raises a `ValueError` unless an array has frames with pixels that are accepted.

    Args:
        frames (`np.ndarray` or `torch.Tensor`): frames `(F, h, w, C)` or `(F, C, h, w)` of a video, or V videos in
            five dimensions.
        limits: arguments of `check_size`.
    """
    if frames.ndim not in (4, 5):
        raise ValueError(
            "An array of a video must have shape (F, h, w, C) or (F, C, h, w), and one of several videos five "
            f"dimensions. Got shape {tuple(frames.shape)}."
        )
    if 0 in frames.shape[:-3]:
        raise ValueError(f"A video must have at least one frame, got shape {tuple(frames.shape)}.")
    _check_array_size(frames, **limits)
    check_values(frames)


def channel_axis(image: np.ndarray | torch.Tensor) -> int:
    """
    Returns the axis of the channels, -3 or -1, in the way of transformers' `infer_channel_dimension_format`.

    Args:
        image (`np.ndarray` or `torch.Tensor`): an array of at least three dimensions.

    Raises:
        ValueError: if neither axis has 1, 3 or 4 channels.
    """
    for axis in (-3, -1):
        if image.shape[axis] in (1, 3, 4):
            return axis
    raise ValueError(
        "An array of images must have 1, 3 or 4 channels in its last or third to last dimension, got shape "
        f"{tuple(image.shape)}."
    )


def repeat_grey_channel(pixels: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """
    Repeats the channel of grey images or frames three times. Other pixels are returned unchanged.

    The library repeats it for arrays of frames, and from 5.24 on for images.

    Args:
        pixels (`np.ndarray` or `torch.Tensor`): an array of at least three dimensions.
    """
    axis = channel_axis(pixels)
    if pixels.shape[axis] != 1:
        return pixels
    return pixels.repeat_interleave(3, axis) if isinstance(pixels, torch.Tensor) else pixels.repeat(3, axis)


def _check_array_size(image: np.ndarray | torch.Tensor, **limits: float | None) -> None:
    """Checks height, width and number of channels of an array."""
    if image.ndim == 2:
        height, width = image.shape
    elif 0 in image.shape[-3:]:
        raise ValueError(f"An image must have at least one pixel, got shape {tuple(image.shape)}.")
    else:
        height, width = image.shape[-2:] if channel_axis(image) == -3 else image.shape[-3:-1]
    check_size(width, height, **limits)  # type: ignore[arg-type]  # one type for both limits


def _read_pixels(image: Image.Image) -> None:
    """Reads the pixels of an image that Pillow has opened and not read yet, or raises a `ValueError`."""
    try:
        image.load()
    except DECODE_ERRORS as error:
        reason = str(error)[:300] or type(error).__name__
        raise ValueError(f"An image cannot be read: {type(error).__name__}: {reason}") from error


def _check_mode(image: Image.Image) -> None:
    """Raises a `ValueError` unless the mode of a PIL image is accepted, and its values if the mode has any range."""
    if image.mode == "F":
        check_values(np.asarray(image), "A PIL image of mode F")
    elif image.mode == "I":
        _check_mode_i(*image.getextrema())
    elif image.mode not in (*CONVERTIBLE_MODES, *SIXTEEN_BIT_MODES):
        raise ValueError(
            f"A PIL image must have one of the modes {', '.join((*CONVERTIBLE_MODES, *SIXTEEN_BIT_MODES))}, I and F, "
            f"got {image.mode}."
        )


def _check_mode_i(low: Any, high: Any) -> None:
    """Raises a `ValueError` unless the values of a PIL image of mode I are certain to have 16 bits."""
    # Pillow opens some 16-bit files in mode I, but `convert("I")` of an 8-bit image has the same mode. Read as 16
    # bits, its values up to 255 would turn black. Only an image that is all 0 is the same in both.
    if low < 0 or high > 65535 or 0 < high < 256:
        raise ValueError(
            f"A PIL image of mode I must have values of 16 bits, from 0 to 65535 and not all below 256. Got {low} to "
            f"{high}. Convert 8-bit values to mode L."
        )


def check_values(image: np.ndarray | torch.Tensor, name: str = "An array of images") -> None:
    """
    Raises a `ValueError` unless the values of an array can be read as pixels in one way only.

    Args:
        image (`np.ndarray` or `torch.Tensor`): an array that is not empty.
        name (`str`, *optional*, defaults to `"An array of images"`): the image in the message.
    """
    dtype = _dtype_name(image)
    if isinstance(image, torch.Tensor) and (image.is_meta or image.layout != torch.strided):
        raise ValueError(f"{name} must be a dense tensor with values, got {image.layout} on {image.device}.")
    if np.ma.is_masked(image):
        raise ValueError(f"{name} must have a value for each pixel, got a masked array. Fill it first.")
    if dtype in ("bool", "uint8", "uint16"):
        return
    if dtype not in FLOAT_TYPES + WIDE_TYPES:
        raise ValueError(f"{name} must have {ACCEPTED_VALUES}, got {dtype}.")
    if isinstance(image, torch.Tensor) and dtype in WIDE_TYPES:
        image = image.to(torch.int64)  # torch has no minimum of uint32 and uint64
    low = image.min().item()
    high = image.max().item()
    # NaN compares as false
    if not (low >= 0 and high <= (1 if dtype in FLOAT_TYPES else 255)):
        raise ValueError(
            f"{name} must have {ACCEPTED_VALUES}, got {dtype} from {low:g} to {high:g}. Convert other ranges first."
        )


def _dtype_name(image: np.ndarray | torch.Tensor) -> str:
    """Returns the name of the dtype of an array, whatever its byte order."""
    if isinstance(image, torch.Tensor):
        return str(image.dtype).removeprefix("torch.")
    return image.dtype.newbyteorder("=").name


def to_levels(image: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """
    Converts checked values of an array to 8-bit levels.

    Args:
        image (`np.ndarray` or `torch.Tensor`): values as `check_values` accepts them.

    Returns:
        An array of uint8 with the same shape: floats times 255, 16-bit values over 257, both rounded.
    """
    dtype = _dtype_name(image)
    if isinstance(image, torch.Tensor):
        if dtype in FLOAT_TYPES:
            return (image.float() * 255).round().to(torch.uint8)
        if dtype == "uint16":
            return (image.float() / 257).round().to(torch.uint8)
        levels = image.to(torch.uint8)
        return levels * 255 if dtype == "bool" else levels
    if dtype in FLOAT_TYPES:
        return np.rint(image.astype(np.float32) * 255).astype(np.uint8)
    if dtype == "uint16":
        return np.rint(image / np.float32(257)).astype(np.uint8)
    return image.astype(np.uint8) * np.uint8(255) if dtype == "bool" else image.astype(np.uint8, copy=False)


def turn_upright(image: Image.Image) -> Image.Image:
    """
    Turns an open image upright by its EXIF data, like a file that is opened.

    Args:
        image (`PIL.Image.Image`): an image. Pillow removes the orientation from images that it turned before.

    Returns:
        A turned copy, or the same image if its orientation is normal or not given.

    Raises:
        ValueError: if the EXIF data cannot be read.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, struct.error) as error:  # Pillow's errors for damaged EXIF data
        raise ValueError(
            f"The EXIF data of an image cannot be read: {error}. `do_exif_transpose=False` ignores it."
        ) from error
    # without this condition, `exif_transpose` copies each image
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def to_convertible_mode(image: Image.Image) -> Image.Image:
    """Returns a checked PIL image in a mode that Pillow converts to RGB without loss of range."""
    # `convert` clips 16-bit and float values to 8 bits: https://github.com/python-pillow/Pillow/issues/3011
    if image.mode in (*SIXTEEN_BIT_MODES, "I"):
        return Image.fromarray(np.asarray(to_levels(np.asarray(image).astype(np.uint16))))
    if image.mode == "F":
        return Image.fromarray(np.asarray(to_levels(np.asarray(image))))
    return image.convert("LA") if image.mode == "La" else image


def to_rgb(image: Image.Image, do_exif_transpose: bool | None = True, **limits: float | None) -> Image.Image:
    """
    Converts an open image to RGB by the rule for pixels, which `convert` alone does not follow.

    Args:
        image (`PIL.Image.Image`): an image of any accepted mode.
        do_exif_transpose (`bool`, *optional*, defaults to `True`): whether it is turned upright by its EXIF data.
        limits: arguments of `check_size`.

    Raises:
        ValueError: for an image that is empty or too large, or whose values are not pixels.
    """
    check_image(image, **limits)
    return to_convertible_mode(turn_upright(image) if do_exif_transpose else image).convert("RGB")


__all__ = [
    "ACCEPTED_VALUES",
    "DECODE_ERRORS",
    "MAX_ASPECT_RATIO",
    "MAX_IMAGE_PIXELS",
    "channel_axis",
    "check_image",
    "check_size",
    "check_values",
    "check_video",
    "repeat_grey_channel",
    "to_convertible_mode",
    "to_levels",
    "to_rgb",
    "turn_upright",
]
