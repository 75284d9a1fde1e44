"""Previews in notebooks: images appear in a cell while they are generated, each in place of the one before."""

from typing import Any

import torch
from PIL import Image

from .modeling import VilaUForConditionalGeneration
from .pipelines import VilaUImageStreamer
from .processing import VilaUProcessor
from .processing.notebook_display_vilau import VilaUAnswer


class NotebookPreview(VilaUImageStreamer):
    r"""
    Shows images and text in the output of a cell while they are generated, and updates them in place.

    It is a `streamer` for `generate`, and a `callback_on_step_end` for [`VilaUPipeline`]. Both calls run in the cell
    itself, so no thread is needed. All rows of a batch are shown side by side, and the frames of a video one after
    another. Text is shown for a batch of one row. Each call begins a new output.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model that generates.
        processor ([`VilaUProcessor`]): the processor of the model.
        every (`int`, *optional*, defaults to 8): number of visual positions from one preview to the next.

    Raises:
        ValueError: if `every` is no integer of at least 1.
        ImportError: if IPython is not installed.

    Example:
    ```python
    >>> from vilau_hf import TINY_CHECKPOINT, VilaUPipeline
    >>> from vilau_hf.notebook import NotebookPreview

    >>> pipe = VilaUPipeline.from_pretrained(TINY_CHECKPOINT)
    >>> preview = NotebookPreview(pipe.model, pipe.processor)
    >>> images = pipe("a small red cross", callback_on_step_end=preview).images  # doctest: +SKIP
    ```
    """

    def __init__(self, model: VilaUForConditionalGeneration, processor: VilaUProcessor, every: int = 8) -> None:
        super().__init__(model, processor, every)
        try:
            from IPython.display import display
        except ImportError as error:
            raise ImportError("`NotebookPreview` needs IPython: pip install ipython.") from error
        self.display = display
        self._begin()

    def _begin(self) -> None:
        """Begins a new output at the next preview."""
        self.handle: Any = None  # the output that is updated
        self.finished: list[dict[str, Any]] = []  # content parts
        self.current: list[Image.Image] = []  # previews of the images that are being generated
        self.ids: list[int] = []  # of the text since the last image

    def begin_call(self) -> None:
        """Begins a new output. `generate` calls it before anything else."""
        super().begin_call()
        self._begin()

    def put(self, value: torch.Tensor) -> None:
        """Receives ids of text, and shows the text of a batch of one row. The prompt `(B, T)` is not shown."""
        if value.numel() > 1 or value.ndim > 1:
            return
        self._finish_images()
        self.ids += value.tolist()
        self._update()

    def put_visual(self, codes: torch.LongTensor) -> None:
        """Receives the codes `(rows, D)` of one position."""
        if not self.rows or all(len(row) in (0, self._num_tokens) for row in self.rows):
            self._finish_text()
            self._finish_images()
        super().put_visual(codes)

    def show_preview(self, images: list[Image.Image | None]) -> None:
        """Shows a preview in place of the one before. Rows without a new image keep theirs."""
        if len(images) == len(self.current):
            images = [old if new is None else new for new, old in zip(images, self.current, strict=True)]
        self.current = [image for image in images if image is not None]
        self._update()

    def __call__(self, pipeline: Any, step: int, timestep: int, values: dict[str, Any]) -> dict[str, Any]:
        """
        Receives the codes of all positions so far from [`VilaUPipeline`].

        Args:
            pipeline ([`VilaUPipeline`]): the pipeline.
            step (`int`): index of the position.
            timestep (`int`): the same.
            values (`dict`): has `codes` or `latents`, of shape `(rows, n, D)`.

        Returns:
            An empty dictionary, which changes no codes.
        """
        if step == 0:
            self._begin()
        in_frame = step % self._num_tokens + 1
        if in_frame == 1:
            self._finish_images()
        if in_frame % self.every == 0 or in_frame == self._num_tokens:
            codes = values["codes"] if "codes" in values else values["latents"]
            self.show_preview(list(self.preview(codes[:, -in_frame:])))
        return {}

    def end(self) -> None:
        """Shows the finished images and text. `generate` calls it after the last position."""
        self.rows = []
        self._finish_text()
        self._finish_images()
        self._update()

    def end_with_error(self, error: BaseException) -> None:
        """Leaves the output as it is. The cell shows the error, which `generate` raises."""
        self.rows = []

    @property
    def _num_tokens(self) -> int:
        """Returns the number of visual tokens of an image."""
        return self.model.config.vision_config.num_visual_tokens

    def _finish_images(self) -> None:
        self.finished += [{"type": "image", "image": image} for image in self.current]
        self.current = []

    def _finish_text(self) -> None:
        self.finished += self._text()
        self.ids = []

    def _text(self) -> list[dict[str, Any]]:
        """Returns the content part of the text that is being generated, or none."""
        text = self.processor.decode(self.ids, skip_special_tokens=True).strip() if self.ids else ""
        return [{"type": "text", "text": text}] if text else []

    def _update(self) -> None:
        """Shows everything in the output of this call."""
        images = [{"type": "image", "image": image} for image in self.current]
        shown = VilaUAnswer([*self.finished, *self._text(), *images])
        if not shown:
            return
        if self.handle is None:
            self.handle = self.display(shown, display_id=True)
        else:
            self.handle.update(shown)


__all__ = ["NotebookPreview"]
