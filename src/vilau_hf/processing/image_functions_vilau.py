# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Functions, default settings and mixins of the image and video processors. This file needs no torchvision."""

import io
import os
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.Image import Resampling
from transformers import BatchFeature, ImagesKwargs

from .compat_processing_vilau import SizeDict, is_valid_image
from .input_checks_vilau import (
    check_image_lists,
    check_image_settings,
    check_rescaling,
    check_shortest_edge,
    readable_errors,
)
from .media_bytes_vilau import bytes_of_data_url, download, is_web_address
from .notebook_display_vilau import VilaUMediaList
from .pixel_rules_vilau import (
    MAX_ASPECT_RATIO,
    MAX_IMAGE_PIXELS,
    channel_axis,
    check_image,
    check_size,
    repeat_grey_channel,
    to_convertible_mode,
    to_levels,
    turn_upright,
)


class PixelSettings:
    """
    Default settings that all three processors share and on which the pixel values depend.

    The names `do_center_crop`, `crop_size` and `rescale_factor` have the defaults of transformers. They are repeated
    here because `PIXEL_SETTINGS` is made from the attributes of this class.
    """

    do_convert_rgb = True
    do_resize = True
    size = {"height": 256, "width": 256}
    resample = Resampling.BICUBIC
    do_center_crop = None
    crop_size = None
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]


class OriginalImageSettings:
    """Default settings of the image processors for the variants of the original release. All are off."""

    resize_before_rgb = False
    crop_to_square = False
    pad_to_square = False


class ReadingSettings:
    """Default settings for the opening of images, which all three processors share."""

    do_exif_transpose = True
    max_image_pixels: int | None = MAX_IMAGE_PIXELS
    max_aspect_ratio: float | None = MAX_ASPECT_RATIO


def _attribute_names(cls: type) -> tuple[str, ...]:
    """Returns the names of the public attributes that a class itself defines."""
    return tuple(name for name in vars(cls) if not name.startswith("_"))


ORIGINAL_IMAGE_SETTINGS = _attribute_names(OriginalImageSettings)
READING_SETTINGS = _attribute_names(ReadingSettings)
# Names of all settings on which pixel values depend. `data/tower_fingerprint.py` compares them, since stored codes are
# valid only for the pixels that they were encoded from.
PIXEL_SETTINGS = _attribute_names(PixelSettings) + ORIGINAL_IMAGE_SETTINGS


class VilaUImageProcessorKwargs(ImagesKwargs, total=False):
    r"""
    Settings of the image processors that `ImagesKwargs` does not have.

    resize_before_rgb (`bool`, *optional*, defaults to `False`):
        Whether a PIL image is resized in its original mode (palette, alpha) and converted to RGB afterwards. The
        original VILA-U does so in understanding. By default the image is converted first.
    crop_to_square (`bool`, *optional*, defaults to `False`):
        Whether a PIL image is first cropped to a square, which is centred in width and begins at the top. The
        original VILA-U crops the images that it learns to generate.
    pad_to_square (`bool`, *optional*, defaults to `False`):
        Whether a PIL image is first padded to a square in RGB, with the colour `image_mean` on both sides. The
        original VILA-U does so with the aspect ratio "pad".
    do_exif_transpose (`bool`, *optional*, defaults to `True`):
        Whether images are turned upright by their EXIF data, both files and open PIL images. Otherwise the pixels are
        used as they are stored.
    max_image_pixels (`int`, *optional*, defaults to 178,956,970):
        Largest number of pixels of an image that is opened, padded or resized. `None` for no limit. Pillow has a
        limit for files besides, `PIL.Image.MAX_IMAGE_PIXELS`.
    max_aspect_ratio (`float`, *optional*, defaults to 10,000):
        Largest ratio of the longer to the shorter side of an image. `None` for no limit.
    """

    resize_before_rgb: bool | None
    crop_to_square: bool | None
    pad_to_square: bool | None
    do_exif_transpose: bool | None
    max_image_pixels: int | None
    max_aspect_ratio: float | int | None


