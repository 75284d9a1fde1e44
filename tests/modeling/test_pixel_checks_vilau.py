"""The check of pixels that are given to a model directly."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration
from vilau_hf.modeling.pixel_checks_vilau import check_pixel_range


@pytest.fixture(scope="module")
def model():
    return VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 255.0, -5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rejects_values_that_are_no_normalised_pixels(value, dtype):
    pixels = torch.zeros(2, 3, 4, 4, dtype=dtype)
    pixels[1, 2, 3, 0] = value
    with pytest.raises(ValueError, match="`frames` must be finite and in .-1, 1., got a value with magnitude"):
        check_pixel_range(pixels, "frames")
    check_pixel_range(torch.ones(2, 3, 4, 4, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_rejects_pixels_that_are_no_floats(dtype):
    with pytest.raises(ValueError, match=r"`pixel_values` must be floats in \[-1, 1\], got torch"):
        check_pixel_range(torch.zeros(1, 3, 4, 4, dtype=dtype))


def test_reads_no_values_of_tensors_without_data_and_in_compiled_graphs():
    check_pixel_range(torch.zeros(1, 3, 4, 4, device="meta"))
    with FakeTensorMode():
        check_pixel_range(torch.zeros(1, 3, 4, 4))

    def checked(pixels):
        check_pixel_range(pixels)
        return pixels + 1

    compiled = torch.compile(checked, backend="eager", fullgraph=True)
    assert compiled(torch.full((1, 3, 4, 4), 255.0)).max() == 256


def test_model_rejects_pixels_before_it_computes(model):
    side = model.config.vision_config.image_size
    ids = torch.tensor([[1, 5]])
    bad = torch.full((1, 3, side, side), torch.nan)
    frames = bad[None]
    for call, name in (
        (lambda: model(input_ids=ids, pixel_values=bad), "pixel_values"),
        (lambda: model(input_ids=ids, pixel_values_videos=frames), "pixel_values_videos"),
        (lambda: model.get_image_features(bad), "pixel_values"),
        (lambda: model.generate(input_ids=ids, pixel_values=bad, max_new_tokens=1), "pixel_values"),
        (
            lambda: model.generate(input_ids=ids, generation_mode="video", num_frames=2, first_frames=frames),
            "first_frames",
        ),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be finite"):
            call()


@pytest.mark.parametrize("shape", [(3,), (1, 1, 3), (1, 1, 1, 3), (1, 1), (1, 4)])
def test_model_rejects_pixels_of_another_shape(model, shape):
    side = model.config.vision_config.image_size
    ids = torch.tensor([[1, 5]])
    with pytest.raises(ValueError, match=r"`pixel_values` must have shape \(N, 3, "):
        model(input_ids=ids, pixel_values=torch.zeros(*shape, side, side))
    if shape != (1, 1, 3):
        with pytest.raises(ValueError, match=r"`pixel_values_videos` must have shape \(V, F, 3, "):
            model(input_ids=ids, pixel_values_videos=torch.zeros(*shape, side, side))


def test_model_rejects_images_and_videos_without_content(model):
    side = model.config.vision_config.image_size
    ids = torch.tensor([[1, 5]])
    with pytest.raises(ValueError, match="`pixel_values` must not be empty"):
        model(input_ids=ids, pixel_values=torch.zeros(0, 3, side, side))
    with pytest.raises(ValueError, match="`pixel_values_videos` must not be empty"):
        model(input_ids=ids, pixel_values_videos=torch.zeros(1, 0, 3, side, side))
