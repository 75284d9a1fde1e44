"""The naive rules for pixels, by values that are known without them."""

import numpy as np
import pytest
from PIL import Image

from . import pixels
from .classification import Wrong


@pytest.mark.parametrize(
    ("dtype", "value", "level"),
    [("uint8", 7, 7), ("bool", True, 255), ("uint16", 65535, 255), ("uint16", 257, 1), ("float32", 0.5, 128),
     ("int64", 255, 255), ("int64", 256, None), ("float64", 1.1, None), ("float32", np.nan, None), ("int8", 3, None)],
)  # fmt: skip
def test_levels(dtype, value, level):
    found = pixels.levels(np.full((2, 2), value, dtype))
    assert found is None if level is None else (found == level).all()


@pytest.mark.parametrize("size", [(3, 9), (9, 3), (8, 8), (20, 5)])
def test_resizes_like_pillow(size):
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), np.float64)
    found = pixels.resize(image.astype(np.float64), size[1], size[0])
    assert min(np.abs(each - expected).max() for each in found) <= 1


def test_finds_a_pixel_that_differs():
    levels = np.full((2, 2, 3), 100.0)
    right = np.full((3, 2, 2), 100 / 127.5 - 1)
    pixels.check_pixels(right, [levels], 0.5)
    for wrong in (right + 0.1, right[:, :1], right * np.nan):
        with pytest.raises(Wrong):
            pixels.check_pixels(wrong, [levels], 0.5)
