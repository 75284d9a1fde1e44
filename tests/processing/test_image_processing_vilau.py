"""Pixels of both image processors, compared with recordings of the original and with the library."""

import inspect
import json
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import PilBackend
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from vilau_hf.processing.image_processing_pil_vilau import VilaUImageProcessorPil
from vilau_hf.processing.image_processing_vilau import VilaUImageProcessor


GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden" / "tiny-256"
CLASSES = [VilaUImageProcessor, VilaUImageProcessorPil]
FILES = [entry["file"] for entry in json.loads((GOLDEN / "preprocess.json").read_text())["images"]]


@pytest.fixture(scope="module")
def recorded():
    return load_file(GOLDEN / "preprocess.safetensors")


def converted_first(recorded, file):
    """Returns the recorded pixels of a file name, which the original converts to RGB before it resizes."""
    stem = Path(file).stem
    name = f"{stem}.understanding_from_path.uint8"
    return recorded[name if name in recorded else f"{stem}.understanding.uint8"]


def to_uint8(pixels):
    return ((pixels * 0.5 + 0.5) * 255).round().to(torch.uint8)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "variant, options", [("understanding", {"resize_before_rgb": True}), ("generation", {"crop_to_square": True})]
)
def test_an_opened_image_gives_the_pixels_of_the_original(resized_as_recorded, recorded, cls, file, variant, options):
    processor = cls(size={"height": 64, "width": 64}, **options)
    pixels = processor(Image.open(GOLDEN / file), return_tensors="pt")["pixel_values"][0]
    expected = recorded[f"{Path(file).stem}.{variant}.uint8"]
    assert torch.equal(to_uint8(pixels), expected)
    torch.testing.assert_close(pixels, (expected / 255 - 0.5) / 0.5, atol=2e-7, rtol=0)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("file", FILES)
def test_pillow_12_differs_from_the_recording_by_a_few_levels_and_later_versions_do_not(recorded, cls, file):
    """Has no fixture `resized_as_recorded`, so it tests the pixels that users of the installed Pillow get."""
    pixels = cls(size={"height": 64, "width": 64})(Image.open(GOLDEN / file), return_tensors="pt")["pixel_values"][0]
    levels = (to_uint8(pixels).int() - converted_first(recorded, file).int()).abs()
    is_exact = int(PIL.__version__.split(".")[0]) >= 13
    assert levels.max() <= (0 if is_exact else 4) and levels.float().mean() <= (0 if is_exact else 0.25)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("file", FILES)
def test_a_file_name_gives_the_pixels_of_the_original(resized_as_recorded, recorded, cls, file):
    processor = cls(size={"height": 64, "width": 64}, resize_before_rgb=True)
    expected = converted_first(recorded, file)
    for name in (GOLDEN / file, str(GOLDEN / file)):
        assert torch.equal(to_uint8(processor(name, return_tensors="pt")["pixel_values"][0]), expected)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("file", FILES)
