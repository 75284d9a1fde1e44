# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Unified vision tower: pixels to codes and back, and its pre-training with a text encoder."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel, SiglipModel, SiglipTextModel
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from .compat_modeling_vilau import (
    PixelDecoder,
    SiglipAttention,
    SiglipEncoderLayer,
    SiglipMultiheadAttentionPoolingHead,
    SiglipPreTrainedModel,
    SiglipVisionEmbeddings,
    can_return_tuple,
    capture_outputs,
    init,
    merge_with_config_defaults,
)
from .configuration_vilau import VilaUVisionConfig
from .losses_vilau import contrastive_loss
from .modeling_residual_quantizer import VilaUResidualQuantizer
from .module_bases_vilau import Float32Module, LibraryInitialization, float32_parameters


@dataclass
class VilaUVisionTowerOutput(ModelOutput):
    r"""
    codes (`torch.LongTensor` of shape `(N, L, D)`): codes in `[0, codebook_size)`.
    quantized (`torch.Tensor` of shape `(N, L, C)`): sum of the code embeddings.
    hidden_states, attentions (`tuple`, *optional*): of the image encoder, if asked for.
    """

    codes: torch.LongTensor | None = None
    quantized: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class VilaUVisionTowerForPreTrainingOutput(ModelOutput):
    r"""
    loss (`torch.Tensor` of shape `()`, *optional*, with `return_loss`): weighted sum of the parts below. A part whose
        weight is 0 is `None`.
    contrastive_loss (`torch.Tensor` of shape `()`, *optional*, with `return_loss`): sigmoid or softmax loss, in
        training over the pairs of all ranks.
    reconstruction_loss (`torch.Tensor` of shape `()`, *optional*, with `return_loss`): weighted pixel losses.
    commitment_loss (`torch.Tensor` of shape `()`, *optional*, with `return_loss`): features against their codes.
    logits_per_image (`torch.Tensor` of shape `(N, T)`, *optional*, with texts): scaled image-text similarities.
    image_embeds (`torch.Tensor` of shape `(N, C)`): normalised image embeddings; these three are `None` with
        `return_loss` where `config.contrastive_loss_weight` is 0.
    text_embeds (`torch.Tensor` of shape `(T, C)`, *optional*, with texts): normalised text embeddings.
    codes (`torch.LongTensor` of shape `(N, L, D)`): codes of the images.
    reconstruction (`torch.Tensor` of shape `(N, 3, S, S)`, *optional*, with `return_loss`): decoded pixels in [-1, 1];
        with its loss left out where `config.reconstruction_loss_weight` is 0.
    hidden_states, attentions (`tuple`, *optional*): of the image encoder, if asked for.
    """

    loss: torch.Tensor | None = None
    contrastive_loss: torch.Tensor | None = None
    reconstruction_loss: torch.Tensor | None = None
    commitment_loss: torch.Tensor | None = None
    logits_per_image: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    codes: torch.LongTensor | None = None
    reconstruction: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class VilaUVisionEncoder(Float32Module, LibraryInitialization, SiglipPreTrainedModel):
    """SigLIP's image encoder without its last layer, whose input the quantizer replaces."""

    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = SiglipVisionEmbeddings(config)
        self.layers = nn.ModuleList([SiglipEncoderLayer(config) for _ in range(config.num_hidden_layers - 1)])
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutput:
        hidden_states = self.embeddings(pixel_values)  # (N, L, C)
        for layer in self.layers:
            hidden_states = layer(hidden_states, None, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden_states)


