"""Trainer for pretraining and supervised fine-tuning of language model, projector and depth transformer."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from .trainer_base import VilaUBaseTrainer


class VilaUTrainer(VilaUBaseTrainer):
    """
    Trains a [`VilaUForConditionalGeneration`] on batches of [`VilaUDataCollator`].

    Each of the two losses is the exact mean over a global batch (VILA-U, eq. 5 and 7). `text_loss` is the mean over
    all text labels. `visual_loss` is the mean over all labelled visual tokens and their codes. In training, the global
    batch is every micro-batch and rank of an optimizer step. In evaluation, it is the whole evaluation set.
    """

    logged_losses = ("text_loss", "visual_loss")
    logged_losses_reduction = "sum"
    # Each micro-batch is divided by the counts of the whole step, so `Trainer` must not divide by their number again.
    loss_is_scaled_for_ga = True

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> Any:
        """
        Collects the batches of one optimizer step and counts their targets. Every rank must call it.

        Args:
            epoch_iterator (`Iterator`): iterator over the batches of the epoch.
            num_batches (`int`): number of micro-batches of an optimizer step.
            device (`torch.device`): device of the run.

        Returns:
            `tuple`: the batches, and the counts of `count_targets`. The counts are `None` if no batch is left.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, self.count_targets(batches) if batches else None

    def count_targets(self, batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        """
        Counts the targets in the given batches of all ranks. Every rank must call it.

        Args:
            batches (`list[dict]`): batches of this rank: all of an optimizer step in training, one in evaluation.

        Returns:
            `torch.LongTensor` of shape `(2,)`, on the device of the run: number of text labels, and of visual tokens.
        """
        config = self.accelerator.unwrap_model(self.model).config
        counts = torch.zeros(2, dtype=torch.long)
        for batch in batches:
            targets = batch["labels"][:, 1:]
            visual = config.is_visual(targets)
            counts += torch.stack([(targets.ne(-100) & ~visual).sum(), visual.sum()]).to(counts.device)
        return self.accelerator.gather(counts.to(self.args.device)).view(-1, 2).sum(0)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """
        Computes the loss of one micro-batch, divided by the counts of the global batch.

        Args:
            model (`nn.Module`): the model, possibly wrapped for several devices.
            inputs (`dict`): a batch of [`VilaUDataCollator`].
            return_outputs (`bool`, *optional*, defaults to `False`): return the model's output, too.
            num_items_in_batch (`torch.LongTensor` of shape `(2,)`, *optional*): counts of `count_targets`.

        Returns:
            `torch.Tensor` of shape `()`, or a tuple of it and the output.
        """
        if num_items_in_batch is None:  # in evaluation the base class does not call `get_batch_samples`
            num_items_in_batch = self.count_targets([inputs])
        num_text_items, num_visual_items = num_items_in_batch
        outputs = model(**inputs, num_text_items=num_text_items, num_visual_items=num_visual_items)
        if model.training:
            self.record_losses(model, outputs)
        else:
            means = torch.stack([outputs["text_loss"], outputs["visual_loss"]])
            self._evaluated += torch.stack([means * num_items_in_batch, num_items_in_batch])
        # The gradients of all ranks are averaged, and the losses of all ranks add up to the mean.
        loss = outputs["loss"] * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """
        Evaluates the model. The losses are exact means over the evaluation set.

        Args:
            dataloader (`DataLoader`): loader of the evaluation set.
            description (`str`): title of the progress bar.
            prediction_loss_only (`bool`, *optional*): whether to return only the loss.
            ignore_keys (`list[str]`, *optional*): fields of the model's output that are not returned.
            metric_key_prefix (`str`, *optional*, defaults to `"eval"`): prefix of the names of the metrics.

        Returns:
            `EvalLoopOutput`: its metrics have `loss`, `text_loss` and `visual_loss`, each with the prefix.
        """
        # First row: sums of the two losses, of this rank. Second row: numbers of labels, of all ranks.
        self._evaluated = torch.zeros(2, 2, device=self.args.device)
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        metrics: Any = output.metrics
        sums, counts = self._evaluated
        losses = (self.accelerator.reduce(sums, "sum") / counts.clamp(min=1)).tolist()
        config = self.accelerator.unwrap_model(self.model).config
        total = config.text_loss_weight * losses[0] + config.visual_loss_weight * losses[1]
        for name, value in zip(("loss", "text_loss", "visual_loss"), (total, *losses), strict=True):
            metrics[f"{metric_key_prefix}_{name}"] = value
        return output


__all__ = ["VilaUTrainer"]
