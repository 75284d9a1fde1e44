# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""The whole loss of stage 1 in one module: the tower, and the networks that judge its reconstructions."""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from ..modeling.modeling_vision_tower import VilaUVisionTowerForPreTrainingOutput
from .discriminator import PatchDiscriminator
from .losses import PerceptualLoss, adaptive_weight, hinge_loss


@dataclass
class VisionTowerObjectiveOutput(VilaUVisionTowerForPreTrainingOutput):
    r"""
    The tower's output, with

    loss (`torch.Tensor` of shape `()`): what the tower and the discriminator minimise, in one sum.
    perceptual_loss (`torch.Tensor` of shape `()`, *optional*): LPIPS of the reconstructions.
    adversarial_loss (`torch.Tensor` of shape `()`, *optional*): negative mean score of the reconstructions.
    adversarial_weight (`torch.Tensor` of shape `()`, *optional*): its adaptive weight.
    discriminator_loss (`torch.Tensor` of shape `()`, *optional*): hinge loss of the discriminator.
    """

    perceptual_loss: torch.Tensor | None = None
    adversarial_loss: torch.Tensor | None = None
    adversarial_weight: torch.Tensor | None = None
    discriminator_loss: torch.Tensor | None = None


class VisionTowerObjective(nn.Module):
    r"""
    Adds perceptual and adversarial losses to the tower's own (Esser et al., 2021, eq. 6 and 7):

    `L = L_tower + w_reconstruction (w_perceptual LPIPS + w_adversarial lambda L_G) + L_D`,

    where `L_G` does not reach the discriminator and `L_D` does not reach the tower: one backward pass and one
    optimizer step train both.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]).
        perceptual ([`PerceptualLoss`], *optional*).
        discriminator ([`PatchDiscriminator`], *optional*).
        perceptual_loss_weight, adversarial_loss_weight (`float`, *optional*, default to 1.0): weights of their losses.
    """

    accepts_loss_kwargs = False
    _keys_to_ignore_on_save = None  # read by `Trainer`, which takes its model for a `PreTrainedModel`

    def __init__(
        self,
        tower,
        perceptual: PerceptualLoss | None = None,
        discriminator: PatchDiscriminator | None = None,
        perceptual_loss_weight: float = 1.0,
        adversarial_loss_weight: float = 1.0,
    ):
        super().__init__()
        self.tower = tower
        self.perceptual = perceptual
        self.discriminator = discriminator
        self.perceptual_loss_weight = perceptual_loss_weight
        self.adversarial_loss_weight = adversarial_loss_weight

    @property
    def config(self):
        """The tower's configuration."""
        return self.tower.config

    def state_dict(self, *args, **kwargs):
        """Returns the tower's weights only: those of a checkpoint do not hold the networks that judge it."""
        return self.tower.state_dict(*args, **kwargs)

    def load_state_dict(self, *args, **kwargs):
        """Loads the tower; `Trainer` calls this to resume and for the best model."""
        return self.tower.load_state_dict(*args, **kwargs)

    def activation_checkpointing_enable(self, **kwargs):
        """Checkpoints the activations of the tower."""
        self.tower.activation_checkpointing_enable(**kwargs)

    def gradient_checkpointing_enable(self, **kwargs):
        """Does the same; transformers before 5.23 calls it by this name."""
        self.tower.gradient_checkpointing_enable(**kwargs)

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool = False,
        adversarial: bool = False,
    ) -> VisionTowerObjectiveOutput:
        """
        Args:
            pixel_values, input_ids, attention_mask, return_loss: as of [`VilaUVisionTowerForPreTraining.forward`].
            adversarial (`bool`, *optional*, defaults to `False`): compute the adversarial losses; needs gradients.
        """
        outputs = self.tower(pixel_values, input_ids, attention_mask, return_loss=return_loss, return_dict=True)
        result = VisionTowerObjectiveOutput(**outputs)
        if not return_loss:
            return result
        reconstruction, visible_loss = result["reconstruction"], result["reconstruction_loss"]
        added, discriminator_loss = 0.0, 0.0
        if self.perceptual is not None:
            result["perceptual_loss"] = self.perceptual(reconstruction, pixel_values)
            added = self.perceptual_loss_weight * result["perceptual_loss"]
            visible_loss = visible_loss + added
        if adversarial:
            with _frozen(self.discriminator):
                result["adversarial_loss"] = -self.discriminator(reconstruction).float().mean()
            last_layer = self.tower.vision_tower.pixel_decoder.conv_out.weight
            weight = adaptive_weight(visible_loss, result["adversarial_loss"], last_layer)
            result["adversarial_weight"] = weight
            added = added + self.adversarial_loss_weight * weight * result["adversarial_loss"]
            real = self.discriminator(pixel_values.to(reconstruction.dtype)).float()
            discriminator_loss = hinge_loss(real, self.discriminator(reconstruction.detach()).float())
            result["discriminator_loss"] = discriminator_loss
        result["loss"] = result["loss"] + self.config.reconstruction_loss_weight * added + discriminator_loss
        return result


@contextmanager
def _frozen(module: nn.Module):
    """Within it no gradient reaches the parameters of `module`."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


__all__ = ["VisionTowerObjective", "VisionTowerObjectiveOutput"]
