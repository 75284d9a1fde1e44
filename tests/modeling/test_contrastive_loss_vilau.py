import math

import pytest
import torch
from torch import nn

from vilau_hf.modeling.contrastive_loss_vilau import contrastive_loss


@pytest.fixture
def pairs():
    images, texts = (nn.functional.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    return {
        "image_embeds": images,
        "text_embeds": texts,
        "logit_scale": torch.tensor([1.2]),
        "logit_bias": torch.tensor([-2.0]),
        "across_ranks": True,  # there is one
    }


def similarity(pairs, image, text):
    return (pairs["image_embeds"][image] @ pairs["text_embeds"][text]).item() * math.exp(1.2)


def test_sigmoid_loss_is_its_equation(pairs):
    """Zhai et al. (2023), eq. 1."""
    total = 0.0
    for i in range(5):
        for j in range(5):
            sign = 1 if i == j else -1
            total += math.log(1 / (1 + math.exp(-sign * (similarity(pairs, i, j) - 2.0))))
    assert contrastive_loss("sigmoid", **pairs).item() == pytest.approx(-total / 5, rel=1e-5)


def test_softmax_loss_is_its_equation(pairs):
    """Radford et al. (2021), figure 3: the mean over images and texts of each one's cross-entropy."""
    total = 0.0
    for n in range(5):
        for others in ([(n, j) for j in range(5)], [(i, n) for i in range(5)]):
            partition = sum(math.exp(similarity(pairs, *pair)) for pair in others)
            total -= math.log(math.exp(similarity(pairs, n, n)) / partition)
    assert contrastive_loss("softmax", **pairs).item() == pytest.approx(total / 10, rel=1e-5)


def test_an_image_without_a_text_is_refused(pairs):
    pairs["text_embeds"] = pairs["text_embeds"][:4]
    with pytest.raises(ValueError, match="got 5 images and 4 texts"):
        contrastive_loss("sigmoid", **pairs)
