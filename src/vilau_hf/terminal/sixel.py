"""Sixel graphics (DEC STD 070, chapter 9): encodes images, and asks the terminal whether it can show them."""

import os
import re
import select
import sys
import time

import numpy as np
from PIL import Image


# The request for "primary device attributes". The answer of a terminal with sixel graphics has the number 4.
REQUEST = "\x1b[c"
ANSWER = re.compile(rb"\x1b\[\?([\d;]*)c")
# Terminals answer within milliseconds, and connections to far machines within this many seconds.
LONGEST_WAIT = 1.0


def encode_sixel(image: Image.Image) -> str:
    """
    Encodes an image as sixel graphics of at most 256 colours.

    Args:
        image (`PIL.Image.Image`): the image.

    Returns:
        The escape sequence that draws the image at the cursor.
    """
    reduced = image.convert("RGB").quantize(256)
    palette = np.asarray(reduced.getpalette(), dtype=np.int64).reshape(-1, 3)
    pixels = np.asarray(reduced)  # (height, width), indices of the palette
    height, width = pixels.shape
    chunks = [f'\x1bPq"1;1;{width};{height}']
    for index in np.unique(pixels).tolist():
        red, green, blue = ((palette[index] * 100 + 127) // 255).tolist()  # percent, as the format has it
        chunks.append(f"#{index};2;{red};{green};{blue}")
    for top in range(0, height, 6):
        chunks.append(_encode_band(pixels[top : top + 6]))
    return "".join([*chunks, "\x1b\\"])


def _encode_band(band: np.ndarray) -> str:
    """Encodes up to six lines `(n, width)`: for each colour, a character for each column says which lines have it."""
    weights = 2 ** np.arange(len(band))[:, None]  # the upper line is the lowest bit
    layers = []
    for index in np.unique(band).tolist():
        bits = ((band == index) * weights).sum(0)  # (width,)
        characters = "".join(chr(63 + each) for each in bits.tolist())
        # `!5?` is short for `?????`.
        layers.append(f"#{index}" + re.sub(r"(.)\1{3,}", lambda run: f"!{len(run[0])}{run[1]}", characters))
    # `$` goes back to the beginning of the band, and `-` to the next band.
    return "$".join(layers) + "-"


def supports_sixel() -> bool:
    """Asks the terminal of standard input and output whether it shows sixel graphics."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        import termios
        import tty
    except ImportError:  # Windows has no such modules, and the terminal is not asked there
        return False
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)  # so that the answer can be read without a line end, and is not shown
        sys.stdout.write(REQUEST)
        sys.stdout.flush()
        answer = _read_answer(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
    return "4" in answer.split(";")


def _read_answer(descriptor: int) -> str:
    """Returns the attributes in the answer of the terminal, empty if it gives none."""
    received = b""
    end = time.monotonic() + LONGEST_WAIT
    while select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
        received += os.read(descriptor, 1)
        match = ANSWER.search(received)
        if match:
            return match[1].decode()
    return ""


__all__ = ["encode_sixel", "supports_sixel"]
