# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Unified vision tower: pixels to codes and back, and its pre-training with a text encoder."""

from typing import Any, Self, cast

import torch
from torch import nn
from transformers import PreTrainedModel, SiglipModel, SiglipTextModel
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

from .compat_modeling_vilau import PixelDecoder, SiglipAttention, SiglipEncoderLayer, can_return_tuple, init
from .complete_loading_vilau import CompleteLoading
from .configuration_vilau import VilaUVisionConfig
from .losses_vilau import contrastive_loss
from .modeling_residual_quantizer import VilaUResidualQuantizer
from .module_bases_vilau import LibraryInitialization, float32_parameters
from .outputs_vision_tower_vilau import VilaUVisionTowerForPreTrainingOutput, VilaUVisionTowerOutput
from .pixel_checks_vilau import check_pixel_range
from .vision_encoders_vilau import VilaUImagePooler, build_image_encoder, pooler_config


# Codes depend on small differences between features: in bfloat16, one code in ten of depth 16 would be another. These
# modules keep float32 when the model around them has another dtype.
FLOAT32_MODULES = ["image_encoder", "quantizer"]


def rounded_dtype(model: PreTrainedModel) -> torch.dtype:
    """
    Returns the dtype of the parameters outside of the float32 modules.

    The base class returns the dtype of the first parameter, which can be one of the image encoder.
    """
    return next(
        parameter.dtype
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and not set(FLOAT32_MODULES) & set(name.split("."))
    )


class VilaUVisionPreTrainedModel(CompleteLoading, LibraryInitialization, PreTrainedModel):
    """Initialisation, loading and dtype rules of the vision tower."""

    config_class = VilaUVisionConfig
    config: VilaUVisionConfig
    base_model_prefix = "vision_tower"
    main_input_name = "pixel_values"
    input_modalities = ("image",)  # type: ignore[assignment]  # the library's models set tuples
    supports_gradient_checkpointing = True
    # Layers that stay on one device, and that FSDP2 gathers as a unit. Image encoders of other families add theirs.
    _no_split_modules = ["SiglipEncoderLayer", "ResnetBlock2D"]
    # `from_pretrained(dtype=...)` casts weights while it loads them, which `Float32Module` does not see.
    _keep_in_fp32_modules_strict = FLOAT32_MODULES
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": SiglipEncoderLayer, "attentions": SiglipAttention}

    @property
    def dtype(self) -> torch.dtype:
        """Returns the dtype of the weights, except image encoder and quantizer, which stay in float32."""
        return rounded_dtype(self)

    # The base method initialises layers that it knows and is documented for models to extend; it knows neither our
    # quantizer nor our scalars. Read in 5.20.2, 5.23.0 and 5.24.0. It stays as long as the library calls it.
    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VilaUResidualQuantizer):
            init.normal_(module.codebook.weight, std=self.config.initializer_range)
            init.zeros_(module.cluster_size)
            init.zeros_(module.cluster_sum)
            init.zeros_(module.initialized)


def _features_of(encoded: BaseModelOutput) -> torch.Tensor:
    """Returns the features `(N, L, C)` of an image encoder's output."""
    # the library's types allow None
    return cast(torch.Tensor, encoded.last_hidden_state)


