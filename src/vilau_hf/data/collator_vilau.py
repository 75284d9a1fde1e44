# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Batches for stage 2: turns records into token ids, labels and pixels or codes."""

import copy
import json
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import torch
from torch.nn import functional

from ..modeling.argument_checks_vilau import PositiveInt, Rule, check_arguments, check_value
from .media import MediaLoader
from .message_media import collect_media


if TYPE_CHECKING:
    from ..processing import VilaUProcessor


_VISUAL = ("image", "video")
# Records of a dataset are dictionaries, or mappings that behave like these.
_Records: TypeAlias = Annotated[
    Sequence[Mapping], Rule("of at least one record or pack", lambda records: len(records) > 0)
]
# value of a label that no loss counts, the `ignore_index` of `torch.nn.functional.cross_entropy`
_IGNORED = -100


def without_prompt(messages: list[dict]) -> list[dict]:
    """
    Removes the text of each user turn whose reply has an image or a video.

    The images and videos of the user turn stay.

    Args:
        messages (`list[dict]`): the messages of a record.

    Returns:
        New messages. The given messages are not changed.
    """
    result = []
    for message, reply in zip(messages, [*messages[1:], None], strict=True):
        if message["role"] == "user" and reply is not None and _has_visual_target(reply):
            content = message["content"]
            media = [] if isinstance(content, str) else [item for item in content if item["type"] != "text"]
            message = {**message, "content": media}
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
    """Returns what identifies a record: its `id`, or its messages if it has none."""
    # It must be the same for a record with pixels and with codes, so that both lose their prompts in the same batches.
    if record.get("id") is not None:
        return [str(record["id"])]
    contents = [(message["role"], message["content"]) for message in record["messages"]]
    return [
        [role, [content] if isinstance(content, str) else [item.get("text") or item["type"] for item in content]]
        for role, content in contents
    ]


def _refuse_pixels(records: list[dict]) -> None:
    """Raises a `ValueError` if some records have images or videos, while others have codes."""
    is_encoded = [record.get("codes") is not None and len(record["codes"]) > 0 for record in records]
    encoded = records[is_encoded.index(True)]
    for record in (record for record, other in zip(records, is_encoded, strict=True) if not other):
        for name in ("images", "videos"):
            if record.get(name) is not None and len(record[name]):
                raise ValueError(
                    f"a batch must not mix pixels and codes, but the record {encoded.get('id')!r} has codes and "
                    f"{record.get('id')!r} has {name}. Encode all sources of a mixture that have images or videos "
                    "(`vilau encode`)."
                )


