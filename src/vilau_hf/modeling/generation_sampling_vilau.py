# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Sampling of codes: settings, truncation, random numbers and classifier-free guidance."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias, cast

import torch
from transformers import LogitsProcessorList

from .argument_checks_vilau import SMALLEST_DIVISOR, check_value


# `torch.topk` returns `top_k` codes and this many more, so that codes tied with the k-th are not lost. With the
# published top-k of 900 these are 1024 of 16384 codes. On random logits of bfloat16 precision, 900 to 926 codes were
# at or above the 900th, so there is room for all ties.
_NUM_TIES = 124

# A number, or a sequence of one number for each depth. It is `Any`, since `SamplingSettings.split_by_depth` makes
# numbers of the sequences, and both forms have the same class.
PerDepth: TypeAlias = Any


def _per_depth(default: float, is_valid: Callable[[Any], bool], accepted: str) -> Any:
    """
    Declares a field of [`SamplingSettings`] whose value is one number, or one number for each depth.

    `is_valid` checks a number, and `accepted` describes the valid numbers in error messages.
    """
    return field(default=default, metadata={"is_valid": is_valid, "accepted": accepted})


@dataclass(frozen=True)
class SamplingSettings:
    """
    Settings for sampling codes.

    `generate` and generation configs name each field with the prefix `visual_`, for example `visual_top_k`. Defaults,
    checks, arguments and the key of compiled graphs are derived from these fields. A new setting needs a field here,
    its use in [`truncated_probabilities`] and a line in the docstring of `generate`.

    Args:
        do_sample (`bool`, *optional*, defaults to `True`): `False` takes the most probable code.
        temperature, top_k, top_p, min_p (*optional*): as for [`truncated_probabilities`]; each a number, or a sequence
            of one number for each depth.

    Raises:
        ValueError: if a setting has another type or is out of range.
    """

    do_sample: bool = True
    temperature: PerDepth = _per_depth(
        1.0, lambda value: value >= SMALLEST_DIVISOR, f"greater than 0 and at least {SMALLEST_DIVISOR}"
    )
    top_k: PerDepth = _per_depth(
        900, lambda value: isinstance(value, int) and value >= 0, "an integer, at least 0 (0: all codes)"
    )
    top_p: PerDepth = _per_depth(0.96, lambda value: 0 < value <= 1, "in (0, 1]")
    min_p: PerDepth = _per_depth(0.0, lambda value: 0 <= value < 1, "in [0, 1)")

    def __post_init__(self) -> None:
        check_value("visual_do_sample", self.do_sample, bool)
        for name in PER_DEPTH_SETTINGS:
            given = getattr(self, name)
            values = given if isinstance(given, Sequence) else [given]
            rule = self.__dataclass_fields__[name].metadata
            for value in values:
                check_value(f"visual_{name}", value, float)
            if not all(rule["is_valid"](value) for value in values):
                raise ValueError(f"`visual_{name}` must be {rule['accepted']}, got {given}.")

    def split_by_depth(self, code_depth: int) -> "tuple[SamplingSettings, ...]":
        """
        Returns the settings of each of the `code_depth` depths, where every field is a number.

        Raises:
            ValueError: if a setting is a sequence of another length.
        """
        columns = {}
        for name in PER_DEPTH_SETTINGS:
            given = getattr(self, name)
            columns[name] = list(given) if isinstance(given, Sequence) else [given] * code_depth
            if len(columns[name]) != code_depth:
                raise ValueError(
                    f"`visual_{name}` must be a number, or a list of {code_depth} numbers (one for each depth), got "
                    f"{given}."
                )
        return tuple(
            SamplingSettings(self.do_sample, **{name: values[depth] for name, values in columns.items()})
            for depth in range(code_depth)
        )


PER_DEPTH_SETTINGS = tuple(each.name for each in fields(SamplingSettings) if each.metadata)


