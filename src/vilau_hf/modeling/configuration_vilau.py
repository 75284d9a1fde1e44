# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Configurations of the VILA-U vision tower, depth transformer and complete model."""

import os
from pathlib import Path

import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig, SiglipTextConfig, SiglipVisionConfig

from .compat_modeling_vilau import CACHE_NAMES, SubConfigSpec


# file of a checkpoint that holds its configuration
CONFIG_NAME = "config.json"

_SIGLIP_LARGE_256 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 256,
    "patch_size": 16,
}


# of the release folder and of its parts
ORIGINAL_MODEL_TYPES = ("vila_u_llama", "rqvaesigliptransformer_model", "v2l_projector")


def _original_layout(source) -> ValueError:
    return ValueError(
        f"{source} has the layout of the original VILA-U release. Convert it once with `vilau convert {source} OUT`, "
        "or load it with `VilaUForConditionalGeneration.from_original`."
    )


class VilaUBaseConfig(PreTrainedConfig):
    """
    What the configurations have in common: a folder without its configuration file is refused, and one of the original
    release, with the way to convert it.
    """

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs):
        # the library would go on with the defaults: a 7B model with random weights
        folder = Path(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
        if folder.is_dir() and not (folder / CONFIG_NAME).is_file():
            raise OSError(f"the checkpoint folder {folder} has no {CONFIG_NAME}: it was not written completely.")
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if config_dict.get("model_type") in ORIGINAL_MODEL_TYPES:
            raise _original_layout(pretrained_model_name_or_path)
        return config_dict, kwargs


@strict
class VilaUVisionConfig(VilaUBaseConfig):
    r"""
    Configuration of the unified vision tower: SigLIP encoder, residual quantizer and pixel decoder. The defaults are
    those of the published 256-pixel model.

    encoder_config ([`SiglipVisionConfig`], *optional*, defaults to SigLIP-Large/16 at 256 pixels): the image encoder.
        The quantizer reads the output of its second-to-last layer.
    text_config ([`SiglipTextConfig`], *optional*): the aligned text encoder, used by the tower for pre-training alone.
    codebook_size (`int`, *optional*, defaults to 16384): number K of code embeddings.
    code_depth (`int`, *optional*, defaults to 4): number D of codes per visual token.
    shared_codebook (`bool`, *optional*, defaults to `True`): one codebook for all depths, or one for each.
    codebook_decay (`float`, *optional*, defaults to 0.99): decay of the moving averages that train the codebook.
    codebook_epsilon (`float`, *optional*, defaults to 1e-5): Laplace smoothing of the cluster sizes.
    codebook_initialization (`str`, *optional*, defaults to `"random"`): how the first training batch fills the
        codebook: with `"random"` vectors of it, or with the centroids of their clusters, `"kmeans"`.
    restart_unused_codes (`bool`, *optional*, defaults to `True`): whether a code whose average size falls under 1 is
        replaced by a random vector of the batch.
    latent_channels (`int`, *optional*, defaults to 256): channels of the pixel decoder's input.
    block_out_channels (`list[int]`, *optional*, defaults to `[128, 128, 256, 256, 512]`): channels of the pixel
        decoder's levels, from the highest to the lowest resolution.
    up_block_types (`list[str]`, *optional*): diffusers' block types of the levels, from the lowest to the highest
        resolution; by default attention at the lowest one.
    layers_per_block (`int`, *optional*, defaults to 2): residual blocks of a level besides its first one, at least 0.
    norm_num_groups (`int`, *optional*, defaults to 32): groups of the pixel decoder's group normalisation.
    decoder_latent_size (`int`, *optional*): side of the grid given to the pixel decoder, where it differs from the
        encoder's; the quantized features are then resized bilinearly.
    contrastive_loss_type (`str`, *optional*, defaults to `"sigmoid"`): SigLIP's `"sigmoid"` or CLIP's `"softmax"`.
    contrastive_loss_weight, reconstruction_loss_weight (`float`, *optional*, defaults to 1.0): weights of the two
        parts of the pre-training loss.
    mse_loss_weight, l1_loss_weight, commitment_loss_weight (`float`, *optional*, default to 1.0, 0.0, 0.25): weights
        inside the reconstruction loss. A loss of weight 0 is not computed.
    """

    model_type = "vilau_vision"
    base_config_key = "vision_config"
    sub_configs_defaults = {
        "encoder_config": SubConfigSpec(config_class=SiglipVisionConfig, init_kwargs=_SIGLIP_LARGE_256),
        "text_config": SubConfigSpec(config_class=SiglipTextConfig, optional=True),
    }

    encoder_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    codebook_size: int = 16384
    code_depth: int = 4
    shared_codebook: bool = True
    codebook_decay: float = 0.99
    codebook_epsilon: float = 1e-5
    codebook_initialization: str = "random"
    restart_unused_codes: bool = True
    latent_channels: int = 256
    block_out_channels: list[int] | tuple[int, ...] = (128, 128, 256, 256, 512)
    up_block_types: list[str] | tuple[str, ...] | None = None
    layers_per_block: int = 2
    norm_num_groups: int = 32
    decoder_latent_size: int | None = None
    contrastive_loss_type: str = "sigmoid"
    contrastive_loss_weight: float = 1.0
    reconstruction_loss_weight: float = 1.0
    mse_loss_weight: float = 1.0
    l1_loss_weight: float = 0.0
    commitment_loss_weight: float = 0.25
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        if self.up_block_types is None:
            self.up_block_types = ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * (len(self.block_out_channels) - 1)
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Code dimension C, the width of the image encoder."""
        return self.encoder_config.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the image encoder that run before the quantizer."""
        return self.encoder_config.num_hidden_layers - 1

    @property
    def num_attention_heads(self) -> int:
        """Attention heads of the image encoder."""
        return self.encoder_config.num_attention_heads

    @property
    def image_size(self) -> int:
        """Side S of the input image in pixels."""
        return self.encoder_config.image_size

    @property
    def grid_size(self) -> int:
        """Visual tokens along one side of an image."""
        return self.encoder_config.image_size // self.encoder_config.patch_size

    @property
    def num_visual_tokens(self) -> int:
        """Visual tokens L of one image."""
        return self.grid_size**2

    @property
    def output_image_size(self) -> int:
        """Side of a decoded image in pixels."""
        return (self.decoder_latent_size or self.grid_size) * 2 ** (len(self.block_out_channels) - 1)

    def validate_sizes(self):
        # a level always has one residual block more than `layers_per_block` says
        for name, least in (("codebook_size", 1), ("code_depth", 1), ("latent_channels", 1), ("layers_per_block", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        if self.encoder_config.num_hidden_layers < 2:
            raise ValueError(
                "`encoder_config.num_hidden_layers` must be at least 2 (the second-to-last layer gives the features), "
                f"got {self.encoder_config.num_hidden_layers}."
            )
        if self.encoder_config.image_size < self.encoder_config.patch_size:
            raise ValueError(
                f"`encoder_config.image_size` ({self.encoder_config.image_size}) must be at least "
                f"`encoder_config.patch_size` ({self.encoder_config.patch_size})."
            )

    def validate_choices(self):
        for name, choices in (
            ("codebook_initialization", ("random", "kmeans")),
            ("contrastive_loss_type", ("sigmoid", "softmax")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")

    def validate_loss_weights(self):
        for name in ("contrastive", "reconstruction", "mse", "l1", "commitment"):
            if getattr(self, f"{name}_loss_weight") < 0:
                raise ValueError(
                    f"`{name}_loss_weight` must be at least 0, got {getattr(self, f'{name}_loss_weight')}."
                )

    def validate_pixel_decoder(self):
        if len(self.up_block_types) != len(self.block_out_channels):
            raise ValueError(
                f"`up_block_types` ({len(self.up_block_types)} entries) and `block_out_channels` "
                f"({len(self.block_out_channels)} entries) must have the same length."
            )
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"every entry of `block_out_channels` ({list(self.block_out_channels)}) must be a multiple of "
                    f"`norm_num_groups` ({self.norm_num_groups})."
                )


@strict
class VilaUDepthConfig(VilaUBaseConfig):
    r"""
    Configuration of the depth transformer, which turns one hidden state of the language model into the D codes of the
    next visual token. The defaults are those of the published 7B model.

    hidden_size (`int`, *optional*, defaults to 2560): width.
    num_hidden_layers (`int`, *optional*, defaults to 6): number of blocks.
    num_attention_heads (`int`, *optional*, defaults to 40): number of attention heads.
    intermediate_size (`int`, *optional*, defaults to 10240): width of the blocks' MLP.
    backbone_hidden_size (`int`, *optional*, defaults to 4096): width H of the language model.
    code_dim (`int`, *optional*, defaults to 1024): width C of a code embedding.
    codebook_size (`int`, *optional*, defaults to 16384): number K of codes.
    code_depth (`int`, *optional*, defaults to 4): number D of codes per visual token.
    """

    model_type = "vilau_depth"
    base_config_key = "depth_config"

    hidden_size: int = 2560
    num_hidden_layers: int = 6
    num_attention_heads: int = 40
    intermediate_size: int = 10240
    backbone_hidden_size: int = 4096
    code_dim: int = 1024
    codebook_size: int = 16384
    code_depth: int = 4
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def validate_heads(self):
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `num_attention_heads` "
                f"({self.num_attention_heads})."
            )


@strict
class VilaUConfig(VilaUBaseConfig):
    r"""
    Configuration of VILA-U: vision tower, projector, language model and depth transformer. The defaults are those of
    the published 7B model at 256 pixels.

    vision_config ([`VilaUVisionConfig`], *optional*): the vision tower.
    depth_config ([`VilaUDepthConfig`], *optional*): the depth transformer.
    text_config ([`PreTrainedConfig`], *optional*, defaults to LLaMA-2-7B with 32,004 tokens): the language model, any
        causal language model of transformers.
    image_start_token_id, image_end_token_id (`int`, *optional*, default to 32000, 32001): markers around an image.
    video_start_token_id, video_end_token_id (`int`, *optional*, default to 32002, 32003): markers around a video.
    image_token_id, video_token_id (`int`, *optional*, default to 32004, 32005): placeholders of one visual token. They
        are never embedded, so they may lie beyond the vocabulary.
    start_marker_prefix_ids (`list[int]`, *optional*, defaults to none): ids that `generate` puts between a prompt and
        the start marker of an image or video.
    text_loss_weight, visual_loss_weight (`float`, *optional*, default to 1.0): weights of the two losses.

    Example:

    ```python
    >>> from vilau_hf import VilaUConfig

    >>> VilaUConfig().vision_config.num_visual_tokens
    256
    ```
    """

    model_type = "vilau"
    # outputs that `Trainer` would gather over a whole evaluation set: the cache and features
    keys_to_ignore_at_inference = [*CACHE_NAMES, "image_outputs", "video_outputs"]
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(config_class=VilaUVisionConfig),
        "depth_config": SubConfigSpec(config_class=VilaUDepthConfig),
        "text_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="llama",
            init_kwargs={
                "vocab_size": 32004,
                "max_position_embeddings": 4096,
                "rms_norm_eps": 1e-5,
                "pad_token_id": 0,
            },
        ),
    }

    vision_config: dict | PreTrainedConfig | None = None
    depth_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    image_start_token_id: int = 32000
    image_end_token_id: int = 32001
    video_start_token_id: int = 32002
    video_end_token_id: int = 32003
    image_token_id: int = 32004
    video_token_id: int = 32005
    start_marker_prefix_ids: list[int] | tuple[int, ...] = ()
    text_loss_weight: float = 1.0
    visual_loss_weight: float = 1.0
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        if self.architectures is None:
            self.architectures = ["VilaUForConditionalGeneration"]
        super().__post_init__(**kwargs)

    def is_visual(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns a mask of the shape of `ids` that is true at the placeholders of visual tokens."""
        return (ids == self.image_token_id) | (ids == self.video_token_id)

    def validate_parts(self):
        vision, depth, text = self.vision_config, self.depth_config, self.text_config
        for first, a, second, b in (
            ("depth_config.code_depth", depth.code_depth, "vision_config.code_depth", vision.code_depth),
            ("depth_config.codebook_size", depth.codebook_size, "vision_config.codebook_size", vision.codebook_size),
            ("depth_config.code_dim", depth.code_dim, "vision_config.encoder_config.hidden_size", vision.hidden_size),
            (
                "depth_config.backbone_hidden_size",
                depth.backbone_hidden_size,
                "text_config.hidden_size",
                text.hidden_size,
            ),
        ):
            if a != b:
                raise ValueError(f"`{first}` ({a}) must equal `{second}` ({b}).")

    def validate_special_tokens(self):
        names = [f"{kind}_{role}" for kind in ("image", "video") for role in ("start_token_id", "end_token_id")]
        for name in names:
            if not 0 <= getattr(self, name) < self.text_config.vocab_size:
                raise ValueError(
                    f"`{name}` ({getattr(self, name)}) must be in the vocabulary, [0, `text_config.vocab_size`) = "
                    f"[0, {self.text_config.vocab_size})."
                )
        seen = {}
        for name in [*names, "image_token_id", "video_token_id"]:
            value = getattr(self, name)
            if value in seen:
                raise ValueError(f"`{name}` and `{seen[value]}` must differ, both are {value}.")
            seen[value] = name


class VilaUOriginalConfig(VilaUBaseConfig):
    """The original release's own configuration, which refuses to load; registered so that auto classes say how to."""

    model_type = "vila_u_llama"

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        raise _original_layout(kwargs.get("name_or_path"))


__all__ = ["VilaUConfig", "VilaUDepthConfig", "VilaUOriginalConfig", "VilaUVisionConfig"]
