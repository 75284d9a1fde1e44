# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""From hidden states of the language model to codes: guidance and the depths of one visual position."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .generation_sampling_vilau import CodeSampling


class Guidance:
    r"""
    Classifier-free guidance of codes. With the streams c (everything), u (nothing) and, for an image scale, i (images
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
        # streams that are needed: 1 without guidance
        self.num_streams = 3 if image_scale is not None else 1 if self.scale.ndim == 0 and self.scale == 1 else 2

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
        """Scales `(rows, 1)` at the place `position` in the span, of all rows or `(rows,)`."""
        if self.scale.shape[1] == 1:
            return self.scale
        if isinstance(position, int):
            return self.scale[:, position : position + 1]
        return self.scale.gather(1, position.clamp(max=self.scale.shape[1] - 1)[:, None])

    def mix(self, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Mixes streams `(num_streams * rows, W)` into `(rows, W)`, float32 where there are several."""
        if self.num_streams == 1:
            return values
        streams = values.float().chunk(self.num_streams)
        if self.image_scale is None:
            conditional, unconditional = streams
            return unconditional + scale * (conditional - unconditional)
        conditional, image_only, unconditional = streams
        return unconditional + self.image_scale * (image_only - unconditional) + scale * (conditional - image_only)


@dataclass
class DecodedPosition:
    """
    codes `(rows, D)`; scores `(rows, D, K)`, guided logits, and log-probabilities of the codes `(rows, D)` by them and
    by the conditional stream alone, where they were asked for.
    """

    codes: torch.LongTensor
    scores: torch.Tensor | None = None
    log_probs: torch.Tensor | None = None
    conditional_log_probs: torch.Tensor | None = None

    def overwritten(self, codes: torch.LongTensor) -> "DecodedPosition":
        """With other `codes` `(rows, D)`; from the first depth at which they differ in a row the rest is NaN there."""
        lost = (codes != self.codes).cumsum(-1) > 0  # (rows, D); what was drawn deeper followed another code
        return DecodedPosition(
            codes,
            None if self.scores is None else self.scores.masked_fill(lost[..., None], torch.nan),
            None if self.log_probs is None else self.log_probs.masked_fill(lost, torch.nan),
            None if self.conditional_log_probs is None else self.conditional_log_probs.masked_fill(lost, torch.nan),
        )


class CodeInputs:
    """
    What the depth transformer reads for codes, worked out once: its input is a sum of rows of a table, not a
    projection of a sum of embeddings.

    Args:
        model ([`VilaUForConditionalGeneration`]).
    """

    def __init__(self, model):
        self.table, self.starts = self._compute(model)

    @staticmethod
    def _compute(model) -> tuple[torch.Tensor, torch.Tensor]:
        transformer, quantizer = model.depth_transformer, model.model.vision_tower.quantizer
        codebook = quantizer.codebook()
        depths = torch.arange(quantizer.code_depth, device=codebook.device)
        positions = transformer.depth_embedding(depths)  # (D, W)
        project, dtype = transformer.in_proj_code, positions.dtype
        table = project(codebook.to(dtype))  # (codebook rows, W), each with the bias
        bias = project(codebook.new_zeros(1, codebook.shape[1], dtype=dtype))  # (1, W)
        # d rows of the table bring d biases, where one belongs
        return table, positions - (depths[:, None] - 1).clamp(min=0) * bias

    def refresh(self, model):
        """Works it out again, in place."""
        for held, new in zip((self.table, self.starts), self._compute(model), strict=True):
            held.copy_(new)


class DepthDecoder:
    """
    Decodes the D codes of visual positions.

    Args:
        model ([`VilaUForConditionalGeneration`]).
        sampling ([`CodeSampling`]).
        guidance ([`Guidance`]).
        code_inputs ([`CodeInputs`]).
        output_scores, output_log_probs (`bool`): what [`DecodedPosition`] holds beside the codes.
    """

    def __init__(
        self,
        model,
        sampling: CodeSampling,
        guidance: Guidance,
        code_inputs: CodeInputs,
        output_scores: bool = False,
        output_log_probs: bool = False,
    ):
        self.transformer, self.quantizer = model.depth_transformer, model.model.vision_tower.quantizer
        self.sampling, self.guidance, self.code_inputs = sampling, guidance, code_inputs
        self.output_scores, self.output_log_probs = output_scores, output_log_probs

    def draw_noise(self, rows: int, device: torch.device, drawing: list[bool] | None = None) -> list[torch.Tensor]:
        """What chance brings to one position of `rows` rows, of which those that are `drawing` matter."""
        return self.sampling.draw_noise(rows, self.quantizer.codebook_size, device, drawing)

    def signature(self) -> tuple:
        """What makes one compiled `compute` differ from another."""
        return (self.sampling.signature(), self.guidance.num_streams, self.output_scores, self.output_log_probs)

    def decode(
        self, hidden: torch.Tensor, position: int | torch.Tensor, drawing: list[bool] | None = None
    ) -> DecodedPosition:
        """
        The codes after `hidden` `(num_streams * rows, H)` at `position` of the span; they matter in the rows that are
        `drawing`, by default all.
        """
        noise = self.draw_noise(len(hidden) // self.guidance.num_streams, hidden.device, drawing)
        return DecodedPosition(*self.compute(hidden, noise, self.guidance.at(position)))

    def compute(self, hidden: torch.Tensor, noise: list[torch.Tensor], scale: torch.Tensor) -> tuple:
        """The fields of [`DecodedPosition`] after `hidden`, given chance and the scales `(rows, 1)` of guidance."""
        table, starts = self.code_inputs.table, self.code_inputs.starts
        inputs = self.transformer.in_proj_hidden(hidden) + starts[0]
        codes, scores, log_probs, conditional_log_probs, total = [], [], [], [], None
        cache = self.transformer.new_cache()
        for depth in range(self.sampling.code_depth):
            states = self.transformer.advance(inputs, depth, cache)  # (num_streams * rows, W)
            mixed = self.guidance.mix(states, scale).to(states.dtype)  # the head is linear: mixing may come first
            logits = self.transformer.code_head(mixed).float()  # (rows, K)
            code = self.sampling.pick(logits, depth, codes, noise)
            codes.append(code)
            if self.output_scores:
                scores.append(logits)
            if self.output_log_probs:
                log_probs.append(_log_prob(logits, code))
                alone = states[: len(code)]
                conditional_log_probs.append(_log_prob(self.transformer.code_head(alone).float(), code))
            if depth + 1 < self.sampling.code_depth:
                first_row = self.quantizer.first_row(depth)
                row = table[code + first_row if first_row else code]
                total = row if total is None else total + row
                inputs = (total + starts[depth + 1]).repeat(self.guidance.num_streams, 1)
        return (
            torch.stack(codes, -1),
            torch.stack(scores, 1) if scores else None,
            torch.stack(log_probs, 1) if log_probs else None,
            torch.stack(conditional_log_probs, 1) if conditional_log_probs else None,
        )


def _log_prob(logits: torch.Tensor, codes: torch.LongTensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(-1, codes[:, None])[:, 0]


__all__ = ["CodeInputs", "DecodedPosition", "DepthDecoder", "Guidance"]
