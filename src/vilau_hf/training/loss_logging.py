"""Logging of several losses beside their sum, and optimizer groups."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from .checkpointing import AtomicCheckpointTrainer


class LossLoggingTrainer(AtomicCheckpointTrainer):
    """
    Trainer that logs several losses beside their sum.

    `logged_losses` names the losses. Each is a field of the output that a subclass gives to `record_losses`.
    """

    logged_losses: tuple[str, ...] = ()
    # How the values of all ranks are combined. "mean": each rank has the mean over its batch. "sum": the values of all
    # ranks and micro-batches add up to the global mean.
    logged_losses_reduction = "mean"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The base class applies smoothing to `labels` and `logits`. Our models do not return the logits.
        if self.args.label_smoothing_factor != 0:
            raise ValueError(
                f"`label_smoothing_factor` must be 0, got {self.args.label_smoothing_factor}: the model computes its "
                "losses without smoothing."
            )
        # The base class would use DataParallel. Contrastive pairs, averages of the codebook and counts of targets are
        # combined over ranks, and replicas of DataParallel are no ranks.
        if self.args.n_gpu > 1:
            raise ValueError(
                f"`args.n_gpu` must be at most 1, got {self.args.n_gpu}: start a process for each GPU with `torchrun` "
                "or `accelerate launch`, or choose one GPU with CUDA_VISIBLE_DEVICES."
            )
        # Keyed by the prefix of the logged name: "" for training, "eval_" for evaluation.
        self._loss_values: dict[str, dict[str, list[torch.Tensor]]] = {
            prefix: defaultdict(list) for prefix in ("", "eval_")
        }
        # Number of optimizer steps, or of evaluation batches, in which a loss was recorded.
        self._loss_counts: dict[str, dict[str, float]] = {prefix: defaultdict(float) for prefix in ("", "eval_")}
        self._num_steps = 0

    def hyperparameter_search(
        self,
        hp_space: Callable | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """
        Searches hyperparameters. The model must be given as `model_init`.

        Args:
            hp_space (`Callable`, *optional*): function that suggests the values of a trial.
            compute_objective (`Callable`, *optional*): maps the metrics of an evaluation to the objective (default:
                `eval_loss`). The default of [`Trainer`] is the sum of all metrics, and each logged loss is a metric.
            args: further positional arguments of `Trainer.hyperparameter_search`.
            kwargs: further keyword arguments of `Trainer.hyperparameter_search`.

        Returns:
            `BestRun`: the best trial.
        """
        return super().hyperparameter_search(hp_space, compute_objective or _evaluation_loss, *args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """
        Collects the batches of one optimizer step.

        Args:
            args: positional arguments of `Trainer.get_batch_samples`.
            kwargs: keyword arguments of `Trainer.get_batch_samples`.

        Returns:
            `tuple`: the batches, and the number of their targets or `None`.
        """
        self._num_steps += 1
        return super().get_batch_samples(*args, **kwargs)

    def record_losses(self, model: nn.Module, outputs: Mapping[str, Any]) -> None:
        """
        Records the losses of one forward pass until the next log.

        Call it once for each micro-batch in training, and once for each batch in evaluation.

        Args:
            model (`nn.Module`): the model that ran; it tells training from evaluation.
            outputs (`Mapping`): losses by name, each a tensor of shape `()`. Missing losses and `None` are ignored.
        """
        prefix = "" if model.training else "eval_"
        scale = 1.0
        if model.training and self.logged_losses_reduction == "mean":
            scale = 1.0 / self.current_gradient_accumulation_steps
        for name in self.logged_losses:
            value = outputs.get(name)
            if value is not None:
                # `.item()` would make the host wait for the device in every step, so the values stay tensors.
                self._loss_values[prefix][name].append(value.detach() * scale)
                self._loss_counts[prefix][name] += scale

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """
        Logs `logs` with the recorded losses.

        Args:
            logs (`dict[str, float]`): values by name.
            start_time (`float`, *optional*): start of training, in seconds.
        """
        # Callbacks call this method, too. The recorded losses belong to the log that has their sum.
        if "loss" in logs or "eval_loss" in logs:
            self.add_recorded_losses(logs, "eval_" if "eval_loss" in logs else "")
        super().log(logs, start_time)

    def add_recorded_losses(self, logs: dict[str, float], prefix: str) -> None:
        """
        Adds the losses that were recorded since the last call to `logs`. Every rank must call it.

        With the reduction "mean", a loss is averaged over the steps in which it was recorded.

        Args:
            logs (`dict[str, float]`): values by name, changed in place.
            prefix (`str`): `""` for losses of training, `"eval_"` for losses of an evaluation.
        """
        for name, values in self._loss_values[prefix].items():
            total = self.accelerator.reduce(torch.stack(values).sum(), reduction=self.logged_losses_reduction)
            is_mean = self.logged_losses_reduction == "mean"
            steps = self._loss_counts[prefix][name] if is_mean else max(1, self._num_steps)
            logs[prefix + name] = total.item() / steps
        self._loss_values[prefix].clear()
        self._loss_counts[prefix].clear()
        if not prefix:
            self._num_steps = 0


def _evaluation_loss(metrics: dict[str, float]) -> float:
    return metrics["eval_loss"]


def parameter_groups(
    trainer: Trainer,
    learning_rate_of: Callable[[str], float | None],
    betas_of: Callable[[str], tuple[float, float] | None] = lambda name: None,
    start_step_of: Callable[[str], int] = lambda name: 0,
) -> list[dict[str, Any]]:
    """
    Groups the trainable parameters by learning rate, weight decay, betas and first step.

    Args:
        trainer ([`Trainer`]): gives the model, the names of the parameters with weight decay, and the default values.
        learning_rate_of (`Callable`): maps a parameter name to its learning rate, or to `None` for the default.
        betas_of (`Callable`, *optional*): maps a parameter name to Adam's betas, or to `None` for the default.
        start_step_of (`Callable`, *optional*): maps a parameter name to the number of steps before it is trained.

    Returns:
        `list[dict]`: groups for an optimizer, each with `params`, `lr`, `weight_decay`, `start_step` and, where given,
        `betas`.
    """
    args = trainer.args
    model: Any = trainer.model
    decaying = set(trainer.get_decay_parameter_names(model))
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = learning_rate_of(name)
            key = (
                args.learning_rate if rate is None else rate,
                args.weight_decay if name in decaying else 0.0,
                betas_of(name),
                start_step_of(name),
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


__all__ = ["LossLoggingTrainer", "parameter_groups"]
