# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""The whole loss of stage 1 in one module: the vision tower, the perceptual network and the discriminator."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..modeling import VilaUVisionConfig, VilaUVisionTowerForPreTraining
from ..modeling.modeling_vision_tower import VilaUVisionTowerForPreTrainingOutput
from .arguments_vision_tower import VisionTowerTrainingArguments
from .discriminator import PatchDiscriminator
from .losses import PerceptualLoss, adaptive_weight, hinge_loss


@dataclass
class VisionTowerObjectiveOutput(VilaUVisionTowerForPreTrainingOutput):
    r"""
    Output of [`VisionTowerObjective`]: the fields of the vision tower's output, and these.

    loss (`torch.Tensor` of shape `()`): sum of the losses of the tower and of the discriminator.
    perceptual_loss (`torch.Tensor` of shape `()`, *optional*): LPIPS of the reconstructions.
    adversarial_loss (`torch.Tensor` of shape `()`, *optional*): negative mean score of the reconstructions.
    adversarial_weight (`torch.Tensor` of shape `()`, *optional*): adaptive weight of `adversarial_loss`.
    discriminator_loss (`torch.Tensor` of shape `()`, *optional*): hinge loss of the discriminator.
    """

    perceptual_loss: torch.Tensor | None = None
    adversarial_loss: torch.Tensor | None = None
    adversarial_weight: torch.Tensor | None = None
    discriminator_loss: torch.Tensor | None = None


