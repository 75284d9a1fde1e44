"""Images, grids and videos in the formats that scorers read."""

from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from vilau_hf.evaluation.media_files import IMAGE_FORMATS, VIDEO_SUFFIXES, image_grid, save_image, save_video


COLORS = ("red", "green", "blue", "white")


def frames(side=32):
    return [Image.new("RGB", (side, side), color) for color in COLORS]


def test_a_grid_has_the_images_row_by_row():
    grid = image_grid(frames(8), columns=2)
    assert grid.size == (16, 16)
    # the crops of `compute_dpg_one_sample` in DPG-Bench with `resolution` 8
    for corner, image in zip([(0, 0), (8, 0), (0, 8), (8, 8)], frames(8), strict=True):
        assert grid.crop((*corner, corner[0] + 8, corner[1] + 8)).tobytes() == image.tobytes()


@pytest.mark.parametrize("suffix", IMAGE_FORMATS)
def test_images_have_the_format_of_the_suffix(tmp_path, suffix):
    save_image(frames()[0], tmp_path / "unfinished", suffix)
    with Image.open(tmp_path / "unfinished") as image:
        assert (image.format, image.size) == (IMAGE_FORMATS[suffix], (32, 32))


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_videos_have_all_frames(tmp_path, suffix):
    save_video(frames(), tmp_path / "unfinished", suffix)
    if suffix != ".mp4":
        with Image.open(tmp_path / "unfinished") as image:
            assert (image.format, image.n_frames) == (suffix[1:].upper(), 4)
        return
    with av.open(str(tmp_path / "unfinished")) as container:
        assert container.streams.video[0].average_rate == 8
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == 4
    for image, frame in zip(frames(), decoded, strict=True):
        assert np.abs(np.asarray(image).astype(int) - frame).max() < 12  # of 255


def test_the_same_frames_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_video(frames(), tmp_path / name, ".mp4")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_bytes_of_a_video_do_not_depend_on_the_thread(tmp_path):
    random = np.random.default_rng(1)
    clip = []
    for index in range(4):
        image = Image.new("RGB", (32, 32), (10, 10, 10))
        ImageDraw.Draw(image).ellipse((14 - 3 * index, 8, 26 - 3 * index, 20), fill=(220, 40, 40))
        noisy = np.asarray(image).astype(int) + random.integers(-3, 4, (32, 32, 3))
        clip.append(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))

    def encode(number):
        save_video(clip, tmp_path / f"{number}", ".mp4")
        return (tmp_path / f"{number}").read_bytes()

    contents = {encode(0)}
    for number in range(1, 25):
        with ThreadPoolExecutor(1) as executor:
            contents.add(executor.submit(encode, number).result())
    assert len(contents) == 1
