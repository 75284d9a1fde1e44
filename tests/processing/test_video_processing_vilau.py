"""Pixels and sampled frames of the video processor."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.video_utils import VideoMetadata

from vilau_hf.processing.image_processing_vilau import VilaUImageProcessor
from vilau_hf.processing.video_processing_vilau import VilaUVideoProcessor


SIZE = {"height": 8, "width": 8}


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)) for _ in range(4)]


def test_frames_get_the_pixels_of_the_image_processor(frames):
    expected = VilaUImageProcessor(size=SIZE)(frames, return_tensors="pt")["pixel_values"]
    array = np.stack([np.asarray(frame) for frame in frames])
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
    processor = VilaUVideoProcessor(size=SIZE)
    for video in (frames, [frames], [[frames]], array, [array], array[None], tensor, [tensor]):
        pixels = processor(video, return_tensors="pt")["pixel_values_videos"]
        assert pixels.shape == (1, 4, 3, 8, 8)
        torch.testing.assert_close(pixels[0], expected, atol=1e-6, rtol=0)


def test_converts_frames_of_other_modes_to_rgb(frames):
    grey = [frame.convert("L").convert("P") for frame in frames]
    expected = VilaUImageProcessor(size=SIZE)(grey, return_tensors="pt")["pixel_values"]
    pixels = VilaUVideoProcessor(size=SIZE)(grey, return_tensors="pt")["pixel_values_videos"][0]
    torch.testing.assert_close(pixels, expected, atol=1e-6, rtol=0)


def test_opens_frames_from_image_files(frames, tmp_path):
    names = []
    for index, frame in enumerate(frames):
        names.append(str(tmp_path / f"{index}.png"))
        frame.save(names[-1])
    processor = VilaUVideoProcessor(size=SIZE)
    pixels = processor([[names, names]], return_tensors="pt")["pixel_values_videos"]
    expected = processor(frames, return_tensors="pt")["pixel_values_videos"]
    torch.testing.assert_close(pixels, expected.expand(2, -1, -1, -1, -1))
    with pytest.raises(ValueError, match="list of images"):
        processor([[names, names]], do_sample_frames=True, num_frames=2)


def test_processes_a_batch_of_two_videos(frames):
    pixels = VilaUVideoProcessor(size=SIZE)([frames, frames[::-1]], return_tensors="pt")["pixel_values_videos"]
    assert pixels.shape == (2, 4, 3, 8, 8)
    assert torch.equal(pixels[0], pixels[1].flip(0))


def test_samples_given_frames_only_on_request(frames):
    array = np.stack([np.asarray(frame) for frame in frames * 4])
    processor = VilaUVideoProcessor(size=SIZE)

    def count(video, **kwargs):
        return processor(video, return_tensors="pt", **kwargs)["pixel_values_videos"].shape[1]

    assert count(array) == 16
    assert count(array, do_sample_frames=False, num_frames=2) == 16
    assert count(array, do_sample_frames=True) == 8
    assert count(array, do_sample_frames=True, num_frames=3) == 3
    metadata = [{"total_num_frames": 16, "fps": 4}]
    assert count(array, do_sample_frames=True, fps=1, video_metadata=metadata) == 4
    with pytest.raises(ValueError, match="fps"):
        count(array, do_sample_frames=True, fps=1)
    with pytest.raises(ValueError, match="exceeds"):
        count(array, do_sample_frames=True, num_frames=17)
    with pytest.raises(ValueError, match="Only one"):
        count(array, do_sample_frames=True, num_frames=2, fps=1, video_metadata=metadata)


def test_a_file_is_decoded_and_sampled_uniformly(video_file):
    processor = VilaUVideoProcessor(size=SIZE, num_frames=4)
    for name in (video_file, str(video_file), [[str(video_file)]]):
        pixels = processor(name, return_tensors="pt")["pixel_values_videos"]
        assert pixels.shape == (1, 4, 3, 8, 8)
        grey = (pixels[0].mean((1, 2, 3)) + 1) * 127.5
        expected = torch.tensor([20.0 * index + 10 for index in (0, 3, 6, 9)])
        torch.testing.assert_close(grey, expected, atol=5, rtol=0)
    everything = processor(str(video_file), do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
    assert everything.shape[1] == 12


def test_rejects_an_unreadable_file_with_its_name_and_the_reason(tmp_path, video_file):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    processor = VilaUVideoProcessor(size=SIZE)
    with pytest.raises(ValueError, match="broken.mp4.*Invalid data"):
        processor(str(broken))
    with pytest.raises(ValueError, match="missing.mp4"):
        processor(str(tmp_path / "missing.mp4"))
    with pytest.raises(ValueError, match="grey.*exceeds total_num_frames=12"):
        processor(str(video_file), num_frames=13)


def test_rejects_files_and_frames_in_one_batch(video_file, frames):
    with pytest.raises(ValueError, match="mixture"):
        VilaUVideoProcessor(size=SIZE)([str(video_file), np.stack([np.asarray(frame) for frame in frames])])


def test_loads_what_was_saved(tmp_path):
    processor = VilaUVideoProcessor(size=SIZE, num_frames=3)
    processor.save_pretrained(tmp_path)
    loaded = VilaUVideoProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert loaded.num_frames == 3 and loaded.do_sample_frames is None


@pytest.mark.parametrize("form", ["bytes", "BytesIO", "data"])
def test_the_content_of_a_file_gives_the_pixels_of_the_file(video_file, form):
    data = video_file.read_bytes()
    text = "data:video/mp4;base64," + base64.b64encode(data).decode()
    video = {"bytes": data, "BytesIO": io.BytesIO(data), "data": text}[form]
    processor = VilaUVideoProcessor(size=SIZE, num_frames=4)
    expected = processor(str(video_file), return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(processor(video, return_tensors="pt")["pixel_values_videos"], expected)
    both = processor([video, str(video_file)], return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(both, expected.repeat(2, 1, 1, 1, 1))


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, bool])
@pytest.mark.parametrize("is_tensor", [False, True])
def test_frames_of_each_kind_become_the_same_levels(dtype, is_tensor):
    levels = np.random.default_rng(0).integers(0, 2, (4, 8, 8, 3), dtype=np.uint8) * 255
    video = (levels * np.float64({np.float32: 1 / 255, np.uint16: 257, bool: 1}[dtype])).astype(dtype)
    expected = VilaUVideoProcessor(size=SIZE)(levels, return_tensors="pt")["pixel_values_videos"]
    given = torch.from_numpy(video).permute(0, 3, 1, 2) if is_tensor else video
    for form in (given, [given], list(given), given[None]):
        pixels = VilaUVideoProcessor(size=SIZE)(form, return_tensors="pt")["pixel_values_videos"]
        assert torch.equal(pixels, expected)


def test_rejects_videos_without_frames_and_with_values_that_are_no_pixels():
    processor = VilaUVideoProcessor(size=SIZE)
    for video in ([], [[]], np.zeros((0, 8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.float32)):
        with pytest.raises(ValueError, match="A video must have at least one frame"):
            processor(video)
    for value in (np.nan, np.inf, 255.0, -1.0):
        with pytest.raises(ValueError, match="got float32 from"):
            processor(np.full((2, 8, 8, 3), value, np.float32))
    with pytest.raises(TypeError, match="A video must be a file name, a URL, bytes.* got int"):
        processor(3)
    with pytest.raises(ValueError, match="must have the same size"):
        processor([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)])


def test_repeats_frames_of_short_videos_on_request(video_file):
    processor = VilaUVideoProcessor(size=SIZE, num_frames=30)
    with pytest.raises(ValueError, match="exceeds total_num_frames=12"):
        processor(str(video_file))
    pixels = processor(str(video_file), repeat_frames=True, return_tensors="pt")["pixel_values_videos"][0]
    every = processor(str(video_file), do_sample_frames=False, return_tensors="pt")["pixel_values_videos"][0]
    assert torch.equal(pixels, every[torch.arange(30) * 12 // 30])
    assert torch.equal(
        every[[0]], processor(str(video_file), num_frames=1, return_tensors="pt")["pixel_values_videos"][0]
    )


def test_repeats_frames_where_more_are_wanted_by_their_rate(video_file):
    processor = VilaUVideoProcessor(size=SIZE)
    every = processor(str(video_file), do_sample_frames=False, return_tensors="pt")["pixel_values_videos"][0]
    rate = processor.fetch_videos(str(video_file))[1].fps
    with pytest.raises(ValueError, match="exceeds total_num_frames=12"):
        processor(str(video_file), fps=2 * rate)
    pixels = processor(str(video_file), fps=2 * rate, repeat_frames=True, return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(pixels[0], every.repeat_interleave(2, 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 0}, "`num_frames` must be an integer of at least 1, got 0"),
        ({"num_frames": -3}, "`num_frames` must be an integer of at least 1, got -3"),
        ({"num_frames": 2.5}, "`num_frames` must be an integer of at least 1, got 2.5"),
        ({"num_frames": True}, "`num_frames` must be an integer of at least 1, got True"),
        ({"fps": 0}, "`fps` must be a positive number, got 0"),
        ({"fps": -1.5}, "`fps` must be a positive number, got -1.5"),
        ({"fps": float("nan")}, "`fps` must be a positive number, got nan"),
        ({"size": {"height": 99, "width": 99}, "max_image_pixels": 999}, "`size` must have at most .* got 99 x 99"),
        ({"do_rescale": False}, "`do_rescale` must be True to normalise pixels of 8 or 16 bits"),
    ],
)
def test_rejects_settings_before_a_video_is_opened(frames, settings, message):
    processor = VilaUVideoProcessor(size=SIZE)
    for video in (frames, "missing.mp4") if "do_rescale" not in settings else [frames]:
        with pytest.raises(ValueError, match=message):
            processor(video, do_sample_frames=True, **settings)


def test_rejects_a_rate_of_frames_for_a_video_without_one():
    metadata = VideoMetadata(total_num_frames=4, fps=0.0)
    with pytest.raises(ValueError, match="sampling by `fps` needs a video with a frame rate"):
        VilaUVideoProcessor(size=SIZE).sample_frames(metadata, fps=2)
