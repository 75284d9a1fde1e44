"""Trainer for direct preference optimization of images, video and text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..data.collator_vilau import VilaUDataCollator
from ..processing import VilaUProcessor
from .preference import dpo_loss
from .trainer_base import VilaUBaseTrainer, VilaUTrainingArguments


@dataclass
class VilaUDPOTrainingArguments(VilaUTrainingArguments):
    """Arguments of [`VilaUDPOTrainer`], in addition to those of [`VilaUTrainingArguments`]."""

    beta: float = field(
        default=0.1,
        metadata={"help": "strength of the pull towards the reference: a larger value keeps the policy closer to it"},
    )


class PreferencePairCollator:
    """
    Makes a batch of pairs of records.

    Args:
        processor ([`VilaUProcessor`]): the processor of the model.
    """

    def __init__(self, processor: VilaUProcessor) -> None:
        # Without dropped prompts: the two records of a pair must have the same prompt.
        self.collator = VilaUDataCollator(processor, unconditional_probability=0)

    def __call__(self, pairs: list[dict[str, dict]]) -> dict[str, Any]:
        """
        Collates `N` pairs to a batch of `2 N` rows: all chosen records first, then all rejected ones.

        Args:
            pairs (`list[dict]`): pairs `{"chosen": record, "rejected": record}`. The records of a pair have the same
                prompt.

        Returns:
            `dict`: a batch of [`VilaUDataCollator`].
        """
        return self.collator([pair["chosen"] for pair in pairs] + [pair["rejected"] for pair in pairs])


class VilaUDPOTrainer(VilaUBaseTrainer):
    """
    Trains adapters of a [`VilaUForConditionalGeneration`] by direct preference optimization.

    The reference is the model without its adapters, so no second model is in memory. Beside the loss, the mean rewards
    of the chosen and of the rejected answers are logged (see [`dpo_loss`]).

    Args:
        model (`peft.PeftModel`): the model with adapters.
        args ([`VilaUDPOTrainingArguments`]): the arguments of training.
        kwargs: further arguments of `Trainer`. `data_collator` gives batches like [`PreferencePairCollator`].

    Raises:
        TypeError: if `args` are not `VilaUDPOTrainingArguments`, or if `model` has no adapters.
        ValueError: for several processes.
    """

    logged_losses = ("chosen_reward", "rejected_reward")
    arguments_class = VilaUDPOTrainingArguments
    args: VilaUDPOTrainingArguments

    def __init__(self, model: Any = None, args: Any = None, **kwargs: Any) -> None:
        super().__init__(model=model, args=args, **kwargs)
        # Gradients are synchronised in the `forward` of the wrapped model, and `score` does not call it.
        if self.args.world_size > 1:
            raise ValueError(f"`VilaUDPOTrainer` trains in one process, got `world_size` {self.args.world_size}.")

    def prepare_model(self, model: nn.Module, args: VilaUTrainingArguments) -> None:
        """
        Prepares a model for training, and checks that it has adapters.

        Args:
            model (`peft.PeftModel`): the model, changed in place.
            args ([`VilaUDPOTrainingArguments`]): the arguments of training.

        Raises:
            TypeError: if `model` has no adapters.
        """
        if not hasattr(model, "disable_adapter"):
            raise TypeError(f"`model` must be a peft.PeftModel, got {type(model).__name__}.")
        super().prepare_model(model, args)

    def score_pairs(self, model: Any, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Computes the log-probabilities of the answers in a batch of pairs.

        Args:
            model (`peft.PeftModel`): the policy, or the reference inside `model.disable_adapter()`.
            inputs (`Mapping`): a batch of [`PreferencePairCollator`].

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: log-probabilities of the chosen and of the rejected answers, each of
            shape `(N,)`, summed over all labelled tokens and codes.
        """
        chosen, rejected = model.score(**inputs).log_probs.chunk(2)
        return chosen, rejected

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """
        Computes the loss of one batch of pairs.

        Args:
            model (`nn.Module`): the model with adapters.
            inputs (`dict`): a batch of [`PreferencePairCollator`].
            return_outputs (`bool`, *optional*, defaults to `False`): return the output of [`dpo_loss`], too.
            num_items_in_batch (`torch.Tensor`, *optional*): not used; the loss is a mean over pairs.

        Returns:
            `torch.Tensor` of shape `()`, or a tuple of it and a [`DPOLossOutput`].
        """
        policy = self.accelerator.unwrap_model(model)
        with torch.no_grad(), policy.disable_adapter():
            reference = self.score_pairs(policy, inputs)
        outputs = dpo_loss(*self.score_pairs(policy, inputs), *reference, beta=self.args.beta)
        rewards = {f"{name}_reward": outputs[f"{name}_rewards"].mean() for name in ("chosen", "rejected")}
        self.record_losses(model, rewards)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]


__all__ = ["PreferencePairCollator", "VilaUDPOTrainer", "VilaUDPOTrainingArguments"]
