"""Images as half blocks: two pixels in each character."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.text import Text

from vilau_hf.terminal.half_blocks import HalfBlocks


def pixels_shown(image, columns):
    """Prints an image in true colour, and reads its pixels off the escape sequences."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=80)
    console.print(HalfBlocks(image, columns))
    rows = []
    for line in console.file.getvalue().splitlines():
        text = Text.from_ansi(line)
        assert set(text.plain) == {"▀"}
        styles = [text.get_style_at_offset(console, index) for index in range(len(text.plain))]
        rows.append([tuple(style.color.triplet) for style in styles])
        rows.append([tuple(style.bgcolor.triplet) for style in styles])
    return np.array(rows, dtype=np.uint8)


def random_image(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(8, 8), (8, 4), (6, 12)])
def test_shows_each_pixel_of_a_small_image(size):
    image = random_image(*size)
    assert np.array_equal(pixels_shown(image, size[0]), np.array(image))


def test_enlarges_without_smoothing_and_shrinks_by_means():
    image = random_image(4, 4)
    assert np.array_equal(pixels_shown(image, 8), np.array(image).repeat(2, 0).repeat(2, 1))
    large = Image.fromarray(np.array(image).repeat(5, 0).repeat(5, 1))
    assert np.array_equal(pixels_shown(large, 4), np.array(image))


def test_tells_its_width():
    console = Console(width=80)
    assert tuple(console.measure(HalfBlocks(random_image(4, 4), 12))) == (12, 12)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "1"])
def test_accepts_images_of_other_modes(mode):
    assert pixels_shown(random_image(4, 4).convert(mode), 4).shape == (4, 4, 3)


def test_a_very_wide_image_has_a_line():
    assert pixels_shown(random_image(100, 1), 10).shape == (2, 10, 3)
