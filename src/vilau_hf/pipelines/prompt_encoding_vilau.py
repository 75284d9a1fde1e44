# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Prompts of the pipelines as inputs of the model."""

from transformers import BatchFeature, ProcessorMixin


def render_prompt(processor: ProcessorMixin, content: list[dict]) -> str:
    """The text of a user's turn with `content`, up to where the assistant begins."""
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def encode_prompts(processor: ProcessorMixin, prompts: list[str], images: list[list] | None = None) -> BatchFeature:
    """
    Inputs of the model for `prompts`, padded on the left.

    Args:
        processor ([`VilaUProcessor`]).
        prompts (`list[str]`): texts of the N prompts.
        images (`list[list[PIL.Image.Image]]`, *optional*): the images that stand before each.
    """
    texts = [
        render_prompt(processor, [*({"type": "image"} for _ in row), {"type": "text", "text": prompt}])
        for prompt, row in zip(prompts, images or [[]] * len(prompts), strict=True)
    ]
    return processor(text=texts, images=images, return_tensors="pt")


__all__ = ["encode_prompts", "render_prompt"]