def open_images(
    images: Any,
    do_exif_transpose: bool | None = True,
    max_image_pixels: int | None = MAX_IMAGE_PIXELS,
    max_aspect_ratio: float | None = MAX_ASPECT_RATIO,
) -> Any:
    """
    Opens file names, URLs and base64 strings as RGB images, and checks the pixels of images that are already open.

    Args:
        images (`str`, `os.PathLike`, `PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or nested lists of them): file
            names are opened. Images that are already open are returned unchanged, and arrays `(h, w)` as `(1, h, w)`.
        do_exif_transpose (`bool`, *optional*, defaults to `True`): whether files are turned by their EXIF data.
        max_image_pixels (`int`, *optional*, defaults to 178,956,970): largest number of pixels of an image.
        max_aspect_ratio (`float`, *optional*, defaults to 10,000): largest ratio of the longer to the shorter side.

    Returns:
        The images in the same nested lists.

    Raises:
        ValueError: if an image cannot be read, is empty or too large, or has values that are not pixels. For a file,
            the message has its name and the reason.
        TypeError: for an object of another type.
    """
    limits: dict[str, Any] = {"max_image_pixels": max_image_pixels, "max_aspect_ratio": max_aspect_ratio}
    images = open_files(images, do_exif_transpose, **limits)
    if isinstance(images, list):
        return [open_images(image, **limits) for image in images]
    if not is_valid_image(images):
        raise TypeError(
            f"An image must be a PIL image, an array, a tensor or a file name, got {type(images).__name__}."
        )
    check_image(images, **limits)
    # The channel comes first, because a last axis of 1 does not say whether 1, 3 or 4 rows are channels.
    return images[None] if getattr(images, "ndim", 0) == 2 else images


def open_files(images: Any, do_exif_transpose: bool | None = True, **limits: Any) -> Any:
    """Opens what is not open yet like `open_images`, and returns everything else unchanged and unchecked."""
    if isinstance(images, (list, tuple)):
        return [open_files(image, do_exif_transpose, **limits) for image in images]
    if not isinstance(images, (str, os.PathLike)):
        return images
    try:
        return _open_image(os.fspath(images), do_exif_transpose, limits)
    except Exception as error:  # each image format of PIL raises other types of errors
        name = os.fspath(images)[:200]
        reason = str(error)[:300] or type(error).__name__
        raise ValueError(f"Cannot read the image {name!r}: {type(error).__name__}: {reason}") from error


def _open_image(source: str, do_exif_transpose: bool | None, limits: dict[str, Any]) -> Image.Image:
    """Opens an image like the library's `load_image`, which checks no size and copies the pixels twice."""
    if os.path.isfile(source):
        image: Image.Image = Image.open(source)
    else:
        image = Image.open(io.BytesIO(download(source) if is_web_address(source) else bytes_of_data_url(source)))
    check_size(*image.size, **limits)  # before the pixels are read
    if do_exif_transpose:
        ImageOps.exif_transpose(image, in_place=True)  # also reads the pixels, so that a broken file fails here
    check_image(image, **limits)
    image = to_convertible_mode(image)
    return image.copy() if image.mode == "RGB" and not do_exif_transpose else image.convert("RGB")


def reading_settings(processor: Any, options: dict[str, Any]) -> dict[str, Any]:
    """
    Returns the arguments of `open_images` that a processor has as settings.

    Args:
        processor ([`VilaUImageProcessor`], [`VilaUVideoProcessor`] or another processor): has the settings, or none.
        options (`dict`): arguments of a call, which replace settings.

    Returns:
        A value for each argument. A processor of another class has the defaults of `ReadingSettings`.
    """
    settings = {
        name: options[name] if name in options else getattr(processor, name, getattr(ReadingSettings, name))
        for name in READING_SETTINGS
    }
    # The library checks the types of settings after images were opened with them.
    for name in ("max_image_pixels", "max_aspect_ratio"):
        limit = settings[name]
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0):
            raise ValueError(f"`{name}` must be a positive number or None, got {limit!r}.")
    return settings


