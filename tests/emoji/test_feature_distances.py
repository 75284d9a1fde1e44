import numpy as np
import pytest
import torch
from PIL import Image

from vilau_hf.emoji.feature_distances import feature_distances
from vilau_hf.emoji.judge import EmojiJudge


pytest.importorskip("torchmetrics", reason="needs the extra `training`")


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return EmojiJudge(["a", "b", "c", "d", "e"], image_size=16).eval()


def noise(count, seed, brightness=1.0):
    values = np.random.default_rng(seed).random((count, 16, 16, 3)) * 255 * brightness
    return [Image.fromarray(image) for image in values.astype(np.uint8)]


def test_fid_is_the_frechet_distance_of_the_features(judge):
    generated = noise(300, seed=0)
    real = noise(300, seed=1, brightness=0.5)
    result = feature_distances(judge, generated, real)
    # the equation of Heusel et al. (2017), written with an eigendecomposition in float64
    a, b = (judge.judge(images).features.double().numpy() for images in (generated, real))
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.linalg.eigvals(first @ second).astype(complex) ** 0.5
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * roots.real.sum()
    assert result["fid"] == pytest.approx(expected, rel=0.01)
    assert result["kid"] > 5 * feature_distances(judge, noise(300, seed=2), generated)["kid"]


def test_distances_do_not_depend_on_the_global_generator(judge):
    images = noise(20, seed=0)
    torch.manual_seed(1)
    first = feature_distances(judge, images[:10], images[10:])
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))
    torch.manual_seed(2)
    assert feature_distances(judge, images[:10], images[10:]) == first


def test_rejects_one_image(judge):
    with pytest.raises(ValueError, match="`real` must contain at least two images, got 1"):
        feature_distances(judge, noise(3, seed=0), noise(1, seed=0))
