"""The rule for pixels: each kind of image gives the right levels in both image processors, or a clear error."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vilau_hf.processing.image_processing_pil_vilau import VilaUImageProcessorPil
from vilau_hf.processing.image_processing_vilau import VilaUImageProcessor
from vilau_hf.processing.pixel_rules_vilau import check_size, check_video, to_levels, to_rgb


LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)  # grey
COLOURS = np.stack([LEVELS, LEVELS[::-1], LEVELS.T], -1)
SIXTEEN_BITS = LEVELS.astype(np.uint16) * 257
FLOATS = (LEVELS / 255).astype(np.float32)


@pytest.fixture(scope="module", params=[VilaUImageProcessor, VilaUImageProcessorPil])
def processor(request):
    return request.param(size={"height": 16, "width": 16})


def levels_of(processor, image, **options):
    pixels = processor(image, return_tensors="pt", **options)["pixel_values"]
    assert pixels.shape == (1, 3, 16, 16) and pixels.dtype == torch.float32
    return ((pixels[0] / 2 + 0.5) * 255).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    "image",
    [
        LEVELS,
        LEVELS[None],
        LEVELS.astype(np.int64),
        torch.from_numpy(LEVELS.astype(np.int32))[None],
        LEVELS.astype(np.uint32),
        SIXTEEN_BITS,
        SIXTEEN_BITS.astype(">u2"),
        torch.from_numpy(SIXTEEN_BITS)[None],
        FLOATS,
        FLOATS.astype(np.float16),
        FLOATS.astype(np.float64)[..., None],
        torch.from_numpy(FLOATS),
        torch.from_numpy(FLOATS)[None].half(),
        Image.fromarray(SIXTEEN_BITS),
        Image.fromarray(SIXTEEN_BITS.astype(np.int32)),
        Image.fromarray(FLOATS),
    ],
    ids=lambda image: f"{type(image).__name__}-{getattr(image, 'dtype', getattr(image, 'mode', ''))}",
)
def test_grey_values_of_each_kind_become_the_same_levels(processor, image):
    expected = np.repeat(LEVELS[..., None], 3, axis=-1)
    np.testing.assert_allclose(levels_of(processor, image), expected, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("is_tensor", [False, True])
def test_colours_of_each_kind_become_the_same_levels(processor, dtype, is_tensor):
    factor = {np.uint16: 257, np.float32: 1 / 255, np.float64: 1 / 255}.get(dtype, 1)
    image = (COLOURS * np.float64(factor)).astype(dtype)
    given = torch.from_numpy(image).permute(2, 0, 1) if is_tensor else image
    np.testing.assert_allclose(levels_of(processor, given), COLOURS, atol=1e-3)
    batch = processor(given[None], return_tensors="pt")["pixel_values"]
    assert torch.equal(batch, processor([given], return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize("image", [LEVELS > 100, torch.from_numpy(LEVELS > 100), Image.fromarray(LEVELS > 100)])
def test_booleans_become_black_and_white(processor, image):
    expected = np.repeat((LEVELS > 100)[..., None] * 255.0, 3, axis=-1)
    np.testing.assert_allclose(levels_of(processor, image), expected, atol=1e-3)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_a_16_bit_file_gives_the_pixels_of_the_opened_image(processor, suffix, tmp_path):
    file = tmp_path / f"grey.{suffix}"
    Image.fromarray(SIXTEEN_BITS).save(file)
    expected = np.repeat(LEVELS[..., None], 3, axis=-1)
    for image in (str(file), Image.open(file)):
        np.testing.assert_allclose(levels_of(processor, image), expected, atol=1e-3)


def test_a_float_file_gives_the_pixels_of_the_opened_image(processor, tmp_path):
    file = tmp_path / "grey.tiff"
    Image.fromarray(FLOATS).save(file)
    for image in (str(file), Image.open(file)):
        np.testing.assert_allclose(levels_of(processor, image)[..., 0], LEVELS, atol=1e-3)


def test_floats_that_are_not_rescaled_keep_their_values(processor):
    values = np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)
    pixels = processor(values, do_rescale=False, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(pixels, torch.from_numpy(values * 2 - 1).permute(2, 0, 1), atol=2 / 255, rtol=0)


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_images_of_a_processor_are_accepted_again(processor, output_type):
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    images = processor.postprocess(pixels, output_type)
    again = processor(images, return_tensors="pt")["pixel_values"]
    assert (again - pixels).abs().max() <= 2 / 255


def nan(array):
    array = array.copy()
    array.flat[3] = np.nan
    return array


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (LEVELS.astype(np.int8), "An array of images must have booleans, 8-bit integers .* got int8"),
        (LEVELS.astype(np.int64) * 257, "got int64 from 0 to 65535"),
        (LEVELS.astype(np.int16) - 1, "got int16 from -1 to 254"),
        (torch.from_numpy(LEVELS.astype(np.int32) * 2), "got int32 from 0 to 510"),
        (FLOATS * 255, "got float32 from 0 to 255"),
        (FLOATS * 2 - 1, "got float32 from -1 to 1"),
        (nan(FLOATS), "got float32 from nan to nan"),
        (torch.from_numpy(nan(FLOATS)), "got float32 from nan to nan"),
        (torch.full((3, 4, 4), torch.inf, dtype=torch.bfloat16), "got bfloat16 from inf to inf"),
        (FLOATS.astype(np.complex64), "got complex64"),
        (np.full((4, 4, 3), "a"), "got str"),
        (np.ma.masked_greater(FLOATS, 0.5), "An array of images must have a value for each pixel, got a masked array"),
        (torch.from_numpy(FLOATS).to_sparse(), "must be a dense tensor with values, got torch.sparse_coo on cpu"),
        (torch.empty(3, 4, 4, device="meta"), "must be a dense tensor with values, got torch.strided on meta"),
        (Image.fromarray(FLOATS * 255), "A PIL image of mode F must .* from 0 to 255"),
        (Image.fromarray(nan(FLOATS)), "mode F .* from nan"),
        (Image.fromarray(LEVELS).convert("I"), "mode I must have values of 16 bits.* Got 0 to 255"),
        (Image.fromarray(LEVELS.astype(np.int32) * 1000), "mode I must have values of 16 bits.* Got 0 to 255000"),
        (Image.new("RGB", (0, 4)), "An image must have at least one pixel, got a size of 0 x 4"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        (np.zeros((0, 4, 4, 3), np.uint8), "at least one image"),
        ([], "must have at least one image"),
        (np.zeros((4,), np.uint8), r"must have shape \(h, w\)"),
        (np.zeros((1, 1, 4, 4, 3), np.uint8), r"Got shape \(1, 1, 4, 4, 3\)"),
        (np.zeros((5, 6, 2), np.uint8), "must have 1, 3 or 4 channels"),
        ([[[LEVELS]]], "got other lists"),
        ([[LEVELS], LEVELS], "got other lists"),
    ],
)
def test_rejects_images_that_are_no_pixels(processor, image, message):
    with pytest.raises(ValueError, match=message):
        processor(image)


@pytest.mark.parametrize("mode", ["La", "RGBa", "CMYK", "HSV", "YCbCr", "PA", "1"])
def test_each_mode_of_pillow_is_accepted(processor, mode):
    assert np.isfinite(levels_of(processor, Image.new(mode, (4, 4)))).all()


@pytest.mark.parametrize("size", [(1, 40_000), (40_000, 1)])
def test_rejects_images_that_are_too_narrow_before_they_are_read(processor, size, tmp_path):
    file = tmp_path / "narrow.png"
    Image.new("L", size).save(file)
    for image in (str(file), Image.open(file)):
        with pytest.raises(ValueError, match=r"`max_aspect_ratio` \(10000\) times the shorter side, got"):
            processor(image)
    assert processor(str(file), max_aspect_ratio=None, return_tensors="pt")["pixel_values"].shape == (1, 3, 16, 16)


def test_rejects_images_with_too_many_pixels_before_memory_is_used(processor, monkeypatch):
    assert processor.max_image_pixels == 178_956_970 and processor.max_aspect_ratio == 10_000
    with pytest.raises(ValueError, match=r"at most `max_image_pixels` \(99\) pixels, got 10 x 10"):
        processor(Image.new("RGB", (10, 10)), max_image_pixels=99)
    long_image = Image.new("L", (20_000, 3))
    image = Image.fromarray(LEVELS)
    monkeypatch.setattr(Image, "new", lambda *args: pytest.fail("memory is used"))
    with pytest.raises(ValueError, match="got 20000 x 20000"):
        processor(long_image, pad_to_square=True)
    with pytest.raises(ValueError, match="got 100000 x 100000"):
        processor(image, size={"height": 100_000, "width": 100_000})


def test_settings_of_the_limits_are_saved_and_loaded(processor, tmp_path):
    type(processor)(max_image_pixels=50, do_exif_transpose=False).save_pretrained(tmp_path)
    loaded = type(processor).from_pretrained(tmp_path)
    assert loaded.max_image_pixels == 50 and loaded.do_exif_transpose is False
    with pytest.raises(ValueError, match="max_image_pixels"):
        loaded(LEVELS)


def test_limits_of_a_size_can_be_switched_off():
    check_size(1, 10**9, None, None)
    with pytest.raises(ValueError, match="at least one pixel"):
        check_size(1, 0, None, None)


def test_rejects_videos_that_are_no_pixels():
    check_video(np.zeros((2, 4, 4, 3), np.uint8))
    for shape in ((0, 4, 4, 3), (1, 0, 4, 4, 3)):
        with pytest.raises(ValueError, match="at least one frame"):
            check_video(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="An array of a video must have shape"):
        check_video(np.zeros((4, 4, 3), np.uint8))


def test_levels_of_all_16_bit_values_are_the_nearest():
    values = np.arange(65536, dtype=np.uint16)
    expected = np.round(values.astype(np.float64) * 255 / 65535)
    assert np.array_equal(to_levels(values), expected)
    assert np.array_equal(to_levels(torch.from_numpy(values)), expected)


def test_an_open_image_becomes_rgb_by_the_rule_for_pixels():
    for image in (SIXTEEN_BITS, SIXTEEN_BITS.astype(np.int32), FLOATS, LEVELS):
        assert np.array_equal(np.asarray(to_rgb(Image.fromarray(image))), np.repeat(LEVELS[..., None], 3, -1))
    turned = Image.new("I;16", (4, 2))
    turned.getexif()[0x0112] = 6
    assert to_rgb(turned).size == (2, 4) and to_rgb(turned, do_exif_transpose=False).size == (4, 2)
    with pytest.raises(ValueError, match="A PIL image of mode F must .* from 0 to 255"):
        to_rgb(Image.fromarray(FLOATS * 255))
    with pytest.raises(ValueError, match=r"at most `max_image_pixels` \(9\) pixels, got 16 x 16"):
        to_rgb(Image.fromarray(LEVELS), max_image_pixels=9)


def test_an_open_image_that_cannot_be_read_is_a_clear_error(processor):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file, "PNG")
    cut = Image.open(io.BytesIO(file.getvalue()[:3000]))
    closed = Image.open(file)
    closed.close()
    for image, cause in ((cut, "OSError: image file is truncated"), (closed, "ValueError: Operation on closed image")):
        with pytest.raises(ValueError, match=f"An image cannot be read: {cause}"):
            processor(image)


@pytest.mark.parametrize("image", [LEVELS, torch.from_numpy(LEVELS)[None], Image.fromarray(LEVELS)])
@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"height": 40, "width": 40}},
        {"size": {"shortest_edge": 40}},
        {"do_center_crop": True, "crop_size": {"height": 40, "width": 40}},
        {"do_pad": True, "pad_size": {"height": 40, "width": 40}},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_no_setting_makes_an_image_that_is_too_large(processor, image, settings):
    with pytest.raises(ValueError, match=r"size` must have at most `max_image_pixels` \(999\) pixels, got 40 x 40"):
        processor(image, max_image_pixels=999, **settings)
    if not isinstance(image, Image.Image):  # an image of PIL needs both sides
        with pytest.raises(ValueError, match=r"`size` must give at most .* got 20 x 100 for an image of 10 x 50"):
            processor(np.zeros((10, 50), np.uint8), size={"shortest_edge": 20}, max_image_pixels=999)


@pytest.mark.parametrize("image", [LEVELS, torch.from_numpy(SIXTEEN_BITS)[None], Image.fromarray(FLOATS)])
def test_levels_are_not_normalised_like_floats(processor, image):
    with pytest.raises(ValueError, match="`do_rescale` must be True to normalise pixels of 8 or 16 bits"):
        processor(image, do_rescale=False)
    expected = processor(image, return_tensors="pt")["pixel_values"]
    settings = {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3, "return_tensors": "pt"}
    torch.testing.assert_close(processor(image, **settings)["pixel_values"], expected, atol=1e-5, rtol=0)
    levels = processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
    assert levels.max() == 255


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_std": [0.5, 0.0, 0.5]}, "`image_std` must be finite and not 0, got .0.5, 0.0, 0.5"),
        ({"image_std": 0.0}, "`image_std` must be finite and not 0, got 0.0"),
        ({"image_mean": [0.5, np.nan, 0.5]}, "`image_mean` must be finite, got .0.5, nan, 0.5"),
        ({"rescale_factor": np.inf}, "`rescale_factor` must be finite, got inf"),
    ],
)
def test_rejects_factors_that_make_no_pixels(processor, settings, message):
    for call in (lambda: processor(LEVELS, **settings), lambda: type(processor)(**settings)(LEVELS)):
        with pytest.raises(ValueError, match=message):
            call()
