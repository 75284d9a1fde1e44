"""Trainer of stage 1: the vision tower."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ..data.collator_vision_tower import VisionTowerDataCollator
from ..evaluation.metrics import perplexity_of_counts, usage_of_counts
from ..modeling import VilaUVisionTowerForPreTraining
from ..modeling.complete_loading_vilau import loading_problems
from ..modeling.losses_vilau import contrastive_loss
from ..original.weight_files import lazy_weights
from .arguments_vision_tower import VisionTowerTrainingArguments
from .discriminator import PatchDiscriminator
from .loss_logging import LossLoggingTrainer, parameter_groups
from .objective_vision_tower import VisionTowerObjective, make_objective


# Names in the folder of a checkpoint, beside the files of the vision tower.
DISCRIMINATOR_NAME = "discriminator.safetensors"
EMA_FOLDER = "ema"


class VisionTowerTrainer(LossLoggingTrainer):
    """
    Trains a [`VilaUVisionTowerForPreTraining`], or all weights of the [`SiglipModel`] that it starts from.

    Batches have `pixel_values` of shape `(N, 3, S, S)`, `input_ids` of shape `(N, T)` and `return_loss=True`. The
    quantizer updates its codebook by moving averages in the forward pass. The weights of the pixel, commitment and
    contrastive losses are fields of the model's configuration. The weights of the perceptual and adversarial losses
    are training arguments.

    A checkpoint, and the folder of `save_model`, is a vision tower. A checkpoint also has the discriminator. Both have
    the tower with averaged weights in the folder `ema`, if `ema_decay` is given.

    Args:
        model ([`VilaUVisionTowerForPreTraining`] or `SiglipModel`): the model.
        args ([`VisionTowerTrainingArguments`]): the arguments of training.
        kwargs: further arguments of `Trainer`.

    Raises:
        TypeError: if `args` are not `VisionTowerTrainingArguments`.
        ValueError: for weights of losses that do not fit each other or the model, and for FSDP and DeepSpeed.
    """

    logged_losses = (
        "contrastive_loss",
        "reconstruction_loss",
        "commitment_loss",
        "perceptual_loss",
        "adversarial_loss",
        "adversarial_weight",
        "discriminator_loss",
    )

    args: VisionTowerTrainingArguments
    model: Any

    def __init__(self, model: Any = None, args: Any = None, **kwargs: Any) -> None:
        if not isinstance(args, VisionTowerTrainingArguments):
            raise TypeError(f"`args` must be VisionTowerTrainingArguments, got {type(args).__name__}.")
        self.tower: Any = None  # `self.model` may be the objective around it
        self.objective: VisionTowerObjective | None = None
        self.has_codes = True
        self.ema: AveragedModel | None = None
        super().__init__(model=None if model is None else self.prepare_model(model, args), args=args, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "`distributed_type` of accelerate must be NO, MULTI_GPU or MULTI_CPU, got "
                f"{self.accelerator.distributed_type.value}: each rank updates the codebook in the forward pass and "
                "needs all of its parameters for that."
            )
        self.start_average()
        self.add_callback(_AdditionalStateCallback(self))
        # How often each code was used since the last log, of shape (D, K), by the prefix of the logged name.
        self._code_counts: dict[str, torch.Tensor | None] = {"": None, "eval_": None}

    def prepare_model(self, model: Any, args: VisionTowerTrainingArguments) -> Any:
        """
        Freezes the sub-models that are not tuned, and adds the perceptual network and the discriminator.

        Args:
            model ([`VilaUVisionTowerForPreTraining`] or `SiglipModel`): the model, changed in place.
            args ([`VisionTowerTrainingArguments`]): the arguments of training.

        Returns:
            `nn.Module`: the model, or the objective around it.
        """
        self.tower = model
        self.objective = None
        self.has_codes = model.config.model_type == "vilau_vision"
        needs_objective = args.perceptual_loss_weight > 0 or args.adversarial_loss_weight > 0
        if self.has_codes:
            set_trainable_sub_models(model, args)
        elif needs_objective:
            raise ValueError(
                "a model without a pixel decoder needs `perceptual_loss_weight` and `adversarial_loss_weight` 0, got "
                f"{args.perceptual_loss_weight} and {args.adversarial_loss_weight}."
            )
        if needs_objective:
            self.objective = make_objective(model, args)
        return model if self.objective is None else self.objective

    def call_model_init(self, trial: Any = None) -> Any:
        """
        Builds the model of a run with `model_init`, and prepares it.

        Args:
            trial (`optuna.Trial` or `dict`, *optional*): the trial of a hyperparameter search.

        Returns:
            `nn.Module`: the model, or the objective around it.
        """
        self.ema = None  # the average of the model before
        return self.prepare_model(super().call_model_init(trial), self.args)

    def start_average(self) -> None:
        """Starts the averaged weights with those of the tower, if there are none yet and `ema_decay` is given."""
        if self.args.ema_decay is not None and self.ema is None:
            self.ema = AveragedModel(self.tower, multi_avg_fn=get_ema_multi_avg_fn(self.args.ema_decay))
            self.ema.requires_grad_(False)

    @property
    def discriminator(self) -> PatchDiscriminator | None:
        """Returns the discriminator, or `None` if there is no adversarial loss."""
        return None if self.objective is None else self.objective.discriminator

    # losses and logs

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """
        Computes the sum of all losses of one micro-batch.

        Args:
            model (`nn.Module`): the vision tower or its objective, possibly wrapped for several devices.
            inputs (`dict`): a batch of [`VisionTowerDataCollator`].
            return_outputs (`bool`, *optional*, defaults to `False`): return the model's output, too.
            num_items_in_batch (`torch.Tensor`, *optional*): not used; the losses are means over images.

        Returns:
            `torch.Tensor` of shape `()`, or a tuple of it and the output.
        """
        if self.discriminator is not None:
            has_started = self.state.global_step >= self.args.adversarial_start_step
            inputs = {**inputs, "adversarial": model.training and has_started}
        if self.has_codes:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            self._count_codes("" if model.training else "eval_", outputs["codes"])
        else:
            # `SiglipModel` computes its loss from the pairs of one rank only.
            outputs = model(**{**inputs, "return_loss": False})
            outputs["loss"] = contrastive_loss(
                "sigmoid",
                outputs["image_embeds"],
                outputs["text_embeds"],
                self.tower.logit_scale,
                self.tower.logit_bias,
                across_ranks=model.training,
            )
            loss = outputs["loss"]
        self.record_losses(model, outputs)
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def _count_codes(self, prefix: str, codes: torch.Tensor) -> None:
        """Adds the codes `(N, L, D)` of a batch to the counts."""
        depth = codes.shape[-1]
        size = self.tower.config.codebook_size
        flat = (codes.flatten(0, -2) + torch.arange(depth, device=codes.device) * size).flatten()
        counts = torch.zeros(depth * size, dtype=torch.long, device=codes.device)
        counts.index_add_(0, flat, torch.ones_like(flat))
        counts = counts.view(depth, size)
        before = self._code_counts[prefix]
        self._code_counts[prefix] = counts if before is None else before + counts

    def add_recorded_losses(self, logs: dict[str, float], prefix: str) -> None:
        """
        Adds the recorded losses to `logs`, and the usage and perplexity of the codebook at each depth.

        Args:
            logs (`dict[str, float]`): values by name, changed in place.
            prefix (`str`): `""` for training, `"eval_"` for an evaluation.
        """
        super().add_recorded_losses(logs, prefix)
        recorded = self._code_counts[prefix]
        if recorded is not None:
            counts = self.accelerator.reduce(recorded, reduction="sum")
            for name, values in (("usage", usage_of_counts(counts)), ("perplexity", perplexity_of_counts(counts))):
                for depth, value in enumerate(values.tolist(), start=1):
                    logs[f"{prefix}codebook_{name}_depth_{depth}"] = value
            self._code_counts[prefix] = None

    # optimizer

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """
        Creates the optimizer, with the settings of the discriminator and of the scale and bias of the logits.

        Args:
            model (`nn.Module`, *optional*): not used; the optimizer is that of `self.model`.

        Raises:
            ValueError: if the discriminator has Adam's betas and `optim` is not a kind of Adam.
        """
        if self.optimizer is not None:
            return self.optimizer
        args = self.args
        default_betas = (args.adam_beta1, args.adam_beta2)
        betas = (
            args.adam_beta1 if args.discriminator_adam_beta1 is None else args.discriminator_adam_beta1,
            args.adam_beta2 if args.discriminator_adam_beta2 is None else args.discriminator_adam_beta2,
        )

        def learning_rate_of(name: str) -> float | None:
            if name.startswith("discriminator."):
                return args.discriminator_learning_rate
            return args.logit_learning_rate if name.endswith(("logit_scale", "logit_bias")) else None

        def betas_of(name: str) -> tuple[float, float] | None:
            return betas if name.startswith("discriminator.") and betas != default_betas else None

        optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, self.model)
        if betas != default_betas and "betas" not in kwargs:
            # `TrainingArguments` converts the name to an enum, and annotates it as a string.
            optimizer_name = args.optim.value  # type: ignore[attr-defined]
            raise ValueError(
                "`discriminator_adam_beta1` and `discriminator_adam_beta2` need an Adam as `optim`, got "
                f"{optimizer_name!r}."
            )
        self.optimizer = optimizer_class(parameter_groups(self, learning_rate_of, betas_of), **kwargs)
        return self.optimizer

    # The base class clips all parameters of the model by one norm, and logs this norm: large gradients of the
    # discriminator would shrink those of the tower. `on_pre_optimizer_step` comes after that. Clipping there instead
    # would need `args.max_grad_norm=0`, and `training_args.bin` would store it. Read in transformers 5.20.2, 5.23.0
    # and 5.24.0, where it is the same. Can go when the base class clips groups of parameters separately.
    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clips the gradients of tower and discriminator separately, and returns the norm of the tower's."""
        if self.discriminator is None:
            return super()._clip_grad_norm(model)
        norm = self.accelerator.clip_grad_norm_(self.tower.parameters(), self.args.max_grad_norm)
        # Not by accelerate: each call there removes the scaling of float16 gradients, and one call has done so.
        torch.nn.utils.clip_grad_norm_(self.discriminator.parameters(), self.args.max_grad_norm)
        return norm

    # checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """
        Saves the vision tower with its image processor, and the tower with averaged weights.

        Args:
            output_dir (`str`, *optional*): the folder (default: `args.output_dir`).
            _internal_call (`bool`, *optional*, defaults to `False`): whether [`Trainer`] calls this method.
        """
        # A push to the Hub calls this method, too, so an upload is a vision tower as well.
        with self._tower_as_model():
            super().save_model(output_dir, _internal_call=_internal_call)

    def save_additional_files(self, folder: str) -> None:
        """
        Saves the image processor, the averaged weights and, in a checkpoint, the discriminator.

        Args:
            folder (`str`): the staging folder.
        """
        super().save_additional_files(folder)
        if isinstance(self.data_collator, VisionTowerDataCollator):
            self.data_collator.image_processor.save_pretrained(folder)
        if self.ema is not None:
            # torch declares every attribute of a module as a tensor or a module
            averaged = cast(VilaUVisionTowerForPreTraining, self.ema.module)
            averaged.save_pretrained(os.path.join(folder, EMA_FOLDER))
        if self._is_staging and self.discriminator is not None:
            state = {name: tensor.contiguous() for name, tensor in self.discriminator.state_dict().items()}
            save_file(state, os.path.join(folder, DISCRIMINATOR_NAME))

    def load_average(self, checkpoint: str) -> None:
        """
        Loads the averaged weights of a checkpoint, if the trainer keeps averaged weights.

        Args:
            checkpoint (`str`): folder of the checkpoint.
        """
        if self.ema is not None:
            folder = Path(checkpoint, EMA_FOLDER)
            weights = {name: tensor.load() for name, tensor in lazy_weights(folder).items()}
            _load_weights(self.ema.module, weights, folder)
            # With 0 the next update would replace the average by the current weights.
            self.ema.n_averaged.fill_(1)

    def load_discriminator(self, checkpoint: str) -> None:
        """
        Loads the discriminator of a checkpoint, if there is an adversarial loss.

        Args:
            checkpoint (`str`): folder of the checkpoint.
        """
        if self.discriminator is not None:
            file = Path(checkpoint, DISCRIMINATOR_NAME)
            _load_weights(self.discriminator, load_file(file), file)

    @contextmanager
    def _tower_as_model(self) -> Iterator[None]:
        model = self.model
        self.model = self.tower
        try:
            yield
        finally:
            self.model = model


def _load_weights(module: nn.Module, weights: dict[str, torch.Tensor], source: Path) -> None:
    """Loads weights into a module, and raises a `ValueError` with their `source` if they are not those of it."""
    expected = module.state_dict()
    report = {
        "missing_keys": expected.keys() - weights.keys(),
        "unexpected_keys": weights.keys() - expected.keys(),
        "mismatched_keys": [
            (name, weight.shape, expected[name].shape)
            for name, weight in weights.items()
            if name in expected and weight.shape != expected[name].shape
        ],
    }
    problems = loading_problems(report)
    if problems:
        raise ValueError(f"the tensors in {source} are not those of the model: {problems}.")
    module.load_state_dict(weights)


class _AdditionalStateCallback(TrainerCallback):
    """
    Updates the averaged weights, and loads them and the discriminator from a checkpoint.

    [`Trainer`] loads the vision tower.
    """

    def __init__(self, trainer: VisionTowerTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.start_average()  # of the model that `model_init` has just built
        checkpoint = self.trainer.resumed_checkpoint
        if checkpoint is not None:
            self.trainer.load_average(checkpoint)
            self.trainer.load_discriminator(checkpoint)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer.ema is not None:
            self.trainer.ema.update_parameters(self.trainer.tower)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self.trainer.load_average(state.best_model_checkpoint)


def set_trainable_sub_models(tower: VilaUVisionTowerForPreTraining, args: VisionTowerTrainingArguments) -> None:
    """
    Freezes the sub-models of a vision tower that are not tuned, and unfreezes the others.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): the vision tower, changed in place.
        args ([`VisionTowerTrainingArguments`]): the arguments `tune_...` choose the sub-models.

    Raises:
        ValueError: if the weights of the contrastive and of the reconstruction loss are both 0.
    """
    if not tower.config.contrastive_loss_weight and not tower.config.reconstruction_loss_weight:
        raise ValueError("`contrastive_loss_weight` and `reconstruction_loss_weight` are both 0: nothing to train.")
    tower.vision_tower.image_encoder.requires_grad_(args.tune_encoder)
    tower.vision_tower.quantizer.tune_codebook = args.tune_codebook
    tower.text_model.requires_grad_(args.tune_text_model)


__all__ = ["VisionTowerTrainer", "set_trainable_sub_models"]
