"""Sheets of images with captions, and animations, to look at results."""

import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont


# colours of the frame of a right and of a wrong image
RIGHT = (40, 150, 70)
WRONG = (200, 50, 50)


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """Converts pixels in [-1, 1] to uint8 in 0..255; values outside are clamped."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_pil(pixels: torch.Tensor) -> Image.Image:
    """Converts uint8 `pixels` of shape `(3, height, width)` to an image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def enlarge(pixels: torch.Tensor, side: int) -> Image.Image:
    """Enlarges uint8 `pixels` of shape `(3, height, width)` to a square of `side` pixels, without smoothing."""
    return to_pil(pixels).resize((side, side), Image.Resampling.NEAREST)


def contact_sheet(
    images: list[Image.Image], captions: list[str], right: list[bool] | None, columns: int, gap: int = 16
) -> Image.Image:
    """
    Arranges images in a grid, with the caption of each below it and a green or red frame around it.

    Args:
        images (`list[PIL.Image.Image]` of length N): images of the same size, at least one.
        captions (`list[str]` of length N): captions.
        right (`list[bool]` of length N or `None`): whether the frame is green or red; `None` for no frames.
        columns (`int`): images in a row.
        gap (`int`, *optional*, defaults to 16): distance between images in pixels.
    """
    width, height = images[0].size
    # A letter of the default font at size 13 is about 7 pixels wide, and a line is 17 pixels high.
    font = ImageFont.load_default(size=13)
    letters = max(8, width // 7)
    lines = [textwrap.wrap(caption, letters) for caption in captions]
    text_height = 17 * max(map(len, lines)) + 8
    rows = -(-len(images) // columns)
    sheet = Image.new(
        "RGB", (columns * (width + gap) + gap, rows * (height + text_height + gap) + gap), (255, 255, 255)
    )
    canvas = ImageDraw.Draw(sheet)
    for index, (image, text) in enumerate(zip(images, lines, strict=True)):
        x = gap + index % columns * (width + gap)
        y = gap + index // columns * (height + text_height + gap)
        if right is not None:
            color = RIGHT if right[index] else WRONG
            canvas.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), outline=color, width=3)
        sheet.paste(image, (x, y))
        canvas.multiline_text((x, y + height + 6), "\n".join(text), fill=(20, 20, 20), font=font, spacing=3)
    return sheet


def beside(left: Image.Image, right: Image.Image, gap: int = 4) -> Image.Image:
    """Joins two images of the same height, `left` and `right`, with a `gap` in pixels between them."""
    both = Image.new("RGB", (left.width + gap + right.width, left.height), (255, 255, 255))
    both.paste(left, (0, 0))
    both.paste(right, (left.width + gap, 0))
    return both


def save_animation(
    frames: list[Image.Image], path: Path, milliseconds: int = 350, image_format: str | None = None
) -> None:
    """
    Writes an animation that repeats without end.

    Args:
        frames (`list[PIL.Image.Image]`): the frames, at least one.
        path (`Path`): the file.
        milliseconds (`int`, *optional*, defaults to 350): time of a frame.
        image_format (`str`, *optional*): `"gif"` or `"webp"` (default: by the suffix of `path`).
    """
    frames[0].save(path, format=image_format, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)


__all__ = ["beside", "contact_sheet", "enlarge", "save_animation", "to_pil", "to_uint8"]
