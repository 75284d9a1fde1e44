"""Prompts of lmms-eval as conversations of this package. Videos are decoded by this package."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ..processing import VilaUProcessor
from ..processing.pixel_rules_vilau import to_rgb


@dataclass
class Prompt:
    """
    Holds a conversation that the model continues.

    Args:
        messages (`list[dict]`): messages for the chat template.
        images (`list`): images of the messages, in their order: PIL images or names of files.
        videos (`list`): frames of the videos, each an array `(F, h, w, 3)`.
    """

    messages: list[dict]
    images: list[Any] = field(default_factory=list)
    videos: list[np.ndarray] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Returns the texts of all messages, joined by line breaks."""
        return "\n".join(part["text"] for message in self.messages for part in message["content"] if "text" in part)

    def images_only(self) -> "Prompt":
        """Returns the images of this prompt in one message without text, for guidance by the images."""
        return Prompt(user_turn([{"type": "image"} for _ in self.images]), self.images)


def user_turn(content: list[dict]) -> list[dict]:
    """Returns a conversation of one message by the user."""
    return [{"role": "user", "content": content}]


class PromptReader:
    """
    Converts what lmms-eval gives to prompts.

    Args:
        processor ([`VilaUProcessor`]): processor of the model, whose video processor decodes videos.
        num_frames (`int`): frames that are sampled from each video. A shorter video repeats frames.
    """

    def __init__(self, processor: VilaUProcessor, num_frames: int) -> None:
        self.video_processor = processor.video_processor
        self.num_frames = num_frames

    def from_messages(self, messages: Sequence[Mapping[str, Any]]) -> Prompt:
        """
        Converts the messages that tasks make for chat models.

        Args:
            messages (`Sequence[Mapping]`): messages with `role` and `content`. Media are
                `{"type": "image", "url": ...}` and `{"type": "video", "url": ...}`.

        Raises:
            ValueError: for content of another type.
        """
        prompt = Prompt([])
        for message in messages:
            content = message["content"]
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            parts = [self._add_part(prompt, part) for part in content]
            prompt.messages.append({"role": message["role"], "content": parts})
        return prompt

    def from_visuals(self, text: str, visuals: Sequence[Any] | None) -> Prompt:
        """
        Converts the text and the media that tasks make for simple models: the media, then the text.

        Args:
            text (`str`): the text.
            visuals (`Sequence`, *optional*): images as PIL images. Strings are names of image or video files, and
                dictionaries are videos with a begin or an end.

        Raises:
            ValueError: for a medium of another type.
        """
        parts = [_part_of(visual) for visual in flatten(visuals)]
        return self.from_messages(user_turn([*parts, {"type": "text", "text": text}]))

    def _add_part(self, prompt: Prompt, part: Mapping[str, Any]) -> dict[str, str]:
        """Adds the medium of a content part to `prompt`, and returns the part for the chat template."""
        kind = part["type"]
        if kind == "text":
            return {"type": "text", "text": part["text"]}
        if kind == "image":
            prompt.images.append(part["url"])
        elif kind == "video":
            prompt.videos.append(self._read_video(part))
        else:
            raise ValueError(f"the model reads text, images and videos, got content of type {kind!r}.")
        return {"type": kind}

    def _read_video(self, part: Mapping[str, Any]) -> np.ndarray:
        """Returns the sampled frames `(F, h, w, 3)` of a video, uint8. The times of a clip are in seconds."""
        source = part["url"]
        begin = part.get("start_time")
        end = part.get("end_time")
        if isinstance(source, Mapping):
            # Some tasks put the times beside the name of the file.
            begin = source.get("video_start", begin)
            end = source.get("video_end", end)
            source = source.get("url") or source.get("path") or source.get("video")
        if isinstance(source, (list, tuple)):
            frames = [np.asarray(_to_rgb(frame)) for frame in source]
            return np.stack([frames[index] for index in _spread(0, len(frames), self.num_frames)])

        def indices(metadata: Any, **kwargs: Any) -> list[int]:
            first, last = clip_range(metadata.total_num_frames, metadata.fps, begin, end)
            return _spread(first, last, self.num_frames)

        frames, _ = self.video_processor.fetch_videos(source, sample_indices_fn=indices)
        return frames


def clip_range(total: int, fps: float | None, begin: float | None, end: float | None) -> tuple[int, int]:
    """
    Returns the first frame of a clip and the frame after its last.

    Args:
        total (`int`): frames of the video.
        fps (`float`, *optional*): frames per second. Without it a clip is the whole video.
        begin (`float`, *optional*): begin of the clip in seconds.
        end (`float`, *optional*): end of the clip in seconds.

    Raises:
        ValueError: if the clip has no frame.
    """
    if not fps and not (begin is None and end is None):
        raise ValueError("a clip needs a video with a frame rate, and this one has none.")
    first = 0 if begin is None else math.floor(begin * (fps or 0))
    last = total if end is None else min(total, math.ceil(end * (fps or 0)))
    if not 0 <= first < last:
        raise ValueError(
            f"the clip from {begin} s to {end} s has no frame: the video has {total} frames at {fps} fps."
        )
    return first, last


def _spread(first: int, last: int, count: int) -> list[int]:
    """Returns `count` indices from `first` to `last - 1`, evenly spaced; in a short range indices repeat."""
    # The indices of `VilaUVideoProcessor.sample_frames`, with its `repeat_frames`: all videos of a batch must have the
    # same number of frames.
    length = last - first
    return [first + index * length // count for index in range(count)]


def _to_rgb(frame: Any) -> Any:
    """Returns a frame in RGB if it is a PIL image; arrays are returned as they are."""
    return to_rgb(frame) if isinstance(frame, Image.Image) else frame


def flatten(media: Any) -> list[Any]:
    """Returns the media in nested lists as one list; `None` is an empty list."""
    if media is None:
        return []
    if isinstance(media, (list, tuple)):
        return [item for entry in media for item in flatten(entry)]
    return [media]


# suffixes by which lmms-eval tells images from videos (`ConfigurableMessagesTask`, read in 0.7.3)
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tiff", ".webp")


def _part_of(visual: Any) -> dict[str, Any]:
    """Returns the content part of a medium of a simple task."""
    if isinstance(visual, Image.Image):
        return {"type": "image", "url": visual}
    if isinstance(visual, str):
        return {"type": "image" if visual.lower().endswith(_IMAGE_SUFFIXES) else "video", "url": visual}
    if isinstance(visual, Mapping):
        return {"type": visual.get("type", "video"), "url": visual}
    raise ValueError(f"a medium must be a PIL image or the name of a file, got {type(visual).__name__}.")


__all__ = ["Prompt", "PromptReader", "clip_range", "flatten", "user_turn"]