class VilaUImagePooler(LibraryInitialization, SiglipPreTrainedModel):
    """SigLIP's last encoder layer, layer norm and attention pooling, applied to the quantized features."""

    main_input_name = "quantized"
    input_modalities = ("image",)

    def __init__(self, config):
        super().__init__(config)
        self.layer = SiglipEncoderLayer(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = SiglipMultiheadAttentionPoolingHead(config)
        self.post_init()

    def forward(self, quantized: torch.Tensor, **kwargs) -> torch.Tensor:
        hidden_states = self.layer(quantized.to(self.post_layernorm.weight.dtype), None, **kwargs)
        return self.head(self.post_layernorm(hidden_states))  # (N, C)


# codes hang on small differences: rounded to bfloat16, one code in ten of depth 16 would be another
FLOAT32_MODULES = ["image_encoder", "quantizer"]


def rounded_dtype(model: PreTrainedModel) -> torch.dtype:
    """Dtype of the parameters that follow the model's dtype, which is what is meant by a model's dtype."""
    return next(
        parameter.dtype
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and not set(FLOAT32_MODULES) & set(name.split("."))
    )


class VilaUVisionPreTrainedModel(LibraryInitialization, PreTrainedModel):
    """Weights, loading and dtype rules of the vision tower."""

    config_class = VilaUVisionConfig
    config: VilaUVisionConfig
    base_model_prefix = "vision_tower"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["SiglipEncoderLayer", "ResnetBlock2D"]
    _keep_in_fp32_modules_strict = FLOAT32_MODULES
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": SiglipEncoderLayer, "attentions": SiglipAttention}

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights; image encoder and quantizer stay in float32."""
        return rounded_dtype(self)

    # The base method initialises layers that it knows and is documented for models to extend; it knows neither our
    # quantizer nor our scalars. Read in 5.20.2, 5.23.0 and 5.24.0. It stays as long as the library calls it.
    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, VilaUResidualQuantizer):
            init.normal_(module.codebook.weight, std=self.config.initializer_range)
            init.zeros_(module.cluster_size)
            init.zeros_(module.cluster_sum)
            init.zeros_(module.initialized)


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

    def __init__(self, config: VilaUVisionConfig):
        super().__init__(config)
        with float32_parameters():
            self.image_encoder = VilaUVisionEncoder(config.encoder_config)
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
            if type(module).__name__ == "Attention":
                module.config = config  # transformers reads the attention setting of every module of that name
        self.post_init()

    def get_input_embeddings(self):
        return self.image_encoder.embeddings.patch_embedding

    def check_pixels(self, pixel_values: torch.Tensor):
        """Raises a `ValueError` unless `pixel_values` have shape `(N, 3, S, S)`."""
        side = self.config.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, side, side):
            raise ValueError(
                f"`pixel_values` must have shape (N, 3, {side}, {side}), got {tuple(pixel_values.shape)}."
            )

    def get_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features `(N, L, C)` that the quantizer reads, for `pixel_values` `(N, 3, S, S)` in [-1, 1]."""
        return self.encode_image(pixel_values).last_hidden_state

    def encode_image(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutput:
        """The image encoder's output for `pixel_values` `(N, 3, S, S)` in [-1, 1], its features `(N, L, C)` first."""
        self.check_pixels(pixel_values)
        for name in ("output_hidden_states", "output_attentions"):
            if kwargs.get(name) is None and getattr(self.config, name):  # it knows its own alone
                kwargs[name] = True
        pixel_values = pixel_values.to(self.get_input_embeddings().weight.dtype)
        return self.image_encoder(pixel_values, return_dict=True, **kwargs)

    @can_return_tuple
    def encode(self, pixel_values: torch.Tensor, **kwargs) -> VilaUVisionTowerOutput:
        """
        Codes of images; encoder and quantizer compute in float32, whatever the dtype of the rest.

        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): pixels in [-1, 1].
            kwargs: `output_hidden_states`, `output_attentions` for those of the image encoder.

        Raises:
            ValueError: if the shape is another.
        """
        with torch.autocast(pixel_values.device.type, enabled=False):
            encoded = self.encode_image(pixel_values, **kwargs)
            codes = self.quantizer.encode(encoded.last_hidden_state)
        return VilaUVisionTowerOutput(
            codes=codes,
            quantized=self.quantizer.decode(codes),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def decode(self, quantized_or_codes: torch.Tensor) -> torch.Tensor:
        """
        Pixels `(N, 3, S', S')`, nominally in [-1, 1] and not clipped, of codes `(N, L, D)` or of quantized features
        `(N, L, C)`; which of the two is told by the dtype.

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
        return self.pixel_decoder(self.post_quant_conv(latents.to(self.post_quant_conv.weight.dtype)))

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """Quantized features of `pixel_values` `(N, 3, S, S)` as `last_hidden_state` `(N, L, C)`."""
        encoded = self.encode(pixel_values, return_dict=True, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=encoded.quantized, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> VilaUVisionTowerOutput:
        """As [`VilaUVisionTower.encode`]."""
        return self.encode(pixel_values, **kwargs)


class VilaUVisionTowerForPreTraining(VilaUVisionPreTrainedModel):
    r"""
    The vision tower with SigLIP's text encoder, for stage 1 and for zero-shot classification. The image embedding is
    read from the *quantized* features, so that codes carry meaning as well as pixels (VILA-U, section 3.1).

    Args:
        config ([`VilaUVisionConfig`]): must have a `text_config`.
    """

    input_modalities = ("image", "text")
    accepts_loss_kwargs = False

    def __init__(self, config: VilaUVisionConfig):
        if config.text_config is None:
            raise ValueError("`config.text_config` is None: pre-training needs the configuration of a text encoder.")
        super().__init__(config)
        self.vision_tower = VilaUVisionTower(config)
        self.image_pooler = VilaUImagePooler._from_config(config.encoder_config)
        self.text_model = SiglipTextModel._from_config(config.text_config)
        self.logit_scale = nn.Parameter(torch.zeros(1))
        self.logit_bias = nn.Parameter(torch.zeros(1))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, VilaUVisionTowerForPreTraining):
            init.zeros_(module.logit_scale)
            init.zeros_(module.logit_bias)

    @classmethod
    def from_siglip(cls, siglip: SiglipModel, **config_kwargs):
        """
        A tower for pre-training whose vision and text weights are those of a trained SigLIP model. As in the paper,
        the text encoder is frozen.

        Args:
            siglip ([`SiglipModel`]): the trained model.
            config_kwargs: further fields of [`VilaUVisionConfig`], for example `codebook_size`.
        """
        config = cls.config_class(
            encoder_config=siglip.config.vision_config.to_dict(),
            text_config=siglip.config.text_config.to_dict(),
            **config_kwargs,
        )
        model = cls(config)
        vision = siglip.vision_model
        model.vision_tower.image_encoder.embeddings.load_state_dict(vision.embeddings.state_dict())
        model.vision_tower.image_encoder.layers.load_state_dict(vision.encoder.layers[:-1].state_dict())
        model.image_pooler.layer.load_state_dict(vision.encoder.layers[-1].state_dict())
        model.image_pooler.post_layernorm.load_state_dict(vision.post_layernorm.state_dict())
        model.image_pooler.head.load_state_dict(vision.head.state_dict())
        model.text_model.load_state_dict(siglip.text_model.state_dict())
        with torch.no_grad():
            model.logit_scale.copy_(siglip.logit_scale)
            model.logit_bias.copy_(siglip.logit_bias)
        model.text_model.requires_grad_(False)
        return model

    def train(self, mode: bool = True):
        """As of every module, save that encoders without a trainable parameter stay in evaluation mode."""
        super().train(mode)
        for encoder in (self.text_model, self.vision_tower.image_encoder):
            if not any(parameter.requires_grad for parameter in encoder.parameters()):
                encoder.eval()
        return self

    def get_input_embeddings(self):
        return self.text_model.embeddings.token_embedding

    def get_text_features(self, input_ids: torch.LongTensor, attention_mask=None) -> torch.Tensor:
        """
        Text embeddings `(T, C)`, not normalised, of `input_ids` `(T, tokens)`. SigLIP reads them off the last place of
        texts that fill all its positions: shorter ones are padded on the right.
        """
        missing = self.config.text_config.max_position_embeddings - input_ids.shape[1]
        if missing > 0:
            input_ids = nn.functional.pad(input_ids, (0, missing), value=self.config.text_config.pad_token_id)
            if attention_mask is not None:
                attention_mask = nn.functional.pad(attention_mask, (0, missing))
        return self.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Image embeddings `(N, C)`, not normalised, of `pixel_values` `(N, 3, S, S)` in [-1, 1]."""
        return self.image_pooler(self.vision_tower.encode(pixel_values).quantized)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool = False,
        **kwargs,
    ) -> VilaUVisionTowerForPreTrainingOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): pixels in [-1, 1].
            input_ids (`torch.LongTensor` of shape `(T, tokens)`, *optional*): texts; with `return_loss` the n-th text
                describes the n-th image.
            attention_mask (`torch.Tensor` of shape `(T, tokens)`, *optional*): none in SigLIP's own training.
            return_loss (`bool`, *optional*, defaults to `False`): compute the losses of stage 1.
            kwargs: `output_hidden_states`, `output_attentions` for those of the image encoder.
        """
        encoded = self.vision_tower.encode_image(pixel_values, **kwargs)
        quantized, codes, commitment_loss = self.vision_tower.quantizer(encoded.last_hidden_state)
        result = {"codes": codes, "hidden_states": encoded.hidden_states, "attentions": encoded.attentions}
        if not return_loss or self.config.contrastive_loss_weight:
            result.update(self._compare(quantized, input_ids, attention_mask))
        if return_loss:
            result["commitment_loss"], result["loss"] = commitment_loss, torch.zeros_like(commitment_loss)
            if self.config.contrastive_loss_weight:
                if input_ids is None:
                    raise ValueError("`input_ids` must be given with `return_loss=True`, got None.")
                kind, embeds = self.config.contrastive_loss_type, (result["image_embeds"], result["text_embeds"])
                result["contrastive_loss"] = contrastive_loss(
                    kind, *embeds, self.logit_scale, self.logit_bias, across_ranks=self.training
                )
                result["loss"] = self.config.contrastive_loss_weight * result["contrastive_loss"]
            if self.config.reconstruction_loss_weight:
                result["reconstruction"] = self.vision_tower.decode(quantized)
                result["reconstruction_loss"] = self._pixel_loss(result["reconstruction"], pixel_values)
                result["loss"] = result["loss"] + self.config.reconstruction_loss_weight * (
                    result["reconstruction_loss"] + self.config.commitment_loss_weight * commitment_loss
                )
        return VilaUVisionTowerForPreTrainingOutput(**result)

    def _compare(self, quantized, input_ids, attention_mask) -> dict[str, torch.Tensor]:
        """Embeddings of images, and of texts with their similarities if there are any."""
        result = {"image_embeds": nn.functional.normalize(self.image_pooler(quantized), dim=-1)}
        if input_ids is not None:
            self._check_text_width()
            text_embeds = nn.functional.normalize(self.get_text_features(input_ids, attention_mask), dim=-1)
            result["text_embeds"] = text_embeds
            similarities = result["image_embeds"] @ text_embeds.T
            result["logits_per_image"] = similarities * self.logit_scale.exp() + self.logit_bias
        return result

    def _check_text_width(self):
        text_width, width = self.config.text_config.projection_size, self.config.hidden_size
        if text_width != width:
            raise ValueError(
                f"`config.text_config.projection_size` ({text_width}) must equal "
                f"`config.encoder_config.hidden_size` ({width}) to compare texts with images."
            )

    def _pixel_loss(self, reconstruction: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        if reconstruction.shape != pixel_values.shape:
            raise ValueError(
                f"the pixel decoder gives {tuple(reconstruction.shape[-2:])} pixels and the images have "
                f"{tuple(pixel_values.shape[-2:])}: choose `block_out_channels` and `decoder_latent_size` to match."
            )
        target, loss = pixel_values.to(reconstruction.dtype), reconstruction.new_zeros(())
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
