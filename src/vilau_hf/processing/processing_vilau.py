# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Processor of VILA-U: prompts, placeholders, training labels and what generation gives back."""

import os
import re
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin

from .chat_templates_vilau import vilau_chat_template
from .compat_processing_vilau import (
    TEXT_DEFAULTS,
    BaseVideoProcessor,
    MultiModalData,
    VilaUProcessorKwargs,
    make_batched_videos,
    render_jinja_template,
)


GENERATION_MODES = ("text", "image", "video", "interleaved")


class VilaUProcessor(ProcessorMixin):
    r"""
    Processor of VILA-U: image processor, tokenizer and video processor in one. A placeholder `<image>` in the text
    becomes `<image_start>`, `num_visual_tokens` placeholders and `<image_end>`; `<video>` the same with all frames in
    a row. Two options keep the format of the original release; training samples have markers always.

    Args:
        image_processor ([`VilaUImageProcessor`] or [`VilaUImageProcessorPil`]).
        tokenizer ([`PreTrainedTokenizerFast`]): with the `extra_special_tokens` `image_token`, `image_start_token`,
            `image_end_token`, `video_token`, `video_start_token`, `video_end_token`.
        video_processor ([`VilaUVideoProcessor`]).
        chat_template (`str`, *optional*, defaults to [`vilau_chat_template`]).
        num_visual_tokens (`int`, *optional*, defaults to 256): visual tokens L of an image or a frame.
        context_markers (`bool`, *optional*, defaults to `True`): whether images and videos in a prompt stand between
            markers. Without, the text after one is tokenised like the beginning of a text, with a space before it.
        video_as_images (`bool`, *optional*, defaults to `False`): whether the frames of a video in a prompt stand on
            lines of their own, like single images; only without `context_markers`.
    """

    valid_processor_kwargs = VilaUProcessorKwargs
    text_kwargs = TEXT_DEFAULTS

    def __init__(
        self,
        image_processor,
        tokenizer,
        video_processor,
        chat_template=None,
        num_visual_tokens: int = 256,
        context_markers: bool = True,
        video_as_images: bool = False,
    ):
        if video_as_images and context_markers:
            raise ValueError("`video_as_images=True` needs `context_markers=False`, got `context_markers=True`.")
        for kind in ("image", "video"):
            for name in (f"{kind}_token", f"{kind}_start_token", f"{kind}_end_token"):
                token = getattr(tokenizer, name, None)
                if token is None:
                    raise ValueError(f"`tokenizer` has no `{name}`; name it in its `extra_special_tokens`.")
                setattr(self, name, token)
                setattr(self, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
        self.num_visual_tokens = num_visual_tokens
        self.context_markers = context_markers
        self.video_as_images = video_as_images
        # the tokenizer's file has them too: pipelines of transformers save tokenizer and image processor alone
        tokenizer.init_kwargs["processor_settings"] = {
            "num_visual_tokens": num_visual_tokens,
            "context_markers": context_markers,
            "video_as_images": video_as_images,
        }
        chat_template = vilau_chat_template() if chat_template is None else chat_template
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template)

    def __call__(self, images=None, text=None, videos=None, audio=None, generation_mode: str = "text", **kwargs):
        """
        Processes prompts with their images and videos, as transformers' processors do.

        Args:
            images, text, videos: as for the base class.
            audio: not supported.
            generation_mode (`str`, *optional*, defaults to `"text"`): what will be generated: `"text"`, `"image"`,
                `"video"` or `"interleaved"`. Prompts are the same for all: `generate` adds the start marker.
            kwargs: as for the base class.

        Raises:
            ValueError: for an unknown mode, or prompts whose placeholders do not match their media.
        """
        if generation_mode not in GENERATION_MODES:
            raise ValueError(
                f"`generation_mode` must be one of {', '.join(GENERATION_MODES)}, got {generation_mode!r}."
            )
        return super().__call__(images=images, text=text, videos=videos, audio=audio, **kwargs)

    @classmethod
    def from_args_and_dict(cls, args, processor_dict, **kwargs):
        settings = next((part.init_kwargs for part in args if hasattr(part, "init_kwargs")), {})
        return super().from_args_and_dict(args, {**settings.get("processor_settings", {}), **processor_dict}, **kwargs)

    def check_argument_for_proper_class(self, argument_name, argument):
        """As the library, which knows the class of video processors only where torchvision is installed."""
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, BaseVideoProcessor):
            raise TypeError(f"`video_processor` must be a BaseVideoProcessor, got {type(argument).__name__}.")
        return BaseVideoProcessor

    @property
    def unused_input_names(self) -> list[str]:
        """Tokenizer outputs that the model does not take."""
        return ["token_type_ids"]

    def prepare_inputs_layout(self, images=None, text=None, videos=None, audio=None, **kwargs):
        """Checks the prompts before any work is done, then lists them and opens the images."""
        if text is not None:
            prompts = [text] if isinstance(text, str) else text
            if not isinstance(prompts, (list, tuple)) or not all(isinstance(prompt, str) for prompt in prompts):
                raise ValueError(f"`text` must be a string or a list of strings, got {_kind_of(text)}.")
            if not prompts:
                raise ValueError("`text` is an empty list, give at least one prompt.")
            if not self.context_markers:
                text = [self._space_after_placeholders(prompt) for prompt in prompts]
        images, videos = (None if _is_empty(media) else media for media in (images, videos))
        return super().prepare_inputs_layout(images, text, _paths_to_strings(videos), audio, **kwargs)

    def _space_after_placeholders(self, prompt: str) -> str:
        """A space before the text that follows a placeholder, unless that begins with a special token."""
        special = "|".join(re.escape(token) for token in self.tokenizer.all_special_tokens)
        placeholders = f"{re.escape(self.image_token)}|{re.escape(self.video_token)}"
        return re.sub(rf"({placeholders})(?!\Z|{special})", r"\1 ", prompt)

    def validate_inputs(self, images=None, text=None, videos=None, audio=None, **kwargs):
        """Compares placeholders with media, row by row where the media are given by row, else as a whole."""
        for kind, media in (("image", images), ("video", videos)) if text is not None else ():
            token = getattr(self, f"{kind}_token")
            found = [prompt.count(token) for prompt in text]
            by_row = isinstance(media, (list, tuple)) and len(media) == len(text) > 1 and kind == "image"
            if by_row and all(isinstance(row, (list, tuple)) for row in media):
                given = [len(row) for row in media]
                if found != given:
                    raise ValueError(
                        f"The number of {token} tokens in the prompts should be the same as the number of {kind}s of "
                        f"each prompt. Found {found} {token} tokens and {given} {kind}s."
                    )
                continue
            # the base class compares totals, too, but only from transformers 5.23 on
            given = 0
            if media is not None:
                given = _count_images(media) if kind == "image" else len(make_batched_videos(media))
            if sum(found) != given:
                raise ValueError(
                    f"The total number of {token} tokens in the prompts should be the same as the number of {kind}s "
                    f"passed. Found total {sum(found)} {token} tokens and {given} {kind}s."
                )
        super().validate_inputs(images=images, text=text, videos=videos, audio=audio, **kwargs)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs) -> str:
        """The text that stands for one image: L placeholders, between the markers."""
        placeholders = self.image_token * self.num_visual_tokens
        return self.image_start_token + placeholders + self.image_end_token if self.context_markers else placeholders

    def replace_video_token(self, video_inputs: dict, video_idx: int, **kwargs) -> str:
        """The text that stands for one video: L placeholders for each frame, between the markers."""
        frame = self.video_token * self.num_visual_tokens
        num_frames = len(video_inputs["pixel_values_videos"][video_idx])
        if self.context_markers:
            return self.video_start_token + frame * num_frames + self.video_end_token
        return (" \n" if self.video_as_images else "").join([frame] * num_frames)

    def _get_num_multimodal_tokens(self, image_sizes=None, video_sizes=None, **kwargs) -> MultiModalData:
        """Counts placeholders for images of sizes `(height, width)` and videos of sizes `(frames, height, width)`."""
        data = {}
        if image_sizes is not None:
            data["num_image_tokens"] = [self.num_visual_tokens] * len(image_sizes)
            data["num_image_patches"] = [1] * len(image_sizes)
        if video_sizes is not None:
            data["num_video_tokens"] = [self.num_visual_tokens * size[0] for size in video_sizes]
        return MultiModalData(**data)

    def unconditional_prompt_ids(self, negative_prompt: str = "") -> list[int]:
        """Ids of the prompt that the unconditional stream of classifier-free guidance sees."""
        messages = [{"role": "user", "content": negative_prompt}]
        prompt = self.apply_chat_template(messages, add_generation_prompt=True)
        return self.tokenizer(prompt, add_special_tokens=not self._starts_with_bos(prompt))["input_ids"]

    def _starts_with_bos(self, prompt: str) -> bool:
        return self.tokenizer.bos_token is not None and prompt.startswith(self.tokenizer.bos_token)

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
            images (`list[list]`, *optional*): the images of each sample, in the order of its placeholders.
            videos (`list[list]`, *optional*): the videos of each sample; all of them with the same number of frames.
            max_length (`int`, *optional*): text beyond this many tokens is cut off.
            codes (`list[list]`, *optional*): in place of `images` and `videos`, for each sample the codes of all of
                them in the order of their placeholders, integers `(F, L, D)` or `(F, L * D)`; F is the number of
                frames, 1 for an image.

        Returns:
            `BatchFeature` with `input_ids`, `attention_mask`, `labels`, all `(B, T)`; `pixel_values` `(N, 3, S, S)`
            and `pixel_values_videos` `(V, F, 3, S, S)`, or `codes` `(N, L, D)`, if there are any. `labels` are the ids
            where the assistant speaks (the placeholder's at visual tokens) and -100 elsewhere.

        Raises:
            ValueError: if placeholders and media differ in number, or `max_length` would cut an image or a video.
        """
        if not conversations:
            raise ValueError("`conversations` is empty, give at least one sample.")
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
            num_frames = self._frames_of_placeholders(ids, rows, [[len(item) for item in row] for row in codes])
            visual = self._codes_of_samples(codes)
        ids, rows, supervised = self._expand_placeholders(ids, rows, supervised, num_frames)
        batch = self._pad_samples(ids, rows, supervised, len(conversations), max_length)
        return BatchFeature({**batch, **visual})

    def count_training_tokens(self, conversations: list[list[dict]], num_frames: list[list[int]]) -> list[int]:
        """
        Number of tokens of each sample as `encode_training_samples` gives them, without its media.

        Args:
            conversations (`list[list[dict]]`): messages of each sample.
            num_frames (`list[list[int]]`): for each sample the frames of its images (1) and videos, in the order of
                their placeholders.

        Raises:
            ValueError: if a sample has another number of placeholders.
        """
        ids, rows, _ = self._tokenize_with_targets(conversations)
        tokens = self._span_lengths(ids, self._frames_of_placeholders(ids, rows, num_frames))
        return np.bincount(rows, weights=tokens, minlength=len(conversations)).astype(int).tolist()

    def _pixels_of_samples(self, media: dict[str, list[list]]) -> dict[str, torch.Tensor]:
        pixels = {}
        if any(media["image"]):
            flat = [image for row in media["image"] for image in row]
            pixels.update(self.image_processor(flat, return_tensors="pt"))
        if any(media["video"]):
            processed = self.video_processor([v for row in media["video"] for v in row])["pixel_values_videos"]
            frames = sorted({len(video) for video in processed})
            if len(frames) > 1:
                raise ValueError(f"`videos` of one batch must have the same number of frames, got {frames}.")
            pixels["pixel_values_videos"] = torch.stack([torch.as_tensor(video) for video in processed])
        return pixels

    def _codes_of_samples(self, codes: list[list]) -> dict[str, torch.Tensor]:
        """Codes `(N, L, D)` of all images and frames, absent if there are none."""
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

    def _frames_of_placeholders(self, ids: np.ndarray, rows: np.ndarray, num_frames: list[list[int]]) -> np.ndarray:
        """Frames that each token stands for, of placeholders as given by sample."""
        places = np.isin(ids, [self.image_token_id, self.video_token_id])
        found = np.bincount(rows[places], minlength=len(num_frames))
        for row, (count, given) in enumerate(zip(found, num_frames, strict=True)):
            if count != len(given):
                raise ValueError(
                    f"The number of placeholders should be the same as the number of images and videos. Found {count} "
                    f"placeholders and {len(given)} images and videos in sample {row}."
                )
        frames = np.ones_like(ids)
        frames[places] = [count for row in num_frames for count in row]
        if (frames[ids == self.image_token_id] != 1).any():
            row = rows[(ids == self.image_token_id) & (frames != 1)][0]
            raise ValueError(f"an image has one frame, but sample {row} gives {num_frames[row]} frames to its images.")
        return frames

    def _tokenize_with_targets(self, conversations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids of all samples in a row, the sample each belongs to, and whether it is the assistant's (all 1-D)."""
        prompts, spans = render_jinja_template(
            conversations=conversations,
            chat_template=self._default_chat_template(),
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        encoded = self.tokenizer(
            prompts,
            add_special_tokens=not self._starts_with_bos(prompts[0]),
            return_offsets_mapping=True,
            return_attention_mask=False,
            padding=False,
        )
        lengths = np.array([len(prompt) for prompt in prompts])
        first_chars = np.cumsum(lengths) - lengths
        marks = np.zeros(lengths.sum() + 1, dtype=np.int64)  # +1 where a span opens, -1 where it closes
        for first, row_spans in zip(first_chars, spans, strict=True):
            for start, end in row_spans:
                marks[first + start] += 1
                marks[first + end] -= 1
        covered = np.concatenate([[0], np.cumsum(np.cumsum(marks) > 0)])  # supervised characters before each character
        rows = np.repeat(np.arange(len(prompts)), [len(row) for row in encoded["input_ids"]])
        ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in encoded["input_ids"]])
        offsets = np.concatenate([np.asarray(row, dtype=np.int64) for row in encoded["offset_mapping"]])
        offsets = offsets + first_chars[rows, None]  # (tokens, 2)
        return ids, rows, covered[offsets[:, 1]] > covered[offsets[:, 0]]

    def _default_chat_template(self) -> str:
        """The chat template, or where a processor has several by name the one called "default"."""
        template = self.chat_template
        return template["default"] if isinstance(template, dict) else template

    def _check_placeholders(self, kind: str, rows: np.ndarray, media: list[list]):
        for row, (found, items) in enumerate(zip(np.bincount(rows, minlength=len(media)), media, strict=True)):
            if found != len(items):
                token = getattr(self, f"{kind}_token")
                raise ValueError(
                    f"The number of {token} tokens in the prompts should be the same as the number of {kind}s. Found "
                    f"{found} {token} tokens and {len(items)} {kind}s in sample {row}."
                )

    def _span_lengths(self, ids: np.ndarray, num_frames: np.ndarray) -> np.ndarray:
        """Tokens that each token becomes: a placeholder L for each frame, and two markers."""
        places = np.isin(ids, [self.image_token_id, self.video_token_id])
        return np.where(places, self.num_visual_tokens * num_frames + 2, 1)

    def _expand_placeholders(self, ids, rows, supervised, num_frames: np.ndarray):
        """Each placeholder becomes its span; special tokens split the text, so this equals expanding the text."""
        counts = self._span_lengths(ids, num_frames)
        ends = np.cumsum(counts)
        expanded = np.repeat(ids, counts)
        for kind in ("image", "video"):
            places = ids == getattr(self, f"{kind}_token_id")
            expanded[(ends - counts)[places]] = getattr(self, f"{kind}_start_token_id")
            expanded[ends[places] - 1] = getattr(self, f"{kind}_end_token_id")
        return expanded, np.repeat(rows, counts), np.repeat(supervised, counts)

    def _pad_samples(self, ids, rows, supervised, batch_size: int, max_length: int | None) -> dict[str, torch.Tensor]:
        lengths = np.bincount(rows, minlength=batch_size)
        columns = np.arange(len(ids)) - (np.cumsum(lengths) - lengths)[rows]
        if max_length is not None and lengths.max() > max_length:
            kept = columns < max_length
            visual = np.isin(
                ids, [self.image_token_id, self.image_end_token_id, self.video_token_id, self.video_end_token_id]
            )
            if (visual & ~kept).any():
                row = rows[visual & ~kept][0]
                raise ValueError(
                    f"`max_length` ({max_length}) would cut an image or a video of sample {row}, which has "
                    f"{lengths[row]} tokens; raise it or leave the sample out."
                )
            ids, rows, supervised, columns = ids[kept], rows[kept], supervised[kept], columns[kept]
            lengths = np.minimum(lengths, max_length)
        shape = (batch_size, lengths.max())
        input_ids = np.full(shape, self.tokenizer.pad_token_id, dtype=np.int64)
        attention_mask, labels = np.zeros(shape, dtype=np.int64), np.full(shape, -100, dtype=np.int64)
        input_ids[rows, columns] = ids
        attention_mask[rows, columns] = 1
        labels[rows, columns] = np.where(supervised, ids, -100)
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def post_process_image_text_to_text(
        self, generated_outputs, skip_special_tokens: bool = True, **kwargs
    ) -> list[str]:
        """Decodes generated ids `(B, T)` into strings."""
        return self.tokenizer.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)

    def post_process_multimodal_output(
        self, generated_outputs, skip_special_tokens: bool = True, generation_mode: str | None = None, **kwargs
    ) -> list:
        """
        Turns what was generated into what is shown.

        Args:
            generated_outputs (`torch.Tensor`): ids `(B, T)`, pixels of images `(N, 3, H, W)` or of videos
                `(N, F, 3, H, W)`, in [-1, 1]; in interleaved mode what `generate` returned, its spans decoded by
                `decode_visual_spans`.
            skip_special_tokens (`bool`, *optional*, defaults to `True`): for text.
            generation_mode (`str`, *optional*, defaults to `"text"`): `"text"`, `"image"`, `"video"` or
                `"interleaved"`.

        Returns:
            A list of strings, of PIL images, or of lists of PIL images (the frames of a video). In interleaved mode a
            list of parts for each row: `{"type": "text", "text": str}`, `{"type": "image", "image": PIL.Image.Image}`
            and `{"type": "video", "video": list[PIL.Image.Image]}`, with `None` for what the length limit cut off.
        """
        if generation_mode in (None, "text"):
            return self.post_process_image_text_to_text(generated_outputs, skip_special_tokens, **kwargs)
        if generation_mode == "image":
            return self.image_processor.postprocess(generated_outputs)
        if generation_mode == "video":
            if generated_outputs.ndim != 5:
                shape = tuple(generated_outputs.shape)
                raise ValueError(f"`generated_outputs` of videos must have shape (N, F, 3, H, W), got {shape}.")
            return [self.image_processor.postprocess(video) for video in generated_outputs]
        if generation_mode == "interleaved":
            rows = zip(generated_outputs.sequences, generated_outputs.spans, strict=True)
            return [
                self._parts(ids, spans, generated_outputs.prompt_length, skip_special_tokens) for ids, spans in rows
            ]
        raise ValueError(f"`generation_mode` must be one of {', '.join(GENERATION_MODES)}, got {generation_mode!r}.")

    def _parts(self, ids: torch.LongTensor, spans: list, begin: int, skip_special_tokens: bool) -> list[dict]:
        """Text, images and videos of one row in order."""
        parts = []
        for span in [*spans, None]:
            end = len(ids) if span is None else span.begin
            text = self.tokenizer.decode(ids[begin:end], skip_special_tokens=skip_special_tokens).strip()
            if text:
                parts.append({"type": "text", "text": text})
            if span is None:
                return parts
            if span.codes is not None and span.pixels is None:
                raise ValueError("`generated_outputs.spans` have no pixels: call the model's `decode_visual_spans`.")
            pixels = None if span.codes is None else span.pixels
            if pixels is not None:
                frames = self.image_processor.postprocess(pixels if span.kind == "video" else pixels[None])
                pixels = frames if span.kind == "video" else frames[0]
            parts.append({"type": span.kind, span.kind: pixels})
            begin = span.begin + span.num_tokens


def _kind_of(text: Any) -> str:
    if isinstance(text, (list, tuple)):
        return "a list of " + ", ".join(sorted({type(item).__name__ for item in text}))
    return type(text).__name__


def _is_empty(media: Any) -> bool:
    """Whether `media` is a list without anything in it, at any nesting."""
    return isinstance(media, (list, tuple)) and all(_is_empty(item) for item in media)


def _count_images(images: Any) -> int:
    """Number of images in a (nested) list, or in an array or tensor `(N, ...)` of them."""
    if isinstance(images, (list, tuple)):
        return sum(_count_images(item) for item in images)
    return len(images) if getattr(images, "ndim", 0) == 4 else 1


def _paths_to_strings(media: Any) -> Any:
    if isinstance(media, (list, tuple)):
        return [_paths_to_strings(item) for item in media]
    return os.fspath(media) if isinstance(media, os.PathLike) else media


__all__ = ["VilaUProcessor"]
