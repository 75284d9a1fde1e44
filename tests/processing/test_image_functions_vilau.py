"""Opening of images, against the library's reader."""

import numpy as np
import pytest
from PIL import ExifTags, Image
from transformers.image_utils import load_image

from vilau_hf.processing.image_functions_vilau import fetch_pictures


@pytest.mark.parametrize("orientation", [None, 1, 3, 6])
@pytest.mark.parametrize("mode, suffix", [("RGB", "jpg"), ("L", "jpg"), ("P", "png"), ("RGBA", "png"), ("LA", "png")])
def test_a_file_is_opened_as_the_library_opens_it(mode, suffix, orientation, tmp_path, picture):
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    file = str(tmp_path / f"picture.{suffix}")
    picture.resize((20, 12)).convert(mode).save(file, exif=exif)
    opened, expected = fetch_pictures(file), load_image(file)
    assert opened.mode == expected.mode == "RGB" and opened.size == expected.size
    assert np.array_equal(np.asarray(opened), np.asarray(expected))
