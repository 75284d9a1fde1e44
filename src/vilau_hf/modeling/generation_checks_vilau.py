# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Checks of the arguments of a `generate` call, before any work is done."""

from typing import Any

import torch
from transformers import GenerationConfig

from .compat_modeling_vilau import CACHE_NAME
from .generation_config_vilau import OTHER_DECODING, passed_settings
from .generation_sampling_vilau import PER_DEPTH_SETTINGS
from .generation_settings_vilau import GENERATION_MODES, VisualArguments


# Arguments of the library's `generate` that change the logits of text, and the argument for the logits of codes.
_FOR_TEXT = {
    **{name: f"visual_{name}" for name in PER_DEPTH_SETTINGS},
    "logits_processor": "code_logits_processor",
    **dict.fromkeys(
        (
            "prefix_allowed_tokens_fn",
            "stop_strings",
            "top_h",
            "typical_p",
            "epsilon_cutoff",
            "eta_cutoff",
            "repetition_penalty",
            "encoder_repetition_penalty",
            "no_repeat_ngram_size",
            "bad_words_ids",
            "sequence_bias",
            "suppress_tokens",
            "begin_suppress_tokens",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "exponential_decay_length_penalty",
            "watermarking_config",
        )
    ),
}

# Arguments of the library's `generate` that only its decoding loops read, with the value that changes nothing.
_FOR_OTHER_LOOPS = {
    "position_ids": None,
    "use_cache": True,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_logits": False,
    "prefill_chunk_size": None,
    "token_healing": False,
    "custom_generate": None,
}

_TENSORS = (
    "attention_mask",
    "negative_prompt_attention_mask",
    "image_prompt_attention_mask",
    "first_frames",
    "pixel_values",
    "pixel_values_videos",
    "codes",
    "visual_codes",
)


def check_mode(mode: str) -> None:
    """
    Checks the generation mode.

    Raises:
        ValueError: if `mode` is unknown.
    """
    if mode not in GENERATION_MODES:
        raise ValueError(f"`generation_mode` must be one of {', '.join(GENERATION_MODES)}, got {mode!r}.")


def check_common_arguments(
    input_ids: torch.Tensor | None,
    arguments: VisualArguments,
    generation_config: GenerationConfig | None,
    kwargs: dict[str, Any],
) -> None:
    """
    Checks arguments in every mode.

    Raises:
        ValueError: if an argument has another type, arguments exclude each other, or no result is asked for.
    """
    if generation_config is not None and not isinstance(generation_config, GenerationConfig):
        raise ValueError(f"`generation_config` must be a `GenerationConfig`, got {_described(generation_config)}.")
    all_ids = {
        "input_ids": input_ids,
        "negative_prompt_ids": arguments.negative_prompt_ids,
        "image_prompt_ids": arguments.image_prompt_ids,
    }
    for name, ids in all_ids.items():
        if ids is not None and (not isinstance(ids, torch.Tensor) or ids.ndim != 2 or ids.is_floating_point()):
            raise ValueError(f"`{name}` must be a tensor of integers of shape (rows, T), got {_described(ids)}.")
    given = {name: value for name, value in {**arguments.given(), **kwargs}.items() if value is not None}
    for name in _TENSORS:
        if name in given and not isinstance(given[name], torch.Tensor):
            raise ValueError(f"`{name}` must be a tensor, got {_described(given[name])}.")
    if "visual_codes" in given and given.keys() & {"pixel_values", "pixel_values_videos", "codes"}:
        raise ValueError(
            "`visual_codes` replace `pixel_values`, `pixel_values_videos` and `codes`: give one or the other."
        )
    wanted = given.get("num_return_sequences", 1)
    if not isinstance(wanted, int):
        raise ValueError(f"`num_return_sequences` must be an integer, got {wanted!r}.")
    if wanted < 1:
        raise ValueError(f"`num_return_sequences` must be at least 1, got {wanted}.")


def check_text_arguments(arguments: VisualArguments) -> None:
    """
    Checks that text mode gets no argument for images and videos.

    Raises:
        ValueError: if there is one.
    """
    for name in arguments.given():
        raise ValueError(
            f'`{name}` is for images and videos: use `generation_mode="image"`, "video" or "interleaved", '
            "or leave it out."
        )


def check_prefill(
    generation_config: GenerationConfig | None,
    saved_config: GenerationConfig,
    kwargs: dict[str, Any],
    visual_inputs: tuple[str, ...],
) -> None:
    """
    Checks that prompts with images are not read in chunks.

    The library cuts the ids into chunks, but not the arguments named `visual_inputs`. Each chunk would get the codes
    of the wrong positions.

    Raises:
        ValueError: if the prompt would be read in chunks.
    """
    sources = [kwargs, *(config.to_dict() for config in (generation_config, saved_config) if config is not None)]
    size = next((each["prefill_chunk_size"] for each in sources if each.get("prefill_chunk_size") is not None), None)
    if size is not None and any(kwargs.get(name) is not None for name in visual_inputs):
        raise ValueError(f"`prefill_chunk_size` ({size}) is not supported for prompts with images: leave it out.")


