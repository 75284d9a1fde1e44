# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Outputs of the vision tower and of its pre-training."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class VilaUVisionTowerOutput(ModelOutput):
    r"""
    Output of [`VilaUVisionTower`].

    Args:
        codes (`torch.LongTensor` of shape `(N, L, D)`): codes in `[0, codebook_size)`.
        quantized (`torch.Tensor` of shape `(N, L, C)`): sum of the code embeddings.
        hidden_states, attentions (`tuple`, *optional*): those of the image encoder, if requested.
    """

    # Both are always set. `ModelOutput` asks for defaults of all fields but the first.
    codes: torch.Tensor = None  # type: ignore[assignment]
    quantized: torch.Tensor = None  # type: ignore[assignment]
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class VilaUVisionTowerForPreTrainingOutput(ModelOutput):
    r"""
    Output of [`VilaUVisionTowerForPreTraining`].

    With `return_loss`, a loss of weight 0 is `None`. So are embeddings, similarities and reconstruction that only
    this loss needs.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*, with `return_loss`): weighted sum of the losses below.
        contrastive_loss (`torch.Tensor` of shape `()`, *optional*, with `return_loss`): sigmoid or softmax loss. In
            training mode the pairs of all ranks count.
        reconstruction_loss (`torch.Tensor` of shape `()`, *optional*, with `return_loss`): weighted pixel losses.
        commitment_loss (`torch.Tensor` of shape `()`, *optional*, with `return_loss`): distance of features to codes.
        logits_per_image (`torch.Tensor` of shape `(N, T)`, *optional*, with texts): scaled image-text similarities.
        image_embeds (`torch.Tensor` of shape `(N, C)`, *optional*): normalised image embeddings.
        text_embeds (`torch.Tensor` of shape `(T, C)`, *optional*, with texts): normalised text embeddings.
        codes (`torch.LongTensor` of shape `(N, L, D)`): codes of the images.
        reconstruction (`torch.Tensor` of shape `(N, 3, S, S)`, *optional*, with `return_loss`): decoded pixels,
            nominally in [-1, 1].
        hidden_states, attentions (`tuple`, *optional*): those of the image encoder, if requested.
    """

    loss: torch.Tensor | None = None
    contrastive_loss: torch.Tensor | None = None
    reconstruction_loss: torch.Tensor | None = None
    commitment_loss: torch.Tensor | None = None
    logits_per_image: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    codes: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


__all__ = ["VilaUVisionTowerForPreTrainingOutput", "VilaUVisionTowerOutput"]
