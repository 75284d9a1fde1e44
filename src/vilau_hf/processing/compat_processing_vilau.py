# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""
All names of this island that transformers does not document as public.

A layout test forbids such imports in every other file. When a new version moves a name, change it here.
Each entry says why it is needed, in which versions of transformers it was read, and when it can go.
"""

from huggingface_hub.utils import httpx
from transformers import ProcessingKwargs, ProcessorMixin
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import SizeDict, is_valid_image
from transformers.processing_utils import MultiModalData
from transformers.utils import requires_backends
from transformers.utils.chat_template_utils import jinja2, render_jinja_template
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, default_sample_indices_fn, load_video, make_batched_videos


try:
    from transformers.utils import is_torchcodec_usable
except ImportError:
    from transformers.utils import is_torchcodec_available

    def is_torchcodec_usable(decode: str) -> bool:
        """
        Returns whether torchcodec is installed.

        Versions before 5.23 cannot tell whether it also loads. The function can go when 5.23 is the oldest supported
        version.
        """
        return is_torchcodec_available()


# TorchvisionBackend, BaseVideoProcessor: base classes of our processors. Without torchvision, the names at the top
# level of transformers are placeholders. The modules that define the classes can be imported without torchvision. Read
# in 5.20.2, 5.23.0 and 5.24.0. They can go when the names at the top level are always the classes.
#
# SizeDict, is_valid_image: a type of sizes and a check of types that the library's processors share. Read in 5.20.2,
# 5.23.0 and 5.24.0. They can go when the library exports them.
#
# MultiModalData: result type of `_get_num_multimodal_tokens`, which vLLM calls. Read in 5.20.2, 5.23.0 and 5.24.0. It
# can go when the library exports it.
#
# render_jinja_template: renders a chat template and returns the character ranges of the assistant. Training labels are
# made from these ranges, but `apply_chat_template` returns them only after tokenisation. Read in 5.20.2, 5.23.0 and
# 5.24.0. It can go when `apply_chat_template(tokenize=False)` returns them.
#
# jinja2: the library that renders chat templates. Files of this folder can be uploaded to the Hub, and import only the
# libraries of their list. Read in 5.20.2, 5.23.0 and 5.24.0. It can go when `apply_chat_template` raises `ValueError`.
#
# httpx: the client for HTTP with which the library reads images from web addresses. huggingface_hub 1 installs it
# under the name httpx, and huggingface_hub 2 as httpx2. Read in 1.33.0 and 2.4.0. It can go when the library exports
# a function that downloads the bytes of a file.
#
# VideoMetadata, default_sample_indices_fn, load_video, make_batched_videos, requires_backends: readers and types of
# videos that the library's video processors share. Read in 5.20.2, 5.23.0 and 5.24.0. They can go when the library
# exports them.

TemplateError = jinja2.exceptions.TemplateError

# Arguments with which a processor calls its tokenizer by default. Generation continues at the right end of each row,
# so prompts are padded on the left.
TEXT_DEFAULTS = {"padding": True, "padding_side": "left"}


class VilaUProcessorKwargs(ProcessingKwargs, total=False):
    """
    Arguments of `VilaUProcessor.__call__`.

    Defaults are class variables of the processor from transformers 5.23 on. Before that they are read here. Without
    them prompts of unequal length are padded on the right, and many answers of a batch are wrong. `_defaults` can go
    when 5.23 is the oldest supported version.
    """

    # transformers reads the defaults from this attribute, which the type of a TypedDict does not allow
    _defaults = (  # type: ignore[misc]
        {} if hasattr(ProcessorMixin, "return_mm_token_type_ids") else {"text_kwargs": TEXT_DEFAULTS}
    )


__all__ = [
    "TEXT_DEFAULTS",
    "BaseVideoProcessor",
    "MultiModalData",
    "SizeDict",
    "TemplateError",
    "TorchvisionBackend",
    "VideoMetadata",
    "VilaUProcessorKwargs",
    "default_sample_indices_fn",
    "httpx",
    "is_torchcodec_usable",
    "is_valid_image",
    "load_video",
    "make_batched_videos",
    "render_jinja_template",
    "requires_backends",
]
