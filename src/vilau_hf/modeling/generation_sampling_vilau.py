# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""How codes are drawn from logits: guidance, truncation and seeds, checked before any work is done."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessorList


# what holds where neither the call nor the checkpoint's generation config says otherwise
VISUAL_GENERATION_DEFAULTS = {
    "visual_guidance_scale": 3.0,
    "visual_do_sample": True,
    "visual_temperature": 1.0,
    "visual_top_k": 900,
    "visual_top_p": 0.96,
    "visual_min_p": 0.0,
    "num_frames": 8,
    "unconditional_prompt_ids": None,
}
# of top-k, this many more codes are looked at, so that those tied with the k-th are not lost
_TIES = 124


@dataclass
class CodeSampling:
    """
    How the codes of all depths are drawn.

    Args:
        do_sample (`bool`): otherwise the most probable code is taken.
        temperature, top_k, top_p, min_p: a number, or a list with one for each of the `code_depth` depths.
        code_depth (`int`): number D of codes per visual token.
        processors (`LogitsProcessorList`, *optional*): called with the codes so far `(rows, d)` and the guided logits
            `(rows, K)` of depth d.
        generators (`torch.Generator` or a list of one a row, *optional*): sources of the samples.
    """

    do_sample: bool
    temperature: float | Sequence[float]
    top_k: int | Sequence[int]
    top_p: float | Sequence[float]
    min_p: float | Sequence[float]
    code_depth: int
    processors: LogitsProcessorList | None = None
    generators: torch.Generator | list[torch.Generator] | None = None

    def __post_init__(self):
        if not isinstance(self.do_sample, bool):
            raise ValueError(f"`visual_do_sample` must be True or False, got {self.do_sample!r}.")
        for name, valid, accepted in (
            ("temperature", lambda value: value > 0, "greater than 0"),
            ("top_k", lambda value: isinstance(value, int) and value >= 0, "an integer, at least 0 (0: all codes)"),
            ("top_p", lambda value: 0 < value <= 1, "in (0, 1]"),
            ("min_p", lambda value: 0 <= value < 1, "in [0, 1)"),
        ):
            given = getattr(self, name)
            values = list(given) if isinstance(given, Sequence) else [given] * self.code_depth
            if len(values) != self.code_depth:
                raise ValueError(
                    f"`visual_{name}` must be a number or a list of one for each of the {self.code_depth} depths, got "
                    f"{given}."
                )
            if not all(isinstance(value, (int, float)) and valid(value) for value in values):
                raise ValueError(f"`visual_{name}` must be {accepted}, got {given}.")
            setattr(self, name, values)

    def check_rows(self, rows: int):
        """Raises a `ValueError` if generators are given by row, and not for this number of rows on one device."""
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
        """The settings as a key."""
        return (self.do_sample, *(tuple(each) for each in (self.temperature, self.top_k, self.top_p, self.min_p)))

    def draw_noise(
        self, rows: int, codebook_size: int, device: torch.device, drawing: list[bool] | None = None
    ) -> list[torch.Tensor]:
        """
        What chance brings to one visual position: exponential noise `(rows, n)` for each depth's n candidates, as
        `noise` gives it, all depths in one draw.
        """
        if not self.do_sample:
            return []
        sizes = [num_candidates(top_k, codebook_size) for top_k in self.top_k]
        return list(self.noise(rows, sum(sizes), device, drawing).split(sizes, dim=-1))

    def noise(self, rows: int, size: int, device: torch.device, drawing: list[bool] | None = None) -> torch.Tensor:
        """
        Exponential noise `(rows, size)`, float32, drawn where the generators live and moved to `device`. Where each
        row has a generator, only the rows that are `drawing` (by default all) take from it; the others get ones.
        """
        by_row = isinstance(self.generators, list)
        first = self.generators[0] if by_row else self.generators
        home = device if first is None else first.device
        pinned = home.type == "cpu" and device.type == "cuda"  # else the host would wait for the copy
        noise = torch.ones(rows, size, device=home, pin_memory=pinned)
        if by_row:
            for row, generator, draws in zip(noise, self.generators, drawing or [True] * rows, strict=True):
                if draws:
                    row.exponential_(generator=generator)
        else:
            noise.exponential_(generator=self.generators)
        return noise.to(device, non_blocking=pinned)

    def pick(self, logits: torch.Tensor, depth: int, codes: list[torch.Tensor], noise: list[torch.Tensor]):
        """
        Codes `(rows,)` of `depth` for guided float32 `logits` `(rows, K)`, after `codes` of the depths before, with
        `noise` as `draw_noise` gave it.
        """
        if self.processors is not None:
            so_far = torch.stack(codes, -1) if codes else logits.new_empty(len(logits), 0, dtype=torch.long)
            logits = self.processors(so_far, logits)
        if not self.do_sample:
            return logits.argmax(-1)
        probabilities, indices = kept_probabilities(
            logits, self.temperature[depth], self.top_k[depth], self.top_p[depth], self.min_p[depth]
        )
        return indices.gather(-1, sample_categorical(probabilities, noise[depth])[:, None])[:, 0]


