# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Batches for training: records of messages and media become ids, labels and pixels."""

import copy
import json
import random

import torch
from torch.nn import functional


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


def _identity(record: dict) -> list:
    """What tells a record from others, the same for its pixels and its codes: its `id`, or else its messages."""
    if record.get("id") is not None:
        return [str(record["id"])]
    contents = [(message["role"], message["content"]) for message in record["messages"]]
    return [
        [role, [content] if isinstance(content, str) else [item.get("text") or item["type"] for item in content]]
        for role, content in contents
    ]


def _refuse_pixels(records: list[dict]):
    """Raises a `ValueError` if some of `records` have images or videos, where others have codes."""
    is_encoded = [record.get("codes") is not None and len(record["codes"]) > 0 for record in records]
    encoded = records[is_encoded.index(True)]
    for record in (record for record, other in zip(records, is_encoded, strict=True) if not other):
        for name in ("images", "videos"):
            if record.get(name) is not None and len(record[name]):
                raise ValueError(
                    f"a batch must not mix pixels and codes, but the record {encoded.get('id')!r} has codes and "
                    f"{record.get('id')!r} has {name}: encode all sources of a mixture that have any (`vilau encode`)."
                )


class VilaUDataCollator:
    r"""
    Makes a batch of records `{"messages": [...], "images": [...], "videos": [...]}`; `images` and `videos` may be
    missing, or stand as `codes` (see [`load_encoded`]).

    What the assistant says is supervised, and the text of a `document`. For classifier-free guidance some records lose
    the text of the user turns that ask for an image or a video. Which ones is drawn for each batch anew, from `seed`,
    the pass over the data, and the records of the batch (their `id`, or what they say if they have none). So it
    depends on no worker and no batch before, and a resumed run makes the batches of an uninterrupted one.

    Records are padded, each in a row of its own. Packs (see [`RecordPacker`]) become rows of several records, and with
    `padding_free` a batch is one row. In such rows no record sees another: position ids begin anew with each, there is
    no attention mask, and flash attention is told where they begin.

    Args:
        processor ([`VilaUProcessor`]).
        unconditional_probability (`float`, *optional*, defaults to 0.1): share of records that lose their prompt.
        seed (`int`, *optional*, defaults to 0): seed of that choice.
        max_length (`int`, *optional*): text of a record beyond this many tokens is cut off.
        padding_free (`bool`, *optional*, defaults to `False`): put all records of a batch into one row.
        pad_to_multiple_of (`int`, *optional*): lengthen rows to a multiple of this; with the `max_length` of packed
            rows all batches have the same shape.
    """

    def __init__(
        self,
        processor,
        unconditional_probability: float = 0.1,
        seed: int = 0,
        max_length: int | None = None,
        padding_free: bool = False,
        pad_to_multiple_of: int | None = None,
    ):
        if not 0 <= unconditional_probability <= 1:
            raise ValueError(f"`unconditional_probability` must be in [0, 1], got {unconditional_probability}.")
        if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
            raise ValueError(f"`pad_to_multiple_of` must be at least 1, got {pad_to_multiple_of}.")
        self.processor = processor
        self.unconditional_probability = unconditional_probability
        self.seed = seed
        self.max_length = max_length
        self.padding_free = padding_free
        self.pad_to_multiple_of = pad_to_multiple_of
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()  # workers that outlive a pass see it change

    def for_evaluation(self) -> "VilaUDataCollator":
        """A collator that drops no prompt; [`VilaUTrainer`] evaluates with it."""
        collator = copy.copy(self)
        collator.unconditional_probability = 0.0
        return collator

    def set_epoch(self, epoch: int):
        """
        Says which pass over the data begins; [`VilaUTrainer`] does. Records of a [`RecordStream`] say it themselves.

        Args:
            epoch (`int`): number of the pass, from 0.
        """
        self._epoch.fill_(epoch)

    def _choice(self, rows: list[dict], records: list[dict]) -> random.Random:
        """The generator that decides for `records`, those of `rows`, whose prompt is dropped."""
        passes = [row.get("pass", self._epoch.item()) for row in rows]
        return random.Random(json.dumps([self.seed, passes, [_identity(record) for record in records]]))

    def __call__(self, records: list[dict]) -> dict[str, torch.Tensor | int]:
        """
        Args:
            records (`list[dict]`): records, or packs of them, `{"records": [...]}`.

        Returns:
            `input_ids`, `labels` `(B, T)`; `attention_mask` `(B, T)` for padded records, otherwise `position_ids`
            `(B, T)`, `cu_seq_lens_q`, `cu_seq_lens_k` (int32 `(samples + 1,)`, over all rows one after the other) and
            `max_length_q`, `max_length_k` (`int`); `pixel_values` `(N, 3, S, S)` and `pixel_values_videos`
            `(V, F, 3, S, S)`, or `codes` `(N, L, D)`, if the records have any.
        """
        rows = [record["records"] if "records" in record else [record] for record in records]
        packed = self.padding_free or any("records" in record for record in records)
        flat = [record for row in rows for record in row]
        batch = self._encode(flat, self._choice(records, flat))
        if packed:
            counts = [sum(map(len, rows))] if self.padding_free else [len(row) for row in rows]
            batch.update(self._pack(batch.pop("input_ids"), batch.pop("labels"), batch.pop("attention_mask"), counts))
        elif self.pad_to_multiple_of is not None:
            fill = -batch["input_ids"].shape[1] % self.pad_to_multiple_of
            pads = {"input_ids": self.processor.tokenizer.pad_token_id, "attention_mask": 0, "labels": -100}
            batch.update({name: functional.pad(batch[name], (0, fill), value=pad) for name, pad in pads.items()})
        return batch

    def _encode(self, records: list[dict], choice: random.Random) -> dict[str, torch.Tensor]:
        """The records as padded rows, one each."""
        conversations = [
            without_prompt(record["messages"])
            if choice.random() < self.unconditional_probability
            else record["messages"]
            for record in records
        ]
        images, videos, codes = (
            [[] if record.get(name) is None else record[name] for record in records]
            for name in ("images", "videos", "codes")
        )
        codes = codes if any(len(row) for row in codes) else None
        if codes is not None:
            _refuse_pixels(records)
        return dict(self.processor.encode_training_samples(conversations, images, videos, self.max_length, codes))

    def _pack(self, input_ids, labels, attention_mask, counts: list[int]) -> dict[str, torch.Tensor | int]:
        """Rows of `counts` samples each, of padded samples `(samples, T)`; a row's end is filled with one more."""
        lengths = attention_mask.sum(1)
        row_lengths = torch.stack([part.sum() for part in lengths.split(counts)])
        longest, multiple = int(row_lengths.max()), self.pad_to_multiple_of or 1
        shape = (len(counts), -(-longest // multiple) * multiple)
        places = torch.arange(shape[1]) < row_lengths[:, None]  # (B, T)
        labels[:, 0] = -100  # or the sample before would predict it
        is_token = attention_mask.bool()
        batch = {
            "input_ids": torch.full(shape, self.processor.tokenizer.pad_token_id),
            "labels": torch.full(shape, -100),
        }
        batch["input_ids"][places], batch["labels"][places] = input_ids[is_token], labels[is_token]
        fills = shape[1] - row_lengths
        segments = [torch.cat([part, fill[None]]) for part, fill in zip(lengths.split(counts), fills, strict=True)]
        segments = torch.cat(segments)
        segments = segments[segments > 0]
        ends = segments.cumsum(0)
        begins = (ends - segments).repeat_interleave(segments)
        batch["position_ids"] = (torch.arange(begins.numel()) - begins).view(shape)
        batch["cu_seq_lens_q"] = batch["cu_seq_lens_k"] = functional.pad(ends, (1, 0)).int()
        batch["max_length_q"] = batch["max_length_k"] = int(segments.max())
        return batch


__all__ = ["VilaUDataCollator"]
