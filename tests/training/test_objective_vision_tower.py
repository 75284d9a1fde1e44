import copy

import pytest
import torch

from vilau_hf import VilaUVisionTowerForPreTraining
from vilau_hf.training.discriminator import PatchDiscriminator
from vilau_hf.training.losses import PerceptualLoss
from vilau_hf.training.objective_vision_tower import VisionTowerObjective

from .towers import random_batch, tower_config


@pytest.fixture
def tower():
    return VilaUVisionTowerForPreTraining(tower_config(reconstruction_loss_weight=0.5)).train()


@pytest.fixture
def objective(tower, squeeze_weights):
    return VisionTowerObjective(tower, PerceptualLoss("squeeze"), PatchDiscriminator(4, 2), 0.7, 0.3)


def gradients_of(module):
    return {
        name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None
    }


def test_loss_is_the_weighted_sum_of_all_losses(objective):
    output = objective(**random_batch(), return_loss=True, adversarial=True)
    added = 0.7 * output.perceptual_loss + 0.3 * output.adversarial_weight * output.adversarial_loss
    of_tower = output.contrastive_loss + 0.5 * (output.reconstruction_loss + 0.25 * output.commitment_loss)
    torch.testing.assert_close(output.loss, of_tower + 0.5 * added + output.discriminator_loss)


def test_one_backward_pass_gives_the_gradients_of_two(objective):
    """The reference trains the tower in one pass, and the discriminator in another, on detached reconstructions."""
    batch = random_batch()
    apart, weight = copy.deepcopy(objective), objective.tower.vision_tower.pixel_decoder.conv_out.weight
    torch.manual_seed(1)  # the first batch fills the codebook with random features
    objective(**batch, return_loss=True, adversarial=True).loss.backward()

    torch.manual_seed(1)
    outputs = apart.tower(**batch, return_loss=True)
    perceptual = 0.7 * apart.perceptual(outputs.reconstruction, batch["pixel_values"])
    adversarial = -apart.discriminator(outputs.reconstruction).mean()
    last = apart.tower.vision_tower.pixel_decoder.conv_out.weight
    norms = [
        torch.autograd.grad(loss, last, retain_graph=True)[0].norm()
        for loss in (outputs.reconstruction_loss + perceptual, adversarial)
    ]
    loss = outputs.loss + 0.5 * (perceptual + 0.3 * norms[0] / (norms[1] + 1e-6) * adversarial)
    loss.backward()
    expected = gradients_of(apart.tower)
    apart.discriminator.zero_grad()
    real, fake = apart.discriminator(batch["pixel_values"]), apart.discriminator(outputs.reconstruction.detach())
    (0.5 * torch.relu(1 - real).mean() + 0.5 * torch.relu(1 + fake).mean()).backward()
    assert weight.grad.norm() > 0
    for module, wanted in ((objective.tower, expected), (objective.discriminator, gradients_of(apart.discriminator))):
        actual = gradients_of(module)
        assert set(actual) == set(wanted)
        for name, gradient in wanted.items():
            assert (actual[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6, name


def test_discriminator_has_no_gradients_before_its_start(objective):
    before = copy.deepcopy(objective.discriminator.state_dict())
    output = objective(**random_batch(), return_loss=True)
    output.loss.backward()
    assert output.adversarial_loss is None and output.discriminator_loss is None
    assert not gradients_of(objective.discriminator)
    for name, tensor in objective.discriminator.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_without_further_networks_it_is_the_loss_of_the_tower(tower):
    batch = random_batch()
    torch.manual_seed(1)
    expected = copy.deepcopy(tower)(**batch, return_loss=True).loss
    torch.manual_seed(1)
    assert VisionTowerObjective(tower)(**batch, return_loss=True).loss == expected


def test_evaluation_has_the_perceptual_loss(objective):
    batch = random_batch()
    with torch.no_grad():
        output = objective.eval()(**batch, return_loss=True)
        expected = objective.perceptual(output.reconstruction, batch["pixel_values"])
    torch.testing.assert_close(output.perceptual_loss, expected)
