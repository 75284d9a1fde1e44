"""Images as coloured half blocks: each character shows two pixels."""

import numpy as np
from PIL import Image
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style


class HalfBlocks:
    """
    Renderable of rich that shows an image.

    Args:
        image (`PIL.Image.Image`): the image.
        columns (`int`): width in characters. A character is two pixels high and one pixel wide.
    """

    def __init__(self, image: Image.Image, columns: int) -> None:
        lines = max(1, round(image.height * columns / image.width / 2))
        # A small image is enlarged without smoothing, so that its pixels stay visible.
        is_small = image.width <= columns
        method = Image.Resampling.NEAREST if is_small else Image.Resampling.BOX
        self.pixels = np.asarray(image.convert("RGB").resize((columns, 2 * lines), method))  # (2 * lines, columns, 3)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for upper, lower in zip(self.pixels[::2].tolist(), self.pixels[1::2].tolist(), strict=True):
            for above, below in zip(upper, lower, strict=True):
                yield Segment("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
            yield Segment.line()

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        columns = self.pixels.shape[1]
        return Measurement(columns, columns)


__all__ = ["HalfBlocks"]
