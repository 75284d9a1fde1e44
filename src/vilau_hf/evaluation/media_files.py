"""Writes images and videos in the format of a suffix."""

from pathlib import Path

import av
import numpy as np
from PIL import Image

from .sheets import save_animation


IMAGE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
VIDEO_SUFFIXES = (".mp4", ".gif", ".webp")
FRAMES_PER_SECOND = 8  # as VBench asks for, see `VBenchLayout`


def image_grid(images: list[Image.Image], columns: int) -> Image.Image:
    """
    Joins images of one size, row by row and without a gap.

    Args:
        images (`list[PIL.Image.Image]`): the images, at least one.
        columns (`int`): images in a row.
    """
    width, height = images[0].size
    rows = -(-len(images) // columns)
    grid = Image.new("RGB", (columns * width, rows * height))
    for index, image in enumerate(images):
        grid.paste(image, (index % columns * width, index // columns * height))
    return grid


def save_image(image: Image.Image, path: Path, suffix: str) -> None:
    """
    Writes an image, with the default quality of PIL.

    Args:
        image (`PIL.Image.Image`): the image.
        path (`Path`): the file. It may have another suffix, as unfinished files do.
        suffix (`str`): one of `IMAGE_FORMATS`.
    """
    image.save(path, format=IMAGE_FORMATS[suffix])


def save_video(frames: list[Image.Image], path: Path, suffix: str, fps: int = FRAMES_PER_SECOND) -> None:
    """
    Writes a video: H.264 in MP4, or an animation in GIF or WebP. The same frames give the same bytes.

    Args:
        frames (`list[PIL.Image.Image]`): frames of one size, at least one. MP4 needs even numbers of pixels.
        path (`Path`): the file. It may have another suffix, as unfinished files do.
        suffix (`str`): one of `VIDEO_SUFFIXES`.
        fps (`int`, *optional*, defaults to 8): frames per second.
    """
    if suffix != ".mp4":
        save_animation(frames, path, 1000 // fps, image_format=suffix[1:])
        return
    with av.open(str(path), "w", format="mp4") as container:
        # trac.ffmpeg.org/wiki/Encode/H.264 calls 17 visually lossless. All players can show yuv420p.
        # The decisions of x264's "mbtree" depend on the thread that encodes. Of 72 encodings of a clip of 32 pixels in
        # new threads, 32 differed (libx264 core 165 of PyAV 18.1), and none without it.
        options = {"crf": "17", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width = frames[0].width
        stream.height = frames[0].height
        stream.pix_fmt = "yuv420p"
        # x264 stores the number of threads in the file, and by default takes that of the machine.
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame.convert("RGB")), format="rgb24")))
        container.mux(stream.encode())


__all__ = ["FRAMES_PER_SECOND", "IMAGE_FORMATS", "VIDEO_SUFFIXES", "image_grid", "save_image", "save_video"]
