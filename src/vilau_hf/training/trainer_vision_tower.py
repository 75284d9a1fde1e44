"""Trainer of stage 1: the vision tower."""

from dataclasses import dataclass, field

from transformers import Trainer, TrainingArguments

from .loss_logging import LossPartsTrainer, parameter_groups


@dataclass
class VisionTowerTrainingArguments(TrainingArguments):
    """
    Arguments of [`VisionTowerTrainer`], beside those of `TrainingArguments`. The recipe of the paper is the default;
    `tune_encoder=False` and `tune_text_model=True` are two that it reports as worse (VILA-U, section 3.1).
    """

    tune_encoder: bool = field(default=True, metadata={"help": "train the image encoder"})
    tune_codebook: bool = field(default=True, metadata={"help": "let the codebook follow the features"})
    tune_text_model: bool = field(default=False, metadata={"help": "train the text encoder"})
    logit_learning_rate: float | None = field(
        default=None, metadata={"help": "learning rate of the contrastive loss's scale and bias (default: the same)"}
    )


class VisionTowerTrainer(LossPartsTrainer):
    """
    Trains a [`VilaUVisionTowerForPreTraining`], or the [`SiglipModel`] it starts from (all of it), on batches with
    `pixel_values` `(N, 3, S, S)`, `input_ids` `(N, T)` and `return_loss=True`. The quantizer's codebook moves by its
    own averages in the forward pass; loss weights are fields of the model's configuration.
    """

    loss_parts = ("contrastive_loss", "reconstruction_loss", "commitment_loss")

    def __init__(self, model=None, args=None, **kwargs):
        if model.config.model_type == "vilau_vision":
            model.vision_tower.image_encoder.requires_grad_(args.tune_encoder)
            model.vision_tower.quantizer.tune_codebook = args.tune_codebook
            model.text_model.requires_grad_(args.tune_text_model)
        super().__init__(model=model, args=args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        self.record_loss_parts(model, outputs)
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model=None):
        if self.optimizer is None:

            def rate_of(name):
                return self.args.logit_learning_rate if name.endswith(("logit_scale", "logit_bias")) else None

            optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = optimizer_class(parameter_groups(self, rate_of), **kwargs)
        return self.optimizer
