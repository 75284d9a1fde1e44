"""Arguments of training a vision tower."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from ..compat import ActivationCheckpointingArguments


@dataclass
class VisionTowerTrainingArguments(ActivationCheckpointingArguments, TrainingArguments):
    """
    Arguments of [`VisionTowerTrainer`], in addition to those of `TrainingArguments`.

    The paper reports four variants as worse (VILA-U, section 3.1). Two of them are `tune_text_model=True` and
    `tune_encoder=False`. The third is `contrastive_loss_weight=0` in the configuration of the vision tower. That
    configuration holds the weights of all losses that the tower computes. The fourth is a model with random weights.
    """

    # The base class would remove `images` and `caption`, which the model's `forward` does not take.
    remove_unused_columns: bool = field(
        default=False,
        metadata={"help": "whether to remove dataset columns that the model does not read; the collator reads them"},
    )
    tune_encoder: bool = field(default=True, metadata={"help": "whether to train the image encoder"})
    tune_codebook: bool = field(
        default=True, metadata={"help": "whether to update the codebook by moving averages of the features"}
    )
    tune_text_model: bool = field(default=False, metadata={"help": "whether to train the text encoder"})
    logit_learning_rate: float | None = field(
        default=None,
        metadata={"help": "learning rate of the scale and bias of the contrastive loss (default: `learning_rate`)"},
    )
    perceptual_loss_weight: float = field(
        default=0.0, metadata={"help": "weight of LPIPS in the reconstruction loss (0: it is not computed)"}
    )
    perceptual_network: str = field(
        default="vgg", metadata={"help": "metric network of LPIPS: `vgg`, `alex` or `squeeze`"}
    )
    download_metric_weights: bool = field(
        default=False,
        metadata={
            "help": "whether to download weights of metric networks that are missing in the folder of torch.hub"
        },
    )
    adversarial_loss_weight: float = field(
        default=0.0,
        metadata={
            "help": "weight of the adversarial loss, multiplied by its adaptive weight (0: there is no discriminator)"
        },
    )
    adversarial_start_step: int = field(
        default=0, metadata={"help": "number of optimizer steps before the adversarial losses are used"}
    )
    discriminator_channels: int = field(
        default=64, metadata={"help": "number of output channels of the discriminator's first convolution"}
    )
    discriminator_num_layers: int = field(
        default=3, metadata={"help": "number of the discriminator's convolutions with stride 2"}
    )
    discriminator_learning_rate: float | None = field(
        default=None, metadata={"help": "learning rate of the discriminator (default: `learning_rate`)"}
    )
    discriminator_adam_beta1: float | None = field(
        default=None, metadata={"help": "beta1 of Adam for the discriminator (default: `adam_beta1`)"}
    )
    discriminator_adam_beta2: float | None = field(
        default=None, metadata={"help": "beta2 of Adam for the discriminator (default: `adam_beta2`)"}
    )
    ema_decay: float | None = field(
        default=None,
        metadata={"help": "decay of a moving average of the tower's weights (default: no average is kept)"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("perceptual_loss_weight", "adversarial_loss_weight", "adversarial_start_step"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must be between 0 and 1, got {self.ema_decay}.")
        # The averages of the codebook are large buffers, and already the same on all ranks.
        if self.ddp_broadcast_buffers is None:
            self.ddp_broadcast_buffers = False
        # The parameters of a loss have no gradients while its weight is 0 or before its start step.
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = True


__all__ = ["VisionTowerTrainingArguments"]
