"""Images and videos of records are opened here, as late as possible, and what cannot be opened is dealt with."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Image
from transformers.utils import logging

from .records import MEDIA_FIELDS


logger = logging.get_logger(__name__)


class MediaError(ValueError):
    """An image or a video of a record that cannot be opened."""


class NoMediaLeftError(MediaError):
    """Records that were asked for at once and all of which are skipped."""


class MediaLoader:
    r"""
    Opens the media of records: images become PIL images, video files arrays of sampled frames `(F, H, W, 3)`; what is
    open already stays, and so do `codes`. A transform for map-style datasets of records, used by [`RecordStream`] for
    streams:

    ```python
    dataset = dataset.with_transform(MediaLoader(processor))
    ```

    Args:
        processor ([`VilaUProcessor`], *optional*): its video processor says how many frames are taken of a video file.
            Without, records must not have videos.
        on_bad_media (`str`, *optional*, defaults to `"error"`): `"error"` stops at a record with an image or a video
            that cannot be opened, and names the record; `"skip"` leaves the record out, logs and counts it
            (`num_skipped`, in the process that opens it). A map-style dataset to train on is then put into
            [`ReadableRows`], or a batch may be left without records.
    """

    def __init__(self, processor=None, on_bad_media: str = "error"):
        if on_bad_media not in ("error", "skip"):
            raise ValueError(f"`on_bad_media` must be 'error' or 'skip', got {on_bad_media!r}.")
        self.video_processor = None if processor is None else processor.video_processor
        self.on_bad_media = on_bad_media
        self.num_skipped = 0

    def load(self, record: Mapping) -> dict | None:
        """
        Opens the media of one record.

        Returns:
            The record with its images and videos, or `None` if it is skipped.

        Raises:
            MediaError: with `on_bad_media="error"`, naming the record, the image or video and the cause.
            ValueError: for videos without a `processor`.
        """
        if self.video_processor is None and record.get("videos"):
            raise ValueError(f"the record {record.get('id')!r} has videos: give `MediaLoader` a `processor`.")
        loaded = dict(record)
        for kind, name in MEDIA_FIELDS.items():
            opened = []
            for place, item in enumerate(record[name] or [] if name in record else []):
                try:
                    opened.append(open_image(item) if kind == "image" else self.open_video(item))
                except ImportError:
                    raise
                except Exception as error:  # every codec has errors of its own
                    message = (
                        f"Cannot open {name}[{place}] of record {record.get('id')!r} ({_name(item)}): "
                        f"{type(error).__name__}: {str(error)[:300]}"
                    )
                    if self.on_bad_media == "error":
                        raise MediaError(message) from error
                    self.num_skipped += 1
                    logger.warning(f"{message} Skipped, {self.num_skipped} so far.")
                    return None
            if name in record:
                loaded[name] = opened
        return loaded

    def __call__(self, batch: Mapping[str, list]) -> dict[str, list]:
        """
        Opens the media of a batch, a list for each field; skipped records are missing in what it gives.

        Raises:
            MediaError: as [`load`] does.
            NoMediaLeftError: if all records of the batch are skipped.
        """
        size = len(next(iter(batch.values())))
        records = [self.load({name: values[row] for name, values in batch.items()}) for row in range(size)]
        kept = [record for record in records if record is not None]
        if size and not kept:
            raise NoMediaLeftError(f"None of the {size} records of a batch has media that can be opened.")
        return {name: [record[name] for record in kept] for name in kept[0]} if kept else dict(batch)

    def open_video(self, item: Any) -> Any:
        """The sampled frames of a video file, or the frames that are given."""
        if isinstance(item, (list, tuple)):
            return [open_image(frame) for frame in item]
        if hasattr(item, "shape"):
            return item
        path, data = _path_and_bytes(item)
        if data is None:
            return self._sample(path)
        # decoders of the processor read files only
        with tempfile.NamedTemporaryFile(suffix=Path(path or "video.mp4").suffix) as file:
            file.write(data)
            file.flush()
            return self._sample(file.name)

    def _sample(self, path: str) -> Any:
        processor = self.video_processor
        frames, _ = processor.fetch_videos(
            path, None if processor.do_sample_frames is False else processor.sample_frames
        )
        return frames


class ReadableRows(torch.utils.data.Dataset):
    r"""
    The rows of a dataset that skips records; in place of one of which nothing can be opened, the next that can:

    ```python
    dataset = ReadableRows(dataset.with_transform(MediaLoader(processor, on_bad_media="skip")))
    ```

    Args:
        dataset (`datasets.Dataset` or [`PackedDataset`]): with a [`MediaLoader`] as the transform of its records.

    Raises:
        MediaError: if no row is left, when one is read.
    """

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        size = len(self)
        if not 0 <= index < size:
            raise IndexError(f"`index` must be in [0, {size}), got {index}.")
        for step in range(size):
            try:
                return self.dataset[(index + step) % size]
            except NoMediaLeftError:
                continue
        raise MediaError(f"None of the {size} rows has media that can be opened.")


def open_image(item: Any) -> Any:
    """An image of a record as a PIL image, turned as its file says; arrays and open images stay."""
    if hasattr(item, "shape") or hasattr(item, "convert"):
        return item
    path, data = _path_and_bytes(item)
    return Image().decode_example({"path": path, "bytes": data})


def _path_and_bytes(item: Any) -> tuple[str | None, bytes | None]:
    """Where a stored image or video is; a URL is refused, training downloads nothing."""
    if isinstance(item, (bytes, bytearray)):
        return None, bytes(item)
    path, data = (item.get("path"), item.get("bytes")) if isinstance(item, Mapping) else (os.fspath(item), None)
    if data is None and path is not None and path.startswith(("http://", "https://")):
        raise ValueError("it is a URL, download it first (for lists of URLs there is img2dataset).")
    return path, data


def _name(item: Any) -> str:
    if isinstance(item, Mapping):
        path, data = item.get("path"), item.get("bytes")
        return repr(path) if data is None else f"{len(data)} bytes of {path!r}"
    return repr(item)[:200]


__all__ = ["MediaError", "MediaLoader", "NoMediaLeftError", "ReadableRows", "open_image"]
