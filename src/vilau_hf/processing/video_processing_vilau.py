# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Video processor of VILA-U."""

import os
import sys
from collections.abc import Callable
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, VideosKwargs

from .compat_processing_vilau import (
    BaseVideoProcessor,
    SizeDict,
    VideoMetadata,
    default_sample_indices_fn,
    is_torchcodec_usable,
    load_video,
    make_batched_videos,
    requires_backends,
)
from .image_functions_vilau import ExactRescaling, PixelSettings, open_images, prepare_image


def _normalize_video_types(videos: Any) -> Any:
    """Converts path objects to strings and PIL frames to RGB, in the same nested lists."""
    if isinstance(videos, (list, tuple)):
        return [_normalize_video_types(video) for video in videos]
    if isinstance(videos, os.PathLike):
        return os.fspath(videos)
    if isinstance(videos, Image.Image) and videos.mode != "RGB":
        return videos.convert("RGB")
    return videos


class VilaUVideoProcessor(PixelSettings, ExactRescaling, BaseVideoProcessor):
    r"""
    Video processor of VILA-U: processes each frame like an image.

    `do_sample_frames=None` (default) samples `num_frames` frames uniformly from a video file and keeps all frames that
    are given as PIL images, arrays, tensors or image files. `True` and `False` apply to all inputs.

    Example:
    ```python
    >>> import numpy as np
    >>> processor = VilaUVideoProcessor(size={"height": 32, "width": 32})
    >>> processor(np.zeros((4, 50, 40, 3), np.uint8), return_tensors="pt")["pixel_values_videos"].shape
    torch.Size([1, 4, 3, 32, 32])

    ```
    """

    do_sample_frames = None
    num_frames = 8
    fps: float | None  # the base class sets it from its arguments

    def __init__(self, **kwargs: Unpack[VideosKwargs]) -> None:
        super().__init__(**kwargs)

    def preprocess(self, videos: Any, **kwargs: Unpack[VideosKwargs]) -> BatchFeature:
        """
        Converts one video or (nested) lists of videos to pixels.

        Args:
            videos (`str`, `os.PathLike`, `np.ndarray`, `torch.Tensor`, `list[PIL.Image.Image]` or lists of them):
                video files, or frames. A batch has either files or frames.
            kwargs (`VideosKwargs`): settings that replace those of the processor in this call.

        Returns:
            `BatchFeature` with `pixel_values_videos` of shape `(V, F, 3, S, S)`.

        Raises:
            ValueError: for a mixture of files and frames, or if frames of image files are to be sampled.
        """
        requires_backends(self, ["torchvision"])
        videos = make_batched_videos(_normalize_video_types(videos))
        has_frame_files = any(isinstance(video, list) for video in videos)
        videos = [
            np.stack([np.asarray(frame) for frame in open_images(video)]) if isinstance(video, list) else video
            for video in videos
        ]
        is_file = [isinstance(video, str) for video in videos]
        if any(is_file) and not all(is_file):
            raise ValueError("`videos` must be either all files or all frames, got a mixture.")
        if kwargs.get("do_sample_frames") is None:
            kwargs["do_sample_frames"] = any(is_file) if self.do_sample_frames is None else self.do_sample_frames
        # The wording of the base class, whose check cannot find file names any more: they were opened above.
        if has_frame_files and kwargs["do_sample_frames"]:
            raise ValueError(
                "Sampling frames from a list of images is not supported! Set `do_sample_frames=False` or leave it out."
            )
        # Otherwise the base class adds the default of `num_frames`, and `sample_frames` refuses both together.
        if kwargs.get("fps") is not None:
            kwargs.setdefault("num_frames", None)
        return super().preprocess(videos, **kwargs)

    def sample_frames(
        self, metadata: VideoMetadata, num_frames: int | None = None, fps: float | None = None, **kwargs: Any
    ) -> np.ndarray:
        """Returns the indices of `num_frames` uniformly spaced frames, or of `fps` frames per second."""
        if fps is not None and num_frames is not None:
            raise ValueError(f"Only one of `num_frames` and `fps` can be given, got {num_frames} and {fps}.")
        if fps is None and num_frames is None:
            num_frames = self.num_frames
            fps = self.fps
        return default_sample_indices_fn(metadata, num_frames=num_frames, fps=fps)

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Opens file names and URLs of frames like `open_images`."""
        return open_images(image_url_or_urls)

    def fetch_videos(self, video_url_or_urls: Any, sample_indices_fn: Callable[..., Any] | None = None) -> Any:
        """
        Decodes video files with torchcodec if it is usable, otherwise with PyAV.

        Args:
            video_url_or_urls (`str` or nested lists of them): file names or URLs.
            sample_indices_fn (`Callable`, *optional*): returns the indices of the frames to keep for the metadata of a
                video. By default all frames are kept.

        Returns:
            Frames and metadata of one video. For a list of videos, the list of all frames and of all metadata.

        Raises:
            ValueError: if a video cannot be read. The message has its name and the reason.
        """
        if isinstance(video_url_or_urls, list):
            fetched = [self.fetch_videos(video, sample_indices_fn) for video in video_url_or_urls]
            return list(zip(*fetched, strict=True))
        backend = "torchcodec" if is_torchcodec_usable(decode="video") else "pyav"
        sample_indices = sample_indices_fn or default_sample_indices_fn

        def sample_indices_or_all(metadata: VideoMetadata, **kwargs: Any) -> np.ndarray | range:
            # Matroska and WebM do not store their number of frames, and 0 is reported. Then all frames are decoded.
            return sample_indices(metadata=metadata, **kwargs) if metadata.total_num_frames else range(sys.maxsize)

        try:
            video, metadata = load_video(video_url_or_urls, backend=backend, sample_indices_fn=sample_indices_or_all)
            if not metadata.total_num_frames:
                metadata.total_num_frames = len(video)
                metadata.frames_indices = sample_indices(metadata=metadata)
                video = video[metadata.frames_indices]
            return video, metadata
        except ImportError:
            raise
        except Exception as error:  # each decoder raises other types of errors
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"Cannot read the video {video_url_or_urls!r}: {reason}") from error

    def resize(  # type: ignore[override]  # `antialias` is in `kwargs`
        self, image: torch.Tensor, size: SizeDict, resample: int | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Resizes `image` of shape `(..., 3, h, w)` in pixels. PIL resizes 8-bit frames on the CPU."""
        # The base method resizes with torchvision. Frames must get the pixels that the image processors give.
        if image.dtype != torch.uint8 or image.device.type != "cpu" or image.shape[-3] != 3:
            return super().resize(image, size=size, resample=resample, **kwargs)
        arrays = image.reshape(-1, *image.shape[-3:]).permute(0, 2, 3, 1).numpy()  # (V*F, h, w, 3)
        frames = [
            prepare_image(Image.fromarray(array), do_resize=True, size=size, resample=resample, do_convert_rgb=False)
            for array in arrays
        ]
        resized = torch.from_numpy(np.stack([np.asarray(frame) for frame in frames])).permute(0, 3, 1, 2)
        return resized.reshape(*image.shape[:-2], *resized.shape[-2:])


__all__ = ["VilaUVideoProcessor"]