def check_visual_arguments(
    mode: str,
    input_ids: torch.Tensor | None,
    arguments: VisualArguments,
    generation_config: GenerationConfig | None,
    kwargs: dict[str, Any],
) -> None:
    """
    Checks that `mode` supports all arguments and the settings in `generation_config`.

    Settings that a checkpoint saves are not checked: nobody asked for them in this call.

    Raises:
        ValueError: if an argument is missing, is not supported, or has no effect.
    """
    if input_ids is None:
        raise ValueError(f'`input_ids` must be given for `generation_mode="{mode}"`, got None.')
    _check_generators(arguments.generator, arguments.seed)
    if kwargs.get("inputs_embeds") is not None:
        raise ValueError(f'`inputs_embeds` are for text: `generation_mode="{mode}"` reads `input_ids`.')
    if kwargs.get(CACHE_NAME) is not None:
        raise ValueError(f"`{CACHE_NAME}` is not supported for image or video generation: leave it out.")
    streamer = kwargs.get("streamer")
    if mode != "interleaved" and streamer is not None and not hasattr(streamer, "put_visual"):
        raise ValueError(
            f'`streamer` needs a method `put_visual(codes)` for `generation_mode="{mode}"`; '
            f"{type(streamer).__name__} has none."
        )
    if kwargs.get("assistant_model") is not None:
        raise ValueError(f'`assistant_model` acts on text: `generation_mode="{mode}"` does not take it.')
    passed = passed_settings(generation_config, kwargs)
    for name, accepted in OTHER_DECODING.items():
        value = passed.get(name, accepted)
        # Where `None` is accepted, `False` and 0 are too: they switch the option off.
        if value != accepted and (value or accepted):
            raise ValueError(f"`{name}` must be {accepted} where codes are generated, got {value}.")
    if mode == "interleaved" and passed.get("output_scores"):
        raise ValueError(
            '`output_scores` is for `generation_mode="image"` and "video"; `output_log_probs` and `score` are for all.'
        )
    _check_effects(mode, arguments, kwargs)


def _check_generators(generator: Any, seed: Any) -> None:
    if generator is not None and seed is not None:
        raise ValueError("`seed` and `generator` both choose the samples: give one of them.")
    seeds = seed if isinstance(seed, (list, tuple)) else [seed]
    if seed is not None and not all(isinstance(each, int) for each in seeds):
        raise ValueError(f"`seed` must be an integer or a list with one for each row, got {seed!r}.")
    if seed is not None and not all(-(2**63) <= each < 2**63 for each in seeds):
        raise ValueError(f"`seed` must fit into 64 bits, got {seed}.")
    generators = generator if isinstance(generator, list) else [generator]
    if generator is not None and not all(isinstance(each, torch.Generator) for each in generators):
        raise ValueError(
            f"`generator` must be a `torch.Generator` or a list with one for each row, got {generator!r}."
        )


def _check_effects(mode: str, arguments: VisualArguments, kwargs: dict[str, Any]) -> None:
    """Raises a `ValueError` for arguments that would be ignored."""
    given = {name: value for name, value in kwargs.items() if value is not None}
    for name, neutral in _FOR_OTHER_LOOPS.items():
        value = given.get(name, neutral)
        if value is not neutral:
            shown = f"{name}={value}" if isinstance(value, bool) else name
            raise ValueError(f"`{shown}` has no effect where codes are generated: leave it out.")
    if given.get("cache_implementation") == "paged":
        raise ValueError("`cache_implementation='paged'` has no effect where codes are generated: leave it out.")
    visual = arguments.given()
    for name in ("image_prompt_ids", "image_prompt_attention_mask"):
        if name in visual and arguments.image_guidance_scale is None:
            raise ValueError(f"`{name}` needs `image_guidance_scale`, which is not given.")
    if mode == "image" and visual.get("num_frames", 1) != 1:
        raise ValueError(f'`num_frames` is for videos, got {arguments.num_frames} for `generation_mode="image"`.')
    if mode == "interleaved":
        return
    for name in ("max_visual_spans", "allowed_modalities"):
        if name in visual:
            raise ValueError(f'`{name}` is for `generation_mode="interleaved"`, got "{mode}".')
    for name, visual_name in _FOR_TEXT.items():
        if name in given:
            advice = "leave it out" if visual_name is None else f"use `{visual_name}`"
            raise ValueError(f'`{name}` is for text: {advice} for `generation_mode="{mode}"`.')


def check_compilable(code_logits_processor: object, cache_implementation: str | None) -> None:
    """
    Checks that compiled positions support the arguments.

    Processors are Python functions that may not compile, and a compiled position has a static cache of its graph.

    Raises:
        ValueError: if an argument is given that they do not support.
    """
    for name, value in (
        ("code_logits_processor", code_logits_processor),
        ("cache_implementation", cache_implementation),
    ):
        if value is not None:
            raise ValueError(f"`{name}` has no effect on compiled positions: call `compile_generation(False)` before.")


def check_cache(cache_implementation: str | None, device: torch.device) -> None:
    """
    Checks that an offloaded cache has a device to be offloaded from.

    Raises:
        ValueError: if the model is on the CPU.
    """
    if cache_implementation in ("offloaded", "offloaded_static") and device.type == "cpu":
        raise ValueError(
            f"`cache_implementation={cache_implementation!r}` needs a model on an accelerator, got one on the CPU."
        )


def check_log_probs(mode: str, output_log_probs: bool, return_dict_in_generate: bool | None) -> None:
    """
    Checks that log-probabilities can be returned.

    Raises:
        ValueError: if only the codes of an image or video are returned.
    """
    if output_log_probs and mode != "interleaved" and not return_dict_in_generate:
        raise ValueError("`output_log_probs` needs `return_dict_in_generate=True`: codes alone hold none.")


def check_context(max_positions: int, length: int, num_new: int) -> None:
    """
    Checks that the language model has enough positions.

    Args:
        max_positions (`int`): positions of the language model.
        length (`int`): tokens of the prompt.
        num_new (`int`): positions that are generated.

    Raises:
        ValueError: if it has fewer.
    """
    if length + num_new > max_positions:
        raise ValueError(
            f"the prompt of {length} tokens and {num_new} new ones exceed the language model's {max_positions} "
            "positions (`text_config.max_position_embeddings`)."
        )


def _described(value: object) -> str:
    return f"shape {tuple(value.shape)} of {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__
