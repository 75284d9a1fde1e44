# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Decodes videos with PyAV: from files, bytes and URLs, turned as their display matrix says."""

import importlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .compat_processing_vilau import VideoMetadata
from .media_bytes_vilau import MediaBytes, bytes_of_data_url, download, is_web_address
from .pixel_rules_vilau import check_size


def decode_video(
    source: str, sample_indices_fn: Callable[..., Any] | None = None, **limits: Any
) -> tuple[np.ndarray, VideoMetadata]:
    """
    Decodes the frames of a video.

    Args:
        source (`str`): file name, web address, `data:` URL or `MediaBytes`.
        sample_indices_fn (`Callable`, *optional*): returns the indices of the frames to keep, in ascending order, for
            the metadata of the video. By default all frames are kept.
        limits: arguments of `check_size` for the frames.

    Returns:
        Frames, uint8 of shape `(F, h, w, 3)`, and the metadata of the video.

    Raises:
        ValueError: if the video has no frames, or frames that are too large or of different sizes.
        ImportError: if PyAV is not installed.
    """
    # PyAV is optional. An import statement would make it a requirement of checkpoints with this file as custom code.
    av: Any = importlib.import_module("av")
    file = _open_source(source)
    with _open_container(av, file) as container:
        metadata = _metadata(container, limits)
    # Matroska and WebM do not store the number of frames.
    total = metadata.total_num_frames
    if not total and sample_indices_fn is not None:
        total = sum(1 for _ in _frames(av, file))
    frames, total = _selected_frames(av, file, metadata, total, sample_indices_fn, limits)
    if sample_indices_fn is not None and total < metadata.total_num_frames:
        # The file ends before the number of frames that it states. The frames that it has are sampled.
        frames, total = _selected_frames(av, file, metadata, total, sample_indices_fn, limits)
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"its frames have different sizes, {sorted({frame.shape[:2] for frame in frames})}.")
    video = np.stack(frames)
    metadata.height, metadata.width = video.shape[1:3]
    return video, metadata


def _open_source(source: str) -> str | io.BytesIO:
    """Returns the name of a local file, or the bytes of another source."""
    if isinstance(source, MediaBytes):
        return io.BytesIO(source.data)
    if is_web_address(source):
        return io.BytesIO(download(source))
    if source.startswith("data:"):
        return io.BytesIO(bytes_of_data_url(source))
    if not os.path.isfile(source):
        raise FileNotFoundError("there is no such file. A video can also be a URL (`http://`, `https://`, `data:`).")
    return source


def _open_container(av: Any, file: str | io.BytesIO) -> Any:
    """Opens a file or bytes with PyAV."""
    if isinstance(file, str):
        # With this list, a playlist cannot name web addresses. The prefix keeps FFmpeg from reading a name as a URL.
        return av.open(f"file:{file}", options={"protocol_whitelist": "file"})
    file.seek(0)
    # "none" is no protocol: bytes cannot name further files.
    return av.open(file, options={"protocol_whitelist": "none"})


def _metadata(container: Any, limits: dict[str, Any]) -> VideoMetadata:
    """Returns the metadata of an open container, with 0 frames if it does not state their number."""
    if not container.streams.video:
        raise ValueError("it has no video stream.")
    stream = container.streams.video[0]
    check_size(stream.width, stream.height, **limits)
    rate = stream.average_rate
    return VideoMetadata(
        total_num_frames=int(stream.frames),
        fps=float(rate or 0),
        duration=float(stream.frames / rate if rate else 0),
        video_backend="pyav",
        height=stream.height,
        width=stream.width,
    )


def _frames(av: Any, file: str | io.BytesIO) -> Iterator[Any]:
    """Yields the frames of a video as PyAV gives them."""
    with _open_container(av, file) as container:
        yield from container.decode(video=0)


def _selected_frames(
    av: Any,
    file: str | io.BytesIO,
    metadata: VideoMetadata,
    total: int,
    sample_indices_fn: Callable[..., Any] | None,
    limits: dict[str, Any],
) -> tuple[list[np.ndarray], int]:
    """
    Decodes the sampled frames, and sets the number of frames and the indices in `metadata`.

    Returns:
        The frames `(h, w, 3)`, one for each index, and the number of frames of the video. If a frame is missing, the
        frames that were found and their number.
    """
    metadata.total_num_frames = total
    indices = None if sample_indices_fn is None else [int(index) for index in sample_indices_fn(metadata=metadata)]
    found: dict[int, np.ndarray] = {}
    wanted = None if indices is None else set(indices)
    count = 0
    for count, frame in enumerate(_frames(av, file), start=1):
        if wanted is None or count - 1 in wanted:
            check_size(frame.width, frame.height, **limits)
            found[count - 1] = _turn(_rgb_values(av, frame), _display_matrix(frame))
        if wanted is not None and len(found) == len(wanted):
            break
    if not count:
        raise ValueError("it has no frames.")
    if wanted is not None and len(found) < len(wanted):
        return list(found.values()), count
    if indices is None:
        indices = list(found)
        metadata.total_num_frames = count
    metadata.frames_indices = indices
    return [found[index] for index in indices], metadata.total_num_frames


def _rgb_values(av: Any, frame: Any) -> np.ndarray:
    """Returns the pixels `(h, w, 3)` of a frame of PyAV, uint8."""
    # Since version 17, PyAV starts threads for the conversion. A frame may outlive this call, for example in the
    # traceback of an error. If a forked process frees it, FFmpeg waits for ever for threads that only its parent has.
    has_threads = int(av.__version__.partition(".")[0]) >= 17
    return frame.to_ndarray(format="rgb24", **({"threads": 1} if has_threads else {}))


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    """Returns the four numbers `(a, b, c, d)` of the display matrix of a frame, or `None` if it has none."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    values = struct.unpack("=9i", bytes(data))
    return values[0], values[1], values[3], values[4]


def _turn(pixels: np.ndarray, matrix: tuple[int, ...] | None) -> np.ndarray:
    """Turns and mirrors a frame `(h, w, 3)` by quarter turns, the nearest to its display matrix."""
    if matrix is None:
        return pixels
    # A pixel (x, y) is shown at (a * x + c * y, b * x + d * y).
    a, b, c, d = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return pixels.swapaxes(0, 1)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]


__all__ = ["decode_video"]
