"""The DPO loss, compared with its equation, and a model that is trained with it."""

import math

import pytest
import torch

from vilau_hf.training import dpo_loss


IMAGE = [54, *[58] * 16, 55]


def test_loss_and_rewards_follow_equation_7():
    chosen, rejected, reference_chosen, reference_rejected = -50 * torch.rand(4, 5)
    output = dpo_loss(chosen, rejected, reference_chosen, reference_rejected, beta=0.3)
    losses, rewards = [], []
    for n in range(5):
        better = 0.3 * math.log(math.exp(chosen[n]) / math.exp(reference_chosen[n]))
        worse = 0.3 * math.log(math.exp(rejected[n]) / math.exp(reference_rejected[n]))
        losses.append(-math.log(1 / (1 + math.exp(-(better - worse)))))
        rewards.append((better, worse))
    torch.testing.assert_close(output.loss, torch.tensor(sum(losses) / 5))
    torch.testing.assert_close(torch.stack([output.chosen_rewards, output.rejected_rewards], 1), torch.tensor(rewards))


def test_gradients_follow_the_equation_below_equation_7():
    """Their size is beta * sigmoid(rejected reward - chosen reward): up for chosen, down for rejected answers."""
    logs = (-50 * torch.rand(4, 6)).requires_grad_()
    output = dpo_loss(*logs, beta=0.2)
    output.loss.backward()
    weight = 0.2 * torch.sigmoid(output.rejected_rewards - output.chosen_rewards) / 6
    torch.testing.assert_close(logs.grad[:2], torch.stack([-weight, weight]))
    assert not logs.grad[2:].any()  # none to the reference
    assert not output.chosen_rewards.requires_grad and not output.rejected_rewards.requires_grad


def test_loss_is_finite_where_probabilities_underflow():
    logs = torch.tensor([[-3000.0], [-1000.0], [-1000.0], [-3000.0]], requires_grad=True)
    loss = dpo_loss(*logs, beta=1.0).loss
    loss.backward()
    assert loss.item() == 4000
    assert logs.grad[0].item() == -1 and logs.grad[1].item() == 1


def test_training_ranks_the_chosen_answers_higher(model):
    ids = torch.tensor([[1, 7, *IMAGE], [1, 9, *IMAGE]])
    labels = ids.where(ids == 58, -100)
    chosen, rejected = torch.randint(0, 24, (2, 2, 16, 3))
    with torch.no_grad():
        reference = [model.score(ids, labels, codes=codes).log_probs for codes in (chosen, rejected)]
    model.model.vision_tower.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(4):
        policy = [model.score(ids, labels, codes=codes).log_probs for codes in (chosen, rejected)]
        output = dpo_loss(*policy, *reference)
        losses.append(output.loss.item())
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] == pytest.approx(math.log(2))
    assert losses == sorted(losses, reverse=True)
    assert (output.chosen_rewards > output.rejected_rewards).all()


@pytest.mark.parametrize("beta", [0, -0.1, math.nan])
def test_rejects_a_beta_that_is_not_positive(beta):
    with pytest.raises(ValueError, match="`beta` must be above 0"):
        dpo_loss(*torch.zeros(4, 1), beta=beta)


def test_rejects_tensors_of_different_shapes():
    four = list(torch.zeros(4, 3))
    for index, name in ((1, "rejected"), (2, "reference_chosen"), (3, "reference_rejected")):
        wrong = [*four[:index], torch.zeros(3, 1), *four[index + 1 :]]
        with pytest.raises(ValueError, match=rf"`{name}_log_probs` must have .* \(3,\), got \(3, 1\)"):
            dpo_loss(*wrong)
    for wrong in (torch.zeros(4, 3, 1), torch.zeros(4, 0), torch.zeros(4)):
        with pytest.raises(ValueError, match="`chosen_log_probs` must have shape"):
            dpo_loss(*wrong)