class VilaUDataCollator:
    r"""
    Makes a batch of records `{"messages": [...], "images": [...], "videos": [...]}`.

    `images` and `videos` may be missing. They may also be inside of the messages, as chat templates take them:
    `{"type": "image", "image": image}`. Records that were encoded have `codes` instead (see [`load_encoded`]).

    The targets are what the assistant says, and the text of a `document`. For classifier-free guidance, some records
    lose the text of the user turns that ask for an image or a video. They are drawn for each batch. The draw depends
    only on `seed`, the number of the pass over the data, and the records of the batch (their `id`, or their messages).
    It does not depend on workers or earlier batches, so a resumed run makes the same batches.

    With `context_noise`, the model reads some of the images and videos that it learns to generate with errors. It
    predicts the right codes all the same. So it relies less on the positions before, and more on the prompt. Errors
    are drawn as the lost prompts are.

    A record is a padded row of the batch. Packs (see [`RecordPacker`]) become rows of several records. With
    `padding_free`, a batch is one row. In such rows no record sees another: position ids begin again with each record,
    there is no attention mask, and the batch has the arguments of flash attention.

    Args:
        processor ([`VilaUProcessor`]): tokenizes messages and prepares images and videos.
        unconditional_probability (`float`, *optional*, defaults to 0.1): share of records that lose their prompt.
        seed (`int`, *optional*, defaults to 0): seed of that choice, and of the errors.
        max_length (`int`, *optional*): text of a record beyond this many tokens is cut off.
        padding_free (`bool`, *optional*, defaults to `False`): whether to put all records of a batch into one row.
        pad_to_multiple_of (`int`, *optional*): pads the length of rows to a multiple of this. With the `max_length` of
            packed rows, all batches have the same shape.
        context_noise (`float`, *optional*, defaults to 0.0): share of records whose images and videos to generate are
            read with errors. The share of their positions with errors is drawn from [0, 1] for each record.
    """

    def __init__(
        self,
        processor: "VilaUProcessor",
        unconditional_probability: Annotated[float, Rule("in [0, 1]", lambda value: 0 <= value <= 1)] = 0.1,
        seed: int = 0,
        max_length: PositiveInt | None = None,
        padding_free: bool = False,
        pad_to_multiple_of: PositiveInt | None = None,
        context_noise: Annotated[float, Rule("in [0, 1]", lambda value: 0 <= value <= 1)] = 0.0,
    ) -> None:
        check_arguments(VilaUDataCollator.__init__, locals())
        self.processor = processor
        self.unconditional_probability = unconditional_probability
        self.seed = seed
        self.max_length = max_length
        self.padding_free = padding_free
        self.pad_to_multiple_of = pad_to_multiple_of
        self.context_noise = context_noise
        # Media that are not open yet are opened here and not by the processor, which would also download URLs.
        self._media = MediaLoader(processor)
        # Shared memory: persistent workers hold a copy of the collator, and have to see the epoch change.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def for_evaluation(self) -> "VilaUDataCollator":
        """Returns a collator that keeps prompts and images as they are, with which [`VilaUTrainer`] evaluates."""
        # A shallow copy shares `_epoch` and the processor.
        collator = copy.copy(self)
        collator.unconditional_probability = 0.0
        collator.context_noise = 0.0
        return collator

    def set_epoch(self, epoch: int) -> None:
        """
        Sets the number of the pass over the data. [`VilaUTrainer`] calls it at the beginning of each pass.

        Records of a [`RecordStream`] have the number themselves.

        Args:
            epoch (`int`): number of the pass, from 0.
        """
        self._epoch.fill_(epoch)

    def _choice(self, rows: list[dict], records: list[dict]) -> random.Random:
        """Returns the generator that draws for `records`, those of `rows`, who loses its prompt and who has errors."""
        passes = [row.get("pass", self._epoch.item()) for row in rows]
        # A string as seed: `random.Random` hashes it with SHA-512, so the draw is the same in all processes.
        return random.Random(json.dumps([self.seed, passes, [_identity(record) for record in records]]))

    def __call__(self, records: list[dict]) -> dict[str, torch.Tensor | int]:
        """
        Makes a batch.

        Args:
            records (`list[dict]`): records, or packs of records, `{"records": [...]}`.

        Returns:
            `input_ids`, `labels` `(B, T)`; `attention_mask` `(B, T)` for padded records, otherwise `position_ids`
            `(B, T)`, `cu_seq_lens_q`, `cu_seq_lens_k` (int32 `(samples + 1,)`, over the concatenated rows) and
            `max_length_q`, `max_length_k` (`int`); `pixel_values` `(N, 3, S, S)` and `pixel_values_videos`
            `(V, F, 3, S, S)`, or `codes` `(N, L, D)`, if the records have any; and `context_errors` `(B, T)`, bool,
            with `context_noise`.
        """
        check_value("records", records, _Records)
        rows = [record["records"] if "records" in record else [record] for record in records]
        packed = self.padding_free or any("records" in record for record in records)
        rows = [[self._open(record) for record in row] for row in rows]
        flat = [record for row in rows for record in row]
        # Packs are encoded as single padded records first, so that each record has the tokens it has without packing.
        choice = self._choice(records, flat)
        batch = self._encode(flat, choice)
        if self.context_noise > 0:
            batch["context_errors"] = self._context_errors(batch["labels"], choice)
        if packed:
            counts = [sum(map(len, rows))] if self.padding_free else [len(row) for row in rows]
            batch.update(self._pack(batch, batch.pop("attention_mask").bool(), counts))
        elif self.pad_to_multiple_of is not None:
            fill = -batch["input_ids"].shape[1] % self.pad_to_multiple_of
            pads = {**self._fills(), "attention_mask": 0}
            padded = {name: functional.pad(batch[name], (0, fill), value=pads[name]) for name in pads if name in batch}
            batch.update(padded)
        return batch

    def _fills(self) -> dict[str, int]:
        """Returns the value of padding for each tensor by position."""
        return {"input_ids": self.processor.tokenizer.pad_token_id, "labels": _IGNORED, "context_errors": False}

    def _open(self, record: dict) -> dict:
        """Returns a record whose media are in its fields `images` and `videos`, and open."""
        opened = self._media.load(collect_media(record))
        return record if opened is None else opened  # never `None`, since this loader skips no record

    def _encode(self, records: list[dict], choice: random.Random) -> dict[str, Any]:
        """Returns the records as padded rows, each record in a row."""
        conversations = [
            without_prompt(record["messages"])
            if choice.random() < self.unconditional_probability
            else record["messages"]
            for record in records
        ]
        images = _column(records, "images")
        videos = _column(records, "videos")
        codes = _column(records, "codes")
        if not any(len(row) for row in codes):
            return dict(self.processor.encode_training_samples(conversations, images, videos, self.max_length))
        _refuse_pixels(records)
        return dict(self.processor.encode_training_samples(conversations, images, videos, self.max_length, codes))

    def _context_errors(self, labels: torch.Tensor, choice: random.Random) -> torch.Tensor:
        """Draws the positions `(B, T)` of images and videos to generate that the model reads with errors."""
        generator = torch.Generator().manual_seed(choice.getrandbits(63))
        rates = torch.rand(len(labels), 1, generator=generator)
        has_errors = torch.rand(len(labels), 1, generator=generator) < self.context_noise
        is_drawn = torch.rand(labels.shape, generator=generator) < rates * has_errors
        is_visual = (labels == self.processor.image_token_id) | (labels == self.processor.video_token_id)
        return is_visual & is_drawn

    def _pack(self, batch: dict[str, Any], is_token: torch.Tensor, counts: list[int]) -> dict[str, torch.Tensor | int]:
        """Concatenates padded samples `(samples, T)` to rows of `counts` samples each, without the padding."""
        lengths = is_token.sum(1)
        row_lengths = torch.stack([of_row.sum() for of_row in lengths.split(counts)])
        multiple = self.pad_to_multiple_of or 1
        shape = (len(counts), -(-int(row_lengths.max()) // multiple) * multiple)
        is_filled = torch.arange(shape[1]) < row_lengths[:, None]  # (B, T)
        # Labels are shifted by one, so the last token of the previous sample would predict the first label.
        batch["labels"][:, 0] = _IGNORED
        packed = {}
        for name, fill in self._fills().items():
            if name in batch:
                packed[name] = torch.full(shape, fill)
                packed[name][is_filled] = batch[name][is_token]
        # The padding at the end of a row counts as one more sample, so that no real sample contains it.
        padding = shape[1] - row_lengths
        of_rows = zip(lengths.split(counts), padding, strict=True)
        segments = torch.cat([torch.cat([of_row, fill[None]]) for of_row, fill in of_rows])
        segments = segments[segments > 0]
        ends = segments.cumsum(0)
        begins = (ends - segments).repeat_interleave(segments)
        borders = functional.pad(ends, (1, 0)).int()
        longest = int(segments.max())
        return {
            **packed,
            "position_ids": (torch.arange(begins.numel()) - begins).view(shape),
            "cu_seq_lens_q": borders,
            "cu_seq_lens_k": borders,
            "max_length_q": longest,
            "max_length_k": longest,
        }


def _column(records: list[dict], name: str) -> list:
    """Returns a field of each record, an empty list where it is missing."""
    return [[] if record.get(name) is None else record[name] for record in records]


__all__ = ["VilaUDataCollator"]
