"""Shows images in a terminal, in the best way that it can."""

from collections.abc import Sequence

from PIL import Image
from rich.console import Console
from rich.table import Table

from .half_blocks import HalfBlocks
from .sixel import encode_sixel, supports_sixel


COLUMNS = 32  # width of an image as half blocks, in characters
SIXEL_SIDE = 192  # largest side of an image as sixel graphics, in pixels
GAP = 2  # characters between images


def choose_display(console: Console, asked: str = "auto") -> str:
    """
    Chooses how images are shown.

    Args:
        console (`rich.console.Console`): the terminal.
        asked (`str`, *optional*, defaults to `"auto"`): what the user asked for, one of `IMAGE_DISPLAYS`.

    Returns:
        `"sixel"`, `"blocks"` or `"none"`. `"auto"` becomes `"none"` if the output is no terminal, if it has fewer than
        256 colours, or if `NO_COLOR` is set.
    """
    if asked != "auto":
        return asked
    if not console.is_terminal or console.no_color or console.color_system not in ("256", "truecolor"):
        return "none"
    return "sixel" if supports_sixel() else "blocks"


def show_images(
    console: Console,
    images: Sequence[Image.Image | None],
    display: str,
    captions: Sequence[str] | None = None,
    columns: int = COLUMNS,
) -> None:
    """
    Shows images side by side, in several rows if the terminal is narrow.

    Args:
        console (`rich.console.Console`): the terminal.
        images (`Sequence[PIL.Image.Image]`): images of the same shape, at least one. `None` leaves a gap.
        display (`str`): `"sixel"`, `"blocks"` or `"none"`.
        captions (`Sequence[str]`, *optional*): a line of text above each image.
        columns (`int`, *optional*, defaults to 32): width of an image in characters.
    """
    if display == "none":
        return
    columns = min(columns, console.width)
    in_a_row = max(1, (console.width + GAP) // (columns + GAP))
    for begin in range(0, len(images), in_a_row):
        shown = images[begin : begin + in_a_row]
        titles = None if captions is None else captions[begin : begin + in_a_row]
        if display == "blocks":
            _show_blocks(console, shown, titles, columns)
        else:
            _show_sixel(console, shown, titles)


def _show_blocks(
    console: Console, images: Sequence[Image.Image | None], captions: Sequence[str] | None, columns: int
) -> None:
    """Shows one row of images as half blocks."""
    grid = Table.grid(padding=(0, GAP, 0, 0))
    for _ in images:
        grid.add_column(width=columns, no_wrap=True, overflow="ellipsis")
    if captions is not None:
        grid.add_row(*captions)
    grid.add_row(*("" if image is None else HalfBlocks(image, columns) for image in images))
    console.print(grid)


def _show_sixel(console: Console, images: Sequence[Image.Image | None], captions: Sequence[str] | None) -> None:
    """Shows one row of images as one sixel graphic."""
    if captions is not None:
        console.print("  ".join(captions), markup=False, highlight=False)
    sized = [None if image is None else _fit(image, SIXEL_SIDE) for image in images]
    width = max(image.width for image in sized if image is not None) + SIXEL_SIDE // 24
    height = max(image.height for image in sized if image is not None)
    strip = Image.new("RGB", (len(sized) * width, height))
    for index, each in enumerate(sized):
        if each is not None:
            strip.paste(each, (index * width, 0))
    # Not by `console.print`, which would wrap the escape sequence like text.
    console.file.write(encode_sixel(strip) + "\n")
    console.file.flush()


def _fit(image: Image.Image, side: int) -> Image.Image:
    """Shrinks an image to `side` pixels, or enlarges it by a whole number without smoothing."""
    longest = max(image.size)
    if longest > side:
        size = (max(1, image.width * side // longest), max(1, image.height * side // longest))
        return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    factor = side // longest
    return image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


__all__ = ["COLUMNS", "GAP", "choose_display", "show_images"]
