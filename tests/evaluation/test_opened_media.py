"""Files of images, animations and videos."""

import numpy as np
import pytest
from PIL import Image

from vilau_hf.evaluation.media_files import save_video
from vilau_hf.evaluation.opened_media import open_media


FRAMES = [Image.new("RGB", (16, 16), (20 * index, 0, 0)) for index in range(10)]


def reds(frames):
    return [int(np.array(frame)[0, 0, 0]) for frame in frames]


def test_opens_an_image(tmp_path):
    Image.new("RGBA", (5, 4), (1, 2, 3, 255)).save(tmp_path / "a.png")
    kind, (image,) = open_media(tmp_path / "a.png", 4)
    assert kind == "image" and image.mode == "RGB" and image.size == (5, 4)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_samples_the_frames_of_videos_uniformly(tmp_path, suffix):
    save_video(FRAMES, tmp_path / f"a{suffix}", suffix)
    kind, frames = open_media(tmp_path / f"a{suffix}", 4)
    assert kind == "video" and len(frames) == 4 and frames[0].mode == "RGB"
    expected = [20 * index for index in (0, 2, 5, 7)]  # those of `np.arange(0, 10, 10 / 4)`
    assert all(abs(a - b) <= 12 for a, b in zip(reds(frames), expected, strict=True))
    assert len(open_media(str(tmp_path / f"a{suffix}"), 50)[1]) == 10


@pytest.mark.parametrize(
    ("name", "content"), [("nowhere.png", None), ("a.png", b"no image"), ("nowhere.mp4", None), ("a.mp4", b"no video")]
)
def test_names_files_that_cannot_be_read(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot read") as error:
        open_media(tmp_path / name, 4)
    assert name in str(error.value)
