# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Processor of VILA-U: prompts with images and videos, and the conversion of generated outputs."""

import copy
import os
import re
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from .chat_templates_vilau import vilau_chat_template
from .compat_processing_vilau import (
    TEXT_DEFAULTS,
    BaseVideoProcessor,
    MultiModalData,
    VilaUProcessorKwargs,
    make_batched_videos,
)
from .image_functions_vilau import open_images, reading_settings
from .input_checks_vilau import (
    check_conversations,
    check_generated_ids,
    check_generated_spans,
    check_max_length,
    check_num_visual_tokens,
    check_video_lists,
    readable_errors,
)
from .media_bytes_vilau import to_media_bytes
from .notebook_display_vilau import VilaUAnswer, VilaUFrames, VilaUMediaList
from .plain_special_tokens_vilau import mark_special_tokens, tokenizer_for
from .training_samples_vilau import TrainingSamplesMixin


GENERATION_MODES = ("text", "image", "video", "interleaved")


class VilaUProcessor(TrainingSamplesMixin, ProcessorMixin):
    r"""
    Processor of VILA-U: image processor, tokenizer and video processor in one.

    A placeholder `<image>` in the text becomes `<image_start>`, `num_visual_tokens` placeholders and `<image_end>`.
    `<video>` becomes the placeholders of all frames between `<video_start>` and `<video_end>`. Two options keep the
    prompt format of the original release. They do not change training samples, which always have markers.

    Args:
        image_processor ([`VilaUImageProcessor`] or [`VilaUImageProcessorPil`]): the image processor.
        tokenizer ([`PreTrainedTokenizerFast`]): a tokenizer whose `extra_special_tokens` are `image_token`,
            `image_start_token`, `image_end_token`, `video_token`, `video_start_token`, `video_end_token`.
        video_processor ([`VilaUVideoProcessor`]): the video processor.
        chat_template (`str`, *optional*, defaults to the result of [`vilau_chat_template`]): chat template in jinja.
        num_visual_tokens (`int`, *optional*, defaults to 256): number L of visual tokens of an image or a frame.
        context_markers (`bool`, *optional*, defaults to `True`): whether images and videos in a prompt are between
            markers. Without markers, a space is put before the text that follows an image or a video.
        video_as_images (`bool`, *optional*, defaults to `False`): whether each frame of a video in a prompt is on a
            separate line, like single images. It needs `context_markers=False`.
    """

    valid_processor_kwargs = VilaUProcessorKwargs
    text_kwargs = TEXT_DEFAULTS  # type: ignore[assignment]  # transformers types the values, not the arguments

    # `__init__` sets these from the tokenizer.
    image_token: str
    image_start_token: str
    image_end_token: str
    video_token: str
    video_start_token: str
    video_end_token: str

    # transformers finds the processors by the names of these arguments.
    def __init__(
        self,
        image_processor: Any,
        tokenizer: PreTrainedTokenizerBase,
        video_processor: BaseVideoProcessor,
        chat_template: str | dict[str, str] | None = None,
        num_visual_tokens: int = 256,
        context_markers: bool = True,
        video_as_images: bool = False,
    ) -> None:
        check_num_visual_tokens(num_visual_tokens)
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
        # The tokenizer's file stores the settings as well: some pipelines of transformers save only the tokenizer and
        # the image processor. `from_args_and_dict` reads them.
        tokenizer.init_kwargs["processor_settings"] = {
            "num_visual_tokens": num_visual_tokens,
            "context_markers": context_markers,
            "video_as_images": video_as_images,
        }
        chat_template = vilau_chat_template() if chat_template is None else chat_template
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template)

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        videos: Any = None,
        audio: None = None,
        generation_mode: str = "text",
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Processes prompts with their images and videos, like the processors of transformers.

        Args:
            images (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, `str` or (nested) lists of them, *optional*):
                images in the order of their placeholders. Lists of lists have the images of each prompt.
            text (`str` or `list[str]`, *optional*): prompts with the placeholders `<image>` and `<video>`.
            videos (`list[PIL.Image.Image]`, `np.ndarray`, `torch.Tensor`, `str` or lists of them, *optional*): videos
                in the order of their placeholders.
            audio (`None`): not supported.
            generation_mode (`str`, *optional*, defaults to `"text"`): what the model will generate: `"text"`,
                `"image"`, `"video"` or `"interleaved"`. It does not change the prompts: `generate` adds start markers.
            kwargs: further arguments of a transformers processor, for example `return_tensors`, `padding`.

        Returns:
            `BatchFeature` with `input_ids` and `attention_mask` `(B, T)`. With images or videos also `pixel_values`
            `(N, 3, S, S)` or `pixel_values_videos` `(V, F, 3, S, S)`.

        Raises:
            ValueError: for an unknown mode, or if the numbers of placeholders and media differ.
        """
        if generation_mode not in GENERATION_MODES:
            raise ValueError(
                f"`generation_mode` must be one of {', '.join(GENERATION_MODES)}, got {generation_mode!r}."
            )
        check_max_length(kwargs.get("max_length"))
        processor = self
        if isinstance(text, str) or (isinstance(text, (list, tuple)) and all(isinstance(item, str) for item in text)):
            tokenizer = tokenizer_for(text, self.tokenizer)
            if tokenizer is not self.tokenizer:
                # The base class tokenizes with the attribute. A copy leaves it to calls in other threads.
                processor = copy.copy(self)
                processor.tokenizer = tokenizer
        with readable_errors():
            return super(VilaUProcessor, processor).__call__(
                images=images, text=text, videos=videos, audio=audio, **kwargs
            )

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Renders messages like the base class. Special tokens in their text are tokenized as plain text.

        In a rendered string, such a token has a mark, which the processor removes when it tokenizes the string.

        Args:
            conversation (`list[dict]` or `list[list[dict]]`): one or several conversations.
            args: further arguments of the base class.
            kwargs: further arguments of the base class.

        Returns:
            The rendered string or strings, or the inputs of the model with `tokenize=True`.

        Raises:
            ValueError: for messages of another structure, and for those that the chat template rejects.
        """
        check_conversations(conversation)
        marked = mark_special_tokens(conversation, self.tokenizer)
        with readable_errors():
            return super().apply_chat_template(marked, *args, **kwargs)

    @classmethod
    def from_args_and_dict(cls, args: list, processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Creates the processor like the base class, with the settings that the tokenizer stores as defaults."""
        tokenizers = (arg for arg in args if hasattr(arg, "init_kwargs"))
        stored: dict[str, Any] = next(
            (tokenizer.init_kwargs.get("processor_settings", {}) for tokenizer in tokenizers), {}
        )
        return super().from_args_and_dict(args, {**stored, **processor_dict}, **kwargs)

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """Checks the type of an argument of `__init__` like the base class."""
        # The base class looks up `BaseVideoProcessor` in the top-level namespace of transformers. Without torchvision
        # it finds a placeholder there and refuses every video processor.
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, BaseVideoProcessor):
            raise TypeError(f"`video_processor` must be a BaseVideoProcessor, got {type(argument).__name__}.")
        return BaseVideoProcessor

    @property
    def unused_input_names(self) -> list[str]:
        """Returns the names of tokenizer outputs that the model does not take."""
        return ["token_type_ids"]

    def prepare_inputs_layout(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Checks the prompts, converts them to a list and opens the images."""
        # Prompts are checked before the base class opens any image, which can take long.
        if text is not None:
            prompts = [text] if isinstance(text, str) else text
            if not isinstance(prompts, (list, tuple)) or not all(isinstance(prompt, str) for prompt in prompts):
                raise ValueError(f"`text` must be a string or a list of strings, got {_type_names(text)}.")
            if not prompts:
                raise ValueError("`text` is an empty list, give at least one prompt.")
            if not self.context_markers:
                text = [self._add_spaces_after_placeholders(prompt) for prompt in prompts]
        images, videos = (None if _is_empty(media) else media for media in (images, videos))
        if text is None and images is None and videos is None:
            raise ValueError("`text`, `images` or `videos` must be given, got none of them.")
        check_video_lists(videos)
        if images is not None:
            # The base class opens images with the settings of the image processor, not with those of this call.
            options = {**kwargs, **(kwargs.get("images_kwargs") or {})}
            images = open_images(images, **reading_settings(self.image_processor, options))
        return super().prepare_inputs_layout(images, text, _paths_to_strings(videos), audio, **kwargs)

    def _add_spaces_after_placeholders(self, prompt: str) -> str:
        """Adds a space before the text that follows a placeholder, unless it begins with a special token."""
        # The original tokenises the text after an image as a new text, which LLaMA's tokenizer begins with a space.
        special = "|".join(re.escape(token) for token in self.tokenizer.all_special_tokens)
        placeholders = f"{re.escape(self.image_token)}|{re.escape(self.video_token)}"
        return re.sub(rf"({placeholders})(?!\Z|{special})", r"\1 ", prompt)

    def validate_inputs(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> None:
        """Checks that placeholders and media agree: by prompt if images are given by prompt, otherwise in total."""
        for kind, media in (("image", images), ("video", videos)) if text is not None else ():
            token = getattr(self, f"{kind}_token")
            found = [prompt.count(token) for prompt in text]
            is_by_prompt = isinstance(media, (list, tuple)) and len(media) == len(text) > 1 and kind == "image"
            if is_by_prompt and all(isinstance(row, (list, tuple)) for row in media):
                given = [len(row) for row in media]
                if found != given:
                    raise ValueError(
                        f"The number of {token} tokens in the prompts should be the same as the number of {kind}s of "
                        f"each prompt. Found {found} {token} tokens and {given} {kind}s."
                    )
                continue
            # The base class compares totals as well, but only from transformers 5.23 on. This check can go when 5.23
            # is the oldest supported version.
            total = 0
            if media is not None:
                total = _count_images(media) if kind == "image" else len(make_batched_videos(media))
            if sum(found) != total:
                raise ValueError(
                    f"The total number of {token} tokens in the prompts should be the same as the number of {kind}s "
                    f"passed. Found total {sum(found)} {token} tokens and {total} {kind}s."
                )
        super().validate_inputs(images=images, text=text, videos=videos, audio=audio, **kwargs)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """Returns the text of one image in a prompt: L placeholders, between markers if `context_markers`."""
        placeholders = self.image_token * self.num_visual_tokens
        return self.image_start_token + placeholders + self.image_end_token if self.context_markers else placeholders

    def replace_video_token(self, video_inputs: dict, video_idx: int, **kwargs: Any) -> str:
        """Returns the text of one video in a prompt: L placeholders a frame, between markers if `context_markers`."""
        frame = self.video_token * self.num_visual_tokens
        num_frames = len(video_inputs["pixel_values_videos"][video_idx])
        if self.context_markers:
            return self.video_start_token + frame * num_frames + self.video_end_token
        return (" \n" if self.video_as_images else "").join([frame] * num_frames)

    # vLLM calls this method. The base class has none, although the processors of transformers define it.
    def _get_num_multimodal_tokens(
        self,
        image_sizes: list[tuple[int, int]] | None = None,
        video_sizes: list[tuple[int, int, int]] | None = None,
        **kwargs: Any,
    ) -> MultiModalData:
        """Counts placeholders for images of sizes `(height, width)` and videos of sizes `(frames, height, width)`."""
        data: dict[str, list[int]] = {}
        if image_sizes is not None:
            data["num_image_tokens"] = [self.num_visual_tokens] * len(image_sizes)
            data["num_image_patches"] = [1] * len(image_sizes)
        if video_sizes is not None:
            data["num_video_tokens"] = [self.num_visual_tokens * size[0] for size in video_sizes]
        return MultiModalData(**data)

    def unconditional_prompt_ids(self, negative_prompt: str = "") -> list[int]:
        """Returns the ids of the prompt for the unconditional branch of classifier-free guidance."""
        messages = [{"role": "user", "content": negative_prompt}]
        prompt = self.apply_chat_template(messages, add_generation_prompt=True)
        tokenizer = tokenizer_for(prompt, self.tokenizer)
        return tokenizer(prompt, add_special_tokens=not self._starts_with_bos(prompt))["input_ids"]

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """Decodes generated ids `(B, T)` to strings."""
        check_generated_ids(generated_outputs)
        return self.tokenizer.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)

    def post_process_multimodal_output(
        self,
        generated_outputs: Any,
        skip_special_tokens: bool = True,
        generation_mode: str | None = None,
        **kwargs: Any,
    ) -> list:
        """
        Converts generated outputs to strings, PIL images or lists of frames.

        Args:
            generated_outputs (`torch.Tensor` or `VilaUGenerateOutput`): ids `(B, T)`, pixels of images
                `(N, 3, S, S)` or of videos `(V, F, 3, S, S)` in [-1, 1]. In interleaved mode it is the result of
                `generate` after `decode_visual_spans`.
            skip_special_tokens (`bool`, *optional*, defaults to `True`): whether special tokens are left out of text.
            generation_mode (`str`, *optional*, defaults to `"text"`): `"text"`, `"image"`, `"video"` or
                `"interleaved"`.
            kwargs: further arguments of `tokenizer.batch_decode` in the mode `"text"`.

        Returns:
            A list of strings, of PIL images, or of lists of PIL images (the frames of a video). In interleaved mode,
            each row is a list of content parts: `{"type": "text", "text": str}`,
            `{"type": "image", "image": PIL.Image.Image}` and `{"type": "video", "video": list[PIL.Image.Image]}`.
            Images and videos that the length limit cut off are `None`. Notebooks show images, videos and rows.

        Raises:
            ValueError: for an unknown mode, outputs of another type or shape, or spans that are not decoded.
        """
        if generation_mode in (None, "text"):
            return self.post_process_image_text_to_text(generated_outputs, skip_special_tokens, **kwargs)
        if generation_mode == "image":
            return self.image_processor.postprocess(generated_outputs)
        if generation_mode == "video":
            if getattr(generated_outputs, "ndim", None) != 5:
                shape = tuple(getattr(generated_outputs, "shape", ()))
                raise ValueError(
                    f"`generated_outputs` of videos must be a tensor of shape (V, F, 3, S, S), got "
                    f"{type(generated_outputs).__name__} of shape {shape}."
                )
            return VilaUMediaList(VilaUFrames(self.image_processor.postprocess(video)) for video in generated_outputs)
        if generation_mode == "interleaved":
            check_generated_spans(generated_outputs)
            rows = zip(generated_outputs.sequences, generated_outputs.spans, strict=True)
            return [
                self._content_parts(ids, spans, generated_outputs.prompt_length, skip_special_tokens)
                for ids, spans in rows
            ]
        raise ValueError(f"`generation_mode` must be one of {', '.join(GENERATION_MODES)}, got {generation_mode!r}.")

    def _content_parts(
        self, ids: torch.LongTensor, spans: list, prompt_length: int, skip_special_tokens: bool
    ) -> list[dict]:
        """Returns the text, images and videos that one row generated, in order."""
        content_parts: list[dict] = VilaUAnswer()

        def add_text(begin: int, end: int) -> None:
            text = self.tokenizer.decode(ids[begin:end], skip_special_tokens=skip_special_tokens)
            if isinstance(text, str) and text.strip():  # the ids of one row never give a list
                content_parts.append({"type": "text", "text": text.strip()})

        begin = prompt_length
        for span in spans:
            add_text(begin, span.begin)
            content_parts.append({"type": span.kind, span.kind: self._media_of_span(span)})
            begin = span.begin + span.num_tokens
        add_text(begin, len(ids))
        return content_parts

    def _media_of_span(self, span: Any) -> Image.Image | list[Image.Image] | None:
        """Converts the pixels of a span to an image or a list of frames. An incomplete span has no codes."""
        if span.codes is None:
            return None
        if span.pixels is None:
            raise ValueError("`generated_outputs.spans` have no pixels: call the model's `decode_visual_spans`.")
        if span.kind == "video":
            return VilaUFrames(self.image_processor.postprocess(span.pixels))
        return self.image_processor.postprocess(span.pixels[None])[0]


def _type_names(text: Any) -> str:
    """Describes the type of a wrong argument, and the types of its elements if it is a list."""
    if isinstance(text, (list, tuple)):
        return "a list of " + ", ".join(sorted({type(item).__name__ for item in text}))
    return type(text).__name__


def _is_empty(media: Any) -> bool:
    """Returns whether `media` is a list without any element at any depth."""
    return isinstance(media, (list, tuple)) and all(_is_empty(item) for item in media)


def _count_images(images: Any) -> int:
    """Counts the images in a (nested) list, or in an array or tensor `(N, ...)` of images."""
    if isinstance(images, (list, tuple)):
        return sum(_count_images(item) for item in images)
    return len(images) if getattr(images, "ndim", 0) == 4 else 1


def _paths_to_strings(media: Any) -> Any:
    """Converts path objects and bytes to strings, which the library expects, in the same nested lists."""
    if isinstance(media, (list, tuple)):
        return [_paths_to_strings(item) for item in media]
    media = to_media_bytes(media)
    return os.fspath(media) if isinstance(media, os.PathLike) else media


__all__ = ["VilaUProcessor"]