class Guidance:
    r"""
    Classifier-free guidance of codes. With the branches c (everything), u (nothing) and, for an image scale, i (images
    without text) it mixes `u + s * (c - u)`, or `u + s_i * (i - u) + s * (c - i)` (Brooks et al., 2023, eq. 3).

    Args:
        scale (`float`, or a sequence or tensor of shape `(rows,)` or `(1 or rows, P)`): at least 1, which turns it
            off; a number for all, one for each row, or one for each of the P positions of a span.
        image_scale (`float`, *optional*): at least 1.
    """

    def __init__(self, scale: float | Sequence | torch.Tensor, image_scale: float | None = None):
        if isinstance(scale, str) or not isinstance(image_scale, (int, float, type(None))):
            raise ValueError(
                f"`guidance_scale` and `image_guidance_scale` must be numbers, got {scale!r}, {image_scale!r}."
            )
        try:
            self.scale = torch.as_tensor(scale, dtype=torch.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`guidance_scale` must be a number, or lists or a tensor of them, got {scale!r}."
            ) from error
        self.image_scale = None if image_scale is None else torch.tensor(float(image_scale))
        for name, value in (("guidance_scale", self.scale), ("image_guidance_scale", self.image_scale)):
            lowest = 1.0 if value is None else float(value.min())
            if not lowest >= 1:
                raise ValueError(f"`{name}` must be at least 1 (1 means no guidance), got {lowest}.")
        if self.scale.ndim > 2:
            raise ValueError(
                "`guidance_scale` must be a number, or have shape (rows,) or (1 or rows, positions), got "
                f"{tuple(self.scale.shape)}."
            )
        # branches that are needed: 1 without guidance
        self.num_branches = 3 if image_scale is not None else 1 if self.scale.ndim == 0 and self.scale == 1 else 2

    def prepare(self, prompts: int, rows: int, num_positions: int, device: torch.device):
        """Checks shapes, repeats the scales of `prompts` for `rows` rows, several for each prompt, and moves them."""
        scale = self.scale.reshape(1, 1) if self.scale.ndim == 0 else self.scale
        scale = scale if scale.ndim == 2 else scale[:, None]
        if scale.shape[0] not in (1, prompts) or scale.shape[1] not in (1, num_positions):
            raise ValueError(
                f"`guidance_scale` must have shape ({prompts},) or (1 or {prompts}, {num_positions}), got "
                f"{tuple(self.scale.shape)}."
            )
        times = rows // prompts if scale.shape[0] > 1 else rows
        self.scale = scale.repeat_interleave(times, 0).to(device)  # (rows, 1 or P)
        if self.image_scale is not None:
            self.image_scale = self.image_scale.to(device)

    def at(self, position: int | torch.Tensor) -> torch.Tensor:
        """Scales `(rows, 1)` at `position` of the span, of all rows or `(rows,)`."""
        if self.scale.shape[1] == 1:
            return self.scale
        if isinstance(position, int):
            return self.scale[:, position : position + 1]
        return self.scale.gather(1, position.clamp(max=self.scale.shape[1] - 1)[:, None])

    def mix(self, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Mixes branches `(num_branches * rows, W)` into `(rows, W)`, float32 where there are several."""
        if self.num_branches == 1:
            return values
        branches = values.float().chunk(self.num_branches)
        if self.image_scale is None:
            conditional, unconditional = branches
            return unconditional + scale * (conditional - unconditional)
        conditional, image_only, unconditional = branches
        return unconditional + self.image_scale * (image_only - unconditional) + scale * (conditional - image_only)


def sample_categorical(probabilities: torch.Tensor, noise: torch.Tensor) -> torch.LongTensor:
    """
    Draws from `probabilities` `(rows, n)`, normalised or not, by an exponential race: over exponential `noise` the
    largest `p / noise` is at i with probability `p_i`.
    """
    return (probabilities / noise).argmax(-1)


def num_candidates(top_k: int, codebook_size: int) -> int:
    """Codes that are looked at for `top_k`: with room for those tied with the k-th; all of them if it keeps all."""
    return min(top_k + _TIES, codebook_size) if 0 < top_k < codebook_size else codebook_size


def kept_probabilities(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The distribution that codes are drawn from: temperature, top-k, softmax, top-p, min-p, in this order. Only the
    codes that top-k leaves are sorted.

    Args:
        logits (`torch.Tensor` of shape `(rows, K)`): code logits.
        temperature (`float`): divides the logits.
        top_k (`int`): codes at or above the k-th largest logit stay, of ties at most 124 beyond k; 0 or at
            least K keeps all.
        top_p (`float`): the smallest set of most probable codes whose probability reaches this stays.
        min_p (`float`): codes less probable than this share of the most probable one go.

    Returns:
        Probabilities `(rows, k)`, in falling order and not normalised, and the codes `(rows, k)` they belong to.
    """
    logits = logits.float() if temperature == 1 else logits.float() / temperature
    values, indices = logits.topk(num_candidates(top_k, logits.shape[-1]))
    if 0 < top_k < logits.shape[-1]:
        values = values.masked_fill(values < values[:, top_k - 1 : top_k], -torch.inf)
    probabilities = values.softmax(-1)
    if top_p < 1:
        before = probabilities.cumsum(-1) - probabilities  # probability of all codes more probable than this one
        probabilities = probabilities.masked_fill(before >= top_p, 0)
    if min_p > 0:
        probabilities = probabilities.masked_fill(probabilities < min_p * probabilities[:, :1], 0)
    return probabilities, indices


def seeded_generators(seed: int | Sequence[int], rows: int, device: torch.device) -> list[torch.Generator]:
    """
    One generator a row: a row's samples hang on its own seed, not on its neighbours.

    Args:
        seed (`int` or a sequence of one for each row): the n-th row gets `seed + n` if it is a single number.
    """
    seeds = list(seed) if isinstance(seed, Sequence) else [seed + row for row in range(rows)]
    if len(seeds) != rows:
        raise ValueError(f"`seed` has {len(seeds)} entries for {rows} rows: give one, or one for each row.")
    return [torch.Generator(device).manual_seed(each) for each in seeds]


__all__ = [
    "VISUAL_GENERATION_DEFAULTS",
    "CodeSampling",
    "Guidance",
    "kept_probabilities",
    "sample_categorical",
    "seeded_generators",
]
