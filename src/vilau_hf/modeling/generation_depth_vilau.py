# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Decodes the codes of one visual position from hidden states of the language model, depth by depth."""

from dataclasses import dataclass
from typing import Any

import torch

from .generation_sampling_vilau import CodeSampler, Guidance


@dataclass
class DecodedPosition:
    """
    Codes of one visual position.

    Args:
        codes (`torch.Tensor` of shape `(rows, D)`): the codes.
        scores (`torch.Tensor` of shape `(rows, D, K)`, *optional*): guided logits.
        log_probs (`torch.Tensor` of shape `(rows, D)`, *optional*): log-probabilities of the codes under `scores`.
        conditional_log_probs (`torch.Tensor` of shape `(rows, D)`, *optional*): the same under the
            conditional branch alone.
        best (`torch.Tensor` of shape `(rows, D)`, *optional*): probability or logit of the most probable code. It is
            NaN or -inf where the logits allow no choice.
    """

    codes: torch.Tensor
    scores: torch.Tensor | None = None
    log_probs: torch.Tensor | None = None
    conditional_log_probs: torch.Tensor | None = None
    best: torch.Tensor | None = None

    def replace_codes(self, codes: torch.Tensor) -> "DecodedPosition":
        """
        Returns a copy of this position with other `codes` `(rows, D)`.

        Scores and log-probabilities become NaN from the first depth at which a row differs. Deeper codes were
        conditioned on the replaced code.
        """
        is_lost = (codes != self.codes).cumsum(-1) > 0  # (rows, D)
        return DecodedPosition(
            codes,
            None if self.scores is None else self.scores.masked_fill(is_lost[..., None], torch.nan),
            None if self.log_probs is None else self.log_probs.masked_fill(is_lost, torch.nan),
            None if self.conditional_log_probs is None else self.conditional_log_probs.masked_fill(is_lost, torch.nan),
            self.best,
        )


