# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Video processor of VILA-U."""

import os
import sys
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from transformers import VideosKwargs

from .compat_processing_vilau import (
    BaseVideoProcessor,
    VideoMetadata,
    default_sample_indices_fn,
    is_torchcodec_usable,
    load_video,
    make_batched_videos,
    requires_backends,
)
from .image_functions_vilau import ExactRescaling, fetch_pictures, prepare_picture


def _plain_videos(videos: Any) -> Any:
    """Path objects become strings and PIL frames become RGB; nesting is kept."""
    if isinstance(videos, (list, tuple)):
        return [_plain_videos(video) for video in videos]
    if isinstance(videos, os.PathLike):
        return os.fspath(videos)
    if isinstance(videos, Image.Image) and videos.mode != "RGB":
        return videos.convert("RGB")
    return videos


class VilaUVideoProcessor(ExactRescaling, BaseVideoProcessor):
    r"""
    Video processor of VILA-U: every frame is treated as an image. `do_sample_frames=None` (default) samples
    `num_frames` frames uniformly from a video file and takes frames that are given (PIL images, arrays, tensors, image
    files) as they are; `True` and `False` hold for all inputs.

    Example:

    ```python
    >>> import numpy as np
    >>> processor = VilaUVideoProcessor(size={"height": 32, "width": 32})
    >>> processor(np.zeros((4, 50, 40, 3), np.uint8), return_tensors="pt")["pixel_values_videos"].shape
    torch.Size([1, 4, 3, 32, 32])

    ```
    """

    resample = Resampling.BICUBIC
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    size = {"height": 256, "width": 256}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = None
    num_frames = 8

    def __init__(self, **kwargs: Unpack[VideosKwargs]):
        super().__init__(**kwargs)

    def preprocess(self, videos, **kwargs: Unpack[VideosKwargs]):
        """Maps one video or a (nested) list of videos to `pixel_values_videos` of shape `(V, F, 3, S, S)`."""
        requires_backends(self, ["torchvision"])
        videos = make_batched_videos(_plain_videos(videos))
        are_frames_files = any(isinstance(video, list) for video in videos)
        videos = [
            np.stack([np.asarray(frame) for frame in fetch_pictures(video)]) if isinstance(video, list) else video
            for video in videos
        ]
        is_file = [isinstance(video, str) for video in videos]
        if any(is_file) and not all(is_file):
            raise ValueError("`videos` must be either all files or all frames, got a mixture.")
        if kwargs.get("do_sample_frames") is None:
            kwargs["do_sample_frames"] = any(is_file) if self.do_sample_frames is None else self.do_sample_frames
        if are_frames_files and kwargs["do_sample_frames"]:
            raise ValueError(
                "Sampling frames from a list of images is not supported! Set `do_sample_frames=False` or leave it out."
            )
        if kwargs.get("fps") is not None:
            kwargs.setdefault("num_frames", None)
        return super().preprocess(videos, **kwargs)

    def sample_frames(
        self, metadata: VideoMetadata, num_frames: int | None = None, fps: float | None = None, **kwargs
    ) -> np.ndarray:
        """Indices of `num_frames` uniformly spaced frames, or of `fps` frames per second."""
        if fps is not None and num_frames is not None:
            raise ValueError(f"Only one of `num_frames` and `fps` can be given, got {num_frames} and {fps}.")
        if fps is None and num_frames is None:
            num_frames, fps = self.num_frames, self.fps
        return default_sample_indices_fn(metadata, num_frames=num_frames, fps=fps)

    def fetch_images(self, image_url_or_urls):
        """Opens file names and URLs of frames, see `fetch_pictures`."""
        return fetch_pictures(image_url_or_urls)

    def fetch_videos(self, video_url_or_urls, sample_indices_fn=None):
        """Decodes video files with torchcodec if it is usable, otherwise with PyAV."""
        if isinstance(video_url_or_urls, list):
            fetched = [self.fetch_videos(video, sample_indices_fn) for video in video_url_or_urls]
            return list(zip(*fetched, strict=True))
        backend = "torchcodec" if is_torchcodec_usable(decode="video") else "pyav"
        choose = sample_indices_fn or default_sample_indices_fn

        def choose_or_all(metadata, **kwargs):
            return choose(metadata=metadata, **kwargs) if metadata.total_num_frames else range(sys.maxsize)

        try:
            video, metadata = load_video(video_url_or_urls, backend=backend, sample_indices_fn=choose_or_all)
            if not metadata.total_num_frames:  # Matroska and WebM do not say how many they have: choose from all
                metadata.total_num_frames = len(video)
                metadata.frames_indices = choose(metadata=metadata)
                video = video[metadata.frames_indices]
            return video, metadata
        except ImportError:
            raise
        except Exception as error:  # every decoder has errors of its own
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"Cannot read the video {video_url_or_urls!r}: {reason}") from error

    def resize(self, image: torch.Tensor, size, resample=None, **kwargs) -> torch.Tensor:
        """Resizes `image` of shape `(..., 3, H, W)`; 8-bit frames on the CPU in PIL, as the image processors do."""
        if image.dtype != torch.uint8 or image.device.type != "cpu" or image.shape[-3] != 3:
            return super().resize(image, size=size, resample=resample, **kwargs)
        frames = image.reshape(-1, *image.shape[-3:]).permute(0, 2, 3, 1).numpy()  # (V*F, H, W, 3)
        frames = [prepare_picture(Image.fromarray(frame), True, size, resample, False) for frame in frames]
        frames = torch.from_numpy(np.stack([np.asarray(frame) for frame in frames])).permute(0, 3, 1, 2)
        return frames.reshape(*image.shape[:-2], *frames.shape[-2:])


__all__ = ["VilaUVideoProcessor"]
