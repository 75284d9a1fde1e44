# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""HTML of decoded images and videos, for notebooks."""

import base64
import io
from typing import Any

import torch
from PIL import Image


# As in `notebook_display_vilau.py` of the processors, which this island cannot import. A test compares the results.
LEAST_WIDTH = 128
FRAME_MILLISECONDS = 125


def span_html(kind: str, pixels: torch.Tensor) -> str:
    """
    Returns an HTML element that shows an image, or plays a video without end.

    Args:
        kind (`str`): `"image"` or `"video"`.
        pixels (`torch.Tensor` of shape `(3, S', S')` or `(F, 3, S', S')`): decoded pixels in [-1, 1].
    """
    levels = ((pixels.detach().float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    arrays = levels.view(-1, *levels.shape[-3:]).permute(0, 2, 3, 1).cpu().numpy()  # (F, S', S', 3)
    frames = [Image.fromarray(array) for array in arrays]
    image_format = "png" if len(frames) == 1 else "webp"
    options: dict[str, Any] = {}
    if len(frames) > 1:
        options = {"save_all": True, "append_images": frames[1:], "duration": FRAME_MILLISECONDS, "loop": 0}
    buffer = io.BytesIO()
    frames[0].save(buffer, image_format, lossless=True, **options)
    data = base64.b64encode(buffer.getvalue()).decode()
    width = frames[0].width
    factor = -(-LEAST_WIDTH // width)
    style = "display: inline-block; margin: 2px" + ("; image-rendering: pixelated" if factor > 1 else "")
    return f'<img alt="{kind}" width="{factor * width}" style="{style}" src="data:image/{image_format};base64,{data}">'


__all__ = ["span_html"]
