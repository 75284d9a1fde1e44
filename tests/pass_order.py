"""Makes Pillow 12 resize in the order of Pillow 13, with which the pixels were recorded."""

import PIL
import pytest
from PIL import Image


@pytest.fixture
def resized_as_recorded(monkeypatch):
    """
    Makes the pixels of Pillow 12 equal to the recording.

    A resize has a horizontal and a vertical pass, with pixels rounded to 8 bits in between. Pillow 12 always begins
    with the horizontal one. Pillow 13 begins with the vertical one for images that are narrow and shrink in height,
    such as some of the recorded ones. At 64 x 64 pixels this makes up to 4 of 255 levels of difference.
    """
    if int(PIL.__version__.split(".")[0]) >= 13:
        return
    resize = Image.Image.resize

    def resize_in_recorded_order(self, size, resample=None, *args, **kwargs):
        width, height = size
        is_vertical_first = self.height > height and self.width != width and self.width * height < width * self.height
        if is_vertical_first and self.mode in ("RGB", "L", "RGBa", "La"):
            self = resize(self, (self.width, height), resample)
        return resize(self, size, resample, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", resize_in_recorded_order)
