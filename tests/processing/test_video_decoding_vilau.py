"""Decoding of video files: display matrix, damaged and hostile files."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from vilau_hf.processing import video_decoding_vilau
from vilau_hf.processing.video_processing_vilau import VilaUVideoProcessor


SIZE = {"height": 8, "width": 8}


def mark_matrix(path, matrix):
    """Replaces the display matrix in the track header of an mp4 file, which says how frames are turned."""
    data = path.read_bytes()
    begin = data.index(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    path.write_bytes(data[:begin] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[begin + 36 :])


MATRICES = {
    "upright": (1, 0, 0, 1),
    "quarter": (0, 1, -1, 0),
    "half": (-1, 0, 0, -1),
    "three quarters": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_video_follows_its_display_matrix(tmp_path, name):
    av = pytest.importorskip("av")
    path = tmp_path / "phone.mp4"
    shown = np.zeros((32, 16, 3) if name in ("quarter", "three quarters", "transposed", "transverse") else (16, 32, 3))
    shown[:8, :8] = 255  # top left
    turns = {
        "upright": lambda x: x,
        "quarter": lambda x: np.rot90(x, 1),
        "half": lambda x: np.rot90(x, 2),
        "three quarters": lambda x: np.rot90(x, 3),
        "mirrored": lambda x: x[:, ::-1],
        "upside down": lambda x: x[::-1],
        "transposed": lambda x: x.swapaxes(0, 1),
        "transverse": lambda x: np.rot90(x, 2).swapaxes(0, 1),
    }
    stored = np.ascontiguousarray(turns[name](shown)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode())
    mark_matrix(path, MATRICES[name])
    frames, metadata = VilaUVideoProcessor().fetch_videos(str(path))
    assert frames.shape == (4, *shown.shape) and (metadata.height, metadata.width) == shown.shape[:2]
    assert np.abs(frames[0].astype(float) - shown).mean() < 10


def test_a_file_that_ends_too_early_gives_the_frames_that_it_has(video_file, monkeypatch):
    processor = VilaUVideoProcessor(size=SIZE, num_frames=4)
    expected = processor(str(video_file), return_tensors="pt")["pixel_values_videos"]
    of_file = video_decoding_vilau._metadata

    def with_more_frames(container, limits):
        metadata = of_file(container, limits)
        metadata.total_num_frames = 40
        return metadata

    monkeypatch.setattr(video_decoding_vilau, "_metadata", with_more_frames)
    assert torch.equal(processor(str(video_file), return_tensors="pt")["pixel_values_videos"], expected)


def test_rejects_files_without_video_and_frames_that_are_too_large(tmp_path, video_file):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ValueError, match="sound.wav.*it has no video stream"):
        VilaUVideoProcessor()(str(tmp_path / "sound.wav"))
    with pytest.raises(ValueError, match=r"grey.*`max_image_pixels` \(100\) pixels, got 32 x 32"):
        VilaUVideoProcessor(size=SIZE, max_image_pixels=100)(str(video_file))


def test_a_playlist_cannot_name_other_files(tmp_path, video_file):
    playlist = f"ffconcat version 1.0\nfile {video_file.name}\n"
    with pytest.raises(ValueError, match="Cannot read the video"):
        VilaUVideoProcessor(size=SIZE)(playlist.encode())
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(ValueError, match="Cannot read the video"):
        VilaUVideoProcessor(size=SIZE)(str(tmp_path / "list.m3u8"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_the_pixels_of_a_frame_need_no_threads():
    """A forked process that frees a frame with threads of its parent would wait for ever."""
    av = pytest.importorskip("av")
    frame = av.VideoFrame(256, 256, "yuv420p")
    before = len(list(Path("/proc/self/task").iterdir()))
    values = video_decoding_vilau._rgb_values(av, frame)
    assert len(list(Path("/proc/self/task").iterdir())) == before
    assert values.shape == (256, 256, 3) and np.array_equal(values, frame.to_ndarray(format="rgb24"))
