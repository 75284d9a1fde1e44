# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Metric networks with published weights: those of LPIPS, and Inception for FID and KID."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from .hub_weights import find_hub_weights, require_package


# Names of the networks of LPIPS in torchmetrics, and the classes of their weights in torchvision.
PERCEPTUAL_NETWORKS = {"vgg": "VGG16_Weights", "alex": "AlexNet_Weights", "squeeze": "SqueezeNet1_1_Weights"}


def load_lpips(network: str, purpose: str, download: bool = False) -> nn.Module:
    """
    Loads the network of LPIPS (Zhang et al., 2018) from torchmetrics. It has no trainable parameters.

    Args:
        network (`str`): `"vgg"`, `"alex"` or `"squeeze"`, trained on ImageNet.
        purpose (`str`): what needs the network, for error messages.
        download (`bool`, *optional*, defaults to `False`): whether missing weights may be downloaded.

    Returns:
        A module that computes the distance of each image `(N, 1, 1, 1)` from two batches `(N, 3, S, S)` in [-1, 1].

    Raises:
        ValueError: for an unknown network.
        FileNotFoundError: if the weights are missing in the folder of `torch.hub` and may not be downloaded.
        ImportError: if torchmetrics is not installed.
    """
    if network not in PERCEPTUAL_NETWORKS:
        raise ValueError(f"`network` must be one of {', '.join(PERCEPTUAL_NETWORKS)}, got {network!r}.")
    for package in ("torchmetrics", "torchvision"):
        require_package(package, purpose)
    from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
    from torchvision import models

    weights = getattr(models, PERCEPTUAL_NETWORKS[network]).DEFAULT
    # torchmetrics loads the weights from the same file. It would download a missing file without asking.
    find_hub_weights(weights.url, f"{purpose} with {network}", download)
    # The annotation wants a literal; the name was checked above.
    return LearnedPerceptualImagePatchSimilarity(network).net  # type: ignore[arg-type]


def find_inception(purpose: str, download: bool = False) -> Path:
    """
    Returns the file of Inception's weights, those that the FID of the TensorFlow code uses.

    Args:
        purpose (`str`): what needs the network, for error messages.
        download (`bool`, *optional*, defaults to `False`): whether missing weights may be downloaded.

    Raises:
        FileNotFoundError: if the weights are missing and may not be downloaded.
        ImportError: if torchmetrics or torch-fidelity is not installed.
    """
    for package in ("torchmetrics", "torch_fidelity"):
        require_package(package, purpose)
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = find_hub_weights(URL_INCEPTION_V3, purpose, download)
    # torch_fidelity loads the file without `weights_only`, and a pickle can run any code. This line fails first if the
    # file holds anything but tensors.
    torch.load(path, map_location="meta", weights_only=True)
    return path


def make_fid(purpose: str, download: bool = False) -> Any:
    """
    Returns torchmetrics' FID with Inception, which keeps the features of real images when it is reset.

    Args:
        purpose (`str`): what needs the network, for error messages.
        download (`bool`, *optional*, defaults to `False`): whether missing weights may be downloaded.
    """
    path = find_inception(purpose, download)
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature_extractor_weights_path=str(path), reset_real_features=False)


__all__ = ["PERCEPTUAL_NETWORKS", "find_inception", "load_lpips", "make_fid"]
