# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Losses of stage 1 beside those that the tower computes itself."""

import torch
from torch import nn

from .hub_weights import find_hub_weights, require


# networks of LPIPS and torchvision's name for their weights
PERCEPTUAL_NETWORKS = {"vgg": "VGG16_Weights", "alex": "AlexNet_Weights", "squeeze": "SqueezeNet1_1_Weights"}


class PerceptualLoss(nn.Module):
    r"""
    LPIPS of torchmetrics: distance of normalised features, weighted by channel (Zhang et al., 2018, eq. 1). It has no
    trainable parameters.

    Args:
        network (`str`, *optional*, defaults to `"vgg"`): `"vgg"`, `"alex"` or `"squeeze"`, trained on ImageNet.
        download (`bool`, *optional*, defaults to `False`): whether the network's weights may be fetched.

    Raises:
        ValueError: for another network.
        FileNotFoundError: if the weights are not in the folder of `torch.hub` and may not be fetched.
    """

    def __init__(self, network: str = "vgg", download: bool = False):
        super().__init__()
        if network not in PERCEPTUAL_NETWORKS:
            raise ValueError(f"`network` must be one of {', '.join(PERCEPTUAL_NETWORKS)}, got {network!r}.")
        for package in ("torchmetrics", "torchvision"):
            require(package, "the perceptual loss")
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
        from torchvision import models

        weights = getattr(models, PERCEPTUAL_NETWORKS[network]).DEFAULT
        find_hub_weights(weights.url, f"the perceptual loss with {network}", download)  # the library looks there, too
        self.network = LearnedPerceptualImagePatchSimilarity(network).net

    def forward(self, reconstruction: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        """Mean distance `()` of two batches of images `(N, 3, S, S)`, nominally in [-1, 1]."""
        return self.network(reconstruction.float(), pixel_values.float()).float().mean()


def hinge_loss(real_scores: torch.Tensor, fake_scores: torch.Tensor) -> torch.Tensor:
    """
    Loss `()` of a discriminator: half the mean of `max(0, 1 - real)` and of `max(0, 1 + fake)`, scores of any shape
    (Lim and Ye, 2017, with the factor of Esser et al., 2021).
    """
    return (nn.functional.relu(1 - real_scores).mean() + nn.functional.relu(1 + fake_scores).mean()) / 2


def adaptive_weight(
    reconstruction_loss: torch.Tensor, adversarial_loss: torch.Tensor, last_layer: torch.Tensor
) -> torch.Tensor:
    """
    Weight `()` of the adversarial loss at which it pulls at the decoder's `last_layer` as strongly as the
    reconstruction does: the quotient of the gradients' norms (Esser et al., 2021, eq. 7), at most 10,000. The batch is
    that of all ranks.
    """
    gradients = torch.stack(
        [
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