class CodeSampler:
    """
    Samples the codes of all depths.

    Args:
        settings ([`SamplingSettings`]): the settings, for all depths or by depth.
        code_depth (`int`): number D of codes per visual token.
        processors (`LogitsProcessorList`, *optional*): called with the codes so far `(rows, d)` and the guided logits
            `(rows, K)` of depth d.
        generators (`torch.Generator` or a list of one for each row, *optional*): sources of the random numbers.
    """

    def __init__(
        self,
        settings: SamplingSettings,
        code_depth: int,
        processors: LogitsProcessorList | None = None,
        generators: torch.Generator | list[torch.Generator] | None = None,
    ) -> None:
        self.do_sample = settings.do_sample
        self.code_depth = code_depth
        self.depths = settings.split_by_depth(code_depth)
        self.processors = processors
        self.generators = generators

    def check_rows(self, rows: int) -> None:
        """
        Checks generators that are given by row.

        Raises:
            ValueError: if there are not as many generators as rows, or if they are on several devices.
        """
        if not isinstance(self.generators, list):
            return
        if len(self.generators) != rows:
            raise ValueError(
                f"`generator` has {len(self.generators)} entries for {rows} rows: give one, or one for each row."
            )
        devices = sorted({str(each.device) for each in self.generators})
        if len(devices) > 1:
            raise ValueError(f"the entries of `generator` must be on one device, got {', '.join(devices)}.")

    def signature(self) -> tuple:
        """Returns the settings as a hashable key. Two samplers with equal keys run the same operations."""
        return self.depths

    def draw_noise(
        self, rows: int, codebook_size: int, device: torch.device, active: list[bool] | None = None
    ) -> list[torch.Tensor]:
        """
        Draws the random numbers of one visual position.

        All depths share one draw. With one generator per row, a draw for each depth would launch D times as many
        kernels.

        Args:
            rows (`int`): number of rows.
            codebook_size (`int`): number K of codes.
            device (`torch.device`): where the result is needed.
            active (`list[bool]`, *optional*): as for `uniform_noise`.

        Returns:
            For each depth, uniform noise `(rows, K)`, float32. The list is empty if codes are not sampled.
        """
        if not self.do_sample:
            return []
        noise = self.uniform_noise(rows, self.code_depth * codebook_size, device, active)
        return list(noise.split(codebook_size, dim=-1))

    def uniform_noise(
        self, rows: int, size: int, device: torch.device, active: list[bool] | None = None
    ) -> torch.Tensor:
        """
        Draws noise `(rows, size)` in [0, 1), float32, from the generators and moves it to `device`.

        Args:
            rows (`int`): rows of the noise.
            size (`int`): columns of the noise.
            device (`torch.device`): where the noise is needed; the generators may be on another device.
            active (`list[bool]`, *optional*): rows whose generators are used, by default all. The other rows get
                the constant 0.5. `active` has an effect only if each row has a generator.
        """
        by_row = self.generators if isinstance(self.generators, list) else None
        shared = None if isinstance(self.generators, list) else self.generators
        first = by_row[0] if by_row else shared
        source_device = device if first is None else first.device
        # A copy from pageable memory would make the host wait for the GPU.
        is_pinned = source_device.type == "cpu" and device.type == "cuda"
        noise = torch.full((rows, size), 0.5, device=source_device, pin_memory=is_pinned)
        if by_row is None:
            noise.uniform_(generator=shared)
        else:
            # An inactive row draws nothing, so its later samples do not depend on how long it was inactive.
            for row, generator, is_active in zip(noise, by_row, active or [True] * rows, strict=True):
                if is_active:
                    row.uniform_(generator=generator)
        return noise.to(device, non_blocking=is_pinned)

    def sample(
        self, logits: torch.Tensor, depth: int, codes: list[torch.Tensor], noise: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Samples the codes of one depth.

        Args:
            logits (`torch.Tensor` of shape `(rows, K)`): guided logits, float32.
            depth (`int`): index of the depth.
            codes (`list[torch.Tensor]`): codes `(rows,)` of the previous depths.
            noise (`list[torch.Tensor]`): result of `draw_noise`.

        Returns:
            Codes `(rows,)`, int64, and `(rows,)` the probability of the most probable code, or its logit if codes are
            not sampled. It is NaN or -inf if the logits allow no choice.
        """
        if self.processors is not None:
            so_far = torch.stack(codes, -1) if codes else logits.new_empty(len(logits), 0, dtype=torch.long)
            logits = self.processors(cast(torch.LongTensor, so_far), logits)  # the library annotates ids as such
        if not self.do_sample:
            highest, indices = logits.max(-1)
            return indices, highest
        probabilities, indices = truncated_probabilities(logits, self.depths[depth])
        # Each code has its random number, whatever its rank among the candidates. So a small change of the logits, as
        # by a draft of parallel decoding that is nearly right, seldom changes the code.
        chosen = sample_categorical(probabilities, noise[depth].gather(-1, indices))
        codes_of_rows = indices.gather(-1, chosen[:, None])[:, 0]
        # A softmax of NaN, or of -inf alone, is NaN in each entry.
        return codes_of_rows, probabilities[:, 0]


class Guidance:
    r"""
    Classifier-free guidance of codes.

    It mixes the conditional branch c with the unconditional branch u: `u + s * (c - u)`. With an image scale there is
    an image-only branch i: `u + s_i * (i - u) + s * (c - i)` (Brooks et al., 2023, eq. 3).

    Args:
        scale (`float`, or a sequence or tensor of shape `(B,)` or `(1 or B, P)`): at least 1, and 1 turns guidance
            off; a number for all, one for each row, or one for each of the P positions of a span.
        image_scale (`float`, *optional*): at least 1.

    Raises:
        ValueError: if a scale is not a number, is below 1, or has another shape.
    """

    def __init__(self, scale: float | Sequence | torch.Tensor, image_scale: float | None = None) -> None:
        check_value("guidance_scale", scale, float | list | tuple | torch.Tensor)
        check_value("image_guidance_scale", image_scale, float | None)
        try:
            self.scale = torch.as_tensor(scale, dtype=torch.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`guidance_scale` must be a number, or a list or tensor of numbers, got {scale!r}."
            ) from error
        self.image_scale = None if image_scale is None else torch.tensor(float(image_scale))
        for name, value in (("guidance_scale", self.scale), ("image_guidance_scale", self.image_scale)):
            if value is None:
                continue
            if value.numel() == 0 or not bool(value.isfinite().all()):
                raise ValueError(f"`{name}` must be a finite number, or finite numbers, got {value.tolist()}.")
            if float(value.min()) < 1:
                raise ValueError(f"`{name}` must be at least 1 (1 means no guidance), got {float(value.min())}.")
        if self.scale.ndim > 2:
            raise ValueError(
                "`guidance_scale` must be a number, or have shape (rows,) or (1 or rows, positions), got "
                f"{tuple(self.scale.shape)}."
            )
        if image_scale is not None:
            self.num_branches = 3
        elif self.scale.ndim == 0 and self.scale == 1:
            self.num_branches = 1
        else:
            self.num_branches = 2

    def expand(self, prompts: int, rows: int, num_positions: int, device: torch.device) -> "Guidance":
        """
        Returns this guidance for the rows of one call, with `scale` of shape `(rows, 1 or P)`.

        Args:
            prompts (`int`): number B of prompts.
            rows (`int`): number of results, a multiple of B: each prompt has the same number.
            num_positions (`int`): number P of positions of a span.
            device (`torch.device`): where the scales are needed.

        Raises:
            ValueError: if the shape of the scales does not match B and P.
        """
        scale = self.scale.reshape(1, 1) if self.scale.ndim == 0 else self.scale
        scale = scale if scale.ndim == 2 else scale[:, None]
        if scale.shape[0] not in (1, prompts) or scale.shape[1] not in (1, num_positions):
            raise ValueError(
                f"`guidance_scale` must have shape ({prompts},) or (1 or {prompts}, {num_positions}), got "
                f"{tuple(self.scale.shape)}."
            )
        times = rows // prompts if scale.shape[0] > 1 else rows
        expanded = copy.copy(self)  # the constructor would check the scales again, which waits for the device
        expanded.scale = scale.repeat_interleave(times, 0).to(device)
        if self.image_scale is not None:
            expanded.image_scale = self.image_scale.to(device)
        return expanded

    def at(self, position: int | torch.Tensor) -> torch.Tensor:
        """
        Returns the scales `(rows, 1)` at a position of the span, or `(rows, n)` at n positions. Call `expand` first.

        Args:
            position (`int`, or `torch.Tensor` of shape `(rows,)` or `(rows, n)`): one index, one for each row, or n
                for each row.
        """
        if isinstance(position, int):
            return self.scale if self.scale.shape[1] == 1 else self.scale[:, position : position + 1]
        position = position if position.ndim == 2 else position[:, None]
        if self.scale.shape[1] == 1:
            return self.scale.expand(-1, position.shape[1])
        return self.scale.gather(1, position.clamp(max=self.scale.shape[1] - 1))

    def mix(self, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """
        Mixes branches `(num_branches * rows, ...)` into `(rows, ...)`.

        Args:
            values (`torch.Tensor`): the branches in the order conditional, image-only, unconditional.
            scale (`torch.Tensor`): scales that broadcast with the values of a branch. They are not read if there
                is only one branch.

        Returns:
            The mixture in float32, since a mixture of bfloat16 values has many ties. One branch is returned unchanged.
        """
        if self.num_branches == 1:
            return values
        branches = values.float().chunk(self.num_branches)
        if self.image_scale is None:
            conditional, unconditional = branches
            return unconditional + scale * (conditional - unconditional)
        conditional, image_only, unconditional = branches
        return unconditional + self.image_scale * (image_only - unconditional) + scale * (conditional - image_only)


def sample_categorical(probabilities: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """
    Samples indices `(rows,)` from `probabilities` `(rows, n)`, whose rows need not sum to 1.

    It is an exponential race. For uniform `noise` `(rows, n)`, `-log(noise)` is exponential, and the index of the
    largest `p / -log(noise)` is i with probability `p_i`. Unlike `torch.multinomial` it takes noise that was drawn
    before, and it never waits for the GPU. On a CPU, uniform numbers take a sixth of the time of exponential ones, and
    the logarithm is only needed for candidates.
    """
    return (probabilities / noise.log()).argmin(-1)


def num_candidates(top_k: int, codebook_size: int) -> int:
    """Returns the number of candidate codes: `top_k` plus room for ties, or all codes if `top_k` keeps all."""
    return min(top_k + _NUM_TIES, codebook_size) if 0 < top_k < codebook_size else codebook_size


def truncated_probabilities(logits: torch.Tensor, settings: SamplingSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Computes the distribution that codes are sampled from.

    The order is temperature, top-k, softmax, top-p, min-p; the original release has the same order, without min-p.
    Only the candidates of top-k are sorted, not all K codes.

    Args:
        logits (`torch.Tensor` of shape `(rows, K)`): code logits.
        settings ([`SamplingSettings`]): settings of one depth, all of them numbers. `temperature` divides the logits.
            `top_k` keeps codes at or above the k-th largest logit, with at most 124 ties beyond k. The values 0 and
            K or more keep all codes. `top_p` keeps the smallest set of most probable codes whose total probability
            reaches it. `min_p` drops codes whose probability is below `min_p` times the largest probability.

    Returns:
        Probabilities `(rows, n)` in descending order, whose rows need not sum to 1, and their codes `(rows, n)`.
    """
    logits = logits.float() if settings.temperature == 1 else logits.float() / settings.temperature
    values, indices = logits.topk(num_candidates(settings.top_k, logits.shape[-1]))
    if 0 < settings.top_k < logits.shape[-1]:
        kth = values[:, settings.top_k - 1 : settings.top_k]
        values = values.masked_fill(values < kth, -torch.inf)
    probabilities = values.softmax(-1)
    if settings.top_p < 1:
        before = probabilities.cumsum(-1) - probabilities  # probability of all codes more probable than this one
        probabilities = probabilities.masked_fill(before >= settings.top_p, 0)
    if settings.min_p > 0:
        probabilities = probabilities.masked_fill(probabilities < settings.min_p * probabilities[:, :1], 0)
    return probabilities, indices


def seeded_generators(seed: int | Sequence[int], rows: int, device: torch.device) -> list[torch.Generator]:
    """
    Creates one generator for each row, so that the samples of a row do not depend on the other rows.

    Args:
        seed (`int` or a sequence of one for each row): row n gets `seed + n` if it is a single number.
        rows (`int`): number of rows.
        device (`torch.device`): device of the generators.

    Raises:
        ValueError: if a sequence has another length.
    """
    seeds = list(seed) if isinstance(seed, Sequence) else [seed + row for row in range(rows)]
    if len(seeds) != rows:
        raise ValueError(f"`seed` has {len(seeds)} entries for {rows} rows: give one, or one for each row.")
    return [torch.Generator(device).manual_seed(each) for each in seeds]


__all__ = [
    "PER_DEPTH_SETTINGS",
    "CodeSampler",
    "Guidance",
    "SamplingSettings",
    "sample_categorical",
    "seeded_generators",
    "truncated_probabilities",
]