class VilaUVisionTower(VilaUVisionPreTrainedModel):
    r"""
    Maps pixels to codes and codes to pixels.

    Args:
        config ([`VilaUVisionConfig`]): sizes.

    Example:
    ```python
    >>> import torch
    >>> from transformers import SiglipVisionConfig
    >>> from vilau_hf import VilaUVisionConfig, VilaUVisionTower

    >>> encoder = SiglipVisionConfig(
    ...     hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    ...     image_size=16, patch_size=4,
    ... )
    >>> config = VilaUVisionConfig(
    ...     encoder_config=encoder, codebook_size=8, latent_channels=8, block_out_channels=[8, 8, 8], norm_num_groups=4
    ... )
    >>> VilaUVisionTower(config).encode(torch.zeros(1, 3, 16, 16)).codes.shape
    torch.Size([1, 16, 4])
    ```
    """

    names_of_other_modules = (
        # of the tower for pre-training
        r"image_pooler\.",
        r"text_model\.",
        r"logit_(scale|bias)$",
        # of the complete model, see `load_vision_tower`
        r"model\.(multi_modal_projector|language_model)\.",
        r"depth_transformer\.",
        r"lm_head\.",
    )

    def __init__(self, config: VilaUVisionConfig) -> None:
        super().__init__(config)
        # The library builds models under the requested default dtype. Weights that are rounded here stay rounded.
        with float32_parameters():
            self.image_encoder = build_image_encoder(config.encoder_config)
            self.quantizer = VilaUResidualQuantizer(config)
        self.post_quant_conv = nn.Conv2d(config.hidden_size, config.latent_channels, kernel_size=1)
        self.pixel_decoder = PixelDecoder(
            in_channels=config.latent_channels,
            out_channels=3,
            up_block_types=tuple(config.up_block_types),
            block_out_channels=tuple(config.block_out_channels),
            layers_per_block=config.layers_per_block,
            norm_num_groups=config.norm_num_groups,
        )
        for module in self.pixel_decoder.modules():
            # transformers' shared model tests read the attention setting in `config` of every module of this name,
            # and diffusers' class has no configuration.
            if type(module).__name__ == "Attention":
                module.config = config  # type: ignore[assignment]  # torch's types allow tensors and modules only
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the layer that embeds the patches."""
        return self.image_encoder.get_input_embeddings()

    def load_image_encoder(self, vision_model: PreTrainedModel) -> None:
        """
        Copies the weights of a trained vision model into the image encoder, except those of its last layer.

        Args:
            vision_model ([`PreTrainedModel`]): a model with the sizes of `config.encoder_config`, for example a
                `SiglipVisionModel` or a `CLIPVisionModel`.
        """
        self.image_encoder.load_trained(vision_model)

    def check_pixels(self, pixel_values: torch.Tensor, name: str = "pixel_values", leading: str = "N") -> None:
        """
        Raises a `ValueError` unless pixels have the right shape and values that an image processor gives.

        It waits for the device once, except in a compiled graph.

        Args:
            pixel_values (`torch.Tensor`): pixels of shape `(N, 3, S, S)`, or with the dimensions that `leading` names.
            name (`str`, *optional*, defaults to `"pixel_values"`): the argument in the message.
            leading (`str`, *optional*, defaults to `"N"`): names of the dimensions before the channels.
        """
        side = self.config.image_size
        dims = leading.count(",") + 1
        shape = tuple(pixel_values.shape)
        if shape[dims:] != (3, side, side):
            raise ValueError(f"`{name}` must have shape ({leading}, 3, {side}, {side}), got {shape}.")
        if 0 in shape:
            raise ValueError(f"`{name}` must not be empty, got shape {shape}.")
        check_pixel_range(pixel_values, name)

    def get_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Returns the features `(N, L, C)` that the quantizer reads, for `pixel_values` `(N, 3, S, S)` in [-1, 1]."""
        return _features_of(self.encode_image(pixel_values))

    def encode_image(self, pixel_values: torch.Tensor, **kwargs: bool | None) -> BaseModelOutput:
        """
        Runs the image encoder, without the quantizer.

        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): pixels in [-1, 1].
            kwargs: `output_hidden_states` and `output_attentions`.

        Returns:
            The output of the image encoder, whose `last_hidden_state` `(N, L, C)` are the features.
        """
        self.check_pixels(pixel_values)
        # The image encoder reads the fields of `encoder_config`, not those of the tower's configuration.
        for name in ("output_hidden_states", "output_attentions"):
            if kwargs.get(name) is None and getattr(self.config, name):
                kwargs[name] = True
        pixel_values = pixel_values.to(next(self.image_encoder.parameters()).dtype)
        return self.image_encoder(pixel_values, return_dict=True, **kwargs)

    @can_return_tuple
    def encode(self, pixel_values: torch.Tensor, **kwargs: bool | None) -> VilaUVisionTowerOutput:
        """
        Encodes images into codes; encoder and quantizer compute in float32, whatever the dtype of the other modules.

        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): pixels in [-1, 1].
            kwargs: `output_hidden_states` and `output_attentions` of the image encoder.

        Raises:
            ValueError: if the shape is another.
        """
        # Autocast would compute in its dtype although the weights are float32.
        with torch.autocast(pixel_values.device.type, enabled=False):
            encoded = self.encode_image(pixel_values, **kwargs)
            codes = self.quantizer.encode(_features_of(encoded))
        return VilaUVisionTowerOutput(
            codes=codes,
            quantized=self.quantizer.decode(codes),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def decode(self, quantized_or_codes: torch.Tensor) -> torch.Tensor:
        """
        Decodes codes or quantized features into pixels; integers are codes, floats are features.

        Args:
            quantized_or_codes (`torch.Tensor` of shape `(N, L, D)` or `(N, L, C)`): codes or quantized features.

        Returns:
            Pixels `(N, 3, S', S')`, nominally in [-1, 1] and not clipped.

        Raises:
            ValueError: for a wrong shape, or codes outside `[0, codebook_size)`.
        """
        quantized = quantized_or_codes
        if not quantized.is_floating_point():
            self.quantizer.check_range(quantized)
            quantized = self.quantizer.decode(quantized)
        grid = self.config.grid_size
        if quantized.ndim != 3 or quantized.shape[1:] != (grid * grid, self.config.hidden_size):
            raise ValueError(
                f"a tensor to decode must have shape (N, {grid * grid}, {self.config.code_depth}) as codes or "
                f"(N, {grid * grid}, {self.config.hidden_size}) as features, got {tuple(quantized_or_codes.shape)}."
            )
        latents = quantized.transpose(1, 2).unflatten(2, (grid, grid))  # (N, C, h, w)
        size = self.config.decoder_latent_size
        if size is not None and size != grid:
            latents = nn.functional.interpolate(latents, size=(size, size), mode="bilinear")
        # quantized features are float32, and the pixel decoder follows the dtype of the model
        return self.pixel_decoder(self.post_quant_conv(latents.to(self.post_quant_conv.weight.dtype)))

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: bool | None) -> BaseModelOutputWithPooling:
        """Returns quantized features of `pixel_values` `(N, 3, S, S)` as `last_hidden_state` `(N, L, C)`."""
        encoded = self.encode(pixel_values, return_dict=True, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=encoded.quantized, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )

    def forward(self, pixel_values: torch.Tensor, **kwargs: bool | None) -> VilaUVisionTowerOutput:
        """Returns the same as [`VilaUVisionTower.encode`]."""
        return self.encode(pixel_values, **kwargs)


