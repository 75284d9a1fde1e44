# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Configurations of the VILA-U vision tower, depth transformer and complete model."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from transformers import AutoConfig, PreTrainedConfig, SiglipTextConfig, SiglipVisionConfig

from .compat_modeling_vilau import CACHE_NAMES, SubConfigSpec
from .configuration_checks_vilau import check_fields, strict_config
from .vision_families_vilau import vision_family


# File of a checkpoint with its configuration.
CONFIG_NAME = "config.json"

_SIGLIP_LARGE_256 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 256,
    "patch_size": 16,
}


# `model_type` in the configuration files of the original release: of the release folder and of its sub-folders.
ORIGINAL_MODEL_TYPES = ("vila_u_llama", "rqvaesigliptransformer_model", "v2l_projector")


def _original_layout_error(source: str | os.PathLike | None) -> ValueError:
    """Returns the error for a folder of the original release, which says how to convert it."""
    return ValueError(
        f"{source} has the layout of the original VILA-U release. Convert it once with `vilau convert {source} OUT`, "
        "or load it with `VilaUForConditionalGeneration.from_original`."
    )


class VilaUBaseConfig(PreTrainedConfig):
    """
    Base class of the configurations, which checks the ranges of their fields.

    It also rejects folders without a configuration file and folders of the original release.
    """

    def __post_init__(self, **kwargs: Any) -> None:
        # Before the base method, which builds nested configurations and computes with their sizes.
        check_fields(self.__dict__)
        super().__post_init__(**kwargs)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        Returns the fields in the configuration file of a checkpoint and the arguments that were not used.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): folder or name of the checkpoint.
            kwargs: arguments of the base method.

        Raises:
            OSError: if the checkpoint cannot be found, or is a folder without a configuration file.
            ValueError: if the file has no `model_type`, or the checkpoint has the layout of the original release.
        """
        # The base method would return the defaults, and so a 7B model with random weights.
        folder = Path(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
        if folder.is_dir() and not (folder / CONFIG_NAME).is_file():
            raise OSError(f"the checkpoint folder {folder} has no {CONFIG_NAME}: it was not written completely.")
        try:
            config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        except OSError as error:
            # Without a connection, the message of the library does not have the name of the checkpoint (5.24.0).
            if str(pretrained_model_name_or_path) in str(error):
                raise
            raise OSError(
                f"Cannot load {CONFIG_NAME} of the checkpoint {str(pretrained_model_name_or_path)!r}: {error}"
            ) from error
        except TypeError:  # the library searches for a key in a value that is no dictionary
            config_dict = {}
        # Without this key a file of another kind would give the defaults.
        if not isinstance(config_dict, dict) or "model_type" not in config_dict:
            raise ValueError(
                f"{CONFIG_NAME} of {pretrained_model_name_or_path} must hold fields by name, with `model_type`."
            )
        if config_dict.get("model_type") in ORIGINAL_MODEL_TYPES:
            raise _original_layout_error(pretrained_model_name_or_path)
        return config_dict, kwargs


@strict_config
class VilaUVisionConfig(VilaUBaseConfig):
    r"""
    Configuration of the unified vision tower: image encoder, residual quantizer and pixel decoder.

    The defaults are those of the published 256-pixel model.

    encoder_config ([`PreTrainedConfig`], *optional*, defaults to SigLIP-Large/16 at 256 pixels): the image encoder, a
        vision model of a family in `VISION_FAMILIES`. The quantizer reads the output of its second-to-last layer.
    text_config ([`SiglipTextConfig`], *optional*): the aligned text encoder, which only the tower for pre-training
        uses.
    codebook_size (`int`, *optional*, defaults to 16384): number K of code embeddings.
    code_depth (`int`, *optional*, defaults to 4): number D of codes per visual token.
    shared_codebook (`bool`, *optional*, defaults to `True`): one codebook for all depths, or one for each.
    codebook_decay (`float`, *optional*, defaults to 0.99): decay of the moving averages that train the codebook.
    codebook_epsilon (`float`, *optional*, defaults to 1e-5): Laplace smoothing of the cluster sizes.
    codebook_initialization (`str`, *optional*, defaults to `"random"`): how the first training batch fills the
        codebook: `"random"` takes vectors of the batch, `"kmeans"` the centroids of its clusters.
    restart_unused_codes (`bool`, *optional*, defaults to `True`): replace a code whose average cluster size falls
        below 1 with a random vector of the batch.
    latent_channels (`int`, *optional*, defaults to 256): channels of the pixel decoder's input.
    block_out_channels (`list[int]`, *optional*, defaults to `[128, 128, 256, 256, 512]`): channels of the pixel
        decoder's levels, from the highest to the lowest resolution.
    up_block_types (`list[str]`, *optional*): diffusers' block types of the levels, from the lowest to the highest
        resolution. By default only the lowest level has attention.
    layers_per_block (`int`, *optional*, defaults to 2): residual blocks of a level besides its first one, at least 0.
    norm_num_groups (`int`, *optional*, defaults to 32): groups of the pixel decoder's group normalisation.
    decoder_latent_size (`int`, *optional*): side of the grid that the pixel decoder reads, by default the image
        encoder's. Quantized features are resized to it bilinearly.
    contrastive_loss_type (`str`, *optional*, defaults to `"sigmoid"`): SigLIP's `"sigmoid"` or CLIP's `"softmax"`.
    contrastive_loss_weight, reconstruction_loss_weight (`float`, *optional*, defaults to 1.0): weights of the two
        losses of pre-training.
    mse_loss_weight, l1_loss_weight, commitment_loss_weight (`float`, *optional*, default to 1.0, 0.0, 0.25): weights
        inside the reconstruction loss. A loss of weight 0 is not computed.
    """

    model_type = "vilau_vision"
    base_config_key = "vision_config"
    # `Trainer` gathers outputs over a whole evaluation set. Losses have no rows, and pixels are too large.
    keys_to_ignore_at_inference = [
        "contrastive_loss",
        "reconstruction_loss",
        "commitment_loss",
        "perceptual_loss",
        "adversarial_loss",
        "adversarial_weight",
        "discriminator_loss",
        "reconstruction",
    ]
    sub_configs_defaults = {
        # A configuration file without `model_type` here is SigLIP's.
        "encoder_config": SubConfigSpec(
            config_class=AutoConfig, model_type=SiglipVisionConfig.model_type, init_kwargs=_SIGLIP_LARGE_256
        ),
        "text_config": SubConfigSpec(config_class=SiglipTextConfig, optional=True),
    }

    # The library turns dicts into configurations when it builds the object, and type checkers cannot know this.
    if TYPE_CHECKING:
        encoder_config: PreTrainedConfig
        text_config: PreTrainedConfig  # or `None`, which towers for pre-training reject
    else:
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
    # `None` is replaced by the default for the number of levels
    if TYPE_CHECKING:
        up_block_types: list[str] | tuple[str, ...]
    else:
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

    def __post_init__(self, **kwargs: Any) -> None:
        if self.up_block_types is None:
            self.up_block_types = ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * (len(self.block_out_channels) - 1)
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Returns the code dimension C, the width of the image encoder."""
        return self.encoder_config.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Returns the number of image encoder layers that run before the quantizer."""
        return self.encoder_config.num_hidden_layers - 1

    @property
    def num_attention_heads(self) -> int:
        """Returns the number of attention heads of the image encoder."""
        return self.encoder_config.num_attention_heads

    @property
    def image_size(self) -> int:
        """Returns the side S of the input image in pixels."""
        return vision_family(self.encoder_config).image_size(self.encoder_config)

    @property
    def grid_size(self) -> int:
        """Returns the number of visual tokens along one side of an image."""
        return self.image_size // self.encoder_config.patch_size

    @property
    def num_visual_tokens(self) -> int:
        """Returns the number L of visual tokens of one image."""
        return self.grid_size**2

    @property
    def output_image_size(self) -> int:
        """Returns the side of a decoded image in pixels."""
        return (self.decoder_latent_size or self.grid_size) * 2 ** (len(self.block_out_channels) - 1)

    def validate_sizes(self) -> None:
        """Validates the sizes of the image encoder."""
        if self.encoder_config.num_hidden_layers < 2:
            raise ValueError(
                "`encoder_config.num_hidden_layers` must be at least 2 (the second-to-last layer gives the features), "
                f"got {self.encoder_config.num_hidden_layers}."
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`encoder_config.hidden_size` ({self.hidden_size}) must be a multiple of "
                f"`encoder_config.num_attention_heads` ({self.num_attention_heads})."
            )
        if self.image_size < self.encoder_config.patch_size:
            raise ValueError(
                f"`encoder_config.image_size` ({self.image_size}) must be at least "
                f"`encoder_config.patch_size` ({self.encoder_config.patch_size})."
            )

    def validate_choices(self) -> None:
        """Validates the fields that name one of several methods."""
        for name, choices in (
            ("codebook_initialization", ("random", "kmeans")),
            ("contrastive_loss_type", ("sigmoid", "softmax")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")

    def validate_pixel_decoder(self) -> None:
        """Validates the levels of the pixel decoder."""
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


@strict_config
class VilaUDepthConfig(VilaUBaseConfig):
    r"""
    Configuration of the depth transformer.

    It decodes the D codes of the next visual token from one hidden state of the language model. The defaults are
    those of the published 7B model.

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

    def validate_heads(self) -> None:
        """Validates that the attention heads divide the width."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `num_attention_heads` "
                f"({self.num_attention_heads})."
            )


@strict_config
class VilaUConfig(VilaUBaseConfig):
    r"""
    Configuration of VILA-U: vision tower, projector, language model and depth transformer.

    The defaults are those of the published 7B model at 256 pixels.

    vision_config ([`VilaUVisionConfig`], *optional*): the vision tower.
    depth_config ([`VilaUDepthConfig`], *optional*): the depth transformer.
    text_config ([`PreTrainedConfig`], *optional*, defaults to LLaMA-2-7B with 32,004 tokens): the language model, any
        causal language model of transformers that reads `inputs_embeds`.
    image_start_token_id, image_end_token_id (`int`, *optional*, default to 32000, 32001): markers around an image.
    video_start_token_id, video_end_token_id (`int`, *optional*, default to 32002, 32003): markers around a video.
    image_token_id, video_token_id (`int`, *optional*, default to 32004, 32005): placeholders of one visual token. They
        are never embedded, so they may be outside the vocabulary.
    start_marker_prefix_ids (`list[int]`, *optional*, defaults to none): ids that `generate` puts between a prompt and
        the start marker of an image or video.
    text_loss_weight, visual_loss_weight (`float`, *optional*, default to 1.0): weights of the two losses.
    tie_word_embeddings (`bool`, *optional*, defaults to `False`): share the weight of token embeddings and text head.
        The field of this name in `text_config` has no effect.

    Example:
    ```python
    >>> from vilau_hf import VilaUConfig

    >>> VilaUConfig().vision_config.num_visual_tokens
    256
    ```
    """

    model_type = "vilau"
    # `Trainer` gathers outputs over a whole evaluation set. The cache and the features are too large for that. The
    # losses are left out so that `compute_metrics` gets the logits alone.
    keys_to_ignore_at_inference = [*CACHE_NAMES, "image_outputs", "video_outputs", "text_loss", "visual_loss"]
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

    # as above: these are configurations once the object is built
    if TYPE_CHECKING:
        vision_config: VilaUVisionConfig
        depth_config: VilaUDepthConfig
        text_config: PreTrainedConfig
    else:
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

    def __post_init__(self, **kwargs: Any) -> None:
        if self.architectures is None:
            self.architectures = ["VilaUForConditionalGeneration"]
        super().__post_init__(**kwargs)

    def is_visual(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns a mask of the shape of `ids` that is true at the placeholders of visual tokens."""
        return (ids == self.image_token_id) | (ids == self.video_token_id)

    def validate_sub_configs(self) -> None:
        """Validates that the sizes that two sub-models share are equal."""
        vision = self.vision_config
        depth = self.depth_config
        text = self.text_config
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

    def validate_special_tokens(self) -> None:
        """Validates that markers are in the vocabulary, and that markers and placeholders differ."""
        names = [f"{kind}_{role}" for kind in ("image", "video") for role in ("start_token_id", "end_token_id")]
        for name in names:
            if not 0 <= getattr(self, name) < self.text_config.vocab_size:
                raise ValueError(
                    f"`{name}` ({getattr(self, name)}) must be in the vocabulary, [0, `text_config.vocab_size`) = "
                    f"[0, {self.text_config.vocab_size})."
                )
        pad = self.text_config.pad_token_id
        # torch counts negative ids from the end of the vocabulary
        if pad is not None and not -self.text_config.vocab_size <= pad < self.text_config.vocab_size:
            raise ValueError(
                f"`text_config.pad_token_id` must be in the vocabulary, [0, {self.text_config.vocab_size}), got {pad}."
            )
        seen: dict[int, str] = {}
        for name in [*names, "image_token_id", "video_token_id"]:
            value = getattr(self, name)
            if value in seen:
                raise ValueError(f"`{name}` and `{seen[value]}` must differ, both are {value}.")
            seen[value] = name
        outside = [index for index in self.start_marker_prefix_ids if index >= self.text_config.vocab_size]
        if outside:
            raise ValueError(
                f"`start_marker_prefix_ids` must be in the vocabulary, [0, {self.text_config.vocab_size}), got "
                f"{outside}."
            )


class VilaUOriginalConfig(VilaUBaseConfig):
    """
    Configuration of the original release, which always raises an error at loading.

    It is registered so that auto classes raise an error that says how to convert the release.
    """

    model_type = "vila_u_llama"

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> NoReturn:
        """Raises a `ValueError` that says how to convert the release."""
        raise _original_layout_error(kwargs.get("name_or_path"))


__all__ = ["VilaUConfig", "VilaUDepthConfig", "VilaUOriginalConfig", "VilaUVisionConfig"]
