"""Opening of images, compared with the library's reader, and the list of settings."""

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps
from transformers.image_utils import load_image

from vilau_hf.processing.image_functions_vilau import (
    PIXEL_SETTINGS,
    READING_SETTINGS,
    PixelSettings,
    open_images,
    pixels_to_images,
)
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
    assert set(cls().to_dict()) - {"image_processor_type", *READING_SETTINGS} <= set(PIXEL_SETTINGS)


def photo(orientation, suffix, tmp_path):
    """Returns an image file with a mark at the top left, and the orientation of its EXIF data."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.new("RGB", (16, 8))
    image.paste((255, 255, 255), (0, 0, 4, 4))
    file = tmp_path / f"photo.{suffix}"
    image.save(file, exif=exif)
    return file


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("cls", [VilaUImageProcessor, VilaUImageProcessorPil])
def test_open_images_are_turned_upright_like_files(cls, orientation, suffix, tmp_path):
    file = photo(orientation, suffix, tmp_path)
    processor = cls(size={"height": 8, "width": 8})
    expected = processor(load_image(str(file)), return_tensors="np")["pixel_values"]
    for image in (str(file), Image.open(file), ImageOps.exif_transpose(Image.open(file))):
        assert np.array_equal(processor(image, return_tensors="np")["pixel_values"], expected)


# not TIFF, which Pillow itself turns upright when it reads the pixels
@pytest.mark.parametrize("suffix", ["png", "webp"])
@pytest.mark.parametrize("cls", [VilaUImageProcessor, VilaUImageProcessorPil])
def test_stored_pixels_are_used_on_request(cls, suffix, tmp_path):
    file = photo(6, suffix, tmp_path)
    processor = cls(size={"height": 8, "width": 8})
    stored = processor(np.array(Image.open(file)), return_tensors="np")["pixel_values"]
    as_stored = cls(size={"height": 8, "width": 8}, do_exif_transpose=False)
    for image in (str(file), Image.open(file)):
        pixels = processor(image, do_exif_transpose=False, return_tensors="np")["pixel_values"]
        assert np.array_equal(as_stored(image, return_tensors="np")["pixel_values"], pixels)
        assert not np.array_equal(pixels, processor(image, return_tensors="np")["pixel_values"])
        np.testing.assert_allclose(pixels, stored, atol=0.1)  # PIL and torchvision resize


def test_rejects_damaged_exif_data(tmp_path):
    image = Image.open(photo(6, "png", tmp_path))
    image.load()
    image.info["exif"] = b"Exif\x00\x00damaged"
    image._exif = None
    processor = VilaUImageProcessorPil()
    with pytest.raises(ValueError, match="EXIF data of an image cannot be read.*`do_exif_transpose=False` ignores it"):
        processor(image)
    assert processor(image, do_exif_transpose=False)["pixel_values"][0].shape == (3, 256, 256)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_rejects_pixels_that_are_not_finite(value, output_type):
    pixels = torch.zeros(2, 3, 4, 4)
    pixels[1, 2, 3, 0] = value
    with pytest.raises(ValueError, match="`pixels` must be finite, got NaN or infinite values"):
        pixels_to_images(pixels, output_type)


@pytest.mark.parametrize("height", [1, 3, 4, 5])
@pytest.mark.parametrize("cls", [VilaUImageProcessor, VilaUImageProcessorPil])
@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_a_grey_array_gives_the_pixels_of_a_grey_image_at_any_height(cls, kind, height):
    array = np.random.default_rng(0).integers(0, 256, (height, 7), dtype=np.uint8)
    processor = cls(size={"height": height, "width": 7})
    given = torch.from_numpy(array) if kind == "tensor" else array
    found = np.asarray(processor(given)["pixel_values"][0])
    assert np.allclose(found, np.repeat(array[None] / 127.5 - 1, 3, 0), atol=1e-5)
    assert np.allclose(found, np.asarray(processor(Image.fromarray(array))["pixel_values"][0]))


def test_a_video_of_grey_arrays_has_the_pixels_of_grey_images():
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 7), dtype=np.uint8)
    processor = VilaUVideoProcessor(size={"height": 3, "width": 7})
    found = processor([list(frames)])["pixel_values_videos"][0]
    assert np.allclose(np.asarray(found), np.repeat(frames[:, None] / 127.5 - 1, 3, 1), atol=1e-5)


@pytest.mark.parametrize("name", ["max_image_pixels", "max_aspect_ratio"])
@pytest.mark.parametrize("value", ["x", True, 0, -1, float("nan"), torch.ones(2)])
@pytest.mark.parametrize("cls", [VilaUImageProcessor, VilaUVideoProcessor])
def test_rejects_limits_that_are_no_positive_numbers(cls, name, value, image):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive number or None"):
        cls()([image], **{name: value})
