# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Losses for learning from preferences. Their inputs are log-probabilities, which `model.score` computes."""

from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers.utils import ModelOutput


@dataclass
class DPOLossOutput(ModelOutput):
    r"""
    Output of [`dpo_loss`].

    loss (`torch.Tensor` of shape `()`): mean loss of the pairs.
    chosen_rewards, rejected_rewards (`torch.Tensor` of shape `(N,)`): implicit rewards
        `beta * (log_prob - reference_log_prob)`, without gradients. The policy ranks a pair correctly if the chosen
        reward is greater.
    """

    loss: torch.Tensor | None = None
    chosen_rewards: torch.Tensor | None = None
    rejected_rewards: torch.Tensor | None = None


def dpo_loss(
    chosen_log_probs: torch.Tensor,
    rejected_log_probs: torch.Tensor,
    reference_chosen_log_probs: torch.Tensor,
    reference_rejected_log_probs: torch.Tensor,
    beta: float = 0.1,
) -> DPOLossOutput:
    r"""
    Computes the loss of direct preference optimization (Rafailov et al., 2023, arXiv 2305.18290, eq. 7).

    `-E[log sigmoid(beta * log(p(y_w|x) / q(y_w|x)) - beta * log(p(y_l|x) / q(y_l|x)))]`

    Here `p` is the policy, `q` the reference, `x` a prompt, `y_w` the chosen answer and `y_l` the rejected answer.

    Args:
        chosen_log_probs (`torch.Tensor` of shape `(N,)`): log-probabilities of the chosen answers under the policy,
            each the sum over all codes or tokens of an answer.
        rejected_log_probs (`torch.Tensor` of shape `(N,)`): log-probabilities of the rejected answers under the
            policy.
        reference_chosen_log_probs (`torch.Tensor` of shape `(N,)`): log-probabilities of the chosen answers under the
            reference. They get no gradients.
        reference_rejected_log_probs (`torch.Tensor` of shape `(N,)`): log-probabilities of the rejected answers under
            the reference. They get no gradients.
        beta (`float`, *optional*, defaults to 0.1): strength of the pull towards the reference, above 0. The larger
            it is, the closer the policy stays to the reference.

    Returns:
        [`DPOLossOutput`]: the loss and the rewards of each pair.

    Raises:
        ValueError: if the tensors do not all have one shape `(N,)` with N of at least 1, or if `beta` is not above 0.

    Example:
    ```python
    >>> import torch
    >>> from vilau_hf.training import dpo_loss

    >>> output = dpo_loss(*torch.tensor([[-10.0], [-30.0], [-20.0], [-20.0]]), beta=0.1)
    >>> output.loss, output.chosen_rewards, output.rejected_rewards
    (tensor(0.1269), tensor([1.]), tensor([-1.]))

    ```
    """
    if not beta > 0:
        raise ValueError(f"`beta` must be above 0, got {beta}.")
    shape = chosen_log_probs.shape
    if len(shape) != 1 or not shape[0]:
        raise ValueError(f"`chosen_log_probs` must have shape (N,), N at least 1, got {tuple(shape)}.")
    for name, value in (
        ("rejected_log_probs", rejected_log_probs),
        ("reference_chosen_log_probs", reference_chosen_log_probs),
        ("reference_rejected_log_probs", reference_rejected_log_probs),
    ):
        if value.shape != shape:
            raise ValueError(
                f"`{name}` must have the shape of `chosen_log_probs`, {tuple(shape)}, got {tuple(value.shape)}."
            )
    chosen_rewards = beta * (chosen_log_probs - reference_chosen_log_probs.detach())
    rejected_rewards = beta * (rejected_log_probs - reference_rejected_log_probs.detach())
    return DPOLossOutput(
        loss=-functional.logsigmoid(chosen_rewards - rejected_rewards).mean(),
        chosen_rewards=chosen_rewards.detach(),
        rejected_rewards=rejected_rewards.detach(),
    )


__all__ = ["DPOLossOutput", "dpo_loss"]
