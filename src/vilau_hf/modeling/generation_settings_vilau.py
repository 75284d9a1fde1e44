# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Arguments and settings of a `generate` call that produces images or video."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from .argument_checks_vilau import PositiveInt, check_value
from .generation_sampling_vilau import Guidance, SamplingSettings


GENERATION_MODES = ("text", "image", "video", "interleaved")
MODALITIES = ("text", "image", "video")
VISUAL_DECODING = ("sequential", "parallel")

# Visual settings that a generation config can save, with the value for calls and checkpoints that do not give one.
VISUAL_GENERATION_DEFAULTS: dict[str, Any] = {
    "visual_guidance_scale": 3.0,
    **{f"visual_{name}": default for name, default in asdict(SamplingSettings()).items()},
    "num_frames": 8,
    "visual_decoding": "sequential",
    "parallel_window": None,
    "unconditional_prompt_ids": None,
}


@dataclass(frozen=True)
class VisualArguments:
    """
    The arguments of one `generate` call that text generation does not take, with their values as they were given.

    The docstring of `generate` describes them. `None` stands for an argument that was not given.

    Args:
        by_name (`dict`): arguments of `VISUAL_GENERATION_DEFAULTS` that `generate` takes by keyword only.
    """

    guidance_scale: float | list | tuple | torch.Tensor | None = None
    image_guidance_scale: float | None = None
    num_frames: int | None = None
    first_frames: torch.Tensor | None = None
    generator: torch.Generator | list[torch.Generator] | None = None
    seed: int | list[int] | tuple[int, ...] | None = None
    negative_prompt_ids: torch.Tensor | None = None
    negative_prompt_attention_mask: torch.Tensor | None = None
    image_prompt_ids: torch.Tensor | None = None
    image_prompt_attention_mask: torch.Tensor | None = None
    code_logits_processor: LogitsProcessorList | None = None
    output_log_probs: bool | None = None
    max_visual_spans: int | None = None
    allowed_modalities: tuple[str, ...] | list[str] | set[str] | None = None
    by_name: Mapping[str, Any] = field(default_factory=dict)

    def given(self) -> dict[str, Any]:
        """Returns the arguments that were given, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "by_name"}
        return {name: value for name, value in {**values, **self.by_name}.items() if value is not None}


@dataclass(frozen=True)
class VisualGenerationSettings:
    """
    Settings of one `generate` call that produces images or video, validated when they are made.

    Args:
        mode (`str`): one of `GENERATION_MODES`, not `"text"`.
        sampling ([`SamplingSettings`]): how codes are sampled.
        guidance ([`Guidance`]): guidance as it was asked for, not yet expanded to the rows.
        num_frames (`int`): frames of a video, 1 for an image.
        visual_decoding (`str`): one of `VISUAL_DECODING`.
        parallel_window (`int`, *optional*): positions of a pass of parallel decoding.
        unconditional_prompt_ids (`list[int]`, *optional*): unconditional prompt of the checkpoint.
        output_log_probs (`bool`): whether log-probabilities of the codes are returned.
        max_visual_spans (`int`, *optional*): most images and videos of a row, in interleaved mode.
        allowed_modalities (`tuple[str]`): what may be generated in interleaved mode.

    Raises:
        ValueError: if a setting has another type or is out of range.
    """

    mode: str
    sampling: SamplingSettings
    guidance: Guidance
    num_frames: int
    visual_decoding: str = "sequential"
    parallel_window: int | None = None
    unconditional_prompt_ids: list[int] | None = None
    output_log_probs: bool = False
    max_visual_spans: int | None = None
    allowed_modalities: tuple[str, ...] = MODALITIES

    def __post_init__(self) -> None:
        check_value("num_frames", self.num_frames, PositiveInt)
        check_value("parallel_window", self.parallel_window, PositiveInt | None)
        if self.visual_decoding not in VISUAL_DECODING:
            raise ValueError(
                f"`visual_decoding` must be one of {', '.join(VISUAL_DECODING)}, got {self.visual_decoding!r}."
            )
        check_value("unconditional_prompt_ids", self.unconditional_prompt_ids, list[int] | tuple[int, ...] | None)
        modalities = self.allowed_modalities
        if (
            not isinstance(modalities, (tuple, list, set))
            or "text" not in modalities
            or set(modalities) - set(MODALITIES)
        ):
            raise ValueError(
                f'`allowed_modalities` must be among {", ".join(MODALITIES)}, with "text", got {modalities!r}.'
            )

    @classmethod
    def collect(
        cls,
        mode: str,
        arguments: VisualArguments,
        kwargs: dict[str, Any],
        generation_config: GenerationConfig | None,
        saved_config: GenerationConfig,
    ) -> "VisualGenerationSettings":
        """
        Collects the settings of one call.

        Arguments win over `generation_config`. This wins over `saved_config`, and that over the defaults.

        Args:
            mode (`str`): the generation mode.
            arguments ([`VisualArguments`]): the visual arguments of the call.
            kwargs (`dict`): the other arguments of the call.
            generation_config (`GenerationConfig`, *optional*): the generation config of the call.
            saved_config (`GenerationConfig`): the generation config of the checkpoint.
        """
        values = _merge_by_name(mode, arguments, kwargs.get("do_sample"), generation_config, saved_config)
        given = arguments.given()
        optional = ("output_log_probs", "max_visual_spans", "allowed_modalities")
        return cls(
            mode=mode,
            sampling=SamplingSettings(
                **{each.name: values[f"visual_{each.name}"] for each in fields(SamplingSettings)}
            ),
            guidance=Guidance(values["visual_guidance_scale"], arguments.image_guidance_scale),
            num_frames=1 if mode == "image" else values["num_frames"],
            visual_decoding=values["visual_decoding"],
            parallel_window=values["parallel_window"],
            unconditional_prompt_ids=values["unconditional_prompt_ids"],
            **{name: given[name] for name in optional if name in given},
        )


def _merge_by_name(
    mode: str,
    arguments: VisualArguments,
    do_sample: bool | None,
    generation_config: GenerationConfig | None,
    saved_config: GenerationConfig,
) -> dict[str, Any]:
    """Returns the values of the settings in `VISUAL_GENERATION_DEFAULTS` for one call."""
    # A call may use the library's names. In interleaved mode `do_sample` is about text.
    aliases = {"guidance_scale": "visual_guidance_scale"}
    if mode != "interleaved":
        aliases["do_sample"] = "visual_do_sample"
    passed = {} if generation_config is None else generation_config.to_dict()
    given = {"do_sample": do_sample, **arguments.given()}
    for source in (passed, given):
        for name, visual_name in aliases.items():
            if source.get(visual_name) is None:
                source[visual_name] = source.get(name)
    # The checkpoint's `guidance_scale` and `do_sample` are saved for text, so it has no aliases.
    values = dict(VISUAL_GENERATION_DEFAULTS)
    for source in (saved_config.to_dict(), passed, given):
        values.update({name: source[name] for name in values if source.get(name) is not None})
    return values


__all__ = [
    "GENERATION_MODES",
    "MODALITIES",
    "VISUAL_GENERATION_DEFAULTS",
    "VisualArguments",
    "VisualGenerationSettings",
]
