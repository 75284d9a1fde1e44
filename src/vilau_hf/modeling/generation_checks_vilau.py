# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Checks of the arguments of a `generate` call, before any work is done."""

from typing import Annotated, Any

import torch
from torch import nn
from transformers import Cache, GenerationConfig

from .argument_checks_vilau import (
    AttentionMask,
    FilledTensor,
    Functions,
    IntegerTensor,
    NonNegativeInt,
    Penalty,
    PositiveInt,
    Rule,
    Streamer,
    Temperature,
    TokenIds,
    check_value,
)
from .compat_modeling_vilau import CACHE_NAME, CHECKPOINTING_DROPS_CACHE
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

# Arguments that hold the images and videos of the prompts in the order of their placeholders.
_IN_ORDER = ("pixel_values", "pixel_values_videos", "codes")

# Arguments of `generate` that are not in its signature, with their types. The library checks the values of others.
_LIBRARY_ARGUMENTS: dict[str, Any] = {
    "input_ids": TokenIds,
    "attention_mask": AttentionMask,
    "inputs_embeds": FilledTensor,
    **dict.fromkeys(("pixel_values", "pixel_values_videos"), FilledTensor),
    **dict.fromkeys(("codes", "visual_codes"), IntegerTensor),
    "unconditional_prompt_ids": list[int] | tuple[int, ...],
    **dict.fromkeys(
        ("max_length", "max_new_tokens", "num_return_sequences", "num_beams", "prefill_chunk_size"), PositiveInt
    ),
    **dict.fromkeys(("min_length", "min_new_tokens"), NonNegativeInt),
    **dict.fromkeys(("do_sample", "return_dict_in_generate", "output_scores", "output_logits", "use_cache"), bool),
    **dict.fromkeys(("bos_token_id", "pad_token_id", "top_k", "no_repeat_ngram_size"), NonNegativeInt),
    "eos_token_id": int | list[int] | tuple[int, ...] | IntegerTensor,
    "temperature": Temperature,
    **dict.fromkeys(("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"), float),
    **dict.fromkeys(("length_penalty", "penalty_alpha"), float),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), Penalty),
    "assistant_model": Annotated[Any, Rule("a model", lambda value: hasattr(value, "config"))],
    "stop_strings": str | list[str],
    **dict.fromkeys(("stopping_criteria", "logits_processor"), Functions),
    "streamer": Streamer,
}


_DIVISORS = ("temperature", "repetition_penalty", "encoder_repetition_penalty")


def check_library_arguments(generation_config: GenerationConfig | None, kwargs: dict[str, Any]) -> None:
    """
    Checks the types of arguments that `generate` takes by keyword only, and the divisors of logits in a config.

    Raises:
        ValueError: if an argument has another type.
    """
    for name in _DIVISORS:
        value = getattr(generation_config, name, None)
        if value is not None:
            check_value(name, value, _LIBRARY_ARGUMENTS[name])
    for name, annotation in _LIBRARY_ARGUMENTS.items():
        if kwargs.get(name) is not None:
            check_value(name, kwargs[name], annotation)


def check_mode(mode: str) -> None:
    """
    Checks the generation mode.

    Raises:
        ValueError: if `mode` is unknown.
    """
    if mode not in GENERATION_MODES:
        raise ValueError(f"`generation_mode` must be one of {', '.join(GENERATION_MODES)}, got {mode!r}.")


def check_common_arguments(input_ids: torch.Tensor | None, arguments: VisualArguments, kwargs: dict[str, Any]) -> None:
    """
    Checks how arguments fit together in every mode. Their types are checked before.

    Raises:
        ValueError: if arguments exclude each other, or a mask does not have the shape of its prompts.
    """
    given = {name for name, value in kwargs.items() if value is not None}
    if "visual_codes" in given:
        check_alone("visual_codes", {name: kwargs.get(name) for name in _IN_ORDER})
    for name, ids, mask in (
        ("attention_mask", input_ids, kwargs.get("attention_mask")),
        (
            "negative_prompt_attention_mask",
            arguments.negative_prompt_ids,
            arguments.negative_prompt_attention_mask,
        ),
        ("image_prompt_attention_mask", arguments.image_prompt_ids, arguments.image_prompt_attention_mask),
    ):
        # In text mode the library also accepts masks of more dimensions, and masks of earlier positions in a cache.
        if ids is not None and mask is not None and mask.ndim == 2 and mask.shape != ids.shape:
            if name == "attention_mask" and CACHE_NAME in given:
                continue
            raise ValueError(
                f"`{name}` must have the shape of its prompts, {tuple(ids.shape)}, got {tuple(mask.shape)}."
            )


def check_alone(name: str, others: dict[str, Any]) -> None:
    """
    Checks that `others`, arguments which the argument `name` replaces, are not given.

    Raises:
        ValueError: if one of them is given.
    """
    if any(value is not None for value in others.values()):
        *names, last = (f"`{other}`" for other in others)
        raise ValueError(f"`{name}` replace {', '.join(names)} and {last}: give one or the other.")


def check_text_arguments(arguments: VisualArguments) -> None:
    """
    Checks that text mode gets no argument for images and videos.

    Raises:
        ValueError: if there is such an argument.
    """
    for name in arguments.given():
        raise ValueError(
            f'`{name}` is for images and videos: use `generation_mode="image"`, "video" or "interleaved", '
            "or leave it out."
        )


