"""Nearest training images of drawings, which show whether a model draws or copies."""

import numpy as np
import torch

from ..evaluation.intervals import Score, share
from .dataset import Emoji, compose


def as_pixels(emoji: list[Emoji], background: str) -> torch.Tensor:
    """Returns images on a background as pixels `(N, 3, S, S)`, uint8."""
    images = compose(np.stack([one.rgba for one in emoji]), background)
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def nearest_images(drawn: torch.Tensor, images: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Finds the images that are nearest to drawings by their root mean square distance in pixels.

    Args:
        drawn (`torch.Tensor` of shape `(N, 3, S, S)`): drawings, uint8.
        images (`torch.Tensor` of shape `(M, 3, S, S)`): images to search, uint8.
        count (`int`): images to find for each drawing, at most M.

    Returns:
        Distances `(N, count)` in levels of [0, 255], smallest first, and indices `(N, count)` into `images`.
    """
    flat = images.flatten(1).float()
    # differences themselves, because the products of `cdist` would round the distance of equal images to above 0
    distances = torch.stack([(flat - one).square().mean(-1).sqrt() for one in drawn.flatten(1).float()])
    found = distances.topk(count, largest=False)
    return found.values, found.indices


def share_nearer_to_truth(drawn: torch.Tensor, true: torch.Tensor, train: torch.Tensor) -> Score:
    """
    Computes the share of drawings that are nearer to the held-out true image than to every training image.

    A model that copies training images gets 0.

    Args:
        drawn (`torch.Tensor` of shape `(N, 3, S, S)`): drawings, uint8.
        true (`torch.Tensor` of shape `(N, 3, S, S)`): the true images of the same pairs, uint8.
        train (`torch.Tensor` of shape `(M, 3, S, S)`): training images, uint8.
    """
    nearest, _ = nearest_images(drawn, train, 1)
    distances = (drawn.float() - true.float()).flatten(1).square().mean(-1).sqrt()
    return share((distances < nearest[:, 0]).tolist())


__all__ = ["as_pixels", "nearest_images", "share_nearer_to_truth"]
