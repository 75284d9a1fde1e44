"""Pictures with captions on one sheet, and GIFs."""

import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont


RIGHT, WRONG = (40, 150, 70), (200, 50, 50)


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels in [-1, 1] as uint8."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_pil(pixels: torch.Tensor) -> Image.Image:
    """A picture of uint8 `pixels` `(3, H, W)`."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def enlarge(pixels: torch.Tensor, side: int) -> Image.Image:
    """A picture of uint8 `pixels` `(3, H, W)` , `side` pixels wide and high, its own pixels sharp."""
    return to_pil(pixels).resize((side, side), Image.Resampling.NEAREST)


def contact_sheet(
    pictures: list[Image.Image], captions: list[str], right: list[bool] | None, columns: int, gap: int = 16
) -> Image.Image:
    """
    A sheet of pictures of one size, each over its caption, framed green where the oracle found it right, else red.

    Args:
        pictures (`list[PIL.Image.Image]`): of one size.
        captions (`list[str]`): as many.
        right (`list[bool]`): as many; `None` for no frames.
        columns (`int`): pictures beside each other.
        gap (`int`, *optional*, defaults to 16): pixels between them.
    """
    width, height = pictures[0].size
    font = ImageFont.load_default(size=13)
    per_line = max(8, width // 7)
    lines = [textwrap.wrap(caption, per_line) for caption in captions]
    text_height = 17 * max(map(len, lines)) + 8
    rows = -(-len(pictures) // columns)
    sheet = Image.new(
        "RGB", (columns * (width + gap) + gap, rows * (height + text_height + gap) + gap), (255, 255, 255)
    )
    pen = ImageDraw.Draw(sheet)
    for index, (picture, text) in enumerate(zip(pictures, lines, strict=True)):
        x = gap + index % columns * (width + gap)
        y = gap + index // columns * (height + text_height + gap)
        if right is not None:
            color = RIGHT if right[index] else WRONG
            pen.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), outline=color, width=3)
        sheet.paste(picture, (x, y))
        pen.multiline_text((x, y + height + 6), "\n".join(text), fill=(20, 20, 20), font=font, spacing=3)
    return sheet


def beside(left: Image.Image, right: Image.Image, gap: int = 4) -> Image.Image:
    """Two pictures of one height beside each other."""
    both = Image.new("RGB", (left.width + gap + right.width, left.height), (255, 255, 255))
    both.paste(left, (0, 0))
    both.paste(right, (left.width + gap, 0))
    return both


def save_gif(frames: list[Image.Image], path: Path, milliseconds: int = 350):
    """Writes `frames` as a GIF that repeats for ever."""
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)


__all__ = ["beside", "contact_sheet", "enlarge", "save_gif", "to_pil", "to_uint8"]
