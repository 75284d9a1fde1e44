# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""
Image encoders that end before the last layer, and the image pooler that replaces this layer.

The quantizer reads the output of the second-to-last layer. Stage 1 reads the image embedding from quantized features.
"""

import copy

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, SiglipVisionConfig
from transformers.modeling_outputs import BaseModelOutput

from .compat_modeling_vilau import (
    SiglipEncoderLayer,
    SiglipMultiheadAttentionPoolingHead,
    SiglipPreTrainedModel,
    SiglipVisionEmbeddings,
    capture_outputs,
    merge_with_config_defaults,
)
from .module_bases_vilau import Float32Module, LibraryInitialization
from .vision_families_vilau import vision_family


class VilaUVisionEncoder(Float32Module, LibraryInitialization, SiglipPreTrainedModel):
    """
    SigLIP's image encoder without its last layer.

    It is built from SigLIP's layers, not from `SiglipVisionModel`, so the weights keep the names that published
    checkpoints have.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)  # type: ignore[assignment]  # the library's models set tuples of any length

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = SiglipVisionEmbeddings(config)
        self.layers = nn.ModuleList([SiglipEncoderLayer(config) for _ in range(config.num_hidden_layers - 1)])
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the layer that embeds the patches."""
        return self.embeddings.patch_embedding

    def load_trained(self, vision_model: PreTrainedModel) -> None:
        """Copies the weights of a `SiglipVisionModel` except those of its last layer."""
        self.embeddings.load_state_dict(vision_model.get_submodule("embeddings").state_dict())
        trained = vision_model.get_submodule("encoder.layers").state_dict()
        self.layers.load_state_dict({name: trained[name] for name in self.layers.state_dict()})

    @merge_with_config_defaults
    @capture_outputs
    def forward(self, pixel_values: torch.Tensor, **kwargs: bool | None) -> BaseModelOutput:
        """Encodes `pixel_values` `(N, 3, S, S)` in [-1, 1] into features `(N, L, C)`."""
        hidden_states = self.embeddings(pixel_values)  # (N, L, C)
        for layer in self.layers:
            hidden_states = layer(hidden_states, None, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden_states)


class _PassThrough(nn.Module):
    """Replaces a module whose output is not used; returns its first argument."""

    def forward(self, hidden_states: torch.Tensor, *args: torch.Tensor) -> torch.Tensor:
        """Returns `hidden_states`."""
        return hidden_states


class VilaUFamilyEncoder(Float32Module):
    """
    Any other family's image encoder without its last layer, built by `AutoModel`.

    Args:
        config ([`PreTrainedConfig`]): configuration of a model that `VISION_FAMILIES` describes.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.family = vision_family(config)
        shorter = copy.deepcopy(config)
        shorter.num_hidden_layers -= 1
        # The dtype is given because a checkpoint's configuration may name another one than float32.
        self.model = AutoModel.from_config(shorter, dtype=torch.float32)
        # Without these modules the model returns the output of its last layer as it is. Their parameters would get
        # no gradient, and distributed training waits for the gradient of every parameter.
        for name in self.family.modules_after_layers:
            setattr(self.model, name, _PassThrough())

    def get_input_embeddings(self) -> nn.Module:
        """Returns the layer that embeds the patches."""
        return self.model.get_input_embeddings()

    def load_trained(self, vision_model: PreTrainedModel) -> None:
        """Copies the weights of a complete model of the family except those of its last layer."""
        trained = vision_model.state_dict()
        self.model.load_state_dict({name: trained[name] for name in self.model.state_dict() if name in trained})

    def forward(self, pixel_values: torch.Tensor, **kwargs: bool | None) -> BaseModelOutput:
        """
        Encodes `pixel_values` `(N, 3, S, S)` in [-1, 1] into features `(N, L, C)`.

        `hidden_states` and `attentions` include the tokens before the patches, for example a class token.
        """
        # Equals ((pixel + 1) / 2 - mean) / std. In this form, a mean and a deviation of 0.5 leave pixels bit-equal.
        mean = pixel_values.new_tensor(self.family.image_mean)[:, None, None]
        std = pixel_values.new_tensor(self.family.image_std)[:, None, None]
        normalized = pixel_values * (0.5 / std) + (0.5 - mean) / std
        outputs = self.model(**self.family.inputs(normalized, self.config), **kwargs)
        return BaseModelOutput(
            last_hidden_state=outputs.last_hidden_state[:, self.family.num_prefix_tokens :],
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def build_image_encoder(config: PreTrainedConfig) -> VilaUVisionEncoder | VilaUFamilyEncoder:
    """
    Builds the image encoder of a vision tower, with random weights.

    Args:
        config ([`PreTrainedConfig`]): configuration of the complete vision model, whose last layer is not built.

    Raises:
        ValueError: if its `model_type` is not in `VISION_FAMILIES`.
    """
    if isinstance(config, SiglipVisionConfig):
        return VilaUVisionEncoder(config)
    return VilaUFamilyEncoder(config)


class VilaUImagePooler(LibraryInitialization, SiglipPreTrainedModel):
    """SigLIP's last encoder layer, layer norm and attention pooling, applied to the quantized features."""

    main_input_name = "quantized"
    input_modalities = ("image",)  # type: ignore[assignment]  # the library's models set tuples of any length

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__(config)
        self.layer = SiglipEncoderLayer(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = SiglipMultiheadAttentionPoolingHead(config)
        self.post_init()

    def forward(self, quantized: torch.Tensor, **kwargs: bool | None) -> torch.Tensor:
        """Pools `quantized` features `(N, L, C)` into image embeddings `(N, C)`."""
        # quantized features are float32, and the pooler follows the dtype of the model
        hidden_states = self.layer(quantized.to(self.post_layernorm.weight.dtype), None, **kwargs)
        return self.head(self.post_layernorm(hidden_states))


def pooler_config(encoder_config: PreTrainedConfig) -> SiglipVisionConfig:
    """
    Returns the configuration of the image pooler for an image encoder.

    SigLIP's pooler is its last layer and its head. The last layer of another family may expect a class token, which
    quantized features do not have. These families train a new pooler of SigLIP's form and their width.

    Args:
        encoder_config ([`PreTrainedConfig`]): configuration of the image encoder.
    """
    if isinstance(encoder_config, SiglipVisionConfig):
        return encoder_config
    width = encoder_config.hidden_size
    return SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=encoder_config.num_attention_heads,
        num_hidden_layers=1,
    )


__all__ = ["VilaUFamilyEncoder", "VilaUImagePooler", "VilaUVisionEncoder", "build_image_encoder", "pooler_config"]
