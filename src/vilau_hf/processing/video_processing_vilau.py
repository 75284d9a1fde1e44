# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Video processor of VILA-U."""

import importlib.util
import os
from collections.abc import Callable
from typing import Any, Unpack, cast

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
from .image_functions_vilau import (
    ExactRescaling,
    PixelSettings,
    ReadingSettings,
    is_float,
    open_images,
    prepare_image,
    reading_settings,
)
from .input_checks_vilau import (
    check_image_settings,
    check_rescaling,
    check_sampling,
    check_shortest_edge,
    check_video_lists,
    readable_errors,
)
from .media_bytes_vilau import MediaBytes, to_media_bytes
from .pixel_rules_vilau import (
    check_image,
    check_video,
    repeat_grey_channel,
    to_levels,
    to_rgb,
)
from .video_decoding_vilau import decode_video


class VilaUVideoProcessorKwargs(VideosKwargs, total=False):
    r"""
    Settings of the video processor that `VideosKwargs` does not have.

    repeat_frames (`bool`, *optional*, defaults to `False`):
        Whether frames are repeated if a video has fewer frames than `num_frames`. Otherwise it is an error.
    do_exif_transpose (`bool`, *optional*, defaults to `True`):
        Whether frames that are images are turned upright by their EXIF data. Video files always follow their display
        matrix.
    max_image_pixels (`int`, *optional*, defaults to 178,956,970):
        Largest number of pixels of a frame. `None` for no limit.
    max_aspect_ratio (`float`, *optional*, defaults to 10,000):
        Largest ratio of the longer to the shorter side of a frame. `None` for no limit.
    """

    repeat_frames: bool | None
    do_exif_transpose: bool | None
    max_image_pixels: int | None
    max_aspect_ratio: float | int | None


def _check_and_normalize(videos: Any, settings: dict[str, Any], is_rescaled: bool) -> Any:
    """
    Checks frames and converts them to 8-bit RGB images or arrays, in the same nested lists.

    Args:
        videos (`Any`): videos as [`VilaUVideoProcessor`] takes them.
        settings (`dict`): arguments of `open_images`.
        is_rescaled (`bool`): whether pixels are rescaled later. Otherwise floats keep their values.

    Returns:
        Names of files and `MediaBytes` as strings, and everything else as frames.
    """
    limits = {name: value for name, value in settings.items() if name != "do_exif_transpose"}
    videos = to_media_bytes(videos)
    if isinstance(videos, (list, tuple)):
        # Lists by prompt are empty for prompts without videos.
        videos = [video for video in videos if not (isinstance(video, (list, tuple)) and not video)]
        if not videos:
            raise ValueError("A video must have at least one frame, and a batch one video. Got an empty list.")
        checked = [_check_and_normalize(video, settings, is_rescaled) for video in videos]
        are_frames = all(isinstance(item, Image.Image) or getattr(item, "ndim", 0) == 3 for item in checked)
        return _stack_frames(checked) if are_frames else checked
    if isinstance(videos, (str, os.PathLike)):
        return os.fspath(videos)
    if isinstance(videos, Image.Image):
        return to_rgb(videos, **settings)
    if not isinstance(videos, (np.ndarray, torch.Tensor)):
        raise TypeError(
            "A video must be a file name, a URL, bytes, an array, a tensor or a list of images, got "
            f"{type(videos).__name__}."
        )
    if videos.ndim in (4, 5):
        check_video(videos, **limits)
    else:
        check_image(videos, **limits)
        videos = videos[None] if videos.ndim == 2 else videos
    return repeat_grey_channel(to_levels(videos) if is_rescaled or not is_float(videos) else videos)


def _stack_frames(frames: list) -> np.ndarray | torch.Tensor:
    """Stacks the open images of a video to an array of frames, tensors to a tensor."""
    are_tensors = all(isinstance(frame, torch.Tensor) for frame in frames)
    arrays: list[Any] = frames if are_tensors else [np.asarray(frame) for frame in frames]
    shapes = sorted({tuple(array.shape) for array in arrays})
    if len(shapes) > 1:
        raise ValueError(f"The frames of a video must have the same size, got the shapes {shapes}.")
    return torch.stack(arrays) if are_tensors else np.stack(arrays)