class VisionTowerObjective(nn.Module):
    r"""
    Adds perceptual and adversarial losses to the losses of the vision tower (Esser et al., 2021, eq. 6 and 7).

    `L = L_tower + w_reconstruction (w_perceptual LPIPS + w_adversarial lambda L_G) + L_D`

    `L_G` has no gradients for the discriminator, and `L_D` has none for the tower. So one backward pass and one
    optimizer step train both.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): the vision tower.
        perceptual ([`PerceptualLoss`], *optional*): the perceptual loss.
        discriminator ([`PatchDiscriminator`], *optional*): the discriminator.
        perceptual_loss_weight (`float`, *optional*, defaults to 1.0): weight of the perceptual loss.
        adversarial_loss_weight (`float`, *optional*, defaults to 1.0): weight of the adversarial loss, multiplied by
            its adaptive weight.
    """

    # Tells `Trainer` that the loss is a mean over a micro-batch: it divides the loss by the number of micro-batches.
    accepts_loss_kwargs = False
    # `Trainer` reads this attribute of `PreTrainedModel` when it loads a checkpoint.
    _keys_to_ignore_on_save = None

    def __init__(
        self,
        tower: VilaUVisionTowerForPreTraining,
        perceptual: PerceptualLoss | None = None,
        discriminator: PatchDiscriminator | None = None,
        perceptual_loss_weight: float = 1.0,
        adversarial_loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.perceptual = perceptual
        self.discriminator = discriminator
        self.perceptual_loss_weight = perceptual_loss_weight
        self.adversarial_loss_weight = adversarial_loss_weight

    @property
    def config(self) -> VilaUVisionConfig:
        """Returns the configuration of the vision tower."""
        return self.tower.config

    # `Trainer` saves and loads its model by these two methods. A checkpoint of stage 1 is a vision tower, so they
    # leave out the perceptual network and the discriminator.

    # The annotation of the base class has an overload for each of its deprecated positional arguments.
    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """
        Returns the weights of the vision tower only.

        Args:
            args: positional arguments of `nn.Module.state_dict`.
            kwargs: keyword arguments of `nn.Module.state_dict`.
        """
        return self.tower.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """
        Loads the weights of the vision tower only.

        Args:
            args: positional arguments of `nn.Module.load_state_dict`.
            kwargs: keyword arguments of `nn.Module.load_state_dict`.
        """
        return self.tower.load_state_dict(*args, **kwargs)

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """
        Enables activation checkpointing in the vision tower.

        Args:
            kwargs: arguments of the method of the same name in `PreTrainedModel`.
        """
        self.tower.activation_checkpointing_enable(**kwargs)

    # The name of the same method in transformers before 5.23. Can go when 5.23 is the oldest supported version.
    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """
        Enables activation checkpointing in the vision tower.

        Args:
            kwargs: arguments of the method of the same name in `PreTrainedModel`.
        """
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
        Computes the losses of one batch.

        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): images, in [-1, 1].
            input_ids (`torch.LongTensor` of shape `(N, T)`, *optional*): ids of the captions.
            attention_mask (`torch.Tensor` of shape `(N, T)`, *optional*): 1 for tokens, 0 for padding.
            return_loss (`bool`, *optional*, defaults to `False`): compute the losses.
            adversarial (`bool`, *optional*, defaults to `False`): compute the adversarial losses, which needs
                gradients.

        Returns:
            [`VisionTowerObjectiveOutput`]
        """
        outputs = self.tower(pixel_values, input_ids, attention_mask, return_loss=return_loss, return_dict=True)
        result = VisionTowerObjectiveOutput(**outputs)
        if not return_loss:
            return result
        reconstruction = result["reconstruction"]
        visible_loss = result["reconstruction_loss"]  # what the adversarial loss is balanced with
        added: torch.Tensor | float = 0.0
        discriminator_loss: torch.Tensor | float = 0.0
        if self.perceptual is not None:
            result["perceptual_loss"] = self.perceptual(reconstruction, pixel_values)
            added = self.perceptual_loss_weight * result["perceptual_loss"]
            visible_loss = visible_loss + added
        if adversarial and self.discriminator is not None:
            with _frozen(self.discriminator):
                result["adversarial_loss"] = -self.discriminator(reconstruction).float().mean()
            last_layer = self.tower.vision_tower.pixel_decoder.conv_out.weight
            weight = adaptive_weight(visible_loss, result["adversarial_loss"], last_layer)
            result["adversarial_weight"] = weight
            added = added + self.adversarial_loss_weight * weight * result["adversarial_loss"]
            real = self.discriminator(pixel_values.to(reconstruction.dtype)).float()
            # Without `detach` the tower would learn to make its reconstructions easy to recognise.
            discriminator_loss = hinge_loss(real, self.discriminator(reconstruction.detach()).float())
            result["discriminator_loss"] = discriminator_loss
        result["loss"] = result["loss"] + self.config.reconstruction_loss_weight * added + discriminator_loss
        return result


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Keeps gradients from the parameters of `module` inside the context."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def check_loss_weights(tower: VilaUVisionTowerForPreTraining, args: VisionTowerTrainingArguments) -> None:
    """
    Checks that the weights of the perceptual and adversarial losses fit those of the vision tower's losses.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): the vision tower; its configuration has the weights of its losses.
        args ([`VisionTowerTrainingArguments`]): the arguments of training.

    Raises:
        ValueError: if a loss would be multiplied by 0, or compared with losses whose weights are all 0.
    """
    config = tower.config
    if not args.perceptual_loss_weight and not args.adversarial_loss_weight:
        return
    if not config.reconstruction_loss_weight:
        raise ValueError(
            "`perceptual_loss_weight` and `adversarial_loss_weight` must be 0 if `reconstruction_loss_weight` of the "
            "vision tower is 0."
        )
    if args.adversarial_loss_weight and not (
        config.mse_loss_weight or config.l1_loss_weight or args.perceptual_loss_weight
    ):
        raise ValueError(
            "`adversarial_loss_weight` is relative to the pixel and perceptual losses, whose weights are all 0."
        )


def make_objective(tower: VilaUVisionTowerForPreTraining, args: VisionTowerTrainingArguments) -> VisionTowerObjective:
    """
    Builds the objective: the vision tower with the perceptual network and the discriminator that `args` ask for.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): the vision tower.
        args ([`VisionTowerTrainingArguments`]): the arguments of training.

    Raises:
        ValueError: for weights of losses that do not fit each other (see [`check_loss_weights`]).
        FileNotFoundError: if weights of the perceptual network are missing and may not be downloaded.
    """
    check_loss_weights(tower, args)
    perceptual = None
    discriminator = None
    if args.perceptual_loss_weight:
        # One rank downloads the weights, and the others then find them.
        with args.main_process_first(desc="finding the weights of LPIPS"):
            perceptual = PerceptualLoss(args.perceptual_network, args.download_metric_weights)
    if args.adversarial_loss_weight:
        # The random numbers of the run do not depend on the sizes of the discriminator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(args.seed)
            discriminator = PatchDiscriminator(args.discriminator_channels, args.discriminator_num_layers)
    return VisionTowerObjective(
        tower, perceptual, discriminator, args.perceptual_loss_weight, args.adversarial_loss_weight
    )


__all__ = ["VisionTowerObjective", "VisionTowerObjectiveOutput", "check_loss_weights", "make_objective"]
