"""Opens files that a user names: images, animations and videos."""

from pathlib import Path

from PIL import Image, ImageSequence, UnidentifiedImageError

from ..processing.image_functions_vilau import open_images
from ..processing.video_decoding_vilau import decode_video


# Files that PIL cannot open. All other files are images, or animations if they have several frames.
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")


def open_media(path: str | Path, num_frames: int) -> tuple[str, list[Image.Image]]:
    """
    Opens an image, an animation or a video.

    Args:
        path (`str` or `Path`): the file.
        num_frames (`int`): frames to take from an animation or a video, uniformly. A shorter one keeps all.

    Returns:
        `"image"` with a list of one image, or `"video"` with a list of its frames. All are RGB.

    Raises:
        ValueError: if the file cannot be read. The message has its name.
    """
    if Path(path).suffix.lower() in VIDEO_SUFFIXES:
        return "video", _open_video(path, num_frames)
    try:
        with Image.open(path) as opened:
            total = getattr(opened, "n_frames", 1)
            if total > 1:
                wanted = set(_sampled(total, num_frames))
                frames = ImageSequence.Iterator(opened)
                return "video", [frame.convert("RGB") for index, frame in enumerate(frames) if index in wanted]
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"cannot read {str(path)!r}: {error}") from error
    return "image", [open_images(str(path))]


def _open_video(path: str | Path, num_frames: int) -> list[Image.Image]:
    """Decodes the sampled frames of a video."""
    try:
        frames, _ = decode_video(str(path), lambda metadata: _sampled(metadata.total_num_frames, num_frames))
    except (OSError, ValueError) as error:  # also the errors of PyAV
        raise ValueError(f"cannot read the video {str(path)!r}: {error}") from error
    return [Image.fromarray(frame) for frame in frames]


def _sampled(total: int, num_frames: int) -> list[int]:
    """Returns the indices of `num_frames` frames, those of the default sampling of transformers."""
    number = min(total, num_frames)
    return [index * total // number for index in range(number)]


__all__ = ["open_media"]
