# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Previews of images and videos while they are drawn."""

from collections.abc import Iterator
from queue import Queue

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin, TextStreamer


class VilaUImageStreamer:
    r"""
    Streamer for `generate` that shows what there is of an image, or of the running frame of a video, every few
    positions. `generate` runs in a thread; iterating over the streamer gives lists with a picture for each row (`None`
    for a row that draws nothing there). What is not drawn yet has the mean colour of what is.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model that draws.
        processor ([`VilaUProcessor`]): its processor.
        every (`int`, *optional*, defaults to 16): visual positions from one preview to the next; an image that is
            finished is always shown.
        timeout (`float`, *optional*): seconds to wait for the next preview before `queue.Empty` is raised.
        text_streamer (`TextStreamer`, *optional*): gets the text of one row.

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
    ):
        if every < 1:
            raise ValueError(f"`every` must be at least 1, got {every}.")
        self.model, self.processor, self.every, self.timeout = model, processor, every, timeout
        self.text_streamer = text_streamer
        self.previews: Queue[list[Image.Image | None] | None] = Queue()
        self.rows: list[list[torch.Tensor]] = []  # codes of each row's running frame

    def put(self, value: torch.Tensor):
        """Takes ids of text: there is nothing to show."""
        if self.text_streamer is not None:
            self.text_streamer.put(value)

    def put_visual(self, codes: torch.LongTensor):
        """Takes the codes `(rows, D)` of one position, -1 in rows that draw nothing there."""
        self.rows = self.rows or [[] for _ in codes]
        is_drawn = (codes[:, 0] >= 0).tolist()
        tokens, due = self.model.config.vision_config.num_visual_tokens, False
        for row, code, drawn in zip(self.rows, codes, is_drawn, strict=True):
            if len(row) == tokens:
                row.clear()
            if drawn:
                row.append(code)
                due |= len(row) % self.every == 0 or len(row) == tokens
        if due:
            shown = [index for index, drawn in enumerate(is_drawn) if drawn]
            images: list[Image.Image | None] = [None] * len(self.rows)
            for index in shown:
                images[index] = self.preview(torch.stack(self.rows[index])[None])[0]
            self.previews.put(images)

    @torch.no_grad()
    def preview(self, codes: torch.LongTensor) -> list[Image.Image]:
        """Pictures of the first n codes `(rows, n, D)` of images; also for a diffusers callback."""
        tower = self.model.model.vision_tower
        quantized = tower.quantizer.decode(codes)  # (rows, n, C)
        missing = tower.config.num_visual_tokens - codes.shape[1]
        filling = quantized.mean(1, keepdim=True).expand(-1, missing, -1)
        pixels = tower.decode(torch.cat([quantized, filling], 1)).clamp(-1, 1)
        return self.processor.image_processor.postprocess(pixels)

    def end(self):
        """Nothing more will be drawn."""
        self.rows = []
        if self.text_streamer is not None:
            self.text_streamer.end()
        self.previews.put(None)

    def __iter__(self) -> Iterator[list[Image.Image | None]]:
        return self

    def __next__(self) -> list[Image.Image | None]:
        images = self.previews.get(timeout=self.timeout)
        if images is None:
            raise StopIteration
        return images


__all__ = ["VilaUImageStreamer"]
