# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Lists of images, frames and answers that a notebook shows as such."""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image


# Least width of an image on the page in pixels. Smaller images are enlarged by a whole number.
LEAST_WIDTH = 128
# Images and videos of a list that are shown. All of a large batch would make a notebook too large to open.
MOST_SHOWN = 64
FRAME_MILLISECONDS = 125  # eight frames per second, as `vilau generate` writes videos


def image_html(frames: Sequence[Image.Image], label: str) -> str:
    """
    Returns an HTML element that shows an image, or plays frames without end.

    The element holds the pixels, without loss. So a saved notebook needs no other file.

    Args:
        frames (`Sequence[PIL.Image.Image]`): an image, or the frames of a video.
        label (`str`): text that describes the element, for people who cannot see it.
    """
    buffer = io.BytesIO()
    image_format = "png" if len(frames) == 1 else "webp"
    options: dict[str, Any] = {}
    if len(frames) > 1:
        options = {"save_all": True, "append_images": list(frames[1:]), "duration": FRAME_MILLISECONDS, "loop": 0}
    frames[0].save(buffer, image_format, lossless=True, **options)
    data = base64.b64encode(buffer.getvalue()).decode()
    width = frames[0].width
    factor = -(-LEAST_WIDTH // width)
    style = "display: inline-block; margin: 2px" + ("; image-rendering: pixelated" if factor > 1 else "")
    return (
        f'<img alt="{html.escape(label)}" width="{factor * width}" style="{style}" '
        f'src="data:image/{image_format};base64,{data}">'
    )


def _is_frames(item: Any) -> bool:
    """Returns whether `item` is a list of at least one image."""
    return isinstance(item, list) and bool(item) and all(isinstance(frame, Image.Image) for frame in item)


class VilaUMediaList(list):
    """List of images, or of videos that are lists of frames. A notebook shows them side by side."""

    # The display protocol of Jupyter. An empty result shows the text of the list.
    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        items = [[item] if isinstance(item, Image.Image) else item for item in self]
        if not items or not all(map(_is_frames, items)):
            return {}
        elements = []
        for number, frames in enumerate(items[:MOST_SHOWN], 1):
            kind = "image" if len(frames) == 1 else f"video of {len(frames)} frames"
            elements.append(image_html(frames, f"{kind}, {number} of {len(items)}"))
        if len(items) > MOST_SHOWN:
            elements.append(f"<p><em>and {len(items) - MOST_SHOWN} more</em></p>")
        return {"text/html": "".join(elements)}


class VilaUFrames(list):
    """List of the frames of a video. A notebook plays them."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": image_html(self, f"video of {len(self)} frames")} if _is_frames(self) else {}


class VilaUAnswer(list):
    """List of the content parts of an answer: texts, images and videos. A notebook shows them in order."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": "".join(map(_part_html, self))} if self else {}


def _part_html(part: dict[str, Any]) -> str:
    """Returns the HTML of a content part."""
    kind = part["type"]
    if kind == "text":
        return f'<p style="white-space: pre-wrap">{html.escape(part["text"])}</p>'
    content = part[kind]
    if content is None:
        return f"<p><em>{kind} that was cut off</em></p>"
    return image_html(content if kind == "video" else [content], kind)


__all__ = ["VilaUAnswer", "VilaUFrames", "VilaUMediaList", "image_html"]
