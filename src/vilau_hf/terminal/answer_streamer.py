"""Streamer of one answer: reports text, the progress of images, and finished images and videos as they come."""

from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image

from ..modeling import VilaUForConditionalGeneration
from ..pipelines import VilaUImageStreamer
from ..processing import VilaUProcessor


@dataclass(frozen=True)
class Medium:
    r"""
    An image or a video of a conversation.

    Args:
        kind (`str`): `"image"` or `"video"`.
        frames (`list[PIL.Image.Image]` of length F): the image, or the frames of the video.
        codes (`torch.LongTensor` of shape `(F, L, D)`): their codes.
    """

    kind: str
    frames: list[Image.Image]
    codes: torch.Tensor


class AnswerView(Protocol):
    """Methods of an object that shows an answer while it is generated."""

    def show_text(self, text: str) -> None:
        """Shows the next piece of text."""

    def show_progress(self, position: int, total: int, preview: Image.Image | None) -> None:
        """Shows how many of the `total` positions of an image or a video are done, with a preview if there is one."""

    def show_medium(self, medium: Medium) -> None:
        """Shows a finished image or video."""

    def close(self) -> None:
        """Ends the answer, also after an error."""


class AnswerStreamer:
    """
    Streamer for `generate` that reports one answer to a view, and keeps it.

    After the call, `parts` has the texts and the media of the answer in order. `num_cut_off` is the number of
    positions of an image or a video that was not finished.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model that generates.
        processor ([`VilaUProcessor`]): its processor.
        view ([`AnswerView`]): shows the answer.
        kind (`str`, *optional*, defaults to `"image"`): what the answer begins with in the modes `"image"` and
            `"video"`. In interleaved mode start markers tell.
        num_frames (`int`, *optional*, defaults to 1): frames of a video.
        every (`int`, *optional*, defaults to 8): positions from one preview to the next.
    """

    def __init__(
        self,
        model: VilaUForConditionalGeneration,
        processor: VilaUProcessor,
        view: AnswerView,
        kind: str = "image",
        num_frames: int = 1,
        every: int = 8,
    ) -> None:
        self.processor = processor
        self.view = view
        self.kind = kind
        self.num_frames = num_frames
        self.every = every
        self.decoder = VilaUImageStreamer(model, processor)
        config = model.config
        self.num_tokens: int = config.vision_config.num_visual_tokens
        self.kinds = {config.image_start_token_id: "image", config.video_start_token_id: "video"}
        self.parts: list[str | Medium] = []
        self.ids: list[int] = []  # of the text since the last image or video
        self.shown = ""  # what of it the view has
        self.codes: list[torch.Tensor] = []  # of the current image or video
        self.frames: list[Image.Image] = []

    @property
    def num_cut_off(self) -> int:
        """Returns the number of positions of an unfinished image or video."""
        return len(self.codes)

    def put(self, value: torch.Tensor) -> None:
        """Receives the next ids of text `(1,)`, and at first the prompt `(1, T)`, which is not shown."""
        if value.ndim > 1:
            return
        for token in value.flatten().tolist():
            self.kind = self.kinds.get(token, self.kind)
            self.ids.append(token)
        text = self._decoded_text()
        # A character of several tokens ends with a replacement character until its last token.
        if text.startswith(self.shown) and not text.endswith("�"):
            self._show_text(text)

    def put_visual(self, codes: torch.Tensor) -> None:
        """Receives the codes `(1, D)` of the next visual position."""
        self._finish_text()
        self.codes.append(codes[0])
        done = len(self.codes)
        total = self.num_tokens * (self.num_frames if self.kind == "video" else 1)
        is_frame = done % self.num_tokens == 0
        preview = None
        if is_frame or done % self.every == 0:
            begin = (done - 1) // self.num_tokens * self.num_tokens
            preview = self.decoder.preview(torch.stack(self.codes[begin:])[None])[0]
        self.view.show_progress(done, total, preview)
        if is_frame and preview is not None:
            self.frames.append(preview)
        if done == total:
            grids = torch.stack(self.codes).unflatten(0, (-1, self.num_tokens))  # (F, L, D)
            medium = Medium(self.kind, self.frames, grids)
            self.parts.append(medium)
            self.codes = []
            self.frames = []
            self.view.show_medium(medium)

    def end(self) -> None:
        """Ends the answer."""
        self._finish_text()
        self.view.close()

    def end_with_error(self, error: BaseException) -> None:
        """Ends the answer after an error in `generate`."""
        self.view.close()

    def _decoded_text(self) -> str:
        return self.processor.decode(self.ids, skip_special_tokens=True).lstrip()

    def _show_text(self, text: str) -> None:
        """Shows what of `text` the view has not got yet."""
        if text != self.shown:
            self.view.show_text(text[len(self.shown) :])
            self.shown = text

    def _finish_text(self) -> None:
        """Shows the rest of the text, and begins a new one."""
        text = self._decoded_text() if self.ids else ""
        if text:
            self._show_text(text)
            self.parts.append(text.strip())
        self.ids = []
        self.shown = ""


__all__ = ["AnswerStreamer", "AnswerView", "Medium"]
