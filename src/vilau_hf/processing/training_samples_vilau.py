# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Encoding of conversations with their images, videos and labels as batches for training."""

from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase

from .compat_processing_vilau import render_jinja_template
from .input_checks_vilau import check_conversations, check_samples, readable_errors
from .plain_special_tokens_vilau import mark_special_tokens, tokenizer_for


class TrainingSamplesMixin:
    """
    Methods of [`VilaUProcessor`] that encode training samples.

    The tokens of all samples are processed as one flat sequence, and a second array holds the row of each token. So
    the cost in Python does not grow with the number of tokens.
    """

    # attributes of the processor
    tokenizer: PreTrainedTokenizerBase
    image_processor: Any  # one of two classes, or a class of custom code
    video_processor: Any
    chat_template: str | dict[str, str] | None
    num_visual_tokens: int
    image_token_id: int
    image_start_token_id: int
    image_end_token_id: int
    video_token_id: int
    video_start_token_id: int
    video_end_token_id: int

    def encode_training_samples(
        self,
        conversations: list[list[dict]],
        images: list[list] | None = None,
        videos: list[list] | None = None,
        max_length: int | None = None,
        codes: list[list] | None = None,
    ) -> BatchFeature:
        """
        Encodes conversations with their labels, padded on the right.

        Args:
            conversations (`list[list[dict]]`): messages of each sample.
            images (`list[list]`, *optional*): images of each sample, in the order of its placeholders.
            videos (`list[list]`, *optional*): videos of each sample. All videos have the same number of frames.
            max_length (`int`, *optional*): maximum number of tokens of a sample. Text after it is cut off.
            codes (`list[list]`, *optional*): codes in place of `images` and `videos`. Each sample has one array of
                integers for each placeholder. Its shape is `(F, L, D)` or `(F, L * D)`, with F = 1 for an image.

        Returns:
            `BatchFeature` with `input_ids`, `attention_mask` and `labels`, int64 of shape `(B, T)`. If there are any,
            also `pixel_values` `(N, 3, S, S)` and `pixel_values_videos` `(V, F, 3, S, S)`, or `codes` `(N, L, D)`.
            `labels` are -100 except at tokens of the assistant. At visual tokens they are the id of the placeholder.

        Raises:
            ValueError: if the numbers of placeholders and media differ, or `max_length` would cut an image or a video.
        """
        check_samples(conversations, images, videos, codes, max_length)
        if self.tokenizer.pad_token_id is None:
            raise ValueError("`tokenizer` has no `pad_token`, which a batch of samples needs.")
        media = {"image": images or [[]] * len(conversations), "video": videos or [[]] * len(conversations)}
        ids, rows, supervised = self._tokenize_with_targets(conversations)
        if codes is None:
            visual = self._pixels_of_samples(media)
            for kind in media:
                self._check_placeholders(kind, rows[ids == getattr(self, f"{kind}_token_id")], media[kind])
            frames = visual["pixel_values_videos"].shape[1] if "pixel_values_videos" in visual else 1
            num_frames = np.where(ids == self.video_token_id, frames, 1)
        elif any(media["image"]) or any(media["video"]):
            raise ValueError("`codes` replace `images` and `videos`: give one or the other.")
        else:
            num_frames = self._frames_of_tokens(ids, rows, [[len(item) for item in row] for row in codes])
            visual = self._codes_of_samples(codes)
        ids, rows, supervised = self._expand_placeholders(ids, rows, supervised, num_frames)
        batch = self._pad_samples(ids, rows, supervised, len(conversations), max_length)
        return BatchFeature({**batch, **visual})

    def count_training_tokens(self, conversations: list[list[dict]], num_frames: list[list[int]]) -> list[int]:
        """
        Counts the tokens that `encode_training_samples` gives for each sample, without opening media.

        Args:
            conversations (`list[list[dict]]`): messages of each sample.
            num_frames (`list[list[int]]`): number of frames at each placeholder of each sample, 1 for an image.

        Returns:
            Number of tokens of each sample.

        Raises:
            ValueError: if the number of placeholders of a sample differs from the length of its list in
                `num_frames`.
        """
        check_conversations(conversations, "conversations")
        ids, rows, _ = self._tokenize_with_targets(conversations)
        tokens = self._expanded_lengths(ids, self._frames_of_tokens(ids, rows, num_frames))
        return np.bincount(rows, weights=tokens, minlength=len(conversations)).astype(int).tolist()

    def _pixels_of_samples(self, media: dict[str, list[list]]) -> dict[str, torch.Tensor]:
        """Preprocesses the images and videos of all samples."""
        pixels: dict[str, torch.Tensor] = {}
        if any(media["image"]):
            images = [image for row in media["image"] for image in row]
            pixels.update(self.image_processor(images, return_tensors="pt"))
        if any(media["video"]):
            videos = [video for row in media["video"] for video in row]
            # without `return_tensors`, since videos of unequal length cannot be stacked and get the error below
            processed = self.video_processor(videos)["pixel_values_videos"]
            frames = sorted({len(video) for video in processed})
            if len(frames) > 1:
                raise ValueError(f"`videos` of one batch must have the same number of frames, got {frames}.")
            pixels["pixel_values_videos"] = torch.stack([torch.as_tensor(video) for video in processed])
        return pixels

    def _codes_of_samples(self, codes: list[list]) -> dict[str, torch.Tensor]:
        """Returns `codes` `(N, L, D)` of all images and frames in a dictionary, which is empty if there are none."""
        arrays = [np.asarray(item) for row in codes for item in row]
        for array in arrays:
            size = array.size // max(1, len(array))
            if array.dtype.kind not in "iu" or not size or size % self.num_visual_tokens:
                raise ValueError(
                    f"`codes` of an image or a video must be integers of shape (F, {self.num_visual_tokens}, D), got "
                    f"{array.dtype} of shape {array.shape}."
                )
        arrays = [array.reshape(len(array), self.num_visual_tokens, -1) for array in arrays]
        return {"codes": torch.from_numpy(np.concatenate(arrays).astype(np.int64))} if arrays else {}

    def _frames_of_tokens(self, ids: np.ndarray, rows: np.ndarray, num_frames: list[list[int]]) -> np.ndarray:
        """Returns the number of frames of each token: from `num_frames` at placeholders, 1 at text tokens."""
        is_placeholder = np.isin(ids, [self.image_token_id, self.video_token_id])
        found = np.bincount(rows[is_placeholder], minlength=len(num_frames))
        for row, (count, given) in enumerate(zip(found, num_frames, strict=True)):
            if count != len(given):
                raise ValueError(
                    f"The number of placeholders should be the same as the number of images and videos. Found {count} "
                    f"placeholders and {len(given)} images and videos in sample {row}."
                )
        frames = np.ones_like(ids)
        frames[is_placeholder] = [count for row in num_frames for count in row]
        if (frames[ids == self.image_token_id] != 1).any():
            row = rows[(ids == self.image_token_id) & (frames != 1)][0]
            raise ValueError(f"an image has one frame, but sample {row} gives {num_frames[row]} frames to its images.")
        return frames

    def _tokenize_with_targets(self, conversations: list[list[dict]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Tokenises conversations, with one token for each image and video.

        Returns:
            For the tokens of all samples one after the other: ids, number of the sample, and whether the token is a
            target. All three are of shape `(tokens,)`.
        """
        special_tokens: dict[str, Any] = self.tokenizer.special_tokens_map
        with readable_errors():
            rendered: Any = render_jinja_template(  # the library's type for the result is wrong
                conversations=mark_special_tokens(conversations, self.tokenizer),
                chat_template=self._default_chat_template(),
                return_assistant_tokens_mask=True,
                **special_tokens,
            )
        # texts, and for each text the ranges of characters that the assistant wrote
        prompts, target_ranges = rendered
        encoded = tokenizer_for(prompts, self.tokenizer)(
            prompts,
            add_special_tokens=not self._starts_with_bos(prompts[0]),
            return_offsets_mapping=True,
            return_attention_mask=False,
            padding=False,
        )
        # A token is a target if one of its characters is. The number of target characters before each character
        # answers this for all tokens at once.
        lengths = np.array([len(prompt) for prompt in prompts])
        first_chars = np.cumsum(lengths) - lengths  # of each prompt, when all prompts are joined
        steps = np.zeros(lengths.sum() + 1, dtype=np.int64)  # +1 where a range begins, -1 where it ends
        for first, ranges in zip(first_chars, target_ranges, strict=True):
            for start, end in ranges:
                steps[first + start] += 1
                steps[first + end] -= 1
        targets_before = np.concatenate([[0], np.cumsum(np.cumsum(steps) > 0)])
        rows = np.repeat(np.arange(len(prompts)), [len(row) for row in encoded["input_ids"]])
        ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in encoded["input_ids"]])
        offsets = np.concatenate([np.asarray(row, dtype=np.int64) for row in encoded["offset_mapping"]])
        offsets = offsets + first_chars[rows, None]  # (tokens, 2)
        return ids, rows, targets_before[offsets[:, 1]] > targets_before[offsets[:, 0]]

    def _default_chat_template(self) -> str | None:
        """Returns the chat template. If a processor has several by name, it is the one called "default"."""
        template = self.chat_template
        return template["default"] if isinstance(template, dict) else template

    def _starts_with_bos(self, prompt: str) -> bool:
        """Returns whether the chat template already wrote the first token, which the tokenizer would add again."""
        return self.tokenizer.bos_token is not None and prompt.startswith(self.tokenizer.bos_token)

    def _check_placeholders(self, kind: str, rows: np.ndarray, media: list[list]) -> None:
        """
        Raises a `ValueError` unless each sample has one placeholder for each of its images (or videos).

        Args:
            kind (`str`): `"image"` or `"video"`.
            rows (`np.ndarray`): for each placeholder of this kind, the index of its sample.
            media (`list[list]`): images or videos of each sample.
        """
        for row, (found, items) in enumerate(zip(np.bincount(rows, minlength=len(media)), media, strict=True)):
            if found != len(items):
                token = getattr(self, f"{kind}_token")
                raise ValueError(
                    f"The number of {token} tokens in the prompts should be the same as the number of {kind}s. Found "
                    f"{found} {token} tokens and {len(items)} {kind}s in sample {row}."
                )

    def _expanded_lengths(self, ids: np.ndarray, num_frames: np.ndarray) -> np.ndarray:
        """Returns the number of tokens that replace each token: for a placeholder L per frame and two markers."""
        is_placeholder = np.isin(ids, [self.image_token_id, self.video_token_id])
        return np.where(is_placeholder, self.num_visual_tokens * num_frames + 2, 1)

    def _expand_placeholders(
        self, ids: np.ndarray, rows: np.ndarray, supervised: np.ndarray, num_frames: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Replaces each placeholder by its span, which inherits the row and the target flag of the placeholder."""
        # Special tokens split a text before it is tokenised. So expanding ids gives the ids of the expanded text, and
        # the text stays short.
        counts = self._expanded_lengths(ids, num_frames)
        ends = np.cumsum(counts)
        expanded = np.repeat(ids, counts)
        for kind in ("image", "video"):
            is_placeholder = ids == getattr(self, f"{kind}_token_id")
            expanded[(ends - counts)[is_placeholder]] = getattr(self, f"{kind}_start_token_id")
            expanded[ends[is_placeholder] - 1] = getattr(self, f"{kind}_end_token_id")
        return expanded, np.repeat(rows, counts), np.repeat(supervised, counts)

    def _pad_samples(
        self, ids: np.ndarray, rows: np.ndarray, supervised: np.ndarray, batch_size: int, max_length: int | None
    ) -> dict[str, torch.Tensor]:
        """Cuts samples at `max_length`, pads them on the right and makes their labels, all of shape `(B, T)`."""
        lengths = np.bincount(rows, minlength=batch_size)
        columns = np.arange(len(ids)) - (np.cumsum(lengths) - lengths)[rows]
        if max_length is not None and lengths.max() > max_length:
            kept = columns < max_length
            # a start marker is cut only together with its placeholders
            visual = np.isin(
                ids, [self.image_token_id, self.image_end_token_id, self.video_token_id, self.video_end_token_id]
            )
            if (visual & ~kept).any():
                row = rows[visual & ~kept][0]
                raise ValueError(
                    f"`max_length` ({max_length}) would cut an image or a video of sample {row}, which has "
                    f"{lengths[row]} tokens; raise it or leave the sample out."
                )
            ids = ids[kept]
            rows = rows[kept]
            supervised = supervised[kept]
            columns = columns[kept]
            lengths = np.minimum(lengths, max_length)
        shape = (batch_size, lengths.max())
        input_ids = np.full(shape, self.tokenizer.pad_token_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        labels = np.full(shape, -100, dtype=np.int64)
        input_ids[rows, columns] = ids
        attention_mask[rows, columns] = 1
        labels[rows, columns] = np.where(supervised, ids, -100)
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        return {name: torch.from_numpy(array) for name, array in batch.items()}


__all__ = ["TrainingSamplesMixin"]