def test_by_default_an_opened_image_gives_the_pixels_of_its_file(resized_as_recorded, recorded, cls, file):
    pixels = cls(size={"height": 64, "width": 64})(Image.open(GOLDEN / file), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(to_uint8(pixels), converted_first(recorded, file))


def test_recorded_floats_are_reproduced(recorded):
    image = Image.open(GOLDEN / "preprocess/image_0_RGB.png")
    for cls in CLASSES:
        pixels = cls(size={"height": 64, "width": 64})(image, return_tensors="pt")["pixel_values"]
        expected = recorded["image_0_RGB.understanding.float"]
        assert torch.equal(pixels.reshape(expected.shape), expected)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_jpeg_gives_the_floats_of_the_library_processor_that_the_original_used(cls, tmp_path):
    file = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((130, 90), 3).save(file, quality=90)
    settings = {"size": {"height": 48, "width": 64}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
    expected = CLIPImageProcessorPil(do_center_crop=False, **settings)(str(file), return_tensors="pt")
    pixels = cls(**settings)(str(file), return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, expected["pixel_values"])


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "settings", [{"image_mean": 0.5, "image_std": 0.5}, {"do_center_crop": True, "crop_size": 8}, {"do_pad": True}]
)
def test_unusual_settings_give_the_pixels_of_the_library(cls, settings):
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_center_crop": False, **settings}
    settings["size"] = {"height": 16, "width": 16}
    expected = CLIPImageProcessorPil(**settings)(Image.fromarray(values), return_tensors="pt")["pixel_values"]
    pixels = cls(**settings)(Image.fromarray(values), return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, expected)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("factor", [1 / 255, 1 / 256])
def test_all_values_of_a_pixel_become_the_floats_of_the_library(cls, factor):
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    settings = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    for do_normalize in (False, True):
        settings.update(rescale_factor=factor, do_normalize=do_normalize)
        expected = CLIPImageProcessorPil(do_center_crop=False, **settings)(Image.fromarray(values))["pixel_values"]
        pixels = cls(**settings)(Image.fromarray(values), return_tensors="np")["pixel_values"]
        assert np.array_equal(pixels, np.stack(expected))


def test_both_backends_document_their_options_in_one_class_named_as_the_library_expects():
    assert [cls.valid_kwargs.__name__ for cls in CLASSES] == ["VilaUImageProcessorKwargs"] * 2


def test_backends_agree_on_a_batch_of_different_images():
    images = [Image.open(GOLDEN / file) for file in FILES]
    rng = np.random.default_rng(0)
    shapes = [(64, 64, 3), (1, 64, 64), (64, 64, 4)]
    if "input_data_format" not in inspect.signature(PilBackend.convert_to_rgb).parameters:
        shapes = [(64, 64, 3)] * 3  # before transformers 5.23 arrays of other than three channels are refused
    arrays = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    outputs = [cls(size=64)(images + arrays, return_tensors="pt")["pixel_values"] for cls in CLASSES]
    assert outputs[0].shape == (7, 3, 64, 64) and outputs[0].dtype == outputs[1].dtype == torch.float32
    torch.testing.assert_close(outputs[0][:6], outputs[1][:6], atol=1e-6, rtol=0)
    # the alpha channel of an array: the library rounds in one backend and truncates in the other
    torch.testing.assert_close(outputs[0][6], outputs[1][6], atol=2.01 / 255, rtol=0)
    resized = [cls(size=16)(arrays[:1], return_tensors="pt")["pixel_values"] for cls in CLASSES]
    assert (resized[0] - resized[1]).abs().mean() < 5e-3


@pytest.mark.parametrize("cls", CLASSES)
def test_settings_of_a_call_replace_those_of_the_processor(cls, image):
    processor = cls(size=8)
    assert processor(image, size={"height": 5, "width": 6}, return_tensors="pt")["pixel_values"].shape[2:] == (5, 6)
    pixels = processor(image, do_normalize=False, return_tensors="pt")["pixel_values"]
    assert pixels.min() >= 0 and pixels.max() <= 1
    with pytest.raises(ValueError, match="height"):
        processor(image, size={"shortest_edge": 8})


@pytest.mark.parametrize("saved_by", CLASSES)
@pytest.mark.parametrize("loaded_by", CLASSES)
def test_each_backend_loads_what_the_other_saved(saved_by, loaded_by, tmp_path):
    processor = saved_by(size=24, resize_before_rgb=True)
    processor.save_pretrained(tmp_path)
    loaded = loaded_by.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert loaded.resize_before_rgb is True and dict(loaded.size) == {"height": 24, "width": 24}


@pytest.mark.parametrize("cls", CLASSES)
def test_rejects_an_unreadable_file_with_its_name_and_the_reason(cls, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes((GOLDEN / FILES[0]).read_bytes()[:200])
    with pytest.raises(ValueError, match="broken.png.*truncated"):
        cls()([str(broken)])
    with pytest.raises(ValueError, match="missing.png"):
        cls()(str(tmp_path / "missing.png"))


@pytest.mark.parametrize("cls", CLASSES)
def test_postprocess_inverts_preprocessing(cls, image):
    processor = cls(size={"height": 12, "width": 20})
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    restored = processor.postprocess(pixels)[0]
    assert np.array_equal(np.asarray(restored), np.asarray(image))
    array = processor.postprocess(pixels, output_type="np")
    np.testing.assert_allclose(array[0], np.asarray(image) / 255, atol=1e-6)
    assert processor.postprocess(pixels * 10, output_type="pt").aminmax() == (0, 1)
    with pytest.raises(ValueError, match="output_type"):
        processor.postprocess(pixels, output_type="jpg")
    with pytest.raises(ValueError, match="shape"):
        processor.postprocess(pixels[0])


@pytest.mark.parametrize("cls", CLASSES)
def test_padding_to_a_square_centres_the_whole_image(cls, recorded):
    image = Image.open(GOLDEN / "preprocess/image_0_RGB.png")  # 106 x 65
    square = Image.new("RGB", (106, 106), (127, 127, 127))
    square.paste(image, (0, 20))
    processor = cls(size={"height": 64, "width": 64}, pad_to_square=True)
    pixels = processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(to_uint8(pixels), torch.from_numpy(np.array(square.resize((64, 64), 3))).permute(2, 0, 1))
    assert torch.equal(to_uint8(pixels), recorded["image_0_RGB.pad.uint8"])
