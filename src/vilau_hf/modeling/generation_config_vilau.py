# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Merges the generation configs of a call and of a checkpoint, and limits the length of what is generated."""

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

    transformers' `generate` merges them with the checkpoint's once more. It fills each field that is `None` with the
    checkpoint's value. Fields that were set by `fix` keep theirs, `None` too. Read in transformers 5.20.2, 5.23.0 and
    5.24.0; the class can go when a merged config can be passed to `generate` as it is.
    """

    _fixed: tuple[str, ...] = ()

    def fix(self, **values: Any) -> None:
        """Sets fields that a later merge does not change."""
        self._fixed = (*self._fixed, *values)
        for name, value in values.items():
            setattr(self, name, value)

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Sets fields, like the base method, and leaves out defaults of fixed fields."""
        if defaults_only:
            kwargs = {name: value for name, value in kwargs.items() if name not in self._fixed}
        return super().update(defaults_only=defaults_only, allow_custom_entries=allow_custom_entries, **kwargs)


def passed_settings(generation_config: GenerationConfig | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns what the caller asks for by name, in `kwargs` or else in `generation_config`, without `None`."""
    settings = {} if generation_config is None else generation_config.to_dict()
    settings.update(kwargs)
    return {name: value for name, value in settings.items() if value is not None}


def merge_generation_config(
    mode: str, generation_config: GenerationConfig | None, saved_config: GenerationConfig, kwargs: dict[str, Any]
) -> tuple[MergedGenerationConfig, dict[str, Any]]:
    """
    Merges the settings of a call in `mode`.

    Arguments win over `generation_config`, and this wins over the settings of the checkpoint.

    Args:
        mode (`str`): `"image"`, `"video"` or `"interleaved"`.
        generation_config (`GenerationConfig`, *optional*): settings of the call.
        saved_config (`GenerationConfig`): settings of the checkpoint.
        kwargs (`dict`): arguments of the call; not changed.

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
    Fixes how many positions are generated.

    Args:
        merged ([`MergedGenerationConfig`]): settings of the call, changed.
        mode (`str`): the generation mode.
        num_positions (`int`): visual tokens of an image or video.
        most (`int`): most positions in interleaved mode.
    """
    if mode != "interleaved":
        merged.fix(max_length=None, max_new_tokens=num_positions, min_length=0, min_new_tokens=None)
        return
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
    Makes text end after at most `room` new tokens, the positions that the language model has left.

    Args:
        generation_config (`GenerationConfig`, *optional*): settings of the call.
        saved_config (`GenerationConfig`): settings of the checkpoint.
        kwargs (`dict`): arguments of the call, changed where they ask for more.
        length (`int`): tokens of the prompt.
        room (`int`): most new tokens.

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

    The checkpoint is not asked: the length that it saves is for text.
    """
    sources = [kwargs, {} if generation_config is None else generation_config.to_dict()]
    for source in sources:
        if source.get("max_new_tokens") is not None:
            return source["max_new_tokens"]
        if source.get("max_length") is not None:
            return source["max_length"] - length
    return None
