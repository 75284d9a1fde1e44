"""Batches of images, videos and answers that a model generates for many conversations, with progress."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers import BatchFeature

from ..modeling import VilaUForConditionalGeneration
from ..processing import VilaUProcessor
from .sheets import to_uint8


def chat_prompts(processor: VilaUProcessor, messages: list[list[dict]], **media: Any) -> BatchFeature:
    """
    Builds model inputs for conversations that the assistant continues.

    Args:
        processor ([`VilaUProcessor`]): processor of the model.
        messages (`list[list[dict]]`): the messages of each conversation.
        media: `images` or `videos` of all conversations, in their order.
    """
    prompts = [processor.apply_chat_template(turns, add_generation_prompt=True) for turns in messages]
    return processor(text=prompts, return_tensors="pt", **media)


def user_message(content: list[dict]) -> list[dict]:
    """Returns a conversation of one message by the user, from its content parts."""
    return [{"role": "user", "content": content}]


def _batches(count: int, size: int, description: str) -> Iterator[slice]:
    # A bar of one step shows nothing, and callers with one batch have a bar of their batches. `None` shows the bar in
    # terminals alone.
    disable = True if count <= size else None
    for begin in tqdm(range(0, count, size), desc=description, leave=False, disable=disable):
        yield slice(begin, begin + size)


@torch.no_grad()
def generate_from_messages(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    messages: list[list[dict]],
    mode: Literal["image", "video"],
    seed: int | Sequence[int],
    images: Sequence[Sequence[Image.Image]] | None = None,
    batch_size: int = 50,
    **settings: Any,
) -> torch.Tensor:
    """
    Generates an image or a video as the answer to each conversation.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        messages (`list[list[dict]]` of length N): the messages of each conversation.
        mode (`str`): `"image"` or `"video"`.
        seed (`int` or a sequence of length N): seed of sampling. With one for each conversation, a result depends
            neither on the other conversations nor on the batch size.
        images (`Sequence[Sequence[PIL.Image.Image]]` of length N, *optional*): images of each conversation.
        batch_size (`int`, *optional*, defaults to 50): conversations in a batch.
        settings: arguments of `generate` that replace the saved generation settings of the model.

    Returns:
        `torch.Tensor`, uint8, of shape `(N, 3, S, S)` for images and `(N, F, 3, S, S)` for videos.
    """
    generator = torch.Generator(model.device).manual_seed(seed) if isinstance(seed, int) else None
    results = []
    for rows in _batches(len(messages), batch_size, f"drawing {mode}s"):
        media = {} if images is None else {"images": [image for row in images[rows] for image in row]}
        inputs = chat_prompts(processor, messages[rows], **media).to(model.device)
        random = {"generator": generator} if isinstance(seed, int) else {"seed": list(seed[rows])}
        codes = model.generate(**inputs, generation_mode=mode, **random, **settings)
        decode = model.decode_image_tokens if mode == "image" else model.decode_video_tokens
        results.append(to_uint8(decode(codes)).cpu())
    return torch.cat(results)


def generate_from_captions(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    captions: list[str],
    mode: Literal["image", "video"],
    seed: int,
    batch_size: int = 50,
    **settings: Any,
) -> torch.Tensor:
    """
    Generates an image or a video for each caption.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        captions (`list[str]` of length N): captions.
        mode (`str`): `"image"` or `"video"`.
        seed (`int`): seed of sampling.
        batch_size (`int`, *optional*, defaults to 50): captions in a batch.
        settings: arguments of `generate` that replace the saved generation settings of the model.

    Returns:
        `torch.Tensor`, uint8, of shape `(N, 3, S, S)` for images and `(N, F, 3, S, S)` for videos.
    """
    messages = [user_message([{"type": "text", "text": caption}]) for caption in captions]
    return generate_from_messages(model, processor, messages, mode, seed, batch_size=batch_size, **settings)


@torch.no_grad()
def answer_questions(
    model: VilaUForConditionalGeneration,
    processor: VilaUProcessor,
    records: list[dict],
    max_new_tokens: int = 24,
    batch_size: int = 50,
    **settings: Any,
) -> list[str]:
    """
    Answers the question of each record about its images and videos by greedy decoding.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        processor ([`VilaUProcessor`]): its processor.
        records (`list[dict]`): records with `messages`, `images` and optionally `videos`, which are files. Their last
            message, the assistant's answer, is not shown to the model.
        max_new_tokens (`int`, *optional*, defaults to 24): largest number of tokens of an answer.
        batch_size (`int`, *optional*, defaults to 50): records in a batch.
        settings: arguments of `generate` that replace the saved generation settings of the model.
    """
    answers = []
    for rows in _batches(len(records), batch_size, "answering"):
        messages = [record["messages"][:-1] for record in records[rows]]
        media: dict[str, Any] = {"images": [image for record in records[rows] for image in record["images"]]}
        videos = [str(video) for record in records[rows] for video in record.get("videos") or []]
        if videos:
            # All videos of a batch must have the same number of frames, so a short one repeats them.
            media |= {"videos": videos, "repeat_frames": True}
        inputs = chat_prompts(processor, messages, **media).to(model.device)
        ids = model.generate(**inputs, max_new_tokens=max_new_tokens, **{"do_sample": False, **settings})
        answers += processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in answers]


__all__ = ["answer_questions", "chat_prompts", "generate_from_captions", "generate_from_messages", "user_message"]
