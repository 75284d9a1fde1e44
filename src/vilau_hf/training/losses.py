# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Perceptual and adversarial losses of stage 1. The vision tower computes the other losses."""

import torch
from torch import nn

from ..evaluation.metric_networks import PERCEPTUAL_NETWORKS, load_lpips


class PerceptualLoss(nn.Module):
    r"""
    LPIPS, from torchmetrics: a distance of normalised features, weighted by channel (Zhang et al., 2018, eq. 1).

    It has no trainable parameters.

    Args:
        network (`str`, *optional*, defaults to `"vgg"`): `"vgg"`, `"alex"` or `"squeeze"`, trained on ImageNet.
        download (`bool`, *optional*, defaults to `False`): whether missing weights of the network may be downloaded.

    Raises:
        ValueError: for an unknown network.
        FileNotFoundError: if the weights are missing in the folder of `torch.hub` and may not be downloaded.
    """

    def __init__(self, network: str = "vgg", download: bool = False) -> None:
        super().__init__()
        self.network = load_lpips(network, "the perceptual loss", download)

    def forward(self, reconstruction: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Computes the mean distance between two batches of images.

        Args:
            reconstruction (`torch.Tensor` of shape `(N, 3, S, S)`): images, nominally in [-1, 1].
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): original images, in [-1, 1].

        Returns:
            `torch.Tensor` of shape `()`, float32.
        """
        return self.network(reconstruction.float(), pixel_values.float()).float().mean()


def hinge_loss(real_scores: torch.Tensor, fake_scores: torch.Tensor) -> torch.Tensor:
    """
    Computes the hinge loss of a discriminator (Lim and Ye, 2017, with the factor of Esser et al., 2021).

    It is half the sum of the means of `max(0, 1 - real)` and of `max(0, 1 + fake)`.

    Args:
        real_scores (`torch.Tensor`): scores of original images, of any shape.
        fake_scores (`torch.Tensor`): scores of reconstructions, of any shape.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    return (nn.functional.relu(1 - real_scores).mean() + nn.functional.relu(1 + fake_scores).mean()) / 2


def adaptive_weight(
    reconstruction_loss: torch.Tensor, adversarial_loss: torch.Tensor, last_layer: torch.Tensor
) -> torch.Tensor:
    """
    Computes the adaptive weight of the adversarial loss (Esser et al., 2021, eq. 7).

    It is the ratio of the gradient norms of the two losses at `last_layer`, at most 10,000. With this weight both
    losses have gradients of the same norm there. The gradients are averaged over all ranks.

    Args:
        reconstruction_loss (`torch.Tensor` of shape `()`): sum of the pixel loss and the weighted perceptual loss.
        adversarial_loss (`torch.Tensor` of shape `()`): loss of the pixel decoder against the discriminator.
        last_layer (`torch.Tensor`): weight of the last layer of the pixel decoder.

    Returns:
        `torch.Tensor` of shape `()`, without gradients.
    """
    gradients = torch.stack(
        [
            # The graph is kept, because the backward pass of the whole loss needs it later.
            torch.autograd.grad(loss, last_layer, retain_graph=True)[0].flatten()
            for loss in (reconstruction_loss, adversarial_loss)
        ]
    )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(gradients)
        gradients = gradients / torch.distributed.get_world_size()
    reconstruction_norm, adversarial_norm = gradients.norm(dim=-1)
    return (reconstruction_norm / (adversarial_norm + 1e-6)).clamp(max=1e4)


__all__ = ["PERCEPTUAL_NETWORKS", "PerceptualLoss", "adaptive_weight", "hinge_loss"]
