"""FID and KID of generated emoji, by torchmetrics, in the features of the judge."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import nn

from ..evaluation.hub_weights import require_package
from .judge import EmojiJudge


class _GivenFeatures(nn.Identity):
    """Takes features in place of images, so that the judge's preprocessing is used."""

    num_features = EmojiJudge.num_features


def feature_distances(
    judge: EmojiJudge, generated: Sequence[Image.Image], real: Sequence[Image.Image], seed: int = 0
) -> dict[str, float]:
    """
    Computes the distances of Fréchet (Heusel et al., 2017) and of the polynomial kernel (Bińkowski et al., 2018).

    Distances are comparable only with the same judge and about the same number of images. The features have 256
    dimensions, so fewer than 256 images give a covariance without full rank.

    Args:
        judge ([`EmojiJudge`]): gives the features.
        generated (`Sequence[PIL.Image.Image]`): generated images, at least two.
        real (`Sequence[PIL.Image.Image]`): real images, at least two.
        seed (`int`, *optional*, defaults to 0): seed of the subsets of KID.

    Returns:
        `fid`, and the mean and standard deviation of KID over 50 subsets of at most 100 images: `kid`, `kid_std`.

    Raises:
        ImportError: if torchmetrics is not installed.
        ValueError: for fewer than two images.
    """
    require_package("torchmetrics", "the distances of features")
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    for name, images in (("generated", generated), ("real", real)):
        if len(images) < 2:
            raise ValueError(f"`{name}` must contain at least two images, got {len(images)}.")
    features = {True: judge.judge(list(real)).features, False: judge.judge(list(generated)).features}
    frechet = FrechetInceptionDistance(feature=_GivenFeatures())
    kernel = KernelInceptionDistance(
        feature=_GivenFeatures(), subsets=50, subset_size=min(100, len(generated), len(real))
    )
    for is_real, values in features.items():
        frechet.update(values, real=is_real)
        kernel.update(values, real=is_real)
    # KID draws its subsets from the global generator.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        value, spread = kernel.compute()
    return {"fid": frechet.compute().item(), "kid": value.item(), "kid_std": spread.item()}


__all__ = ["feature_distances"]
