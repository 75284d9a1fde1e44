"""Opens the images and videos of records as late as possible, and handles those that cannot be opened."""

import io
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import PIL.Image
import torch
from datasets import Dataset
from transformers.utils import logging

from ..processing.image_functions_vilau import reading_settings
from ..processing.input_checks_vilau import check_sampling
from ..processing.media_bytes_vilau import MediaBytes
from ..processing.pixel_rules_vilau import (
    MAX_ASPECT_RATIO,
    MAX_IMAGE_PIXELS,
    check_image,
    check_size,
    check_video,
    turn_upright,
)
from .media_paths import find_local_file
from .records import MEDIA_FIELDS


if TYPE_CHECKING:
    from ..processing import VilaUImageProcessor, VilaUImageProcessorPil, VilaUProcessor
    from .packing import PackedDataset


logger = logging.get_logger(__name__)


class MediaError(ValueError):
    """An image or a video of a record cannot be opened."""


class NoMediaLeftError(MediaError):
    """All records of a batch were skipped."""


class MediaLoader:
    r"""
    Opens the media of records.

    Images become PIL images. Video files become arrays of sampled frames `(F, height, width, 3)`. Media that are open
    already, and `codes`, stay as they are. [`RecordStream`] uses a loader for streams. A dataset with random access
    takes it as a transform:

    ```python
    dataset = dataset.with_transform(MediaLoader(processor))
    ```

    Args:
        processor ([`VilaUProcessor`], *optional*): its video processor defines how many frames are sampled from a
            video file. Without it, records must not have videos.
        on_bad_media (`str`, *optional*, defaults to `"error"`): what happens to a record with an image or a video that
            cannot be opened. `"error"` raises an error that names the record. `"skip"` leaves the record out, logs it
            and counts it (`num_skipped`, in the process that opens it). With `"skip"`, wrap a dataset with random
            access in [`ReadableRows`] for training, because a batch may be left without records.
        media_roots (`Sequence[str]`, *optional*): folders that may hold media files. Without it, all local files are
            accepted. URLs, FIFOs and devices are never opened.
        on_short_video (`str`, *optional*, defaults to `"repeat"`): what happens to a video file with fewer frames than
            are sampled. `"repeat"` repeats its frames, and counts the video in the field `repeated_videos` of its
            record. `"error"` treats it as a video that cannot be opened.
        image_processor ([`VilaUImageProcessor`], *optional*): defines the limits of image files, and whether images
            are turned by their EXIF data. By default that of `processor`.
    """

    def __init__(
        self,
        processor: "VilaUProcessor | None" = None,
        on_bad_media: str = "error",
        media_roots: Sequence[str | os.PathLike] | None = None,
        on_short_video: str = "repeat",
        image_processor: "VilaUImageProcessor | VilaUImageProcessorPil | None" = None,
    ) -> None:
        if on_bad_media not in ("error", "skip"):
            raise ValueError(f"`on_bad_media` must be 'error' or 'skip', got {on_bad_media!r}.")
        if on_short_video not in ("repeat", "error"):
            raise ValueError(f"`on_short_video` must be 'repeat' or 'error', got {on_short_video!r}.")
        self.on_short_video = on_short_video
        if image_processor is None and processor is not None:
            image_processor = processor.image_processor
        self.image_settings = reading_settings(image_processor, {})
        self.video_processor = None if processor is None else processor.video_processor
        if self.video_processor is not None:
            check_sampling(self.video_processor.num_frames, self.video_processor.fps)
        self.frame_limits = reading_settings(self.video_processor, {})
        del self.frame_limits["do_exif_transpose"]
        self.on_bad_media = on_bad_media
        self.media_roots = media_roots
        self.num_skipped = 0

    def load(self, record: Mapping[str, Any]) -> dict | None:
        """
        Opens the media of one record.

        Args:
            record (`Mapping`): a record, as [`validate_record`] accepts it.

        Returns:
            The record with its images and videos open, or `None` if it is skipped. A record with the field `videos`
            also has `repeated_videos`, the number of videos whose frames were repeated.

        Raises:
            MediaError: with `on_bad_media="error"`, naming the record, the image or video and the cause.
            ValueError: for videos without a `processor`.
        """
        if self.video_processor is None and record.get("videos"):
            raise ValueError(f"the record {record.get('id')!r} has videos: give `MediaLoader` a `processor`.")
        loaded = dict(record)
        repeated = 0
        for kind, name in MEDIA_FIELDS.items():
            opened = []
            for index, item in enumerate(record[name] or [] if name in record else []):
                try:
                    if kind == "image":
                        opened.append(open_image(item, self.media_roots, **self.image_settings))
                    else:
                        frames, is_repeated = self._open_video(item)
                        opened.append(frames)
                        repeated += is_repeated
                except ImportError:
                    # A missing decoder is a fault of the installation. It must not be skipped as a bad file.
                    raise
                except Exception as error:  # each decoder raises errors of other classes
                    message = (
                        f"Cannot open {name}[{index}] of record {record.get('id')!r} ({_describe(item)}): "
                        f"{type(error).__name__}: {str(error)[:300]}"
                    )
                    if self.on_bad_media == "error":
                        raise MediaError(message) from error
                    self.num_skipped += 1
                    logger.warning(f"{message} Skipped, {self.num_skipped} so far.")
                    return None
            if name in record:
                loaded[name] = opened
        if "videos" in record:
            loaded["repeated_videos"] = repeated
        return loaded

    def __call__(self, batch: Mapping[str, list]) -> dict[str, list]:
        """
        Opens the media of a batch and leaves out the records that are skipped.

        Args:
            batch (`Mapping[str, list]`): a list for each field of the records.

        Returns:
            A list for each field.

        Raises:
            MediaError: if [`load`] raises it.
            NoMediaLeftError: if all records of the batch are skipped.
        """
        size = len(next(iter(batch.values())))
        records = [self.load({name: values[row] for name, values in batch.items()}) for row in range(size)]
        kept = [record for record in records if record is not None]
        if size and not kept:
            raise NoMediaLeftError(f"None of the {size} records of a batch has media that can be opened.")
        return {name: [record[name] for record in kept] for name in kept[0]} if kept else dict(batch)

    def open_video(self, item: Any) -> Any:
        """Returns the sampled frames of a video file, or the given frames."""
        return self._open_video(item)[0]

    def _open_video(self, item: Any) -> tuple[Any, bool]:
        """Returns the frames of a video, and whether some of them were repeated."""
        if isinstance(item, (list, tuple)):
            return [open_image(frame, self.media_roots, **self.image_settings) for frame in item], False
        if hasattr(item, "shape"):
            check = check_video if item.ndim in (4, 5) else check_image
            check(item, **self.frame_limits)
            return item, False
        path, data = _path_and_bytes(item, self.media_roots)
        return self._sample_frames(path if data is None else MediaBytes(data))

    def _sample_frames(self, source: str | None) -> tuple[Any, bool]:
        processor = self.video_processor
        if processor is None:
            raise ValueError("`MediaLoader` needs a `processor` to open a video file.")
        sample = None
        if processor.do_sample_frames is not False:
            sample = partial(processor.sample_frames, repeat_frames=self.on_short_video == "repeat")
        frames, metadata = processor.fetch_videos(source, sample)
        return frames, len(frames) > metadata.total_num_frames


