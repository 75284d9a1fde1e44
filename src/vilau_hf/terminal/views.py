"""Views of answers: one for people at a terminal, and one for scripts."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from .answer_streamer import Medium
from .half_blocks import HalfBlocks
from .image_display import COLUMNS, show_images


class ConsoleView:
    """
    Prints text as it is generated, shows images and videos, and saves them.

    Args:
        console (`rich.console.Console`): the terminal.
        display (`str`): how images are shown: `"sixel"`, `"blocks"` or `"none"`.
        save (`Callable[[Medium], Path]`): writes an image or a video, and returns its file.
    """

    def __init__(self, console: Console, display: str, save: Callable[[Medium], Path]) -> None:
        self.console = console
        self.display = display
        self.save = save
        self.is_in_line = False  # whether the cursor is behind text
        self.live: Live | None = None
        self.preview: Image.Image | None = None
        self.started = 0.0  # when the first position of the image was there

    def show_text(self, text: str) -> None:
        """Prints the next piece of text."""
        self.console.print(text, end="", markup=False, highlight=False, soft_wrap=True)
        self.is_in_line = True

    def show_progress(self, position: int, total: int, preview: Image.Image | None) -> None:
        """Shows a preview and a bar with the rate, which disappear at the end of the image."""
        if not self.console.is_terminal:
            return
        if self.live is None:
            self._end_line()
            self.preview = None
            self.started = time.monotonic()
            self.live = Live(console=self.console, transient=True, auto_refresh=False)
            self.live.start()
        self.preview = self.preview if preview is None else preview
        # Previews are half blocks for sixel terminals, too, since a graphic cannot be replaced without flicker.
        shown = []
        if self.preview is not None and self.display != "none":
            shown.append(HalfBlocks(self.preview, min(COLUMNS, self.console.width)))
        self.live.update(Group(*shown, self._bar(position, total)), refresh=True)

    def show_medium(self, medium: Medium) -> None:
        """Shows an image, or the frames of a video side by side, and the name of its file."""
        self._stop_live()
        self._end_line()
        columns = COLUMNS if medium.kind == "image" else COLUMNS // 2
        show_images(self.console, medium.frames, self.display, columns=columns)
        self.console.print(str(self.save(medium)), style="dim", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Removes the bar, and ends the line of text."""
        self._stop_live()
        self._end_line()

    def _bar(self, position: int, total: int) -> Table:
        """Returns a bar with the number of positions and their rate."""
        seconds = time.monotonic() - self.started
        bar = Table.grid(padding=(0, 1, 0, 0))
        cells: list[ProgressBar | str] = [
            ProgressBar(total, position, width=COLUMNS),
            f"{position} of {total} positions",
        ]
        if position > 1 and seconds > 0:
            # The first position ended before the time began to count.
            cells.append(f"{(position - 1) / seconds:.1f} positions/s")
        bar.add_row(*cells)
        return bar

    def _stop_live(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def _end_line(self) -> None:
        if self.is_in_line:
            self.console.print()
            self.is_in_line = False


class ContentView:
    """
    Saves images and videos, and keeps an answer as content parts that JSON can hold.

    Args:
        save (`Callable[[Medium], Path]`): writes an image or a video, and returns its file.
    """

    def __init__(self, save: Callable[[Medium], Path]) -> None:
        self.save = save
        self.content: list[dict[str, Any]] = []

    def show_text(self, text: str) -> None:
        """Adds text to the last content part."""
        if not self.content or self.content[-1]["type"] != "text":
            self.content.append({"type": "text", "text": ""})
        self.content[-1]["text"] += text

    def show_progress(self, position: int, total: int, preview: Image.Image | None) -> None:
        """Shows nothing."""

    def show_medium(self, medium: Medium) -> None:
        """Adds the file of an image or a video."""
        self.content.append({"type": medium.kind, "path": str(self.save(medium))})

    def close(self) -> None:
        """Keeps the content."""


__all__ = ["ConsoleView", "ContentView"]
