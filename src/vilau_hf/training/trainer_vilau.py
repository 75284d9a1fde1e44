"""Trainer of stage 2 and of supervised fine-tuning: language model, projector and depth transformer."""

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainingArguments

from ..compat import ActivationCheckpointingArguments, apply_liger_kernel
from ..data.media import ReadableRows
from ..data.sampler import LengthGroupedBatchSampler
from ..modeling.sub_models_vilau import SUB_MODELS, sub_model_of
from .fsdp import keep_tower_whole, whole_state_dict
from .loss_logging import LossPartsTrainer, parameter_groups
from .stream_trainer import StreamTrainer


def freeze_parts(model, args: "VilaUTrainingArguments"):
    """Freezes the parts that `args` does not tune."""
    frozen = {part for part in SUB_MODELS if not getattr(args, f"tune_{part}")}
    for name, parameter in model.named_parameters():
        if sub_model_of(name) in frozen:
            parameter.requires_grad_(False)


@dataclass
class VilaUTrainingArguments(ActivationCheckpointingArguments, TrainingArguments):
    """Arguments of [`VilaUTrainer`], beside those of `TrainingArguments`."""

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "the collator reads columns that the model does not"}
    )
    tune_language_model: bool = field(default=True, metadata={"help": "train the language model and its head"})
    tune_projector: bool = field(default=True, metadata={"help": "train the projector"})
    tune_depth_transformer: bool = field(default=True, metadata={"help": "train the depth transformer"})
    tune_vision_tower: bool = field(
        default=False, metadata={"help": "not supported: codes of a moving tower would not be targets to learn"}
    )
    projector_learning_rate: float | None = field(default=None, metadata={"help": "default: `learning_rate`"})
    depth_transformer_learning_rate: float | None = field(default=None, metadata={"help": "default: `learning_rate`"})
    language_model_start_step: int = field(
        default=0, metadata={"help": "optimizer steps before the language model is trained; until then its rate is 0"}
    )
    projector_start_step: int = field(default=0, metadata={"help": "the same for the projector"})
    depth_transformer_start_step: int = field(default=0, metadata={"help": "the same for the depth transformer"})

    def __post_init__(self):
        super().__post_init__()
        if self.tune_vision_tower:
            raise ValueError(
                "`tune_vision_tower` must be False, got True: train the tower with `VisionTowerTrainer` before."
            )