class ReadableRows(torch.utils.data.Dataset):
    r"""
    Replaces each row that cannot be opened by the next row that can.

    For a dataset whose [`MediaLoader`] skips records:

    ```python
    dataset = ReadableRows(dataset.with_transform(MediaLoader(processor, on_bad_media="skip")))
    ```

    Args:
        dataset (`datasets.Dataset` or [`PackedDataset`]): a dataset with a [`MediaLoader`] as the transform of its
            records.

    Raises:
        MediaError: if no row can be opened. It is raised when a row is read.
    """

    def __init__(self, dataset: "Dataset | PackedDataset") -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        size = len(self)
        # Iteration without `__iter__` ends at the first `IndexError`.
        if not 0 <= index < size:
            raise IndexError(f"`index` must be in [0, {size}), got {index}.")
        for step in range(size):
            try:
                return self.dataset[(index + step) % size]
            except NoMediaLeftError:
                continue
        raise MediaError(f"None of the {size} rows has media that can be opened.")


def open_image(
    item: Any,
    media_roots: Sequence[str | os.PathLike] | None = None,
    do_exif_transpose: bool | None = True,
    max_image_pixels: int | None = MAX_IMAGE_PIXELS,
    max_aspect_ratio: float | None = MAX_ASPECT_RATIO,
) -> Any:
    """
    Returns an image of a record as a PIL image. Arrays and open images stay, after a check of their pixels.

    Args:
        item (`Any`): a PIL image, an array, bytes, a file name, or a dictionary with `path` or `bytes`.
        media_roots (`Sequence[str]`, *optional*): folders that may hold the file (see [`find_local_file`]).
        do_exif_transpose (`bool`, *optional*, defaults to `True`): whether it is turned upright by its EXIF data.
        max_image_pixels (`int`, *optional*, defaults to 178,956,970): largest number of pixels, `None` for no limit.
        max_aspect_ratio (`float`, *optional*, defaults to 10,000): largest ratio of the longer to the shorter side.

    Raises:
        ValueError: for an image that is empty or too large, or has values that are not pixels.
    """
    # Checked here and not only by the processor, so that the record can be named or skipped.
    limits: dict[str, Any] = {"max_image_pixels": max_image_pixels, "max_aspect_ratio": max_aspect_ratio}
    if hasattr(item, "shape") or hasattr(item, "convert"):
        check_image(item, **limits)
        return item
    path, data = _path_and_bytes(item, media_roots)
    source: Any = path if data is None else io.BytesIO(data)
    with PIL.Image.open(source) as image:
        check_size(*image.size, **limits)  # before the pixels are read
        image.load()
    check_image(image, **limits)
    return turn_upright(image) if do_exif_transpose else image


def _path_and_bytes(
    item: Any, media_roots: Sequence[str | os.PathLike] | None = None
) -> tuple[str | None, bytes | None]:
    """Returns path and bytes of a stored image or video. A path is that of a local file, so nothing is downloaded."""
    if isinstance(item, io.BytesIO):
        return None, item.getvalue()
    if isinstance(item, (bytes, bytearray)):
        return None, bytes(item)
    path: Any = item
    data = None
    if isinstance(item, Mapping):
        path = item.get("path")
        data = item.get("bytes")
    if data is None:
        return find_local_file(path, media_roots), None
    # The path of bytes tells a decoder their type. It is not opened.
    return path if isinstance(path, str) else None, data


def _describe(item: Any) -> str:
    """Returns a short description of an image or a video, for error messages."""
    if isinstance(item, Mapping):
        path = item.get("path")
        data = item.get("bytes")
        return repr(path) if data is None else f"{len(data)} bytes of {path!r}"
    if hasattr(item, "shape"):
        return f"{type(item).__name__} of shape {tuple(item.shape)}"
    return " ".join(repr(item).split())[:200]


__all__ = ["MediaError", "MediaLoader", "NoMediaLeftError", "ReadableRows", "open_image"]
