"""Sixel graphics: a decoder written from the description of the format reads the pixels back."""

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vilau_hf.terminal.sixel import REQUEST, encode_sixel


def decode_sixel(sequence):
    """Draws a sixel graphic as a terminal does."""
    header = re.match(r'\x1bPq"1;1;(\d+);(\d+)', sequence)
    width, height = map(int, header.groups())
    assert sequence.endswith("\x1b\\")
    image = np.zeros((height + 6, width, 3))
    colors, color, x, y, count = {}, None, 0, 0, 1
    for define, index, bar, repeat, character in re.findall(
        r"(#(\d+);2;[\d;]+)|#(\d+)|!(\d+)|([?-~$-])", sequence[header.end() : -2]
    ):
        if define:
            colors[int(index)] = [int(part) for part in define.split(";")[2:]]
        elif bar:
            color = colors[int(bar)]
        elif repeat:
            count = int(repeat)
            continue
        elif character == "$":
            x = 0
        elif character == "-":
            x, y = 0, y + 6
        else:
            for _ in range(count):
                for bit in range(6):
                    if (ord(character) - 63) >> bit & 1:
                        image[y + bit, x] = color
                x += 1
        count = 1
    assert not image[height:].any()
    return image[:height] * 255 / 100


@pytest.mark.parametrize("size", [(5, 6), (16, 16), (7, 20), (40, 1)])
def test_a_terminal_draws_the_image(size):
    levels = np.random.default_rng(0).integers(0, 6, (size[1], size[0], 3)) * 51  # few enough colours for the palette
    image = Image.fromarray(levels.astype(np.uint8)).quantize(100).convert("RGB")
    drawn = decode_sixel(encode_sixel(image))
    assert np.abs(drawn - np.array(image)).max() <= 255 / 100  # the format has colours in percent


def test_runs_of_equal_columns_are_short():
    assert len(encode_sixel(Image.new("RGB", (200, 60), "red"))) < 200


ASK = "from vilau_hf.terminal.sixel import supports_sixel; print('supported', supports_sixel())"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(b"\x1b[?62;4;22c", True), (b"\x1b[?1;2c", False), (b"\x1b[?64;24c", False), (b"", False)],
)
def test_asks_the_terminal(answer, expected):
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", ASK])
    received = b""
    while b"supported" not in received or not received.endswith(b"\n"):
        received += os.read(descriptor, 1000)
        if REQUEST.encode() in received and answer:
            os.write(descriptor, answer)
            answer = b""
    os.waitpid(pid, 0)
    os.close(descriptor)
    assert f"supported {expected}".encode() in received
    assert b"62;4" not in received  # the answer of the terminal is not shown


def test_does_not_ask_if_the_output_is_no_terminal():
    run = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert run.stdout == "supported False\n", run.stderr