class VilaUTrainer(StreamTrainer, LossPartsTrainer):
    """
    Trains a [`VilaUForConditionalGeneration`] on batches of [`VilaUDataCollator`]. The two losses are each the exact
    mean over the global batch (VILA-U, eq. 5 and 7): over all text labels, and over all supervised visual tokens and
    depths, of every micro-batch and rank of an optimizer step, or of the evaluation set. Evaluation drops no prompts.
    Kernels of `use_liger_kernel=True` are those of the language model's layers; the losses stay the model's own.
    """

    loss_parts = ("text_loss", "visual_loss")
    loss_parts_reduction = "sum"
    loss_is_scaled_for_ga = True

    def __init__(self, model=None, args=None, **kwargs):
        if not isinstance(args, VilaUTrainingArguments):
            raise TypeError(f"`args` must be VilaUTrainingArguments, got {type(args).__name__}.")
        freeze_parts(model, args)
        super().__init__(model=model, args=args, **kwargs)
        self.model_accepts_loss_kwargs = False  # otherwise the base class counts and gathers the labels a second time
        self.add_callback(_EpochOfCollator(self))
        if self.is_fsdp_enabled:
            keep_tower_whole(self.accelerator.state.fsdp_plugin)
        for name in ("bf16", "fp16", "bf16_full_eval", "fp16_full_eval"):  # DeepSpeed's dtype is float32 without them
            if self.is_deepspeed_enabled and getattr(args, name):
                raise ValueError(
                    f"`{name}` must be False with DeepSpeed, got True: it would round the vision tower's weights and "
                    "its pixels, and so change codes. DeepSpeed's `torch_autocast` does not, as in "
                    "examples/accelerate/zero2.json."
                )
        if args.use_liger_kernel:  # Trainer finds none for the model as a whole
            kernels = {**(args.liger_kernel_config or {}), "cross_entropy": False, "fused_linear_cross_entropy": False}
            whole = model.get_base_model() if hasattr(model, "get_base_model") else model  # without adapters of peft
            apply_liger_kernel(whole.model.language_model, kernels)

    # For `group_by_length` the base class reads all lengths through the transform of the dataset, which opens the
    # media, and its sampler draws from the global generator: a run resumed within a pass gets another order. Ours does
    # neither. `get_train_dataloader` takes no sampler, and another one would copy `_get_dataloader`. Read in
    # transformers 5.20.2, 5.23.0 and 5.24.0, where it is the same. Can go when a sampler can be given.
    def _get_train_sampler(self, train_dataset=None):
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
        lengths = dataset.with_format(None)[name]  # without the transform that draws or loads the media
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LengthGroupedBatchSampler(list(lengths), self.args.train_batch_size, seed)

    def get_eval_dataloader(self, eval_dataset=None):
        with self._collator_of_evaluation():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset):
        with self._collator_of_evaluation():
            return super().get_test_dataloader(test_dataset)

    @contextmanager
    def _collator_of_evaluation(self):
        collator = self.data_collator
        if hasattr(collator, "for_evaluation"):
            self.data_collator = collator.for_evaluation()
        try:
            yield
        finally:
            self.data_collator = collator

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, self.count_targets(batches) if batches else None

    def count_targets(self, batches: list[dict]) -> torch.Tensor:
        """
        Counts the targets in the given batches of all ranks. Every rank must call it.

        Args:
            batches (`list[dict]`): batches of this rank: in training all of an optimizer step, in evaluation one.

        Returns:
            `torch.LongTensor` of shape `(2,)`, on the device of the run: text labels, and visual tokens.
        """
        config = self.accelerator.unwrap_model(self.model).config
        counts = torch.zeros(2, dtype=torch.long)
        for batch in batches:
            targets = batch["labels"][:, 1:]
            visual = config.is_visual(targets)
            counts += torch.stack([(targets.ne(-100) & ~visual).sum(), visual.sum()]).to(counts.device)
        return self.accelerator.gather(counts.to(self.args.device)).view(-1, 2).sum(0)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if num_items_in_batch is None:  # in evaluation the base class does not ask `get_batch_samples`
            num_items_in_batch = self.count_targets([inputs])
        num_text_items, num_visual_items = num_items_in_batch
        outputs = model(**inputs, num_text_items=num_text_items, num_visual_items=num_visual_items)
        if model.training:
            self.record_loss_parts(model, outputs)
        else:
            means = torch.stack([outputs["text_loss"], outputs["visual_loss"]])
            self._evaluated += torch.stack([means * num_items_in_batch, num_items_in_batch])
        loss = outputs["loss"] * self.accelerator.num_processes  # ranks' gradients are averaged, the losses are sums
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, *args, metric_key_prefix="eval", **kwargs):
        self._evaluated = torch.zeros(2, 2, device=self.args.device)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        sums, counts = self._evaluated  # of the losses, by rank; of labels, of all ranks
        losses = (self.accelerator.reduce(sums, "sum") / counts.clamp(min=1)).tolist()
        config = self.accelerator.unwrap_model(self.model).config
        whole = config.text_loss_weight * losses[0] + config.visual_loss_weight * losses[1]
        for name, value in zip(("loss", "text_loss", "visual_loss"), (whole, *losses), strict=True):
            output.metrics[f"{metric_key_prefix}_{name}"] = value
        return output

    def save_model(self, output_dir=None, _internal_call=False):
        """
        Saves the model whole, of FSDP, too; checkpoints keep the state dict type of its configuration. (The base class
        saves nothing where that is `SHARDED_STATE_DICT`.)
        """
        in_whole = self.is_fsdp_enabled and not self._is_staging
        with whole_state_dict(self.accelerator.state.fsdp_plugin) if in_whole else nullcontext():
            super().save_model(output_dir, _internal_call)

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            rates = {
                "projector": self.args.projector_learning_rate,
                "depth_transformer": self.args.depth_transformer_learning_rate,
            }

            def rate_of(name):
                return rates.get(sub_model_of(name))

            def start_of(name):
                return getattr(self.args, f"{sub_model_of(name)}_start_step", 0)

            optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = optimizer_class(parameter_groups(self, rate_of, start_of=start_of), **kwargs)
        return self.optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        is_new = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        starts = [group.get("start_step", 0) for group in scheduler.optimizer.param_groups]
        if is_new and any(starts):
            if not isinstance(scheduler, LambdaLR):
                raise ValueError(
                    "`language_model_start_step` and the like need a schedule by steps, `lr_scheduler_type` is "
                    f"{self.args.lr_scheduler_type.value!r}."
                )
            scheduler.lr_lambdas = [
                partial(_rate_after, start, rate) for start, rate in zip(starts, scheduler.lr_lambdas, strict=True)
            ]
            for group, start in zip(scheduler.optimizer.param_groups, starts, strict=True):
                group["lr"] = 0.0 if start else group["lr"]  # of the first step, which was set before
        return scheduler


class _EpochOfCollator(TrainerCallback):
    """
    Tells the collator which pass over the data begins, counted as [`Trainer`] counts: a run resumed within a pass
    begins with the number of that pass.
    """

    def __init__(self, trainer: VilaUTrainer):
        self.trainer = trainer
        self.epoch = 0

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        _, num_steps, *_ = self.trainer.set_initial_training_values(args, train_dataloader)  # of a pass
        self.epoch = state.global_step // num_steps  # `state.epoch` differs from it if a stream ends early

    def on_epoch_begin(self, args, state, control, **kwargs):
        if hasattr(self.trainer.data_collator, "set_epoch"):
            self.trainer.data_collator.set_epoch(self.epoch)
        self.epoch += 1


def _rate_after(start: int, rate, step: int) -> float:
    """The factor `rate(step)` of the learning rate; 0 for the steps before `start`."""
    return rate(step) if step >= start else 0.0
