"""Base class of the trainers of stage 2: what supervised, preference and reinforcement training share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..compat import ActivationCheckpointingArguments, apply_liger_kernel
from ..data.media import ReadableRows
from ..data.sampler import LengthGroupedBatchSampler
from ..modeling.sub_models_vilau import SUB_MODELS, sub_model_of
from .fsdp import keep_tower_whole, whole_state_dict
from .loss_logging import LossLoggingTrainer, parameter_groups
from .stream_trainer import StreamTrainer


@dataclass
class VilaUTrainingArguments(ActivationCheckpointingArguments, TrainingArguments):
    """Arguments of the trainers of stage 2, in addition to those of `TrainingArguments`."""

    # The base class would remove `messages`, `images` and `videos`, which the model's `forward` does not take.
    remove_unused_columns: bool = field(
        default=False,
        metadata={"help": "whether to remove dataset columns that the model does not read; the collator reads them"},
    )
    tune_language_model: bool = field(
        default=True, metadata={"help": "whether to train the language model and its head"}
    )
    tune_projector: bool = field(default=True, metadata={"help": "whether to train the projector"})
    tune_depth_transformer: bool = field(default=True, metadata={"help": "whether to train the depth transformer"})
    tune_vision_tower: bool = field(
        default=False,
        metadata={"help": "must be false: the codes are targets, and a trained vision tower would change them"},
    )
    projector_learning_rate: float | None = field(
        default=None, metadata={"help": "learning rate of the projector (default: `learning_rate`)"}
    )
    depth_transformer_learning_rate: float | None = field(
        default=None, metadata={"help": "learning rate of the depth transformer (default: `learning_rate`)"}
    )
    language_model_start_step: int = field(
        default=0,
        metadata={"help": "number of optimizer steps before the language model is trained; its rate is 0 until then"},
    )
    projector_start_step: int = field(
        default=0,
        metadata={"help": "number of optimizer steps before the projector is trained; its rate is 0 until then"},
    )
    depth_transformer_start_step: int = field(
        default=0,
        metadata={
            "help": "number of optimizer steps before the depth transformer is trained; its rate is 0 until then"
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tune_vision_tower:
            raise ValueError(
                "`tune_vision_tower` must be False, got True: train the vision tower with `VisionTowerTrainer` before."
            )


def freeze_sub_models(model: nn.Module, args: VilaUTrainingArguments) -> None:
    """
    Freezes the sub-models that are not tuned.

    Args:
        model ([`VilaUForConditionalGeneration`] or `peft.PeftModel`): the model, changed in place.
        args ([`VilaUTrainingArguments`]): the arguments `tune_...` choose the sub-models.
    """
    frozen = {sub_model for sub_model in SUB_MODELS if not getattr(args, f"tune_{sub_model}")}
    for name, parameter in model.named_parameters():
        if sub_model_of(name) in frozen:
            parameter.requires_grad_(False)


class VilaUBaseTrainer(StreamTrainer, LossLoggingTrainer):
    """
    Base class of trainers of [`VilaUForConditionalGeneration`].

    A subclass overrides `compute_loss` and names its losses in `logged_losses`. It inherits:

    - atomic checkpoints, streams of records, and logging of each loss,
    - a frozen vision tower, and a learning rate and a first step for each other sub-model,
    - settings of FSDP2 and checks of DeepSpeed, which keep the vision tower in float32,
    - batches of records of similar length, and an evaluation that drops no prompts,
    - Liger kernels in the layers of the language model. The losses are always those of the model.

    Args:
        model ([`VilaUForConditionalGeneration`] or `peft.PeftModel`): the model, with or without adapters.
        args ([`VilaUTrainingArguments`]): the arguments of training.
        kwargs: further arguments of `Trainer`.

    Raises:
        TypeError: if `args` are not of the class that the trainer needs.
        ValueError: for settings of FSDP or DeepSpeed that would round the vision tower.
    """

    arguments_class: type[VilaUTrainingArguments] = VilaUTrainingArguments
    args: VilaUTrainingArguments
    model: Any

    def __init__(self, model: Any = None, args: Any = None, **kwargs: Any) -> None:
        if not isinstance(args, self.arguments_class):
            raise TypeError(f"`args` must be {self.arguments_class.__name__}, got {type(args).__name__}.")
        if model is not None:
            self.prepare_model(model, args)
        super().__init__(model=model, args=args, **kwargs)
        # Otherwise the base class counts the labels and gathers the counts for a second time.
        self.model_accepts_loss_kwargs = False
        self.add_callback(_EpochOfCollator(self))
        if self.is_fsdp_enabled:
            keep_tower_whole(self.accelerator.state.fsdp_plugin)
        # Without these arguments DeepSpeed's dtype is float32.
        for name in ("bf16", "fp16", "bf16_full_eval", "fp16_full_eval"):
            if self.is_deepspeed_enabled and getattr(args, name):
                raise ValueError(
                    f"`{name}` must be False with DeepSpeed, got True: it would round the weights and the pixels of "
                    "the vision tower, and so change codes. Use DeepSpeed's `torch_autocast`, as in "
                    "examples/accelerate/zero2.json."
                )
        if model is not None:
            self._apply_kernels(model)

    def prepare_model(self, model: nn.Module, args: VilaUTrainingArguments) -> None:
        """
        Prepares a model for training: freezes the sub-models that are not tuned.

        Args:
            model ([`VilaUForConditionalGeneration`] or `peft.PeftModel`): the model, changed in place.
            args ([`VilaUTrainingArguments`]): the arguments of training.
        """
        freeze_sub_models(model, args)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """
        Builds the model of a run with `model_init`, and prepares it.

        Args:
            trial (`optuna.Trial` or `dict`, *optional*): the trial of a hyperparameter search.

        Returns:
            `nn.Module`: the model.
        """
        model = super().call_model_init(trial)
        self.prepare_model(model, self.args)
        self._apply_kernels(model)
        return model

    def _apply_kernels(self, model: Any) -> None:
        """Applies Liger kernels to the layers of the language model, if the arguments say so."""
        if self.args.use_liger_kernel:
            # `Trainer` looks for kernels of the whole model's type, and Liger has none for it. The kernels of the two
            # losses would replace the forward pass of a causal language model, which our model does not call.
            given = self.args.liger_kernel_config or {}
            kernels = {**given, "cross_entropy": False, "fused_linear_cross_entropy": False}
            without_adapters = model.get_base_model() if hasattr(model, "get_base_model") else model
            apply_liger_kernel(without_adapters.model.language_model, kernels)

    # For `group_by_length` the base class reads all lengths through the transform of the dataset, which opens the
    # media. Its sampler draws from the global generator, so a run resumed within an epoch gets another order. Ours
    # does neither. `get_train_dataloader` takes no sampler, and overriding it would copy `_get_dataloader`. Read in
    # transformers 5.20.2, 5.23.0 and 5.24.0, where it is the same. Can go when a sampler can be given.
    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        dataset = dataset.dataset if isinstance(dataset, ReadableRows) else dataset
        name = self.args.length_column_name
        if self.args.train_sampling_strategy != "group_by_length" or not isinstance(dataset, Dataset):
            return super()._get_train_sampler(train_dataset)
        if name not in dataset.column_names:
            raise ValueError(
                f"`length_column_name` ({name!r}) must be a column of `train_dataset`, which has "
                f"{', '.join(dataset.column_names)}."
            )
        lengths = dataset.with_format(None)[name]  # without the transform, which draws or loads the media
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LengthGroupedBatchSampler(list(lengths), self.args.train_batch_size, seed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """
        Returns the loader of the evaluation data. Its collator drops no prompts.

        Args:
            eval_dataset (`Dataset` or `str`, *optional*): the data (default: `self.eval_dataset`).
        """
        with self._collator_of_evaluation():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """
        Returns the loader of the data of `predict`. Its collator drops no prompts.

        Args:
            test_dataset (`Dataset`): the data.
        """
        with self._collator_of_evaluation():
            return super().get_test_dataloader(test_dataset)

    # `Trainer` gives `self.data_collator` to every loader. A loader keeps the collator that it was made with.
    @contextmanager
    def _collator_of_evaluation(self) -> Iterator[None]:
        collator = self.data_collator
        if hasattr(collator, "for_evaluation"):
            self.data_collator = collator.for_evaluation()
        try:
            yield
        finally:
            self.data_collator = collator

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """
        Saves the whole model, also with FSDP.

        Checkpoints keep the state dict type of the FSDP configuration. With `SHARDED_STATE_DICT`, [`Trainer`] would
        save nothing here.

        Args:
            output_dir (`str`, *optional*): the folder (default: `args.output_dir`).
            _internal_call (`bool`, *optional*, defaults to `False`): whether [`Trainer`] calls this method.
        """
        is_whole = self.is_fsdp_enabled and not self._is_staging
        with whole_state_dict(self.accelerator.state.fsdp_plugin) if is_whole else nullcontext():
            super().save_model(output_dir, _internal_call)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """
        Creates the optimizer, with the learning rates of the sub-models.

        Args:
            model (`nn.Module`, *optional*): not used; the optimizer is that of `self.model`.
        """
        if self.optimizer is None:
            rates: dict[str | None, float | None] = {
                "projector": self.args.projector_learning_rate,
                "depth_transformer": self.args.depth_transformer_learning_rate,
            }

            def learning_rate_of(name: str) -> float | None:
                return rates.get(sub_model_of(name))

            def start_step_of(name: str) -> int:
                return getattr(self.args, f"{sub_model_of(name)}_start_step", 0)

            optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(self.args, self.model)
            groups = parameter_groups(self, learning_rate_of, start_step_of=start_step_of)
            self.optimizer = optimizer_class(groups, **kwargs)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """
        Creates the scheduler. The learning rate of a sub-model is 0 before its first step.

        Args:
            num_training_steps (`int`): number of optimizer steps of the run.
            optimizer (`torch.optim.Optimizer`, *optional*): the optimizer (default: `self.optimizer`).

        Raises:
            ValueError: if a sub-model has a first step and the schedule does not depend on the step alone.
        """
        is_new = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        starts = [group.get("start_step", 0) for group in scheduler.optimizer.param_groups]
        if is_new and any(starts):
            if not isinstance(scheduler, LambdaLR):
                # `TrainingArguments` converts the name to an enum, and annotates it as a string.
                schedule = self.args.lr_scheduler_type.value  # type: ignore[attr-defined]
                raise ValueError(
                    "`language_model_start_step`, `projector_start_step` and `depth_transformer_start_step` need a "
                    f"schedule that depends on the step alone, got `lr_scheduler_type={schedule!r}`."
                )
            scheduler.lr_lambdas = [
                partial(_rate_after, start, rate) for start, rate in zip(starts, scheduler.lr_lambdas, strict=True)
            ]
            # The scheduler has already set the rates of the first step.
            for group, start in zip(scheduler.optimizer.param_groups, starts, strict=True):
                group["lr"] = 0.0 if start else group["lr"]
        return scheduler


class _EpochOfCollator(TrainerCallback):
    """
    Tells the collator the number of the epoch that begins.

    It counts like [`Trainer`]: a run resumed within an epoch begins with the number of that epoch.
    """

    def __init__(self, trainer: VilaUBaseTrainer) -> None:
        self.trainer = trainer
        self.epoch = 0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        _, steps_per_epoch, *_ = self.trainer.set_initial_training_values(args, train_dataloader)
        # Not from `state.epoch`, which differs if a stream ends early.
        self.epoch = state.global_step // steps_per_epoch

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if hasattr(self.trainer.data_collator, "set_epoch"):
            self.trainer.data_collator.set_epoch(self.epoch)
        self.epoch += 1


def _rate_after(start: int, rate: Callable[[int], float], step: int) -> float:
    """Returns the factor `rate(step)` of the learning rate, or 0 before the step `start`."""
    return rate(step) if step >= start else 0.0


__all__ = ["VilaUBaseTrainer", "VilaUTrainingArguments", "freeze_sub_models"]
