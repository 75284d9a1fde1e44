# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Checks of messages and samples before they are rendered, and readable errors of the libraries that render them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from PIL import Image

from .compat_processing_vilau import TemplateError


@contextmanager
def readable_errors() -> Iterator[None]:
    """
    Raises a `ValueError` for settings of another type and for messages that a chat template rejects.

    huggingface_hub and jinja raise classes for them that are no `ValueError`, which callers do not expect.
    """
    try:
        yield
    except StrictDataclassError as error:
        raise ValueError(_one_line(error)) from error
    except TemplateError as error:
        raise ValueError(f"The chat template cannot render the messages: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]


def check_conversations(conversations: Any, name: str = "conversation") -> None:
    """
    Checks the structure of one conversation or several. The chat template checks roles and types of content parts.

    Args:
        conversations (`list[dict]` or `list[list[dict]]`): messages with `role` and `content`. The object in which
            pipelines of transformers wrap them is accepted too.
        name (`str`, *optional*, defaults to `"conversation"`): the argument in errors.

    Raises:
        ValueError: if there is no message, or one is no dictionary with a `role` and a readable `content`.
    """
    conversations = getattr(conversations, "messages", conversations)
    if not isinstance(conversations, (list, tuple)) or not conversations:
        raise ValueError(
            f"`{name}` must be a list of messages or of such lists, with at least one message, got "
            f"{_described(conversations)}."
        )
    if all(isinstance(each, (list, tuple)) or hasattr(each, "messages") for each in conversations):
        for index, each in enumerate(conversations):
            check_conversations(each, f"{name}[{index}]")
        return
    for index, message in enumerate(conversations):
        _check_message(message, f"{name}[{index}]")


def _check_message(message: Any, name: str) -> None:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ValueError(f"`{name}` must be a dictionary with a string `role`, got {_described(message)}.")
    content = message.get("content")
    is_tool_call = content is None and "tool_calls" in message
    if is_tool_call or isinstance(content, str):
        return
    if not isinstance(content, (list, tuple)):
        raise ValueError(
            f"`content` of `{name}` must be a string or a list of content parts, got {_described(content)}."
        )
    for part in content:
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise ValueError(
                f"A content part of `{name}` must be a dictionary with a string `type`, got {_described(part)}."
            )
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise ValueError(
                f"A content part of `{name}` of type text must have a string `text`, got {_described(part)}."
            )


def check_samples(
    conversations: Any, images: Any = None, videos: Any = None, codes: Any = None, max_length: Any = None
) -> None:
    """
    Checks the types of the arguments of `encode_training_samples`.

    Raises:
        ValueError: if an argument has another type, or lists of media do not have one entry for each sample.
    """
    if not isinstance(conversations, (list, tuple)) or not conversations:
        raise ValueError(
            "`conversations` must be a list with the messages of at least one sample, got "
            f"{_described(conversations)}."
        )
    for index, conversation in enumerate(conversations):
        if not isinstance(conversation, (list, tuple)):
            raise ValueError(f"`conversations[{index}]` must be a list of messages, got {_described(conversation)}.")
    check_conversations(conversations, "conversations")
    for name, media in (("images", images), ("videos", videos), ("codes", codes)):
        if media is None:
            continue
        if not isinstance(media, (list, tuple)) or not all(isinstance(row, (list, tuple)) for row in media):
            raise ValueError(f"`{name}` must be a list with a list for each sample, got {_described(media)}.")
        # an empty list means the same as `None`
        if media and len(media) != len(conversations):
            raise ValueError(
                f"`{name}` must have a list for each of the {len(conversations)} samples, got {len(media)} lists."
            )
    check_max_length(max_length)


def check_max_length(value: Any) -> None:
    """
    Checks the largest number of tokens of a text.

    Raises:
        ValueError: unless it is an integer of at least 1, or `None`.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"`max_length` must be an integer of at least 1, got {_described(value)}.")


def check_image_settings(settings: Mapping[str, Any], processor: Any, max_image_pixels: float | None) -> None:
    """
    Checks settings of image processors that the library uses without a check of their values.

    Args:
        settings (`Mapping`): settings of a call by name; `None` stands for that of the processor.
        processor ([`VilaUImageProcessor`] or [`VilaUVideoProcessor`]): the processor.
        max_image_pixels (`int`, *optional*): largest number of pixels of an image.

    Raises:
        ValueError: for a filter that does not exist, a size that is none or too large, or factors that make no pixels.
    """
    resample = settings.get("resample")
    is_filter = isinstance(resample, Enum) or (type(resample) is int and resample in set(Image.Resampling))
    if resample is not None and not is_filter:
        raise ValueError(f"`resample` must be a filter of `PIL.Image.Resampling`, got {_described(resample)}.")
    for name in ("rescale_factor", "image_mean", "image_std"):
        value = getattr(processor, name, None) if settings.get(name) is None else settings.get(name)
        values = value if isinstance(value, (list, tuple)) else [value]
        numbers = [each for each in values if isinstance(each, (int, float))]
        if not all(map(isfinite, numbers)) or (name == "image_std" and 0 in numbers):
            accepted = "finite and not 0" if name == "image_std" else "finite"
            raise ValueError(f"`{name}` must be {accepted}, got {_described(value)}.")
    for name in ("size", "crop_size", "pad_size"):
        size = settings.get(name)
        if isinstance(size, (list, tuple, Mapping)) and not size:
            raise ValueError(f"`{name}` must be an integer or have a height and a width, got {size!r}.")
        sides = _sides(getattr(processor, name, None) if size is None else size)
        if max_image_pixels is not None and sides and sides[0] * sides[-1] > max_image_pixels:
            raise ValueError(
                f"`{name}` must have at most `max_image_pixels` ({max_image_pixels}) pixels, got {sides[0]} x "
                f"{sides[-1]}."
            )


def _sides(size: Any) -> list[int]:
    """Returns height and width of a size, or one number for both. It is empty for values that are no size."""
    sides = list(size) if isinstance(size, (list, tuple)) else [size]
    if hasattr(size, "get"):  # a dictionary or a `SizeDict`
        sides = [size.get("height"), size.get("width")]
        if None in sides:
            sides = [size.get("longest_edge") or size.get("shortest_edge")]
    return sides if all(type(side) is int for side in sides) else []


def check_shortest_edge(height: int, width: int, size: Any, max_image_pixels: float | None) -> None:
    """
    Checks the size that an image gets if only its shorter side is given.

    Args:
        height (`int`): height of the image.
        width (`int`): width of the image.
        size (`SizeDict`, *optional*): the size that is wanted.
        max_image_pixels (`int`, *optional*): largest number of pixels of an image.

    Raises:
        ValueError: if the image becomes too large.
    """
    edge = getattr(size, "shortest_edge", None)
    if not edge or getattr(size, "longest_edge", None) or max_image_pixels is None:
        return
    other = edge * max(height, width) // min(height, width)
    if edge * other > max_image_pixels:
        raise ValueError(
            f"`size` must give at most `max_image_pixels` ({max_image_pixels}) pixels, got {edge} x {other} for an "
            f"image of {height} x {width}."
        )


def check_rescaling(settings: Mapping[str, Any]) -> None:
    """
    Checks that levels of 8 bits, from 0 to 255, are normalised only where that fits.

    Args:
        settings (`Mapping`): `do_rescale`, `do_normalize` and `image_mean`.

    Raises:
        ValueError: if levels are normalised as if they were in [0, 1].
    """
    mean = settings["image_mean"]
    means = mean if isinstance(mean, (list, tuple)) else [mean]
    is_of_floats = all(isinstance(value, (int, float)) and value <= 1 for value in means)
    if settings["do_rescale"] or not settings["do_normalize"] or not is_of_floats:
        return
    raise ValueError(
        f"`do_rescale` must be True to normalise pixels of 8 or 16 bits with the `image_mean` {mean}, got "
        f"{settings['do_rescale']}. Floats in [0, 1] need no rescaling."
    )


def check_sampling(num_frames: Any, fps: Any) -> None:
    """
    Checks the settings that choose the frames of a video.

    Args:
        num_frames (`int`, *optional*): number of frames.
        fps (`float`, *optional*): frames per second.

    Raises:
        ValueError: unless both are positive, or `None`.
    """
    is_count = isinstance(num_frames, Integral) and not isinstance(num_frames, bool) and int(num_frames) >= 1
    if num_frames is not None and not is_count:
        raise ValueError(f"`num_frames` must be an integer of at least 1, got {_described(num_frames)}.")
    is_rate = isinstance(fps, Real) and not isinstance(fps, bool) and 0 < float(fps) < inf
    if fps is not None and not is_rate:
        raise ValueError(f"`fps` must be a positive number, got {_described(fps)}.")


def check_num_visual_tokens(value: Any) -> None:
    """Raises a `ValueError` unless the number of visual tokens of an image is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`num_visual_tokens` must be an integer of at least 1, got {_described(value)}.")


def check_image_lists(images: Any) -> None:
    """Raises a `ValueError` unless images are one image, or a list of images, or a list of such lists."""
    if not isinstance(images, list):
        return
    are_lists = [isinstance(row, list) for row in images]
    flat = [image for row in images for image in row] if images and all(are_lists) else images
    if not flat:
        raise ValueError("`images` must have at least one image, got an empty list.")
    if any(isinstance(image, list) for image in flat):
        raise ValueError("`images` must be an image, a list of images or a list of such lists, got other lists.")
    if len({getattr(image, "ndim", 3) == 4 for image in flat}) > 1:
        raise ValueError("`images` must not have arrays of several images beside single images.")


def check_video_lists(videos: Any) -> None:
    """
    Checks that lists hold single videos or frames.

    Raises:
        ValueError: for an array of several videos in a list.
    """
    for item in videos if isinstance(videos, (list, tuple)) else ():
        if getattr(item, "ndim", 0) > 4:
            raise ValueError(
                f"`videos` must have one video in each entry of a list, got {_described(item)}, an array of several."
            )
        check_video_lists(item)


def check_generated_ids(ids: Any) -> None:
    """
    Checks generated ids before they are decoded.

    Args:
        ids (`torch.Tensor`, `np.ndarray` or `list`): ids of shape `(B, T)` or `(T,)`, or rows of unequal length.

    Raises:
        ValueError: for other values, and for negative ids.
    """
    rows = _as_list(ids)
    is_list = isinstance(rows, (list, tuple))
    flat: list[Any] = []
    for row in map(_as_list, rows) if is_list else ():
        flat += map(_as_list, row) if isinstance(row, (list, tuple)) else [row]
    if not is_list or not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in flat):
        raise ValueError(
            f"`generated_outputs` of text must be ids of shape (B, T), at least 0, got {_described(ids)}."
        )


def _as_list(value: Any) -> Any:
    """Returns an array or a tensor as nested lists, or as a number if it has no dimension, and others unchanged."""
    return value.tolist() if hasattr(value, "tolist") else value


def check_generated_spans(output: Any) -> None:
    """
    Checks that an output is one of interleaved generation.

    Raises:
        ValueError: if it has no sequences or spans.
    """
    if not all(hasattr(output, name) for name in ("sequences", "spans", "prompt_length")):
        raise ValueError(
            f"`generated_outputs` must be the result of `generate` in interleaved mode, got {_described(output)}."
        )


def _described(value: Any) -> str:
    """Returns a short description of a value for errors."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


__all__ = [
    "check_conversations",
    "check_generated_ids",
    "check_generated_spans",
    "check_image_lists",
    "check_image_settings",
    "check_max_length",
    "check_num_visual_tokens",
    "check_rescaling",
    "check_samples",
    "check_sampling",
    "check_shortest_edge",
    "check_video_lists",
    "readable_errors",
]
