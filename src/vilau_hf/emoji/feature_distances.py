"""FID and KID of generated emoji, in the features of the judge."""

from collections.abc import Sequence

from PIL import Image

from ..evaluation.evaluated_model import EvaluatedModel
from ..evaluation.feature_distances import FeatureNetwork, distances_of_features
from ..evaluation.task import TaskOptions
from .judge import EmojiJudge


def feature_distances(
    judge: EmojiJudge, generated: Sequence[Image.Image], real: Sequence[Image.Image], seed: int = 0
) -> dict[str, float]:
    """
    Computes FID and KID, as [`distances_of_features`] does.

    The features have 256 dimensions, so fewer than 256 images give a covariance without full rank.

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
    for name, images in (("generated", generated), ("real", real)):
        if len(images) < 2:
            raise ValueError(f"`{name}` must contain at least two images, got {len(images)}.")
    features = [judge.judge(list(images)).features for images in (generated, real)]
    return distances_of_features(*features, subset_size=100, seed=seed)


def judge_features(model: EvaluatedModel, options: TaskOptions) -> FeatureNetwork:
    """
    Returns the features of the judge in the folder of the option `judge`.

    Args:
        model ([`EvaluatedModel`]): not used.
        options ([`TaskOptions`]): the options.

    Raises:
        ValueError: if there is no such folder.
    """
    if options.judge is None:
        raise ValueError("`--features judge` needs the folder of the judge by `--judge`, got none.")
    judge = EmojiJudge.load(options.judge)
    return lambda images: judge.judge(images).features


__all__ = ["feature_distances", "judge_features"]
