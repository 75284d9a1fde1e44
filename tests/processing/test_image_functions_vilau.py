"""Opening of images, compared with the library's reader, and the list of settings."""

import numpy as np
import pytest
from PIL import ExifTags, Image
from transformers.image_utils import load_image

from vilau_hf.processing.image_functions_vilau import PIXEL_SETTINGS, PixelSettings, open_images
from vilau_hf.processing.image_processing_pil_vilau import VilaUImageProcessorPil
from vilau_hf.processing.image_processing_vilau import VilaUImageProcessor
from vilau_hf.processing.video_processing_vilau import VilaUVideoProcessor


@pytest.mark.parametrize("orientation", [None, 1, 3, 6])
@pytest.mark.parametrize("mode, suffix", [("RGB", "jpg"), ("L", "jpg"), ("P", "png"), ("RGBA", "png"), ("LA", "png")])
def test_a_file_is_opened_like_the_library_opens_it(mode, suffix, orientation, tmp_path, image):
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    file = str(tmp_path / f"image.{suffix}")
    image.resize((20, 12)).convert(mode).save(file, exif=exif)
    opened = open_images(file)
    expected = load_image(file)
    assert opened.mode == expected.mode == "RGB" and opened.size == expected.size
    assert np.array_equal(np.asarray(opened), np.asarray(expected))


def test_open_images_keeps_nested_lists_and_open_images(image, tmp_path):
    image.save(tmp_path / "image.png")
    (first,), second = open_images([[tmp_path / "image.png"], image])
    assert np.array_equal(np.asarray(first), np.asarray(image)) and second is image
    with pytest.raises(TypeError, match="An image must be a PIL image, an array, a tensor or a file name, got int"):
        open_images([3])


@pytest.mark.parametrize("cls", [VilaUImageProcessor, VilaUImageProcessorPil, VilaUVideoProcessor])
def test_all_processors_have_the_same_default_pixel_settings(cls):
    processor = cls()
    for name in (name for name in vars(PixelSettings) if not name.startswith("_")):
        default = getattr(PixelSettings, name)
        value = getattr(processor, name)
        if isinstance(default, (dict, list)):
            value = type(default)(value)  # the library converts sizes and lists
        assert value == default, name


@pytest.mark.parametrize("cls", [VilaUImageProcessor, VilaUImageProcessorPil])
def test_pixel_settings_contain_all_settings_that_an_image_processor_saves(cls):
    assert set(cls().to_dict()) - {"image_processor_type"} <= set(PIXEL_SETTINGS)