def check_prefill(
    generation_config: GenerationConfig | None, saved_config: GenerationConfig, kwargs: dict[str, Any]
) -> None:
    """
    Checks that a prompt of embeddings is not read in chunks.

    The library cuts the ids into chunks, but not the embeddings (`_prefill`, read in transformers 5.24.0).

    Raises:
        ValueError: if embeddings would be read in chunks.
    """
    sources = [kwargs, *(config.to_dict() for config in (generation_config, saved_config) if config is not None)]
    size = next((each["prefill_chunk_size"] for each in sources if each.get("prefill_chunk_size") is not None), None)
    if size is not None and kwargs.get("inputs_embeds") is not None:
        raise ValueError(f"`prefill_chunk_size` ({size}) is not supported for `inputs_embeds`: leave it out.")


def check_training_mode(model: nn.Module) -> None:
    """
    Checks that the layers use their cache.

    Up to transformers 5.23, layers with activation checkpointing drop the cache in training mode, also without
    gradients. Each position would then see nothing before it.

    Raises:
        ValueError: if layers drop their cache.
    """
    if CHECKPOINTING_DROPS_CACHE and any(
        module.training and getattr(module, "gradient_checkpointing", False) for module in model.modules()
    ):
        raise ValueError(
            "`generate` needs a cache, which activation checkpointing drops in training mode before transformers "
            "5.24: call `model.eval()` before and `model.train()` after it."
        )


def check_visual_arguments(
    mode: str,
    input_ids: torch.Tensor | None,
    arguments: VisualArguments,
    generation_config: GenerationConfig | None,
    kwargs: dict[str, Any],
) -> None:
    """
    Checks that `mode` supports all arguments and the settings in `generation_config`.

    Settings that a checkpoint saves are not checked, because the caller did not pass them.

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
        raise ValueError(f'`assistant_model` is for text: leave it out for `generation_mode="{mode}"`.')
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
    if seed is not None and not all(-(2**63) <= each < 2**63 for each in seeds):
        raise ValueError(f"`seed` must fit into 64 bits, got {seed}.")


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

    Processors are Python functions that may not compile, and the graph of a compiled position has its static
    cache.

    Raises:
        ValueError: if an argument is given that they do not support.
    """
    for name, value in (
        ("code_logits_processor", code_logits_processor),
        ("cache_implementation", cache_implementation),
    ):
        if value is not None:
            raise ValueError(f"`{name}` has no effect on compiled positions: call `compile_generation(False)` first.")


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


def check_parallel_decoding(
    mode: str,
    is_parallel: bool,
    passed: dict[str, Any],
    code_logits_processor: object,
    attention: str,
    cache_implementation: str | None,
    cache: Cache | None,
    adapter_names: list[str] | None,
) -> None:
    """
    Checks that parallel decoding supports the arguments and the language model.

    A window has a mask by row and query, which only two attention functions read. It also replaces the keys and values
    of drafts, which other caches than ours cannot do. Processors and criteria of the caller may count their calls, and
    parallel decoding would call them for drafts.

    Args:
        mode (`str`): the generation mode.
        is_parallel (`bool`): whether decoding is parallel.
        passed (`dict`): settings and arguments of the call that are not `None`.
        code_logits_processor (*optional*): processors of the logits of codes.
        attention (`str`): attention function of the language model.
        cache_implementation (`str`, *optional*): kind of cache, by the call or the checkpoint.
        cache (`Cache`, *optional*): the cache of the call, if it is not made by the library.
        adapter_names (`list[str]`, *optional*): adapters of the rows.

    Raises:
        ValueError: for an argument or a model that is not supported.
    """
    if not is_parallel:
        if "parallel_window" in passed:
            raise ValueError('`parallel_window` has an effect with `visual_decoding="parallel"` only: leave it out.')
        return
    advice = 'is not supported with `visual_decoding="parallel"`: use "sequential", or leave it out.'
    if code_logits_processor is not None:
        raise ValueError(f"`code_logits_processor` {advice}")
    if adapter_names is not None:  # the names are those of rows, and a window has several positions of a row
        raise ValueError(f"`adapter_names` {advice}")
    if mode == "interleaved":
        for name in ("stopping_criteria", "stop_strings", "max_time"):
            if passed.get(name):
                raise ValueError(f'`{name}` of `generation_mode="interleaved"` {advice}')
    if attention not in ("sdpa", "eager"):
        raise ValueError(
            '`visual_decoding="parallel"` needs a language model with the attention "sdpa" or "eager", got '
            f'"{attention}": call `set_attn_implementation`.'
        )
    if not hasattr(cache, "store_at"):
        if cache_implementation not in (None, "static"):
            raise ValueError(f"`cache_implementation={cache_implementation!r}` {advice}")
        raise ValueError(
            '`visual_decoding="parallel"` needs a language model whose layers all attend to all positions, without '
            "sliding windows and recurrent states."
        )


def check_log_probs(mode: str, output_log_probs: bool, return_dict_in_generate: bool | None) -> None:
    """
    Checks that log-probabilities can be returned.

    Raises:
        ValueError: if only the codes of an image or video are returned.
    """
    if output_log_probs and mode != "interleaved" and not return_dict_in_generate:
        raise ValueError(
            "`output_log_probs` needs `return_dict_in_generate=True`: without it, only codes are returned."
        )


def check_context(max_positions: int, length: int, num_new: int) -> None:
    """
    Checks that the language model has enough positions.

    Args:
        max_positions (`int`): positions of the language model.
        length (`int`): tokens of the prompt.
        num_new (`int`): positions that are generated.

    Raises:
        ValueError: if it has too few.
    """
    if length + num_new > max_positions:
        given = f"{length} tokens" if num_new == 0 else f"the prompt of {length} tokens and {num_new} new ones"
        raise ValueError(
            f"{given} exceed the language model's {max_positions} positions (`text_config.max_position_embeddings`)."
        )