def prepare_image(
    image: Image.Image,
    do_resize: bool,
    size: SizeDict | None,
    resample: int | None,
    do_convert_rgb: bool,
    resize_before_rgb: bool = False,
    crop_to_square: bool = False,
    pad_to_square: bool = False,
    image_mean: Sequence[float] = (0.5, 0.5, 0.5),
    max_image_pixels: int | None = MAX_IMAGE_PIXELS,
) -> Image.Image:
    """Crops, pads, resizes and converts an image in PIL. The pixels are exactly those of the original VILA-U."""
    if crop_to_square and image.width != image.height:
        side = min(image.size)
        left = (image.width - side) // 2
        image = image.crop((left, 0, left + side, side))
    if pad_to_square and image.width != image.height:
        side = max(image.size)
        check_size(side, side, max_image_pixels)  # an image of 1 x 40,000 pixels would need 5 GB
        square = Image.new("RGB", (side, side), tuple(int(mean * 255) for mean in image_mean))
        square.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
        image = square
    # Resizing before or after the conversion gives other pixels: palette images are then resized with the nearest
    # pixel, and images with alpha are resized premultiplied.
    if do_convert_rgb and not resize_before_rgb and image.mode != "RGB":
        image = image.convert("RGB")
    if do_resize:
        if size is None or not (size.height and size.width):
            given = None if size is None else dict(size)
            raise ValueError(f"`size` must have the keys 'height' and 'width', got {given}.")
        check_size(size.width, size.height, max_image_pixels, max_aspect_ratio=None)
        if image.size != (size.width, size.height):
            image = image.resize((size.width, size.height), Resampling.BICUBIC if resample is None else resample)
    if do_convert_rgb and image.mode != "RGB":
        image = image.convert("RGB")
    return image


def pixels_to_images(pixels: torch.Tensor, output_type: str = "pil") -> list[Image.Image] | np.ndarray | torch.Tensor:
    """
    Converts decoded pixels to images and clips values outside of [-1, 1].

    Args:
        pixels (`torch.Tensor` of shape `(N, 3, S, S)`): values in [-1, 1]. Images that are not square are accepted.
        output_type (`str`, *optional*, defaults to `"pil"`): `"pil"` for a list of N PIL images, `"np"` for an array
            `(N, S, S, 3)`, `"pt"` for a tensor `(N, 3, S, S)`. Arrays and tensors are float32 in [0, 1].

    Returns:
        The images in the form that `output_type` names.

    Raises:
        ValueError: for another output type or shape, or values that are not finite.
    """
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f"`output_type` must be 'pil', 'np' or 'pt', got {output_type!r}.")
    if not isinstance(pixels, torch.Tensor) or not pixels.is_floating_point():
        kind = pixels.dtype if isinstance(pixels, torch.Tensor) else type(pixels).__name__
        raise ValueError(f"`pixels` must be a tensor of floats in [-1, 1], got {kind}.")
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"`pixels` must have shape (N, 3, S, S), got {tuple(pixels.shape)}.")
    pixels = pixels.detach().float()
    # NaN would become black, and infinite values white
    if not pixels.isfinite().all():
        raise ValueError("`pixels` must be finite, got NaN or infinite values.")
    pixels = (pixels / 2 + 0.5).clamp(0, 1)
    if output_type == "pt":
        return pixels
    pixels = pixels.permute(0, 2, 3, 1).cpu()  # (N, S, S, 3)
    if output_type == "np":
        return pixels.numpy()
    arrays = (pixels * 255).round().to(torch.uint8).numpy()
    return VilaUMediaList(Image.fromarray(array) for array in arrays)


