"""Answers, images and videos of the model for prompts of lmms-eval, in batches."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch

from ..evaluation.model_outputs import chat_prompts
from ..modeling import VilaUForConditionalGeneration
from ..processing import VilaUProcessor
from .lmms_prompts import Prompt
from .lmms_settings import TextSettings


class PromptModel:
    """
    Runs the model on prompts. No result depends on the other prompts of its batch, up to rounding.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model, in evaluation mode.
        processor ([`VilaUProcessor`]): its processor.
    """

    def __init__(self, model: VilaUForConditionalGeneration, processor: VilaUProcessor) -> None:
        self.model = model
        self.processor = processor

    @torch.no_grad()
    def answer(self, prompts: Sequence[Prompt], settings: TextSettings, seeds: Sequence[int]) -> list[str]:
        """
        Answers prompts.

        Args:
            prompts (`Sequence[Prompt]` of length B): the prompts.
            settings ([`TextSettings`]): settings of text generation.
            seeds (`Sequence[int]` of length B): seed of each answer, if tokens are drawn at random.
        """
        if not settings.is_sampled:
            return self._answer(prompts, settings)
        answers = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            # Sampling of text draws from the global generator. Alone in its batch, a prompt has its seed.
            with torch.random.fork_rng(devices=_cuda_devices(self.model.device)):
                torch.manual_seed(seed)
                answers += self._answer([prompt], settings)
        return answers

    def _answer(self, prompts: Sequence[Prompt], settings: TextSettings) -> list[str]:
        inputs = self._inputs(prompts)
        # The arguments of `generate` are read from a dictionary, whose values mypy cannot match with their types.
        ids: Any = self.model.generate(**inputs, **settings.arguments)
        texts = self.processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [settings.cut(text) for text in texts]

    @torch.no_grad()
    def draw(
        self, prompts: Sequence[Prompt], mode: Literal["image", "video"], seeds: Sequence[int], **settings: Any
    ) -> list[Any]:
        """
        Generates an image or a video for each prompt.

        Args:
            prompts (`Sequence[Prompt]` of length B): the prompts.
            mode (`str`): `"image"` or `"video"`.
            seeds (`Sequence[int]` of length B): seed of each prompt.
            settings: arguments of `generate` that replace the saved generation settings of the model.

        Returns:
            A list of `PIL.Image.Image`, or of lists of frames.
        """
        inputs = self._inputs(prompts)
        if settings.get("image_guidance_scale") is not None:
            only = self._inputs([prompt.images_only() for prompt in prompts])
            settings["image_prompt_ids"] = only["input_ids"]
            settings["image_prompt_attention_mask"] = only["attention_mask"]
        if self.model.generation_config.to_dict().get("unconditional_prompt_ids") is None:
            # As in the pipelines: the unconditional prompt is a chat with an empty message.
            ids = torch.tensor([self.processor.unconditional_prompt_ids()], device=self.model.device)
            settings["negative_prompt_ids"] = ids
        codes: Any = self.model.generate(**inputs, generation_mode=mode, seed=list(seeds), **settings)
        decode = self.model.decode_image_tokens if mode == "image" else self.model.decode_video_tokens
        return self.processor.post_process_multimodal_output(decode(codes), generation_mode=mode)

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[tuple[float, bool]]:
        """
        Scores given answers, with their end token.

        Args:
            prompts (`Sequence[Prompt]` of length B): the prompts.
            answers (`Sequence[str]` of length B): an answer to each prompt.

        Returns:
            For each answer its log-probability, and whether greedy decoding gives it.
        """
        conversations = []
        for prompt, answer in zip(prompts, answers, strict=True):
            reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
            conversations.append([*prompt.messages, reply])
        encoded = self.processor.encode_training_samples(
            conversations,
            [list(prompt.images) for prompt in prompts],
            [list(prompt.videos) for prompt in prompts],
        )
        batch: dict[str, Any] = dict(encoded.to(self.model.device))
        labels = batch.pop("labels")
        # Pixels are encoded once for both passes.
        pixels = {name: batch.pop(name) for name in ("pixel_values", "pixel_values_videos") if name in batch}
        if pixels:
            batch["visual_codes"] = self.model.model.get_visual_codes(batch["input_ids"], **pixels)
        log_probs: Any = self.model.score(labels=labels, **batch).log_probs
        is_greedy = self._is_greedy(batch, labels)
        return list(zip(log_probs.tolist(), is_greedy.tolist(), strict=True))

    def _is_greedy(self, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """Returns for each row whether every label is the most probable token, `(B,)` bool."""
        # Logits only at the columns before a label of some row, since the vocabulary is large.
        columns = (labels[:, 1:] != -100).any(0).nonzero()[:, 0]
        logits = self.model(**batch, logits_to_keep=columns, use_cache=False).logits
        targets = labels[:, 1:][:, columns]
        return ((logits.argmax(-1) == targets) | (targets == -100)).all(-1)

    def _inputs(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Returns the model inputs of prompts, which the assistant continues."""
        media: dict[str, Any] = {}
        if any(prompt.images for prompt in prompts):
            media["images"] = [image for prompt in prompts for image in prompt.images]
        if any(prompt.videos for prompt in prompts):
            media["videos"] = [video for prompt in prompts for video in prompt.videos]
        messages = [prompt.messages for prompt in prompts]
        return dict(chat_prompts(self.processor, messages, **media).to(self.model.device))


def _cuda_devices(device: torch.device) -> list[torch.device]:
    """Returns the devices whose generator `torch.manual_seed` changes beside that of the CPU."""
    return [device] if device.type == "cuda" else []


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yields successive batches of `size` items."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


__all__ = ["PromptModel", "chunks"]
