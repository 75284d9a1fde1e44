from pathlib import Path

import pytest
import torch
import torchmetrics
from torchvision import models

from vilau_hf.training.losses import PerceptualLoss, adaptive_weight, hinge_loss


def test_perceptual_loss_follows_its_equation(squeeze_weights):
    """Zhang et al. (2018), eq. 1, with the published weights of the channels."""
    loss = PerceptualLoss("squeeze")
    pixels, other = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    actual = loss(pixels, other)

    network = models.squeezenet1_1()
    network.load_state_dict(torch.load(next((squeeze_weights / "checkpoints").iterdir())))
    channels = torch.load(Path(torchmetrics.__file__).parent / "functional/image/lpips_models/squeeze.pth", "cpu")
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    one, two = ((images - shift[:, None, None]) / scale[:, None, None] for images in (pixels, other))
    expected, level = torch.zeros(2), 0
    for index, layer in enumerate(network.features):
        one, two = layer(one), layer(two)
        if index in (1, 4, 7, 9, 10, 11, 12):
            unit_one, unit_two = (x / x.square().sum(1, keepdim=True).add(1e-8).sqrt() for x in (one, two))
            weights = channels[f"lin{level}.model.1.weight"].flatten()
            expected += ((unit_one - unit_two).square() * weights[:, None, None]).sum(1).mean((-1, -2))
            level += 1
    assert level == 7
    torch.testing.assert_close(actual, expected.mean())
    assert actual > 1e-3


def test_perceptual_loss_has_gradients_for_the_image_only(squeeze_weights):
    loss = PerceptualLoss("squeeze").train()
    target, image = torch.rand(1, 3, 32, 32), torch.randn(1, 3, 32, 32, requires_grad=True)
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert loss(target, target) == 0
    before = loss(image, target)
    (gradient,) = torch.autograd.grad(before, image)
    assert loss(image - 100 * gradient, target) < before


def test_missing_weights_raise_an_error_with_their_path(squeeze_weights):
    name = models.VGG16_Weights.DEFAULT.url.rpartition("/")[2]
    with pytest.raises(
        FileNotFoundError, match=rf"{squeeze_weights}/checkpoints/{name}.*`download_metric_weights=True`"
    ):
        PerceptualLoss("vgg")
    with pytest.raises(ValueError, match="`network` must be one of vgg, alex, squeeze, got 'vgg16'"):
        PerceptualLoss("vgg16")


def test_hinge_loss_follows_its_equation():
    real, fake = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3)
    expected = sum(max(0.0, 1 - score) for score in real.flatten().tolist()) / 18
    expected += sum(max(0.0, 1 + score) for score in fake.flatten().tolist()) / 18
    assert hinge_loss(real, fake).item() == pytest.approx(expected / 2, rel=1e-5)


def test_adaptive_weight_is_the_ratio_of_gradient_norms_at_the_last_layer():
    layer = torch.nn.Linear(4, 2)
    inputs, target = torch.randn(3, 4), torch.randn(3, 2)
    outputs = layer(inputs)
    weight = adaptive_weight((outputs - target).square().sum(), -outputs.mean(), layer.weight)
    of_reconstruction = 2 * (outputs - target).T @ inputs
    of_adversarial = -inputs.sum(0).repeat(2, 1) / 6
    torch.testing.assert_close(weight, of_reconstruction.norm() / (of_adversarial.norm() + 1e-6))
    assert not weight.requires_grad
    assert adaptive_weight(1e9 * outputs.sum(), outputs.sum(), layer.weight) == 1e4
