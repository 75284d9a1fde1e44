"""Logging of the parts of a loss beside their sum."""

from collections import defaultdict

import torch
from transformers import Trainer

from .checkpointing import AtomicCheckpointTrainer


class LossPartsTrainer(AtomicCheckpointTrainer):
    """
    A [`Trainer`] that logs the losses named in `loss_parts`, each a field of the model's output. The values stay on
    the device between two logs.
    """

    loss_parts: tuple[str, ...] = ()
    # what ranks hold of a part: "mean" of their own batch, or the "sum" that makes up the global mean
    loss_parts_reduction = "mean"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if (
            self.args.label_smoothing_factor != 0
        ):  # the base class smooths `labels` against `logits`, which we have not
            raise ValueError(
                f"`label_smoothing_factor` must be 0, got {self.args.label_smoothing_factor}: the model computes its "
                "losses without smoothing."
            )
        if self.args.n_gpu > 1:  # the base class would use DataParallel
            raise ValueError(
                f"`args.n_gpu` must be at most 1, got {self.args.n_gpu}: start a process for each GPU with `torchrun` "
                "or `accelerate launch`, or choose one GPU with CUDA_VISIBLE_DEVICES."
            )
        self._part_sums = {"": defaultdict(list), "eval_": defaultdict(list)}
        self._part_shares = {"": defaultdict(float), "eval_": defaultdict(float)}
        self._num_steps = 0

    def get_batch_samples(self, *args, **kwargs):
        self._num_steps += 1
        return super().get_batch_samples(*args, **kwargs)

    def record_loss_parts(self, model, outputs):
        """Keeps the parts of one forward pass; for training to be called once a micro-batch."""
        prefix = "" if model.training else "eval_"
        scale = 1.0
        if model.training and self.loss_parts_reduction == "mean":
            scale = 1.0 / self.current_gradient_accumulation_steps
        for name in self.loss_parts:
            if outputs.get(name) is not None:
                self._part_sums[prefix][name].append(outputs[name].detach() * scale)
                self._part_shares[prefix][name] += scale

    def log(self, logs, start_time=None):
        if "loss" in logs or "eval_loss" in logs:
            self.add_loss_parts(logs, "eval_" if "eval_loss" in logs else "")
        super().log(logs, start_time)

    def add_loss_parts(self, logs: dict, prefix: str):
        """Puts the parts recorded since the last call into `logs`; a mean is over the steps that had the part."""
        for name, values in self._part_sums[prefix].items():
            total = self.accelerator.reduce(torch.stack(values).sum(), reduction=self.loss_parts_reduction)
            is_mean = self.loss_parts_reduction == "mean"
            steps = self._part_shares[prefix][name] if is_mean else max(1, self._num_steps)
            logs[prefix + name] = total.item() / steps
        self._part_sums[prefix].clear()
        self._part_shares[prefix].clear()
        if not prefix:
            self._num_steps = 0


def parameter_groups(trainer: Trainer, rate_of, betas_of=lambda name: None, start_of=lambda name: 0) -> list[dict]:
    """
    Optimizer groups of the trainable parameters by learning rate, weight decay, betas and first step.

    Args:
        trainer ([`Trainer`]): gives the model, which parameters decay, and the default rate.
        rate_of (`Callable`): the learning rate of a parameter name, or `None` for the default.
        betas_of (`Callable`, *optional*): Adam's betas of a parameter name, or `None` for the default.
        start_of (`Callable`, *optional*): steps before the parameter of a name is trained, `start_step` of its group.
    """
    args, decaying = trainer.args, set(trainer.get_decay_parameter_names(trainer.model))
    groups = defaultdict(list)
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            rate = rate_of(name)
            key = (
                args.learning_rate if rate is None else rate,
                args.weight_decay if name in decaying else 0.0,
                betas_of(name),
                start_of(name),
            )
            groups[key].append(parameter)
    return [
        {
            "params": params,
            "lr": rate,
            "weight_decay": decay,
            "start_step": start,
            **({} if betas is None else {"betas": betas}),
        }
        for (rate, decay, betas, start), params in groups.items()
    ]
