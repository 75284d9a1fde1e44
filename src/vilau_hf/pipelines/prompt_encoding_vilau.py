# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Encoding of the prompts of a pipeline as inputs of the model."""

from typing import Any

from transformers import BatchFeature, ProcessorMixin


def render_prompt(processor: ProcessorMixin, content: list[dict[str, Any]]) -> str:
    """
    Renders the turn of a user and the beginning of the assistant's turn.

    Args:
        processor ([`VilaUProcessor`]): the processor, which has the chat template.
        content (`list[dict]`): content parts of the user's message, for example `{"type": "image"}`.

    Returns:
        The text of the prompt, with one placeholder for each image.
    """
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    return processor.apply_chat_template(messages, add_generation_prompt=True)


def encode_prompts(processor: ProcessorMixin, prompts: list[str], images: list[list] | None = None) -> BatchFeature:
    """
    Encodes prompts as inputs of the model, padded on the left.

    Args:
        processor ([`VilaUProcessor`]): the processor.
        prompts (`list[str]`): texts of the N prompts.
        images (`list[list[PIL.Image.Image]]`, *optional*): images of each prompt, which precede its text.

    Returns:
        `BatchFeature` with `input_ids` and `attention_mask` `(N, T)`, and `pixel_values` if there are images.
    """
    texts = [
        render_prompt(processor, [*({"type": "image"} for _ in row), {"type": "text", "text": prompt}])
        for prompt, row in zip(prompts, images or [[]] * len(prompts), strict=True)
    ]
    return processor(text=texts, images=images, return_tensors="pt")


__all__ = ["encode_prompts", "render_prompt"]
