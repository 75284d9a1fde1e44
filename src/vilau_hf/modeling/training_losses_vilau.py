# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Training losses of the complete model, over text tokens and over the codes of visual tokens."""

import torch
from torch import nn

from .compat_modeling_vilau import torch_compilable_check
from .configuration_vilau import VilaUConfig
from .losses_vilau import code_loss
from .modeling_depth_transformer import VilaUDepthTransformer
from .visual_inputs_vilau import VilaUVisualInputsMixin


class VilaULossMixin:
    """Methods of [`VilaUForConditionalGeneration`] that compute the training losses."""

    # set by the model
    config: VilaUConfig
    model: VilaUVisualInputsMixin
    depth_transformer: VilaUDepthTransformer
    lm_head: nn.Module

    # Code logits that a training step computes at once: 64 MiB in float32.
    max_code_logits = 2**24

    def _losses(
        self,
        hidden_states: torch.Tensor,
        targets: torch.Tensor,
        visual_codes: torch.Tensor | None,
        num_text_items: torch.Tensor | int | None,
        num_visual_items: torch.Tensor | int | None,
        output_code_logits: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """
        Returns cross-entropy over text (VILA-U, eq. 5), over codes of all depths (eq. 7), and the code logits.

        Args:
            hidden_states (`torch.Tensor` of shape `(B, T, H)`): output of the language model.
            targets (`torch.LongTensor` of shape `(B, T)`): what each position predicts, which is the token after it.
            visual_codes (`torch.LongTensor` of shape `(B, T, D)`, *optional*): codes by position.
            num_text_items (`torch.Tensor` or `int`, *optional*): divisor of the summed loss over text labels.
            num_visual_items (`torch.Tensor` or `int`, *optional*): divisor of the summed loss over visual tokens.
            output_code_logits (`bool`): return the code logits.
        """
        targets = targets.to(hidden_states.device)
        is_visual = self.config.is_visual(targets)
        is_text = (targets != -100) & ~is_visual
        text_loss = self._text_loss(hidden_states[is_text], targets[is_text])
        text_loss = text_loss / self._count(is_text, num_text_items)
        if visual_codes is None:
            torch_compilable_check(
                ~is_visual.any(),
                lambda: f"`labels` ask for {is_visual.sum()} visual tokens, but neither pixels nor `codes` are given.",
            )
            visual_codes = targets.new_zeros(*targets.shape, self.config.depth_config.code_depth)
        # `targets` are shifted by one position, so the codes are, too
        next_codes = visual_codes.to(targets.device).roll(-1, dims=1)
        target_codes = next_codes[is_visual]  # (M, D)
        torch_compilable_check(
            (target_codes >= 0).all(),
            lambda: (
                f"`labels` hold a placeholder at {int((target_codes < 0).any(-1).sum())} positions where `input_ids` "
                "have no visual token: its codes are unknown."
            ),
        )
        visual_loss, code_logits = self._code_loss(hidden_states[is_visual], target_codes, output_code_logits)
        visual_loss = visual_loss / (self._count(is_visual, num_visual_items) * next_codes.shape[-1])
        return text_loss, visual_loss, code_logits

    @staticmethod
    def _count(mask: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor:
        """Returns the divisor of a summed loss: `num_items` if given, else the count of `mask`; at least 1."""
        count = mask.sum() if num_items is None else torch.as_tensor(num_items, device=mask.device)
        # a batch may have no label of one kind, and 0 / 0 would be NaN
        return count.clamp(min=1)

    def _text_loss(self, text_hidden: torch.Tensor, target_ids: torch.Tensor) -> torch.Tensor:
        """Returns the summed cross-entropy over `target_ids` `(number of text labels,)`."""
        # in float32: the sum over many labels would lose digits in bfloat16
        return nn.functional.cross_entropy(self.lm_head(text_hidden).float(), target_ids, reduction="sum")

    def _code_loss(
        self, visual_hidden: torch.Tensor, target_codes: torch.Tensor, output_code_logits: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the summed cross-entropy over `target_codes` `(M, D)`, and the logits if requested."""
        quantizer = self.model.vision_tower.quantizer
        return code_loss(
            self.depth_transformer, quantizer, visual_hidden, target_codes, self.max_code_logits, output_code_logits
        )


__all__ = ["VilaULossMixin"]
