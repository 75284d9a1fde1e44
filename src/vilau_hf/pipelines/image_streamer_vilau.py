# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Previews of images and videos while they are generated."""

from collections.abc import Iterator
from queue import Empty, Queue
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin, TextStreamer


class VilaUImageStreamer:
    r"""
    Streamer for `generate` that gives previews of the images, or of the current frames of videos.

    `generate` runs in a thread. Iterating over the streamer gives lists with one image for each row, or `None` for a
    row that generates no image at this step. Regions that are not generated yet have the mean colour of the others.
    If `generate` raises an error, the iteration raises it as well.

    A streamer can be used for one call after another. A call drops the previews of earlier calls that nobody has read.
    After the end of a call `next` raises `StopIteration`, and a new `for` loop waits for the next call.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model that generates.
        processor ([`VilaUProcessor`]): the processor of the model.
        every (`int`, *optional*, defaults to 16): number of visual positions from one preview to the next. A complete
            image is always shown.
        timeout (`float`, *optional*): seconds to wait for the next preview before `queue.Empty` is raised.
        text_streamer (`TextStreamer`, *optional*): receives the generated text, which must be of one row.

    Raises:
        ValueError: if `every` is no integer of at least 1, or `timeout` is negative.

    Example:
    ```python
    >>> from threading import Thread
    >>> from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUImageStreamer, VilaUProcessor

    >>> model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    >>> processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    >>> inputs = processor(text="a small red cross at the bottom on a white background", return_tensors="pt")
    >>> streamer = VilaUImageStreamer(model, processor, every=32)
    >>> Thread(target=model.generate, kwargs={**inputs, "generation_mode": "image", "streamer": streamer}).start()
    >>> len([images[0] for images in streamer])
    2
    ```
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        every: int = 16,
        timeout: float | None = None,
        text_streamer: TextStreamer | None = None,
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"`every` must be an integer of at least 1, got {every!r}.")
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout >= 0):
            raise ValueError(f"`timeout` must be a number of seconds of at least 0, got {timeout!r}.")
        self.model: Any = model  # has attributes of `VilaUForConditionalGeneration`, which this island cannot import
        self.processor: Any = processor
        self.every = every
        self.timeout = timeout
        self.text_streamer = text_streamer
        # `None` ends the iteration, and an error ends it with this error
        self.previews: Queue[list[Image.Image | None] | BaseException | None] = Queue()
        self.is_finished = False  # whether the end of the last call was read
        self.rows: list[list[torch.Tensor]] = []  # codes of the current image or frame of each row

    def begin_call(self) -> None:
        """Drops what is left of earlier calls. `generate` calls it before anything else."""
        self.rows = []
        self.is_finished = False
        while True:
            try:
                self.previews.get_nowait()
            except Empty:
                return

    def put(self, value: torch.Tensor) -> None:
        """Passes ids of text to the text streamer."""
        if self.text_streamer is not None:
            self.text_streamer.put(value)

    def put_visual(self, codes: torch.LongTensor) -> None:
        """Receives the codes `(rows, D)` of one position, with -1 in rows that generate no image there."""
        self.rows = self.rows or [[] for _ in codes]
        is_visual = (codes[:, 0] >= 0).tolist()
        num_tokens = self.model.config.vision_config.num_visual_tokens
        is_due = False
        for row, code, visual in zip(self.rows, codes, is_visual, strict=True):
            if len(row) == num_tokens:
                row.clear()
            if visual:
                row.append(code)
                is_due |= len(row) % self.every == 0 or len(row) == num_tokens
        if is_due:
            images: list[Image.Image | None] = [None] * len(self.rows)
            for index, visual in enumerate(is_visual):
                if visual:
                    # one row at a time: in interleaved mode rows can be at different positions of their images
                    images[index] = self.preview(torch.stack(self.rows[index])[None])[0]
            self.show_preview(images)

    def show_preview(self, images: list[Image.Image | None]) -> None:
        """Passes a preview to the iteration. A subclass can show it in another way."""
        self.previews.put(images)

    @torch.no_grad()
    def preview(self, codes: torch.Tensor) -> list[Image.Image]:
        """
        Decodes incomplete images. A callback of [`VilaUPipeline`] can call it, too.

        Args:
            codes (`torch.LongTensor` of shape `(rows, n, D)`): codes of the first n visual tokens of each image.

        Returns:
            One image a row.
        """
        tower = self.model.model.vision_tower
        quantized = tower.quantizer.decode(codes)  # (rows, n, C)
        num_missing = tower.config.num_visual_tokens - codes.shape[1]
        filling = quantized.mean(1, keepdim=True).expand(-1, num_missing, -1)
        pixels = tower.decode(torch.cat([quantized, filling], 1)).clamp(-1, 1)
        return self.processor.image_processor.postprocess(pixels)

    def end(self) -> None:
        """Ends the iteration. `generate` calls it after the last position."""
        self.rows = []
        if self.text_streamer is not None:
            self.text_streamer.end()
        self.previews.put(None)

    def end_with_error(self, error: BaseException) -> None:
        """
        Ends the iteration with an error. `generate` calls it if it raises this error.

        Args:
            error (`BaseException`): the error.
        """
        self.rows = []
        if self.text_streamer is not None:
            self.text_streamer.end()
        self.previews.put(error)

    def __iter__(self) -> Iterator[list[Image.Image | None]]:
        # A loop may begin before the thread of the next call does, so it waits also after an earlier call.
        self.is_finished = False
        return self

    def __next__(self) -> list[Image.Image | None]:
        if self.is_finished:
            raise StopIteration
        images = self.previews.get(timeout=self.timeout)
        if isinstance(images, list):
            return images
        self.is_finished = True
        if images is not None:
            raise images
        raise StopIteration


__all__ = ["VilaUImageStreamer"]
