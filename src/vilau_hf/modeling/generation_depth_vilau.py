# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""From hidden states of the language model to codes: the depths of one visual position."""

from dataclasses import dataclass

import torch

from .generation_sampling_vilau import CodeSampling, Guidance


@dataclass
class DecodedPosition:
    """
    codes `(rows, D)`; scores `(rows, D, K)`, guided logits, and log-probabilities of the codes `(rows, D)` by them and
    by the conditional branch alone, where they were asked for.
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
        return (self.sampling.signature(), self.guidance.num_branches, self.output_scores, self.output_log_probs)

    def decode(
        self, hidden: torch.Tensor, position: int | torch.Tensor, drawing: list[bool] | None = None
    ) -> DecodedPosition:
        """
        The codes after `hidden` `(num_branches * rows, H)` at `position` of the span; they matter in the rows that are
        `drawing`, by default all.
        """
        noise = self.draw_noise(len(hidden) // self.guidance.num_branches, hidden.device, drawing)
        return DecodedPosition(*self.compute(hidden, noise, self.guidance.at(position)))

    def compute(self, hidden: torch.Tensor, noise: list[torch.Tensor], scale: torch.Tensor) -> tuple:
        """The fields of [`DecodedPosition`] after `hidden`, given chance and the scales `(rows, 1)` of guidance."""
        table, starts = self.code_inputs.table, self.code_inputs.starts
        inputs = self.transformer.in_proj_hidden(hidden) + starts[0]
        codes, scores, log_probs, conditional_log_probs, total = [], [], [], [], None
        cache = self.transformer.new_cache()
        for depth in range(self.sampling.code_depth):
            states = self.transformer.advance(inputs, depth, cache)  # (num_branches * rows, W)
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
                inputs = (total + starts[depth + 1]).repeat(self.guidance.num_branches, 1)
        return (
            torch.stack(codes, -1),
            torch.stack(scores, 1) if scores else None,
            torch.stack(log_probs, 1) if log_probs else None,
            torch.stack(conditional_log_probs, 1) if conditional_log_probs else None,
        )


def _log_prob(logits: torch.Tensor, codes: torch.LongTensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(-1, codes[:, None])[:, 0]


__all__ = ["CodeInputs", "DecodedPosition", "DepthDecoder"]