class ExactRescaling:
    """Mixin for processors on torchvision: 8-bit pixels become exactly the floats of the PIL backend."""

    def rescale_and_normalize(
        self,
        images: torch.Tensor,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: float | list[float],
        image_std: float | list[float],
    ) -> torch.Tensor:
        """Rescales and normalises `images` of shape `(..., C, h, w)`."""
        # The base method merges both steps into one subtraction and one division. Its floats differ in the last bit
        # from those of the PIL backend. Read in transformers 5.20.2, 5.23.0 and 5.24.0. It can go when both backends
        # give the same floats.
        if do_rescale and rescale_factor == 1 / 255 and images.dtype == torch.uint8:
            # The divisor is a tensor: CUDA multiplies by the reciprocal of a Python number, which rounds differently.
            images = images.float().div_(torch.full((), 255.0, device=images.device))
            if not do_normalize:
                return images
            return self.normalize(images, image_mean, image_std, inplace=True)  # type: ignore[attr-defined]  # backend
        return super().rescale_and_normalize(  # type: ignore[misc]  # a backend of transformers follows in the bases
            images, do_rescale, rescale_factor, do_normalize, image_mean, image_std
        )


class FastPreprocessing:
    """Mixin for image processors: converts the usual images in one pass, to the same floats as the library."""

    # The base method resizes, rescales and normalises images of any kind, in several passes over the pixels. This one
    # does the usual case in one pass. Our processors give 1.3 times the images per second of the library's processors
    # (benchmarks/results/processor.json). Read in 5.20.2, 5.23.0 and 5.24.0. It can go when the library is as fast.
    def _preprocess(
        self, images: list[np.ndarray] | list[torch.Tensor], return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        pixels = _pixels_in_one_pass(images, kwargs)
        if pixels is None:
            return super()._preprocess(  # type: ignore[misc]  # a backend of transformers follows in the bases
                images, return_tensors=return_tensors, **kwargs
            )
        if return_tensors is not None:
            return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)
        # the library returns a list here, of tensors if the input was tensors
        are_tensors = isinstance(images[0], torch.Tensor)
        return BatchFeature({"pixel_values": [torch.from_numpy(each) if are_tensors else each for each in pixels]})


def _pixels_in_one_pass(images: list[np.ndarray] | list[torch.Tensor], settings: dict[str, Any]) -> np.ndarray | None:
    """
    Rescales and normalises 8-bit images on the CPU that already have their final size.

    Returns:
        float32 pixels `(N, C, h, w)`, or `None` if the images or settings are of another kind.
    """
    is_usual = all(settings[name] for name in ("do_resize", "do_rescale", "do_normalize"))
    is_usual = is_usual and not any(settings[name] for name in ("do_center_crop", "do_pad"))
    size = settings["size"]
    mean = settings["image_mean"]
    std = settings["image_std"]
    is_by_channel = np.ndim(mean) == np.ndim(std) == 1
    if not images or not is_usual or not is_by_channel or settings["rescale_factor"] != 1 / 255:
        return None
    if isinstance(images[0], torch.Tensor) and not images[0].is_cpu:
        return None
    # Images of PIL arrive as transposed views. In contiguous memory the next steps are faster.
    arrays = [np.ascontiguousarray(image) for image in images]
    shape = (len(mean), size.height, size.width)
    if any(array.dtype != np.uint8 or array.shape != shape for array in arrays):
        return None
    pixels = np.stack(arrays).astype(np.float32)  # (N, C, h, w)
    # The library multiplies by 1 / 255 in float64 and rounds to float32. For the 256 values of 8 bits this division
    # gives the same floats.
    pixels /= np.float32(255)
    pixels -= np.array(mean, np.float32)[:, None, None]
    pixels /= np.array(std, np.float32)[:, None, None]
    return pixels


def is_float(image: np.ndarray | torch.Tensor) -> bool:
    """Returns whether an array or a tensor has floats."""
    return image.is_floating_point() if isinstance(image, torch.Tensor) else image.dtype.kind == "f"


