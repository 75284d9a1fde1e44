# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Discriminator of stage 1."""

import torch
from torch import nn

from ..modeling.argument_checks_vilau import PositiveInt, check_value


class PatchDiscriminator(nn.Module):
    r"""
    Classifies patches of an image as original or reconstructed (PatchGAN; Isola et al., 2017, section 3.2.2).

    `num_layers` convolutions have stride 2, and the last two have stride 1. With 3 layers a patch has 70x70 pixels.

    Args:
        channels (`int`, *optional*, defaults to 64): output channels of the first convolution. Each of the next
            convolutions doubles them, up to eight times `channels`.
        num_layers (`int`, *optional*, defaults to 3): number of convolutions with stride 2.

    Raises:
        ValueError: if `channels` or `num_layers` is below 1.
    """

    def __init__(self, channels: int = 64, num_layers: int = 3) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("num_layers", num_layers)):
            check_value(name, value, PositiveInt)
        self.num_layers = num_layers
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = channels
        for index in range(1, num_layers + 1):
            wider = channels * min(2**index, 8)
            stride = 2 if index < num_layers else 1
            layers += [
                nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, stride=1, padding=1))
        self.apply(_initialize)

    @property
    def smallest_image(self) -> int:
        """Returns the smallest side of an image in pixels: an image of this size is one patch."""
        return 3 * 2**self.num_layers

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Scores the patches of images. A high score means an original image.

        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): images, in [-1, 1].

        Returns:
            `torch.Tensor` of shape `(N, 1, h, w)`: a score for each patch.

        Raises:
            ValueError: if the images are smaller than `smallest_image`.
        """
        if min(pixel_values.shape[-2:]) < self.smallest_image:
            raise ValueError(
                f"images must have at least {self.smallest_image} pixels a side for a discriminator of `num_layers` "
                f"{self.num_layers}, got {tuple(pixel_values.shape[-2:])}: choose fewer layers."
            )
        return self.layers(pixel_values)


def _initialize(module: nn.Module) -> None:
    """Draws normal weights of standard deviation 0.02 (Isola et al., 2017, section 6.2)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


__all__ = ["PatchDiscriminator"]
