# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Merges the generation configs of a call and of a checkpoint, and limits the number of generated positions."""

import copy
from typing import Any, cast

from transformers import GenerationConfig


# Options that make the library's `generate` choose another method than greedy search or sampling, and the value that
# does not. `GenerationConfig.get_generation_mode` reads them; read in transformers 5.20.2, 5.23.0 and 5.24.0.
OTHER_DECODING: dict[str, Any] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "constraints": None,
    "force_words_ids": None,
    "penalty_alpha": None,
    "dola_layers": None,
    "use_mtp": None,
    "prompt_lookup_num_tokens": None,
    "assistant_early_exit": None,
}


class MergedGenerationConfig(GenerationConfig):
    """
    Holds the merged settings of a call and of the checkpoint.

    transformers' `generate` merges them with the settings of the checkpoint a second time. It fills each field that is
    `None` with the value of the checkpoint. Fields that `fix` has set keep their values, also `None`. Read in
    transformers 5.20.2, 5.23.0 and 5.24.0; this class can go when `generate` can skip the second merge.
    """

    _fixed: tuple[str, ...] = ()

    def fix(self, **values: Any) -> None:
        """Sets fields, and keeps their values when `generate` merges the settings of the checkpoint again."""
        self._fixed = (*self._fixed, *values)
        for name, value in values.items():
            setattr(self, name, value)

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Sets fields like the base method, but no defaults of fields that `fix` has set."""
        if defaults_only:
            kwargs = {name: value for name, value in kwargs.items() if name not in self._fixed}
        return super().update(defaults_only=defaults_only, allow_custom_entries=allow_custom_entries, **kwargs)


def passed_settings(generation_config: GenerationConfig | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of the call that are not `None`: `kwargs`, and for other names `generation_config`."""
    settings = {} if generation_config is None else generation_config.to_dict()
    settings.update(kwargs)
    return {name: value for name, value in settings.items() if value is not None}


def merge_generation_config(
    mode: str, generation_config: GenerationConfig | None, saved_config: GenerationConfig, kwargs: dict[str, Any]
) -> tuple[MergedGenerationConfig, dict[str, Any]]:
    """
    Merges the settings of a call in `mode`.

    Arguments replace values of `generation_config`, and both replace the settings of the checkpoint.

    Args:
        mode (`str`): `"image"`, `"video"` or `"interleaved"`.
        generation_config (`GenerationConfig`, *optional*): settings of the call.
        saved_config (`GenerationConfig`): settings of the checkpoint.
        kwargs (`dict`): arguments of the call, which are not changed in place.

    Returns:
        The merged settings, and the arguments that are not generation settings.
    """
    given = {} if generation_config is None else generation_config.to_dict()
    kwargs = dict(kwargs)
    if mode != "interleaved":
        # `visual_do_sample` says whether codes are sampled. For greedy text the library refuses to repeat a prompt.
        kwargs.pop("do_sample", None)
        given["do_sample"] = True
    # `from_dict` is annotated with the base class and makes an instance of the class that it is called on.
    merged = cast(MergedGenerationConfig, MergedGenerationConfig.from_dict(given))
    merged.update(**saved_config.to_dict(), defaults_only=True, allow_custom_entries=True)
    others = merged.update(**kwargs)
    # What the caller passed is fixed, `None` too: it means that the checkpoint's value is not wanted.
    merged.fix(**{name: value for name, value in kwargs.items() if name not in others})
    # options that only the library's text decoding supports, and that a checkpoint may save
    merged.fix(**OTHER_DECODING, guidance_scale=None, token_healing=False, use_cache=True)
    merged.fix(**({"output_scores": False} if mode == "interleaved" else {"stop_strings": None}))
    return merged, others


def fix_lengths(merged: MergedGenerationConfig, mode: str, num_positions: int, most: int) -> None:
    """
    Sets the number of positions to generate, which `generate` then keeps.

    Args:
        merged ([`MergedGenerationConfig`]): settings of the call, changed in place.
        mode (`str`): the generation mode.
        num_positions (`int`): visual tokens of an image or video.
        most (`int`): maximum number of positions in interleaved mode.
    """
    if mode != "interleaved":
        merged.fix(max_length=None, max_new_tokens=num_positions, min_length=0, min_new_tokens=None)
        return
    if most < 1:
        raise ValueError(f"`max_length` must be greater than the number of tokens of the prompt, got {most} more.")
    merged.fix(max_length=None, max_new_tokens=most)
    if merged.min_new_tokens is not None:
        merged.fix(min_length=None)  # the library warns where both are set


def limit_text_length(
    generation_config: GenerationConfig | None,
    saved_config: GenerationConfig,
    kwargs: dict[str, Any],
    length: int,
    room: int,
) -> GenerationConfig | None:
    """
    Limits text to `room` new tokens, the number of free positions of the language model.

    Args:
        generation_config (`GenerationConfig`, *optional*): settings of the call.
        saved_config (`GenerationConfig`): settings of the checkpoint.
        kwargs (`dict`): arguments of the call, changed in place if they ask for more.
        length (`int`): tokens of the prompt.
        room (`int`): maximum number of new tokens.

    Returns:
        `generation_config`, or a copy of it that asks for less.
    """
    sources = [kwargs, *(config.to_dict() for config in (generation_config, saved_config) if config is not None)]
    new, whole = (
        next((source[name] for source in sources if source.get(name) is not None), None)
        for name in ("max_new_tokens", "max_length")
    )
    if new is None:  # without any length the library generates 20 tokens
        new = 20 if whole is None else whole - length
    if new <= room:
        return generation_config
    kwargs.pop("max_length", None)
    if generation_config is None:
        kwargs["max_new_tokens"] = room
        return None
    kwargs.pop("max_new_tokens", None)  # the library warns where both hold settings
    limited = copy.deepcopy(generation_config)
    limited.max_new_tokens = room
    limited.max_length = None
    return limited


def wanted_tokens(kwargs: dict[str, Any], generation_config: GenerationConfig | None, length: int) -> int | None:
    """
    Returns how many new tokens a call asks for after a prompt of `length` tokens, or `None` if it does not say.

    The settings of the checkpoint are not read, because their length is meant for text.
    """
    sources = [kwargs, {} if generation_config is None else generation_config.to_dict()]
    for source in sources:
        if source.get("max_new_tokens") is not None:
            return source["max_new_tokens"]
        if source.get("max_length") is not None:
            return source["max_length"] - length
    return None