class VilaUVideoProcessor(PixelSettings, ReadingSettings, ExactRescaling, BaseVideoProcessor):
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

    valid_kwargs = VilaUVideoProcessorKwargs  # type: ignore[assignment]  # declared as `ImagesKwargs` by mistake
    do_sample_frames = None
    repeat_frames = False
    num_frames = 8
    fps: float | None  # the base class sets it from its arguments

    def __init__(self, **kwargs: Unpack[VilaUVideoProcessorKwargs]) -> None:
        super().__init__(**cast(VideosKwargs, kwargs))

    def preprocess(self, videos: Any, **kwargs: Unpack[VilaUVideoProcessorKwargs]) -> BatchFeature:
        """
        Converts one video or (nested) lists of videos to pixels.

        Args:
            videos (`str`, `os.PathLike`, `bytes`, `io.BytesIO`, `np.ndarray`, `torch.Tensor` or lists of them):
                video files by name, URL (also `data:`) or content, or frames, which can be a list of PIL images. A
                batch has either files or frames.
            kwargs (`VilaUVideoProcessorKwargs`): settings that replace those of the processor in this call.

        Returns:
            `BatchFeature` with `pixel_values_videos` of shape `(V, F, 3, S, S)`.

        Raises:
            ValueError: for a mixture of files and frames, or if frames of image files are to be sampled. Also for
                frames that are empty, too large or no pixels.
            TypeError: for an object that is no video.
        """
        requires_backends(self, ["torchvision"])
        settings = reading_settings(self, kwargs)  # type: ignore[arg-type]  # a TypedDict
        scaling = {
            name: getattr(self, name) if kwargs.get(name) is None else kwargs.get(name)
            for name in ("do_rescale", "do_normalize", "image_mean")
        }
        is_rescaled = bool(scaling["do_rescale"])
        check_video_lists(videos)
        check_image_settings(kwargs, self, settings["max_image_pixels"])
        check_sampling(kwargs.get("num_frames"), kwargs.get("fps"))
        videos = make_batched_videos(_check_and_normalize(videos, settings, is_rescaled))
        has_frame_files = any(isinstance(video, list) for video in videos)
        videos = [
            _stack_frames(open_images(video, **settings)) if isinstance(video, list) else video for video in videos
        ]
        is_file = [isinstance(video, str) for video in videos]
        if not all(not each and is_float(video) for video, each in zip(videos, is_file, strict=True)):
            check_rescaling(scaling)
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
        with readable_errors():
            return super().preprocess(videos, **kwargs)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        repeat_frames: bool | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Returns the indices of `num_frames` uniformly spaced frames, or of `fps` frames per second."""
        if fps is not None and num_frames is not None:
            raise ValueError(f"Only one of `num_frames` and `fps` can be given, got {num_frames} and {fps}.")
        if fps is None and num_frames is None:
            num_frames = self.num_frames
            fps = self.fps
        check_sampling(num_frames, fps)
        if fps is not None and metadata.fps == 0:
            raise ValueError("sampling by `fps` needs a video with a frame rate, and this one has none.")
        total = metadata.total_num_frames
        repeats = self.repeat_frames if repeat_frames is None else repeat_frames
        # the number of frames by `fps` is that of `default_sample_indices_fn`
        wanted = int(total / metadata.fps * fps) if fps is not None and metadata.fps else num_frames
        if repeats and wanted is not None and 0 < total < wanted:
            return np.arange(wanted) * total // wanted
        return default_sample_indices_fn(metadata, num_frames=num_frames, fps=fps)

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Opens frames from file names and URLs, like `open_images`."""
        return open_images(image_url_or_urls, **reading_settings(self, {}))

    def fetch_videos(self, video_url_or_urls: Any, sample_indices_fn: Callable[..., Any] | None = None) -> Any:
        """
        Decodes video files with PyAV, or with torchcodec if PyAV is not installed.

        Frames are turned as the display matrix of the video says, so that videos of phones are upright.

        Args:
            video_url_or_urls (`str`, `os.PathLike`, `bytes`, `io.BytesIO` or nested lists of them): file names, URLs,
                or the content of files.
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
        source = to_media_bytes(video_url_or_urls)
        source = os.fspath(source) if isinstance(source, os.PathLike) else source
        settings = reading_settings(self, {})
        del settings["do_exif_transpose"]
        try:
            if importlib.util.find_spec("av") is not None or isinstance(source, MediaBytes):
                return decode_video(source, sample_indices_fn, **settings)
            # torchcodec turns frames by itself from version 0.11 on (https://github.com/meta-pytorch/torchcodec/pull/1173)
            backend = "torchcodec" if is_torchcodec_usable(decode="video") else "pyav"
            return load_video(
                source, backend=backend, sample_indices_fn=sample_indices_fn or default_sample_indices_fn
            )
        except ImportError:
            raise
        except Exception as error:  # each decoder raises other types of errors
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"Cannot read the video {str(source)[:200]!r}: {reason}") from error

    def resize(  # type: ignore[override]  # `antialias` is in `kwargs`
        self, image: torch.Tensor, size: SizeDict, resample: int | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Resizes frames `image` `(..., 3, h, w)` to `size`, with PIL if they are uint8 and on the CPU."""
        # The base method resizes with torchvision. Frames must get the pixels that the image processors give.
        height, width = image.shape[-2:]
        check_shortest_edge(height, width, size, self.max_image_pixels)
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
