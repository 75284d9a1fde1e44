"""Trainer of stage 1: the vision tower."""

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import Trainer, TrainerCallback, TrainingArguments

from ..compat import ActivationCheckpointingArguments
from ..data.collator_vision_tower import VisionTowerDataCollator
from ..evaluation.metrics import perplexity_of_counts, usage_of_counts
from ..modeling.losses_vilau import contrastive_loss
from ..original.weight_files import lazy_weights
from .discriminator import PatchDiscriminator
from .loss_logging import LossPartsTrainer, parameter_groups
from .losses import PerceptualLoss
from .objective_vision_tower import VisionTowerObjective


# in the folder of a checkpoint, beside the tower
DISCRIMINATOR_NAME = "discriminator.safetensors"
EMA_FOLDER = "ema"


@dataclass
class VisionTowerTrainingArguments(ActivationCheckpointingArguments, TrainingArguments):
    """
    Arguments of [`VisionTowerTrainer`], beside those of `TrainingArguments`. Four recipes that the paper reports as
    worse (VILA-U, section 3.1) are switches: a tower made from its configuration, `tune_text_model=True`,
    `tune_encoder=False`, and `contrastive_loss_weight=0` in the tower's configuration, where the weights of the losses
    are that the tower computes itself.
    """

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "the collator reads columns that the model does not"}
    )
    tune_encoder: bool = field(default=True, metadata={"help": "train the image encoder"})
    tune_codebook: bool = field(default=True, metadata={"help": "let the codebook follow the features"})
    tune_text_model: bool = field(default=False, metadata={"help": "train the text encoder"})
    logit_learning_rate: float | None = field(
        default=None, metadata={"help": "learning rate of the contrastive loss's scale and bias (default: the same)"}
    )
    perceptual_loss_weight: float = field(
        default=0.0, metadata={"help": "weight of LPIPS in the reconstruction loss (0: not computed)"}
    )
    perceptual_network: str = field(default="vgg", metadata={"help": "network of LPIPS: vgg, alex or squeeze"})
    download_judge_weights: bool = field(
        default=False, metadata={"help": "fetch the weights of LPIPS's network if torch.hub's folder lacks them"}
    )
    adversarial_loss_weight: float = field(
        default=0.0, metadata={"help": "factor on the adaptive weight of the adversarial loss (0: no discriminator)"}
    )
    adversarial_start_step: int = field(
        default=0, metadata={"help": "optimizer steps before the discriminator comes in"}
    )
    discriminator_channels: int = field(default=64, metadata={"help": "channels after its first convolution"})
    discriminator_num_layers: int = field(default=3, metadata={"help": "its convolutions of stride 2"})
    discriminator_learning_rate: float | None = field(default=None, metadata={"help": "default: `learning_rate`"})
    discriminator_adam_beta1: float | None = field(default=None, metadata={"help": "default: `adam_beta1`"})
    discriminator_adam_beta2: float | None = field(default=None, metadata={"help": "default: `adam_beta2`"})
    ema_decay: float | None = field(
        default=None, metadata={"help": "decay of a moving average of the tower's weights (default: none is kept)"}
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("perceptual_loss_weight", "adversarial_loss_weight", "adversarial_start_step"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must be between 0 and 1, got {self.ema_decay}.")
        if self.ddp_broadcast_buffers is None:
            self.ddp_broadcast_buffers = False  # the codebook's averages are the same on all ranks, and large
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = True  # a loss of weight 0, or yet to start, leaves its parts without use


class VisionTowerTrainer(LossPartsTrainer):
    """
    Trains a [`VilaUVisionTowerForPreTraining`], or the [`SiglipModel`] it starts from (all of it), on batches with
    `pixel_values` `(N, 3, S, S)`, `input_ids` `(N, T)` and `return_loss=True`. The quantizer's codebook moves by its
    own averages in the forward pass. Weights of pixel, commitment and contrastive loss are fields of the model's
    configuration, weights of perceptual and adversarial loss are training arguments.

    The folder of a checkpoint, and of `save_model`, is one of the tower. A checkpoint has the discriminator beside it;
    both have the tower with averaged weights in the folder `ema`, if they are kept.
    """

    loss_parts = (
        "contrastive_loss",
        "reconstruction_loss",
        "commitment_loss",
        "perceptual_loss",
        "adversarial_loss",
        "adversarial_weight",
        "discriminator_loss",
    )

    def __init__(self, model=None, args=None, **kwargs):
        if not isinstance(args, VisionTowerTrainingArguments):
            raise TypeError(f"`args` must be VisionTowerTrainingArguments, got {type(args).__name__}.")
        self.tower = model
        self.has_codes = model.config.model_type == "vilau_vision"
        judged = args.perceptual_loss_weight > 0 or args.adversarial_loss_weight > 0
        if self.has_codes:
            choose_trained_parts(model, args)
        elif judged:
            raise ValueError(
                "a model without a pixel decoder needs `perceptual_loss_weight` and `adversarial_loss_weight` 0, got "
                f"{args.perceptual_loss_weight} and {args.adversarial_loss_weight}."
            )
        super().__init__(model=make_objective(model, args) if judged else model, args=args, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "`distributed_type` of accelerate must be NO, MULTI_GPU or MULTI_CPU, got "
                f"{self.accelerator.distributed_type.value}: the codebook moves in the forward pass, for which each "
                "rank needs whole parameters."
            )
        self.ema = None
        if args.ema_decay is not None:
            self.ema = AveragedModel(self.tower, multi_avg_fn=get_ema_multi_avg_fn(args.ema_decay))
            self.ema.requires_grad_(False)
        self.add_callback(_StateBesideTower(self))
        self._code_counts = {"": 0, "eval_": 0}

    @property
    def discriminator(self) -> PatchDiscriminator | None:
        """The discriminator, if there is an adversarial loss."""
        return None if self.model is self.tower else self.model.discriminator

    # losses and logs

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self.discriminator is not None:
            started = self.state.global_step >= self.args.adversarial_start_step
            inputs = {**inputs, "adversarial": model.training and started}
        if self.has_codes:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            self._count_codes("" if model.training else "eval_", outputs["codes"])
        else:  # SigLIP compares the pairs of one rank alone
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
        self.record_loss_parts(model, outputs)
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def _count_codes(self, prefix: str, codes: torch.Tensor):
        depth, size = codes.shape[-1], self.tower.config.codebook_size
        flat = (codes.flatten(0, -2) + torch.arange(depth, device=codes.device) * size).flatten()
        counts = torch.zeros(depth * size, dtype=torch.long, device=codes.device)
        counts.index_add_(0, flat, torch.ones_like(flat))
        self._code_counts[prefix] += counts.view(depth, size)

    def add_loss_parts(self, logs: dict, prefix: str):
        super().add_loss_parts(logs, prefix)
        if not isinstance(self._code_counts[prefix], int):
            counts = self.accelerator.reduce(self._code_counts[prefix], reduction="sum")
            for name, values in (("usage", usage_of_counts(counts)), ("perplexity", perplexity_of_counts(counts))):
                for depth, value in enumerate(values.tolist(), start=1):
                    logs[f"{prefix}codebook_{name}_depth_{depth}"] = value
            self._code_counts[prefix] = 0

    # optimizer

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            args = self.args
            betas = (
                args.adam_beta1 if args.discriminator_adam_beta1 is None else args.discriminator_adam_beta1,
                args.adam_beta2 if args.discriminator_adam_beta2 is None else args.discriminator_adam_beta2,
            )

            def rate_of(name):
                if name.startswith("discriminator."):
                    return args.discriminator_learning_rate
                return args.logit_learning_rate if name.endswith(("logit_scale", "logit_bias")) else None

            def betas_of(name):
                return betas if name.startswith("discriminator.") and betas != defaults else None

            optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, self.model)
            defaults = (args.adam_beta1, args.adam_beta2)
            if betas != defaults and "betas" not in kwargs:
                raise ValueError(
                    "`discriminator_adam_beta1` and `discriminator_adam_beta2` need an Adam as `optim`, got "
                    f"{args.optim.value!r}."
                )
            self.optimizer = optimizer_class(parameter_groups(self, rate_of, betas_of), **kwargs)
        return self.optimizer

    # The base class clips all parameters of the model by one norm, and logs it: large gradients of the discriminator
    # would shrink those of the tower. `on_pre_optimizer_step` comes after that. Clipping there instead would need
    # `args.max_grad_norm=0`, which `training_args.bin` would hold. Read in transformers 5.20.2, 5.23.0 and 5.24.0,
    # where it is the same. Can go when the base class clips groups of parameters apart.
    def _clip_grad_norm(self, model):
        """Clips the tower's and the discriminator's gradients apart; gives the norm of the tower's."""
        if self.discriminator is None:
            return super()._clip_grad_norm(model)
        norm = self.accelerator.clip_grad_norm_(self.tower.parameters(), self.args.max_grad_norm)
        # accelerate would undo the scaling of float16 gradients once more
        torch.nn.utils.clip_grad_norm_(self.discriminator.parameters(), self.args.max_grad_norm)
        return norm

    # checkpoints

    def save_model(self, output_dir=None, _internal_call=False):
        with self._tower_as_model():  # a push to the Hub comes back here, for what it uploads
            super().save_model(output_dir, _internal_call=_internal_call)
        if not self.args.should_save:
            return
        folder = output_dir or self.args.output_dir
        if isinstance(self.data_collator, VisionTowerDataCollator):
            self.data_collator.image_processor.save_pretrained(folder)
        if self.ema is not None:
            self.ema.module.save_pretrained(os.path.join(folder, EMA_FOLDER))
        if _internal_call and output_dir is not None and self.discriminator is not None:  # a checkpoint
            state = {name: tensor.contiguous() for name, tensor in self.discriminator.state_dict().items()}
            save_file(state, os.path.join(folder, DISCRIMINATOR_NAME))

    def load_average(self, checkpoint: str):
        """Loads the averaged weights of a checkpoint, if any are kept."""
        if self.ema is not None:
            weights = lazy_weights(Path(checkpoint, EMA_FOLDER))
            self.ema.module.load_state_dict({name: tensor.load() for name, tensor in weights.items()})
            self.ema.n_averaged.fill_(1)

    def load_discriminator(self, checkpoint: str):
        """Loads the discriminator of a checkpoint, if there is an adversarial loss."""
        if self.discriminator is not None:
            self.discriminator.load_state_dict(load_file(os.path.join(checkpoint, DISCRIMINATOR_NAME)))

    @contextmanager
    def _tower_as_model(self):
        model, self.model = self.model, self.tower
        try:
            yield
        finally:
            self.model = model


class _StateBesideTower(TrainerCallback):
    """
    Updates the averaged weights, and loads them and the discriminator from a checkpoint.

    [`Trainer`] loads the tower.
    """

    def __init__(self, trainer: VisionTowerTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        checkpoint = self.trainer.resumed_checkpoint
        if checkpoint is not None:
            self.trainer.load_average(checkpoint)
            self.trainer.load_discriminator(checkpoint)

    def on_step_end(self, args, state, control, **kwargs):
        if self.trainer.ema is not None:
            self.trainer.ema.update_parameters(self.trainer.tower)

    def on_train_end(self, args, state, control, **kwargs):
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self.trainer.load_average(state.best_model_checkpoint)


def choose_trained_parts(tower, args: VisionTowerTrainingArguments):
    """Freezes or frees the parts of `tower` that `args` speaks of."""
    if not tower.config.contrastive_loss_weight and not tower.config.reconstruction_loss_weight:
        raise ValueError("`contrastive_loss_weight` and `reconstruction_loss_weight` are both 0: nothing to train.")
    tower.vision_tower.image_encoder.requires_grad_(args.tune_encoder)
    tower.vision_tower.quantizer.tune_codebook = args.tune_codebook
    tower.text_model.requires_grad_(args.tune_text_model)


def make_objective(tower, args: VisionTowerTrainingArguments) -> VisionTowerObjective:
    """`tower` together with the networks that `args` asks for to judge its reconstructions."""
    config = tower.config
    if not config.reconstruction_loss_weight:
        raise ValueError(
            "`perceptual_loss_weight` and `adversarial_loss_weight` must be 0 where the weight of the reconstruction "
            "loss is, `config.reconstruction_loss_weight`."
        )
    if args.adversarial_loss_weight and not (
        config.mse_loss_weight or config.l1_loss_weight or args.perceptual_loss_weight
    ):
        raise ValueError(
            "`adversarial_loss_weight` is relative to the pixel and perceptual losses, whose weights are all 0."
        )
    perceptual = discriminator = None
    if args.perceptual_loss_weight:
        with args.main_process_first(desc="finding the weights of LPIPS"):
            perceptual = PerceptualLoss(args.perceptual_network, args.download_judge_weights)
    if args.adversarial_loss_weight:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(args.seed)
            discriminator = PatchDiscriminator(args.discriminator_channels, args.discriminator_num_layers)
    return VisionTowerObjective(
        tower, perceptual, discriminator, args.perceptual_loss_weight, args.adversarial_loss_weight
    )


__all__ = ["VisionTowerTrainer", "VisionTowerTrainingArguments"]