class CodeInputs:
    """
    Inputs of the depth transformer for all codes, computed once for each call.

    The input at a depth is a linear projection of a sum of code embeddings. So it is also a sum of rows of a projected
    codebook, `table`, which saves the projection at each depth. `starts` `(D, W)` holds the depth embeddings.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
    """

    def __init__(self, model: Any) -> None:
        self.table, self.starts = self._compute(model)

    @staticmethod
    def _compute(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        transformer = model.depth_transformer
        quantizer = model.model.vision_tower.quantizer
        codebook = quantizer.codebook()
        depths = torch.arange(quantizer.code_depth, device=codebook.device)
        positions = transformer.depth_embedding(depths)  # (D, W)
        project = transformer.in_proj_code
        table = project(codebook.to(positions.dtype))  # (codebook rows, W)
        bias = project(codebook.new_zeros(1, codebook.shape[1], dtype=positions.dtype))  # (1, W)
        # Each row of the table has the bias of the projection. A sum of d rows has it d times, and needs it once.
        return table, positions - (depths[:, None] - 1).clamp(min=0) * bias

    def refresh(self, model: Any) -> None:
        """Computes the inputs again in the same memory, which CUDA graphs read."""
        for held, new in zip((self.table, self.starts), self._compute(model), strict=True):
            held.copy_(new)


class DepthDecoder:
    """
    Decodes the D codes of visual positions.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        sampler ([`CodeSampler`]): samples the codes.
        guidance ([`Guidance`]): guidance whose scales [`Guidance.expand`] has repeated for the rows.
        code_inputs ([`CodeInputs`]): inputs of the depth transformer.
        output_scores, output_log_probs (`bool`, *optional*, defaults to `False`): whether [`DecodedPosition`] holds
            scores and log-probabilities.
    """

    def __init__(
        self,
        model: Any,
        sampler: CodeSampler,
        guidance: Guidance,
        code_inputs: CodeInputs,
        output_scores: bool = False,
        output_log_probs: bool = False,
    ) -> None:
        self.transformer = model.depth_transformer
        self.quantizer = model.model.vision_tower.quantizer
        self.sampler = sampler
        self.guidance = guidance
        self.code_inputs = code_inputs
        self.output_scores = output_scores
        self.output_log_probs = output_log_probs

    def draw_noise(self, rows: int, device: torch.device, active: list[bool] | None = None) -> list[torch.Tensor]:
        """Draws the random numbers of one position, as [`CodeSampler.draw_noise`] does."""
        return self.sampler.draw_noise(rows, self.quantizer.codebook_size, device, active)

    def signature(self) -> tuple:
        """Returns the settings that a compiled `compute` depends on, as a key."""
        return (self.sampler.signature(), self.guidance.num_branches, self.output_scores, self.output_log_probs)

    def decode(
        self, hidden: torch.Tensor, position: int | torch.Tensor, active: list[bool] | None = None
    ) -> DecodedPosition:
        """
        Decodes one position.

        Args:
            hidden (`torch.Tensor` of shape `(R, H)`): hidden states of all branches before the position.
            position (`int`, or `torch.Tensor` of shape `(rows,)`): index of the position in its span.
            active (`list[bool]`, *optional*): rows whose codes are used, by default all.
        """
        noise = self.draw_noise(len(hidden) // self.guidance.num_branches, hidden.device, active)
        return DecodedPosition(*self.compute(hidden, noise, self.guidance.at(position)))

    def compute(self, hidden: torch.Tensor, noise: list[torch.Tensor], scale: torch.Tensor) -> tuple:
        """
        Computes the fields of [`DecodedPosition`]; it draws no random numbers, so it can be compiled.

        Args:
            hidden (`torch.Tensor` of shape `(R, H)`): hidden states of all branches.
            noise (`list[torch.Tensor]`): result of `draw_noise`.
            scale (`torch.Tensor` of shape `(rows, 1)`): scales of guidance.
        """
        table = self.code_inputs.table
        starts = self.code_inputs.starts
        inputs = self.transformer.in_proj_hidden(hidden) + starts[0]  # (R, W)
        codes: list[torch.Tensor] = []
        scores: list[torch.Tensor] = []
        log_probs: list[torch.Tensor] = []
        conditional_log_probs: list[torch.Tensor] = []
        best: list[torch.Tensor] = []
        total = None
        cache = self.transformer.new_cache()
        for depth in range(self.sampler.code_depth):
            states = self.transformer.advance(inputs, depth, cache)  # (R, W)
            # Mixing before the head equals mixing logits, since the head is affine and the weights of the mixture add
            # up to 1. The head then runs on the rows of one branch.
            mixed = self.guidance.mix(states, scale).to(states.dtype)
            logits = self.transformer.code_head(mixed).float()  # (rows, K)
            code, highest = self.sampler.sample(logits, depth, codes, noise)
            codes.append(code)
            best.append(highest)
            if self.output_scores:
                scores.append(logits)
            if self.output_log_probs:
                log_probs.append(_log_prob(logits, code))
                conditional = states[: len(code)]
                conditional_log_probs.append(_log_prob(self.transformer.code_head(conditional).float(), code))
            if depth + 1 < self.sampler.code_depth:
                first_row = self.quantizer.first_row(depth)
                row = table[code + first_row if first_row else code]
                total = row if total is None else total + row
                inputs = (total + starts[depth + 1]).repeat(self.guidance.num_branches, 1)
        return (
            torch.stack(codes, -1),
            torch.stack(scores, 1) if scores else None,
            torch.stack(log_probs, 1) if log_probs else None,
            torch.stack(conditional_log_probs, 1) if conditional_log_probs else None,
            torch.stack(best, 1),
        )


def count_invalid(decoded: list[DecodedPosition], is_used: torch.Tensor) -> torch.Tensor:
    """
    Counts codes whose logits allowed no choice, without waiting for the device.

    Args:
        decoded (`list[DecodedPosition]`): n positions.
        is_used (`torch.Tensor` of shape `(rows, n)` or `(rows, 1)`, bool): where codes are used.
    """
    best = torch.stack([position.best for position in decoded if position.best is not None], 1)  # (rows, n, D)
    return (~(best > -torch.inf) & is_used[..., None]).sum()


def check_choices(
    num_invalid: torch.Tensor,
    name: str = "code",
    causes: str = "the scale of guidance and `code_logits_processor`",
) -> None:
    """
    Checks that all logits allowed a choice. It waits for the device, so it follows the decoding loop.

    Args:
        num_invalid (`torch.Tensor`): number of choices that were not possible.
        name (`str`, *optional*, defaults to `"code"`): name of a choice, for the error.
        causes (`str`, *optional*): arguments that can be the cause, for the error.

    Raises:
        ValueError: if logits were NaN, or -inf for all codes.
    """
    if bool(num_invalid):
        raise ValueError(
            f"the logits of {int(num_invalid)} {name}s are NaN, or -inf for every {name}: check the weights, "
            f"`pixel_values` and {causes}."
        )


def _log_prob(logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(-1, codes[:, None])[:, 0]


__all__ = ["CodeInputs", "DecodedPosition", "DepthDecoder", "check_choices", "count_invalid"]
