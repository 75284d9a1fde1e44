"""A conversation with a model, in which both sides can send texts, images and videos."""

from typing import Any, Literal

import torch
from PIL import Image

from ..modeling import VilaUForConditionalGeneration
from ..modeling.generation_settings_vilau import VISUAL_GENERATION_DEFAULTS
from ..processing import VilaUProcessor
from .answer_streamer import AnswerStreamer, AnswerView, Medium


# Text tokens of an answer, in addition to its images and videos.
TEXT_TOKENS = 256


class Conversation:
    """
    Conversation with a model.

    The codes of all images and videos are kept. So an image that the model drew is read with the codes that were
    drawn, and no image is encoded twice.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        max_visual_spans (`int`, *optional*, defaults to 4): most images and videos of an answer.
        settings (`dict`, *optional*): further arguments of `generate`.
        keeps_history (`bool`, *optional*, defaults to `True`): whether the model reads the messages before. Otherwise
            it answers each message alone.
    """

    def __init__(
        self,
        model: VilaUForConditionalGeneration,
        processor: VilaUProcessor,
        max_visual_spans: int = 4,
        settings: dict[str, Any] | None = None,
        keeps_history: bool = True,
    ) -> None:
        self.model = model
        self.processor = processor
        self.max_visual_spans = max_visual_spans
        self.settings = settings or {}
        self.keeps_history = keeps_history
        saved = model.generation_config.to_dict()
        self.num_frames: int = self.settings.get("num_frames") or saved.get(
            "num_frames", VISUAL_GENERATION_DEFAULTS["num_frames"]
        )
        # Each message is a role and its parts.
        self.messages: list[tuple[str, list[str | Medium]]] = []

    def encode(self, kind: str, frames: list[Image.Image]) -> Medium:
        """
        Encodes an image or a video of the user.

        Args:
            kind (`str`): `"image"` or `"video"`.
            frames (`list[PIL.Image.Image]`): the image, or the frames of the video.
        """
        pixels = self.processor.image_processor(frames, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            codes = self.model.model.vision_tower.encode(pixels.to(self.model.device)).codes
        return Medium(kind, frames, codes)

    def answer(
        self,
        parts: list[str | Medium],
        view: AnswerView,
        seed: int,
        mode: Literal["interleaved", "image", "video"] = "interleaved",
    ) -> AnswerStreamer:
        """
        Answers a message, and adds both to the conversation. After an error the conversation is as before.

        Args:
            parts (`list[str | Medium]`): the message of the user.
            view ([`AnswerView`]): shows the answer while it is generated.
            seed (`int`): seed of sampling.
            mode (`str`, *optional*, defaults to `"interleaved"`): `"image"` and `"video"` require one as the answer.

        Returns:
            [`AnswerStreamer`] with the answer.

        Raises:
            ValueError: if the conversation is too long for the model, or a setting is wrong.
        """
        messages = [*self.messages, ("user", parts)]
        inputs = self._encode_prompt(messages)
        arguments = dict(self.settings)
        if mode == "interleaved":
            vision = self.model.config.vision_config
            largest = vision.num_visual_tokens * self.num_frames + 2  # with the markers of a video
            wanted = TEXT_TOKENS + self.max_visual_spans * largest
            room = self.model.config.text_config.max_position_embeddings - inputs["input_ids"].shape[1]
            arguments |= {"max_new_tokens": max(1, min(wanted, room)), "max_visual_spans": self.max_visual_spans}
        if mode == "image":
            arguments.pop("num_frames", None)
        kind = "video" if mode == "video" else "image"
        streamer = AnswerStreamer(self.model, self.processor, view, kind, self.num_frames)
        self.model.generate(**inputs, generation_mode=mode, seed=seed, streamer=streamer, **arguments)
        if self.keeps_history:
            self.messages = [*messages, ("assistant", streamer.parts)]
        return streamer

    def _encode_prompt(self, messages: list[tuple[str, list[str | Medium]]]) -> dict[str, Any]:
        """Returns the ids, the mask and the codes of a conversation."""
        rendered = [
            {"role": role, "content": [_content_part(part) for part in parts if part != ""]}
            for role, parts in messages
        ]
        media = [part for _, parts in messages for part in parts if isinstance(part, Medium)]
        # The pixels only say how many placeholders each image or video has. The model reads the codes.
        pixels: dict[str, Any] = {
            "images": [medium.frames[0] for medium in media if medium.kind == "image"] or None,
            "videos": [medium.frames for medium in media if medium.kind == "video"] or None,
        }
        text = self.processor.apply_chat_template(rendered, add_generation_prompt=True)
        encoded = self.processor(text=text, **pixels, return_tensors="pt").to(self.model.device)
        inputs: dict[str, Any] = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        if media:
            inputs["codes"] = torch.cat([medium.codes for medium in media])
        return inputs


def _content_part(part: str | Medium) -> dict[str, str]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": part.kind}


__all__ = ["Conversation"]