class VilaUVisionTowerForPreTraining(VilaUVisionPreTrainedModel):
    r"""
    The vision tower with SigLIP's text encoder, for stage 1 and for zero-shot classification.

    The image embedding comes from the *quantized* features, so that codes carry meaning as well as pixels (VILA-U,
    section 3.1).

    Args:
        config ([`VilaUVisionConfig`]): must have a `text_config`.
    """

    input_modalities = ("image", "text")  # type: ignore[assignment]  # the library's models set tuples
    # Losses are means over the batch. Trainer must not divide them by a count of items.
    accepts_loss_kwargs = False

    def __init__(self, config: VilaUVisionConfig) -> None:
        if config.text_config is None:
            raise ValueError("`config.text_config` is None: pre-training needs the configuration of a text encoder.")
        super().__init__(config)
        self.vision_tower = VilaUVisionTower(config)
        self.image_pooler = VilaUImagePooler._from_config(pooler_config(config.encoder_config))
        self.text_model = SiglipTextModel._from_config(config.text_config)
        self.logit_scale = nn.Parameter(torch.zeros(1))
        self.logit_bias = nn.Parameter(torch.zeros(1))
        self.post_init()

    # The base method does not know the two scalars. The comment at the override in the base class holds here, too.
    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VilaUVisionTowerForPreTraining):
            init.zeros_(module.logit_scale)
            init.zeros_(module.logit_bias)

    @classmethod
    def from_siglip(cls, siglip: SiglipModel, **config_kwargs: Any) -> Self:
        """
        Builds a tower for pre-training from a trained SigLIP model; the text encoder is frozen, as in the paper.

        SigLIP2 checkpoints of fixed resolution load as `SiglipModel`, too.

        Args:
            siglip ([`SiglipModel`]): the trained model.
            config_kwargs: further fields of [`VilaUVisionConfig`], for example `codebook_size`.
        """
        siglip_config: Any = siglip.config  # the library's types allow nested dicts
        config = cls.config_class(
            encoder_config=siglip_config.vision_config.to_dict(),
            text_config=siglip_config.text_config.to_dict(),
            **config_kwargs,
        )
        model = cls(config)
        vision = siglip.vision_model
        model.vision_tower.load_image_encoder(vision)
        model.image_pooler.layer.load_state_dict(vision.encoder.layers[-1].state_dict())
        model.image_pooler.post_layernorm.load_state_dict(vision.post_layernorm.state_dict())
        model.image_pooler.head.load_state_dict(vision.head.state_dict())
        model.text_model.load_state_dict(siglip.text_model.state_dict())
        with torch.no_grad():
            model.logit_scale.copy_(siglip.logit_scale)
            model.logit_bias.copy_(siglip.logit_bias)
        model.text_model.requires_grad_(False)
        return model

    def train(self, mode: bool = True) -> Self:
        """Sets training mode like `nn.Module.train`, except that frozen encoders stay in evaluation mode."""
        super().train(mode)
        for encoder in (self.text_model, self.vision_tower.image_encoder):
            if not any(parameter.requires_grad for parameter in encoder.parameters()):
                encoder.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        """Returns the token embeddings of the text encoder."""
        return self.text_model.embeddings.token_embedding

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Returns text embeddings `(T, C)`, not normalised, of `input_ids` `(T, tokens)`.

        SigLIP reads the embedding at the last of all its positions, so shorter texts are padded on the right.
        """
        missing = self.config.text_config.max_position_embeddings - input_ids.shape[1]
        if missing > 0:
            input_ids = nn.functional.pad(input_ids, (0, missing), value=self.config.text_config.pad_token_id)
            if attention_mask is not None:
                attention_mask = nn.functional.pad(attention_mask, (0, missing))
        return self.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Returns image embeddings `(N, C)`, not normalised, of `pixel_values` `(N, 3, S, S)` in [-1, 1]."""
        return self.image_pooler(self.vision_tower.encode(pixel_values).quantized)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool = False,
        **kwargs: bool | None,
    ) -> VilaUVisionTowerForPreTrainingOutput:
        """
        Compares images with texts, or computes the losses of stage 1.

        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): pixels in [-1, 1].
            input_ids (`torch.LongTensor` of shape `(T, tokens)`, *optional*): texts; with `return_loss` the n-th text
                describes the n-th image.
            attention_mask (`torch.Tensor` of shape `(T, tokens)`, *optional*): SigLIP was trained without a mask.
            return_loss (`bool`, *optional*, defaults to `False`): compute the losses of stage 1.
            kwargs: `output_hidden_states` and `output_attentions` of the image encoder.
        """
        encoded = self.vision_tower.encode_image(pixel_values, **kwargs)
        quantized, codes, commitment_loss = self.vision_tower.quantizer(_features_of(encoded))
        result = {"codes": codes, "hidden_states": encoded.hidden_states, "attentions": encoded.attentions}
        if not return_loss or self.config.contrastive_loss_weight:
            result.update(self._compare(quantized, input_ids, attention_mask))
        if return_loss:
            result["commitment_loss"] = commitment_loss
            result["loss"] = torch.zeros_like(commitment_loss)
            if self.config.contrastive_loss_weight:
                if input_ids is None:
                    raise ValueError("`input_ids` must be given with `return_loss=True`, got None.")
                result["contrastive_loss"] = contrastive_loss(
                    self.config.contrastive_loss_type,
                    result["image_embeds"],
                    result["text_embeds"],
                    self.logit_scale,
                    self.logit_bias,
                    across_ranks=self.training,
                )
                result["loss"] = self.config.contrastive_loss_weight * result["contrastive_loss"]
            if self.config.reconstruction_loss_weight:
                result["reconstruction"] = self.vision_tower.decode(quantized)
                result["reconstruction_loss"] = self._pixel_loss(result["reconstruction"], pixel_values)
                result["loss"] = result["loss"] + self.config.reconstruction_loss_weight * (
                    result["reconstruction_loss"] + self.config.commitment_loss_weight * commitment_loss
                )
        return VilaUVisionTowerForPreTrainingOutput(**result)

    def _compare(
        self, quantized: torch.Tensor, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Returns the embeddings of images, and those of texts and the similarities if texts are given."""
        result = {"image_embeds": nn.functional.normalize(self.image_pooler(quantized), dim=-1)}
        if input_ids is not None:
            self._check_text_width()
            text_embeds = nn.functional.normalize(self.get_text_features(input_ids, attention_mask), dim=-1)
            result["text_embeds"] = text_embeds
            similarities = result["image_embeds"] @ text_embeds.T
            result["logits_per_image"] = similarities * self.logit_scale.exp() + self.logit_bias
        return result

    def _check_text_width(self) -> None:
        """Raises a `ValueError` if embeddings of texts and images differ in width."""
        text_width = self.config.text_config.projection_size
        width = self.config.hidden_size
        if text_width != width:
            raise ValueError(
                f"`config.text_config.projection_size` ({text_width}) must equal "
                f"`config.encoder_config.hidden_size` ({width}) to compare texts with images."
            )

    def _pixel_loss(self, reconstruction: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        """Returns the weighted sum of squared and absolute error; an error of weight 0 is not computed."""
        if reconstruction.shape != pixel_values.shape:
            raise ValueError(
                f"the pixel decoder gives {tuple(reconstruction.shape[-2:])} pixels and the images have "
                f"{tuple(pixel_values.shape[-2:])}: choose `block_out_channels` and `decoder_latent_size` to match."
            )
        target = pixel_values.to(reconstruction.dtype)
        loss = reconstruction.new_zeros(())
        if self.config.mse_loss_weight:
            loss = loss + self.config.mse_loss_weight * nn.functional.mse_loss(reconstruction, target)
        if self.config.l1_loss_weight:
            loss = loss + self.config.l1_loss_weight * nn.functional.l1_loss(reconstruction, target)
        return loss


__all__ = [
    "VilaUVisionTower",
    "VilaUVisionTowerForPreTraining",
    "VilaUVisionTowerForPreTrainingOutput",
    "VilaUVisionTowerOutput",
]
