# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""What a call of `generate` that may write visual spans was asked for, checked before any work is done."""

from dataclasses import dataclass

import torch

from .depth_decoding_vilau import Guidance
from .visual_sampling_vilau import VISUAL_GENERATION_DEFAULTS, CodeSampling
from .visual_streams_vilau import StreamPrompt


GENERATION_MODES = ("text", "image", "video", "interleaved")
MODALITIES = ("text", "image", "video")


@dataclass
class VisualSettings:
    """
    The settings of one call. Of the prompts beside the rows' own, `negative` is there with guidance, `image_only` with
    an image scale; `first_codes` `(1 or prompts, f * L, D)` are what a video begins with.
    """

    mode: str
    num_frames: int
    sampling: CodeSampling
    guidance: Guidance
    seed: int | list[int] | None
    output_log_probs: bool
    max_visual_spans: int | None
    allowed_modalities: tuple[str, ...]
    prompts: int  # before they are repeated for several results each
    negative: StreamPrompt | None = None
    image_only: StreamPrompt | None = None
    first_codes: torch.LongTensor | None = None

    def __post_init__(self):
        if not isinstance(self.num_frames, int) or self.num_frames < 1:
            raise ValueError(f"`num_frames` must be an integer of at least 1, got {self.num_frames!r}.")
        unknown = set(self.allowed_modalities) - set(MODALITIES)
        if unknown or "text" not in self.allowed_modalities:
            raise ValueError(
                f'`allowed_modalities` must be among {", ".join(MODALITIES)}, with "text", got '
                f"{self.allowed_modalities}."
            )
        if self.max_visual_spans is not None and self.max_visual_spans < 0:
            raise ValueError(f"`max_visual_spans` must be at least 0, got {self.max_visual_spans}.")


def check_mode(mode: str):
    """Raises a `ValueError` for an unknown `generation_mode`."""
    if mode not in GENERATION_MODES:
        raise ValueError(f"`generation_mode` must be one of {', '.join(GENERATION_MODES)}, got {mode!r}.")


def check_common_arguments(input_ids, negative_prompt_ids, num_return_sequences):
    """Raises a `ValueError` for ids that are none, or no result asked for; in every mode."""
    for name, ids in (("input_ids", input_ids), ("negative_prompt_ids", negative_prompt_ids)):
        if ids is not None and (not isinstance(ids, torch.Tensor) or ids.ndim != 2 or ids.is_floating_point()):
            raise ValueError(f"`{name}` must be a tensor of integers of shape (rows, T), got {_described(ids)}.")
    if num_return_sequences is not None and num_return_sequences < 1:
        raise ValueError(f"`num_return_sequences` must be at least 1, got {num_return_sequences}.")


def check_text_arguments(**visual):
    """Raises a `ValueError` if an argument for images and videos is given in text mode."""
    given = [name for name, value in visual.items() if value is not None]
    if given:
        raise ValueError(
            f'`{given[0]}` is for images and videos: use `generation_mode="image"`, "video" or "interleaved", or '
            "leave it out."
        )


def check_visual_arguments(mode: str, input_ids, generator, seed, kwargs: dict):
    """Raises a `ValueError` for arguments of the library's `generate` that `mode` does not take."""
    if input_ids is None:
        raise ValueError(f'`input_ids` must be given for `generation_mode="{mode}"`, got None.')
    if generator is not None and seed is not None:
        raise ValueError("`seed` and `generator` both choose the samples: give one of them.")
    if kwargs.get("inputs_embeds") is not None:
        raise ValueError(f'`inputs_embeds` are for text: `generation_mode="{mode}"` reads `input_ids`.')
    if kwargs.get("num_beams") not in (None, 1):
        raise ValueError(f"`num_beams` must be 1 where codes are generated, got {kwargs['num_beams']}.")
    if kwargs.get("past_key_values") is not None:
        raise ValueError("`past_key_values` cannot be gone on with where codes are generated.")
    streamer = kwargs.get("streamer")
    if mode != "interleaved" and streamer is not None and not hasattr(streamer, "put_visual"):
        raise ValueError(
            f'`streamer` needs a method `put_visual(codes)` for `generation_mode="{mode}"`; '
            f"{type(streamer).__name__} has none."
        )
    for name in ["assistant_model"] + ["logits_processor"] * (mode != "interleaved"):
        if kwargs.get(name) is not None:
            raise ValueError(f'`{name}` acts on text: `generation_mode="{mode}"` does not take it.')
    if mode == "interleaved" and kwargs.get("output_scores"):
        raise ValueError(
            '`output_scores` is for `generation_mode="image"` and "video"; `output_log_probs` and `score` are for all.'
        )


def check_compilable(code_logits_processor, cache_implementation: str | None):
    """Raises a `ValueError` for arguments that compiled positions cannot follow."""
    for name, value in (
        ("code_logits_processor", code_logits_processor),
        ("cache_implementation", cache_implementation),
    ):
        if value is not None:
            raise ValueError(f"`{name}` has no effect on compiled positions: call `compile_generation(False)` before.")


def take_visual_settings(configs, kwargs: dict, guidance_scale, num_frames, mode: str) -> dict:
    """
    The settings of visual sampling by name. Takes those that are arguments out of `kwargs`; what is not there comes
    from the generation `configs`, the later ones first.
    """
    saved = dict(VISUAL_GENERATION_DEFAULTS)
    for config in configs:
        if config is not None:
            values = config.to_dict()
            saved.update({name: values[name] for name in saved if values.get(name) is not None})
    saved.update({name: kwargs.pop(name) for name in saved if kwargs.get(name) is not None})
    given = {"visual_guidance_scale": guidance_scale, "num_frames": num_frames}
    if mode != "interleaved":
        given["visual_do_sample"] = kwargs.pop("do_sample", None)
    saved.update({name: value for name, value in given.items() if value is not None})
    return saved


def wanted_tokens(sources, length: int) -> int | None:
    """New tokens that the first of `sources`, arguments and generation configs, asks for after `length`."""
    for source in (each if isinstance(each, dict) else each.to_dict() for each in sources if each is not None):
        if source.get("max_new_tokens") is not None:
            return source["max_new_tokens"]
        if source.get("max_length") is not None:
            return source["max_length"] - length
    return None


def _described(value) -> str:
    return f"shape {tuple(value.shape)} of {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__


__all__ = ["GENERATION_MODES", "MODALITIES", "VisualSettings"]
