# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""What a call of `generate` that may write visual spans was asked for, checked before any work is done."""

import copy
from dataclasses import dataclass

import torch
from transformers import GenerationConfig

from .compat_modeling_vilau import CACHE_NAME
from .generation_branches_vilau import BranchPrompt
from .generation_sampling_vilau import VISUAL_GENERATION_DEFAULTS, CodeSampling, Guidance, seeded_generators


GENERATION_MODES = ("text", "image", "video", "interleaved")
MODALITIES = ("text", "image", "video")


# what makes the library's `generate` take another way than greedy search or sampling, and the value that does not
_OTHER_DECODING = {
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
# arguments of the library's `generate` that act on logits of text, and what acts on those of codes
_FOR_TEXT = {
    "temperature": "visual_temperature",
    "top_k": "visual_top_k",
    "top_p": "visual_top_p",
    "min_p": "visual_min_p",
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
# arguments of the library's `generate` that only its own loops follow, and the value that says nothing
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


@dataclass
class VisualSettings:
    """
    The settings of one call. Of the prompts beside the rows' own, `negative` is there with guidance, `image_only` with
    an image scale; `first_frames` are what a video begins with.
    """

    mode: str
    num_frames: int
    sampling: CodeSampling
    guidance: Guidance
    output_log_probs: bool
    max_visual_spans: int | None
    allowed_modalities: tuple[str, ...]
    prompts: int  # before they are repeated for several results each
    negative: BranchPrompt | None = None
    image_only: BranchPrompt | None = None
    first_frames: torch.Tensor | None = None
    longest: int = 0  # tokens of the longest prompt of all branches

    def __post_init__(self):
        if not isinstance(self.num_frames, int) or self.num_frames < 1:
            raise ValueError(f"`num_frames` must be an integer of at least 1, got {self.num_frames!r}.")
        modalities = self.allowed_modalities
        if (
            not isinstance(modalities, (tuple, list, set))
            or "text" not in modalities
            or set(modalities) - set(MODALITIES)
        ):
            raise ValueError(
                f'`allowed_modalities` must be among {", ".join(MODALITIES)}, with "text", got {modalities!r}.'
            )
        limit = self.max_visual_spans
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise ValueError(f"`max_visual_spans` must be an integer of at least 0, got {limit!r}.")


def check_mode(mode: str):
    """Raises a `ValueError` for an unknown `generation_mode`."""
    if mode not in GENERATION_MODES:
        raise ValueError(f"`generation_mode` must be one of {', '.join(GENERATION_MODES)}, got {mode!r}.")


def pop_input_ids(inputs, kwargs: dict) -> torch.LongTensor | None:
    """The prompts, which have two names; out of `kwargs`."""
    input_ids = kwargs.pop("input_ids", None)
    if inputs is not None and input_ids is not None:
        raise ValueError("`inputs` and `input_ids` are the same: give one of them.")
    return input_ids if inputs is None else inputs


def check_common_arguments(input_ids, own: dict, generation_config, kwargs: dict):
    """Raises a `ValueError` for what is of another type than it must be, or no result asked for; in every mode."""
    if generation_config is not None and not isinstance(generation_config, GenerationConfig):
        raise ValueError(f"`generation_config` must be a `GenerationConfig`, got {_described(generation_config)}.")
    prompts = {name: own.get(name) for name in ("negative_prompt_ids", "image_prompt_ids")}
    for name, ids in {"input_ids": input_ids, **prompts}.items():
        if ids is not None and (not isinstance(ids, torch.Tensor) or ids.ndim != 2 or ids.is_floating_point()):
            raise ValueError(f"`{name}` must be a tensor of integers of shape (rows, T), got {_described(ids)}.")
    given = {name: value for name, value in {**own, **kwargs}.items() if value is not None}
    for name in _TENSORS:
        if name in given and not isinstance(given[name], torch.Tensor):
            raise ValueError(f"`{name}` must be a tensor, got {_described(given[name])}.")
    if "visual_codes" in given and given.keys() & {"pixel_values", "pixel_values_videos", "codes"}:
        raise ValueError(
            "`visual_codes` replace `pixel_values`, `pixel_values_videos` and `codes`: give one or other."
        )
    wanted = given.get("num_return_sequences", 1)
    if not isinstance(wanted, int):
        raise ValueError(f"`num_return_sequences` must be an integer, got {wanted!r}.")
    if wanted < 1:
        raise ValueError(f"`num_return_sequences` must be at least 1, got {wanted}.")


def check_text_arguments(own: dict):
    """Raises a `ValueError` if an argument for images and videos is given in text mode."""
    if own:
        raise ValueError(
            f'`{next(iter(own))}` is for images and videos: use `generation_mode="image"`, "video" or "interleaved", '
            "or leave it out."
        )


def check_prefill(generation_config, saved_config, kwargs: dict, visual_inputs: tuple[str, ...]):
    """Raises a `ValueError` where prompts with images would be read in chunks, which would mix up their codes."""
    sources = [kwargs, *(config.to_dict() for config in (generation_config, saved_config) if config is not None)]
    size = next((each["prefill_chunk_size"] for each in sources if each.get("prefill_chunk_size") is not None), None)
    if size is not None and any(kwargs.get(name) is not None for name in visual_inputs):
        raise ValueError(f"`prefill_chunk_size` ({size}) is not supported for prompts with images: leave it out.")


def check_visual_arguments(mode: str, input_ids, own: dict, generation_config, kwargs: dict):
    """
    Raises a `ValueError` for arguments that `mode` does not take: `own` ones, and in `kwargs` and `generation_config`
    those of the library's `generate`. What a checkpoint saves is no argument.
    """
    if input_ids is None:
        raise ValueError(f'`input_ids` must be given for `generation_mode="{mode}"`, got None.')
    _check_generators(own.get("generator"), own.get("seed"))
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
    for name, other in _OTHER_DECODING.items():
        value = passed.get(name, other)
        if value != other and (value or other):
            raise ValueError(f"`{name}` must be {other} where codes are generated, got {value}.")
    if mode == "interleaved" and passed.get("output_scores"):
        raise ValueError(
            '`output_scores` is for `generation_mode="image"` and "video"; `output_log_probs` and `score` are for all.'
        )
    _check_effects(mode, own, kwargs)


def passed_settings(generation_config, kwargs: dict) -> dict:
    """What the caller asks for by name: in `kwargs`, or else in a generation config."""
    settings = {} if generation_config is None else generation_config.to_dict()
    settings.update(kwargs)
    return {name: value for name, value in settings.items() if value is not None}


def _check_generators(generator, seed):
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


def _check_effects(mode: str, own: dict, kwargs: dict):
    """Raises a `ValueError` for arguments that would be taken and forgotten."""
    given = {name: value for name, value in kwargs.items() if value is not None}
    for name, nothing in _FOR_OTHER_LOOPS.items():
        value = given.get(name, nothing)
        if value is not nothing:
            shown = f"{name}={value}" if isinstance(value, bool) else name
            raise ValueError(f"`{shown}` has no effect where codes are generated: leave it out.")
    if given.get("cache_implementation") == "paged":
        raise ValueError("`cache_implementation='paged'` has no effect where codes are generated: leave it out.")
    for name in ("image_prompt_ids", "image_prompt_attention_mask"):
        if name in own and "image_guidance_scale" not in own:
            raise ValueError(f"`{name}` needs `image_guidance_scale`, which is not given.")
    if mode == "image" and own.get("num_frames", 1) != 1:
        raise ValueError(f'`num_frames` is for videos, got {own["num_frames"]} for `generation_mode="image"`.')
    if mode == "interleaved":
        return
    for name in ("max_visual_spans", "allowed_modalities"):
        if name in own:
            raise ValueError(f'`{name}` is for `generation_mode="interleaved"`, got "{mode}".')
    for name, twin in _FOR_TEXT.items():
        if name in given:
            advice = "leave it out" if twin is None else f"use `{twin}`"
            raise ValueError(f'`{name}` is for text: {advice} for `generation_mode="{mode}"`.')


def check_compilable(code_logits_processor, cache_implementation: str | None):
    """Raises a `ValueError` for arguments that compiled positions cannot follow."""
    for name, value in (
        ("code_logits_processor", code_logits_processor),
        ("cache_implementation", cache_implementation),
    ):
        if value is not None:
            raise ValueError(f"`{name}` has no effect on compiled positions: call `compile_generation(False)` before.")


def check_cache(cache_implementation: str | None, device: torch.device):
    """Raises a `ValueError` for a cache that would be offloaded to where it is."""
    if cache_implementation in ("offloaded", "offloaded_static") and device.type == "cpu":
        raise ValueError(
            f"`cache_implementation={cache_implementation!r}` needs a model on an accelerator, got one on the CPU."
        )


def collect_visual_settings(mode: str, own: dict, kwargs: dict, generation_config, saved_config) -> dict:
    """
    The settings of visual sampling by name: those of the call, of its generation config, of the checkpoint's saved
    one, or the defaults. The first two may also use the library's names for them.
    """
    aliases = {"guidance_scale": "visual_guidance_scale"}
    if mode != "interleaved":
        aliases["do_sample"] = "visual_do_sample"
    passed = {} if generation_config is None else generation_config.to_dict()
    given = {"do_sample": kwargs.get("do_sample"), **own}
    for source in (passed, given):
        for name, visual_name in aliases.items():
            if source.get(visual_name) is None:
                source[visual_name] = source.get(name)
    settings = dict(VISUAL_GENERATION_DEFAULTS)
    for source in (saved_config.to_dict(), passed, given):
        settings.update({name: source[name] for name in settings if source.get(name) is not None})
    return settings


def make_visual_settings(config, mode: str, input_ids, own: dict, values: dict, generation_config) -> VisualSettings:
    """
    The settings of one call, checked for its number of rows. `config` is the model's; `own` are `generate`'s own
    arguments, `values` what `collect_visual_settings` gave, and the `generation_config` is merged.
    """
    prompts, generators = len(input_ids), own.get("generator")
    rows = prompts * (generation_config.num_return_sequences or 1)
    if "seed" in own:
        generators = seeded_generators(own["seed"], rows, input_ids.device)
    settings = VisualSettings(
        mode=mode,
        num_frames=1 if mode == "image" else values["num_frames"],
        sampling=CodeSampling(
            do_sample=values["visual_do_sample"],
            temperature=values["visual_temperature"],
            top_k=values["visual_top_k"],
            top_p=values["visual_top_p"],
            min_p=values["visual_min_p"],
            code_depth=config.vision_config.code_depth,
            processors=own.get("code_logits_processor"),
            generators=generators,
        ),
        guidance=Guidance(values["visual_guidance_scale"], own.get("image_guidance_scale")),
        output_log_probs=own.get("output_log_probs", False),
        max_visual_spans=own.get("max_visual_spans"),
        allowed_modalities=own.get("allowed_modalities", MODALITIES),
        prompts=prompts,
        first_frames=own.get("first_frames"),
    )
    settings.sampling.check_rows(rows)
    positions = config.vision_config.num_visual_tokens * settings.num_frames
    settings.guidance.prepare(prompts, rows, positions, input_ids.device)
    if settings.output_log_probs and mode != "interleaved" and not generation_config.return_dict_in_generate:
        raise ValueError("`output_log_probs` needs `return_dict_in_generate=True`: codes alone hold none.")
    return settings


class MergedGenerationConfig(GenerationConfig):
    """
    Holds the merged settings of a call and of the checkpoint. transformers' `generate` merges them with the
    checkpoint's once more.

    `generate` fills each field that is `None` with the checkpoint's value. Fields that were set by `fix` keep theirs,
    `None` too.
    """

    _fixed: tuple[str, ...] = ()

    def fix(self, **values) -> None:
        """Sets fields that a later merge does not change."""
        self._fixed = (*self._fixed, *values)
        for name, value in values.items():
            setattr(self, name, value)

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **kwargs) -> dict:
        """Sets fields, like the base method, and leaves out defaults of fixed fields."""
        if defaults_only:
            kwargs = {name: value for name, value in kwargs.items() if name not in self._fixed}
        return super().update(defaults_only=defaults_only, allow_custom_entries=allow_custom_entries, **kwargs)


def merge_generation_config(
    mode: str, generation_config: GenerationConfig | None, saved_config: GenerationConfig, kwargs: dict
) -> tuple[MergedGenerationConfig, dict]:
    """
    Merges the settings of a call in `mode`.

    Arguments win over `generation_config`, and this wins over the settings of the checkpoint.

    Returns:
        The merged settings, and the arguments that are not generation settings.
    """
    given = {} if generation_config is None else generation_config.to_dict()
    kwargs = dict(kwargs)
    if mode != "interleaved":
        # `visual_do_sample` says whether codes are sampled. For greedy text the library refuses to repeat a prompt.
        kwargs.pop("do_sample", None)
        given["do_sample"] = True
    merged = MergedGenerationConfig.from_dict(given)
    merged.update(**saved_config.to_dict(), defaults_only=True, allow_custom_entries=True)
    others = merged.update(**kwargs)
    # what the caller passed is fixed, also a `None`
    merged.fix(**{name: value for name, value in kwargs.items() if name not in others})
    # options that only the library's text decoding supports, and that a checkpoint may save
    merged.fix(**_OTHER_DECODING, guidance_scale=None, token_healing=False, use_cache=True)
    merged.fix(**({"output_scores": False} if mode == "interleaved" else {"stop_strings": None}))
    return merged, others


def fix_lengths(merged: MergedGenerationConfig, mode: str, num_positions: int, most: int) -> None:
    """Fixes how much is generated: a span of `num_positions`, or text and spans of at most `most` positions."""
    if mode != "interleaved":
        merged.fix(max_length=None, max_new_tokens=num_positions, min_length=0, min_new_tokens=None)
        return
    merged.fix(max_length=None, max_new_tokens=most)
    if merged.min_new_tokens is not None:
        merged.fix(min_length=None)


def limit_text_length(
    generation_config: GenerationConfig | None, saved_config: GenerationConfig, kwargs: dict, length: int, room: int
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
    limited.max_new_tokens, limited.max_length = room, None
    return limited


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
