# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Batches for training: records of messages and media become ids, labels and pixels."""

import random

import torch
from torch.utils.data import get_worker_info


_VISUAL = ("image", "video")


def without_prompt(messages: list[dict]) -> list[dict]:
    """Drops the text of every user turn that is answered by an image or a video; its own images and videos stay."""
    result = []
    for message, reply in zip(messages, [*messages[1:], None], strict=True):
        if message["role"] == "user" and reply is not None and _has_visual_target(reply):
            content = message["content"]
            kept = [] if isinstance(content, str) else [item for item in content if item["type"] != "text"]
            message = {**message, "content": kept}
        result.append(message)
    return result


def _has_visual_target(message: dict) -> bool:
    content = message["content"]
    return (
        message["role"] == "assistant"
        and not isinstance(content, str)
        and any(item["type"] in _VISUAL for item in content)
    )


class VilaUDataCollator:
    r"""
    Makes a batch of records `{"messages": [...], "images": [...], "videos": [...]}`; `images` and `videos` may be
    missing.

    What the assistant says is supervised, and the text of a `document`. For classifier-free guidance some records lose
    the text of the user turns that ask for an image or a video.

    Args:
        processor ([`VilaUProcessor`]).
        unconditional_probability (`float`, *optional*, defaults to 0.1): share of records that lose their prompt.
        seed (`int`, *optional*, defaults to 0): seed of that choice; the same seed and order of records give the same
            batches. Each worker of a data loader draws from a stream of its own.
        max_length (`int`, *optional*): text beyond this many tokens is cut off.
    """

    def __init__(
        self, processor, unconditional_probability: float = 0.1, seed: int = 0, max_length: int | None = None
    ):
        if not 0 <= unconditional_probability <= 1:
            raise ValueError(f"`unconditional_probability` must be in [0, 1], got {unconditional_probability}.")
        self.processor = processor
        self.unconditional_probability = unconditional_probability
        self.seed = seed
        self.max_length = max_length
        self._generators = {}

    def _generator(self) -> random.Random:
        worker = get_worker_info()
        key = None if worker is None else worker.id
        if key not in self._generators:
            self._generators[key] = random.Random(f"{self.seed}/{key}")
        return self._generators[key]

    def __call__(self, records: list[dict]) -> dict[str, torch.Tensor]:
        """
        Returns:
            `input_ids`, `attention_mask`, `labels` `(B, T)`, padded on the right; `pixel_values` `(N, 3, S, S)` and
            `pixel_values_videos` `(V, F, 3, S, S)` if the records have any.
        """
        generator = self._generator()
        conversations = [
            without_prompt(record["messages"])
            if generator.random() < self.unconditional_probability
            else record["messages"]
            for record in records
        ]
        images, videos = ([record.get(name) or [] for record in records] for name in ("images", "videos"))
        return dict(self.processor.encode_training_samples(conversations, images, videos, self.max_length))


__all__ = ["VilaUDataCollator"]