class VilaUImageProcessingMixin(FastPreprocessing, PixelSettings, OriginalImageSettings, ReadingSettings):
    """Settings and methods of both image processors. In the bases of a class it precedes a backend of transformers."""

    valid_kwargs = VilaUImageProcessorKwargs

    def __init__(self, **kwargs: Unpack[VilaUImageProcessorKwargs]) -> None:
        super().__init__(**kwargs)  # type: ignore[misc]  # a backend of transformers follows in the bases

    def preprocess(self, images: Any, *args: Any, **kwargs: Unpack[VilaUImageProcessorKwargs]) -> BatchFeature:
        """
        Converts images to pixels.

        Args:
            images (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, `str`, `os.PathLike` or lists of them): images of
                8 or 16 bits, booleans, or floats in [0, 1].
            args: further arguments of the base class.
            kwargs (`VilaUImageProcessorKwargs`): settings that replace those of the processor in this call.

        Returns:
            `BatchFeature` with `pixel_values` of shape `(N, 3, S, S)`.

        Raises:
            ValueError: for an image that cannot be read, is empty or too large, or has values that are not pixels.
            TypeError: for an object that is no image.
        """
        # The base class opens images with the settings of the processor. Those of this call are known only here.
        settings = reading_settings(self, kwargs)  # type: ignore[arg-type]  # a TypedDict
        images = open_images(images, **settings)
        check_image_lists(images)
        check_image_settings(kwargs, self, settings["max_image_pixels"])
        with readable_errors():
            return super().preprocess(images, *args, **kwargs)  # type: ignore[misc]  # a backend follows in the bases

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Opens file names and URLs like `open_images`. Images that are already open are checked in `preprocess`."""
        # The torchvision backend opens a file as a tensor. PIL resizes our images, so they are opened by PIL.
        return open_files(image_url_or_urls, **reading_settings(self, {}))

    def process_image(self, image: Any, do_convert_rgb: bool | None = None, **kwargs: Any) -> Any:
        """
        Converts one image to an array or a tensor of shape `(C, h, w)`.

        A PIL image is also resized and converted to RGB here, since PIL gives the pixels of the original. Values of
        arrays become 8-bit levels, except floats that are not rescaled.
        """
        if isinstance(image, Image.Image):
            check_rescaling(kwargs)
            image = to_convertible_mode(turn_upright(image) if kwargs["do_exif_transpose"] else image)
            names = ("do_resize", "size", "resample", "image_mean", "max_image_pixels", *ORIGINAL_IMAGE_SETTINGS)
            options = {name: kwargs[name] for name in names}
            image = prepare_image(image, do_convert_rgb=bool(do_convert_rgb), **options)
            image = image.convert("L") if image.mode == "1" else image  # arrays of mode 1 are booleans
            mean = kwargs["image_mean"]
            if kwargs["do_normalize"] and np.ndim(mean) == 1 and len(mean) != len(image.getbands()):
                raise ValueError(
                    f"`do_convert_rgb` must be True for an image of mode {image.mode} and an `image_mean` of "
                    f"{len(mean)} channels, got {do_convert_rgb}."
                )
            do_convert_rgb = False
        else:
            if kwargs["do_rescale"] or not is_float(image):
                check_rescaling(kwargs)
                image = to_levels(image)
            image = repeat_grey_channel(image[None] if image.ndim == 2 else image)
            height, width = image.shape[-2:] if channel_axis(image) == -3 else image.shape[-3:-1]
            if kwargs["do_resize"]:
                check_shortest_edge(height, width, kwargs["size"], kwargs["max_image_pixels"])
        return super().process_image(  # type: ignore[misc]  # a backend of transformers follows in the bases
            image, do_convert_rgb=do_convert_rgb, **kwargs
        )

    def postprocess(
        self, pixels: torch.Tensor, output_type: str = "pil"
    ) -> list[Image.Image] | np.ndarray | torch.Tensor:
        """Converts pixels `(N, 3, S, S)` in [-1, 1] to images like `pixels_to_images`."""
        return pixels_to_images(pixels, output_type)


__all__ = [
    "PIXEL_SETTINGS",
    "READING_SETTINGS",
    "ExactRescaling",
    "FastPreprocessing",
    "PixelSettings",
    "ReadingSettings",
    "VilaUImageProcessingMixin",
    "VilaUImageProcessorKwargs",
    "is_float",
    "open_files",
    "open_images",
    "pixels_to_images",
    "prepare_image",
    "reading_settings",
]
