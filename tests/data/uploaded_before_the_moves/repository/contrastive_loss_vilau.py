# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Contrastive losses of the vision tower's pre-training."""

import torch
from torch import nn


def contrastive_loss(
    loss_type: str,
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
    across_ranks: bool,
) -> torch.Tensor:
    """
    Loss over all image-text pairs, of which the n-th image with the n-th text are the true ones.

    Args:
        loss_type (`str`): `"sigmoid"` (Zhai et al., 2023, eq. 1) or `"softmax"`, without bias (Radford et al., 2021,
            figure 3).
        image_embeds, text_embeds (`torch.Tensor` of shape `(N, C)`): normalised embeddings.
        logit_scale, logit_bias (`torch.Tensor` of shape `(1,)`): logarithm of the similarities' scale, and their bias.
        across_ranks (`bool`): whether images and texts of all ranks make up the pairs. Every rank has to call then,
            with as many images; the mean of the ranks' losses, and of their gradients, is that of the whole batch.

    Returns:
        The loss, `()`, in float32.

    Raises:
        ValueError: if there are not as many texts as images.
    """
    if len(image_embeds) != len(text_embeds):
        raise ValueError(
            f"every image needs one text for the contrastive loss, got {len(image_embeds)} images and "
            f"{len(text_embeds)} texts."
        )
    first, texts, images = 0, text_embeds, image_embeds
    if across_ranks and torch.distributed.is_available() and torch.distributed.is_initialized():
        from torch.distributed.nn.functional import all_gather  # not there in every build of torch

        first = torch.distributed.get_rank() * len(image_embeds)
        texts = torch.cat(all_gather(text_embeds))
        images = torch.cat(all_gather(image_embeds)) if loss_type == "softmax" else images
    logits_per_image = image_embeds @ texts.T * logit_scale.exp()  # (N, all pairs)
    own = torch.arange(len(image_embeds), device=image_embeds.device) + first
    if loss_type == "sigmoid":
        logits = (logits_per_image + logit_bias).float()
        signs = torch.full_like(logits, -1).scatter(1, own[:, None], 1)
        return -nn.functional.logsigmoid(signs * logits).sum() / len(image_embeds)
    logits_per_text = text_embeds @ images.T * logit_scale.exp()
    losses = [nn.functional.cross_entropy(logits.float(), own) for logits in (logits_per_image, logits_per_text)]
    return sum(losses) / 2


__all__ = ["contrastive_loss"]
