# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""VILA-U: a language model that understands and generates visual tokens."""

from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModel, Cache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .adapters_vilau import VilaUAdapterMixin
from .argument_checks_vilau import as_int64
from .compat_modeling_vilau import CACHE_NAME, CACHE_NAMES, cache_arguments, can_return_tuple
from .complete_loading_vilau import CompleteLoading
from .configuration_vilau import VilaUConfig
from .generation_vilau import VilaUGenerationMixin
from .modeling_depth_transformer import VilaUDepthTransformer
from .modeling_vision_tower import FLOAT32_MODULES, VilaUVisionTower, rounded_dtype
from .module_bases_vilau import LibraryInitialization
from .outputs_vilau import VilaUCausalLMOutputWithPast, VilaUModelOutputWithPast, frames_to_videos
from .scoring_vilau import VilaUScoringMixin
from .training_losses_vilau import VilaULossMixin
from .visual_inputs_vilau import VilaUVisualInputsMixin, split_features
from .visual_outputs_vilau import VilaUVisualOutputsMixin


# Patterns for `modules_to_not_convert` and similar lists of quantization configs. A list given there replaces the
# library's default, which holds the head, so the head is listed here. The layers of the language model remain.
VILAU_SKIP_MODULES = ["lm_head", "depth_transformer", r"(.*\.)?multi_modal_projector", r"(.*\.)?vision_tower"]


class VilaUMultiModalProjector(nn.Module):
    """Two-layer GELU MLP from the code dimension C to the language model's width H."""

    def __init__(self, config: VilaUConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, width)
        self.activation = nn.GELU()
        self.linear_2 = nn.Linear(width, width)

    def forward(self, quantized: torch.Tensor) -> torch.Tensor:
        """Projects `quantized` features `(..., C)` to input embeddings `(..., H)` of the language model."""
        # quantized features are float32, and the projector follows the dtype of the model
        return self.linear_2(self.activation(self.linear_1(quantized.to(self.linear_1.weight.dtype))))


class VilaUPreTrainedModel(CompleteLoading, LibraryInitialization, PreTrainedModel):
    """Initialisation, loading and dtype rules of the complete model."""

    config_class = VilaUConfig
    config: VilaUConfig
    base_model_prefix = "model"
    input_modalities = ("image", "video", "text")  # type: ignore[assignment]  # the library's models set tuples
    supports_gradient_checkpointing = True
    # Layers that stay on one device, and that FSDP2 gathers as a unit. Language models of other families add theirs.
    # The quantizer is not listed: FSDP2 gathers for `forward` only, and other methods read the codebook, too.
    _no_split_modules = ["SiglipEncoderLayer", "VilaUDepthLayer", "LlamaDecoderLayer"]
    # `from_pretrained(dtype=...)` casts weights while it loads them, which `Float32Module` does not see.
    _keep_in_fp32_modules_strict = FLOAT32_MODULES
    # With layers on several devices, accelerate moves arguments to the device of the called module. The cache is not
    # moved: its layers are on the devices of the language model's layers.
    _skip_keys_device_placement = list(CACHE_NAMES)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @property
    def dtype(self) -> torch.dtype:
        """Returns the dtype of the weights, except image encoder and quantizer, which stay in float32."""
        return rounded_dtype(self)


class VilaUModel(VilaUPreTrainedModel, VilaUVisualInputsMixin):
    r"""
    Vision tower, projector and language model, without heads.

    Args:
        config ([`VilaUConfig`]): sizes and token ids.
    """

    names_of_other_modules = (r"depth_transformer\.", r"lm_head\.")  # of the complete model

    def __init__(self, config: VilaUConfig) -> None:
        super().__init__(config)
        self.vision_tower = VilaUVisionTower._from_config(config.vision_config)
        # codes are integers: no gradient flows back through them
        self.vision_tower.requires_grad_(False)
        self.multi_modal_projector = VilaUMultiModalProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Returns the token embeddings of the language model."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embeddings of the language model."""
        self.language_model.set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: bool | None) -> BaseModelOutputWithPooling:
        """
        Returns the features of images and their embeddings.

        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): pixels in [-1, 1].
            kwargs: `output_hidden_states` and `output_attentions` of the image encoder.

        Returns:
            `last_hidden_state` `(N, L, C)`, the quantized features, and `pooler_output` `(N, L, H)`, the input
            embeddings of the language model.
        """
        features = self.vision_tower.get_image_features(pixel_values, return_dict=True, **kwargs)
        features.pooler_output = self.multi_modal_projector(features.last_hidden_state)
        return features

    @can_return_tuple
    def get_video_features(
        self, pixel_values_videos: torch.Tensor, **kwargs: bool | None
    ) -> BaseModelOutputWithPooling:
        """
        Returns the features of videos `(V, F, 3, S, S)`, like `get_image_features`.

        `last_hidden_state` is `(V, F * L, C)`, `pooler_output` `(V, F * L, H)`. `hidden_states` and `attentions` are
        those of the frames, `(V * F, ...)`.
        """
        features = self.get_image_features(pixel_values_videos.flatten(0, 1), return_dict=True, **kwargs)
        return frames_to_videos(features, len(pixel_values_videos))

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        codes: torch.Tensor | None = None,
        visual_codes: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        past_key_values: Cache | None = None,
        context_errors: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> VilaUModelOutputWithPast:
        """
        Runs the language model on text, images and videos.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): text ids, a placeholder at each visual position.
            attention_mask (`torch.Tensor` of shape `(B, T)`): 1 for positions to attend to.
            position_ids (`torch.LongTensor` of shape `(B, T)`): positions of the tokens.
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): images in [-1, 1], in order of their placeholders.
            pixel_values_videos (`torch.Tensor` of shape `(V, F, 3, S, S)`): videos in [-1, 1].
            codes (`torch.LongTensor` of shape `(N, L, D)`): codes instead of pixels; the tower does not run.
            visual_codes (`torch.LongTensor` of shape `(B, T, D)`): codes by position, as `get_visual_codes` returns
                them, instead of `codes`.
            cache (`Cache`): keys and values of earlier positions.
            inputs_embeds (`torch.Tensor` of shape `(B, T, H)`): embeddings instead of `input_ids`.
            use_cache (`bool`): return the cache.
            past_key_values (`Cache`): the name of `cache` before transformers 5.24.
            context_errors (`torch.BoolTensor` of shape `(B, T)`): visual positions that the language model reads as
                random codes. The codes of `visual_codes` in the output stay.
            kwargs: further arguments of the language model.

        Raises:
            ValueError: if both or none of `input_ids` and `inputs_embeds` are given, or visual inputs and placeholders
                do not match.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give one of `input_ids` and `inputs_embeds`.")
        cached = cache_arguments(cache, past_key_values)
        if visual_codes is not None:
            visual_codes = as_int64(visual_codes, "visual_codes")
        # Attention masks of packed samples are made from `position_ids` only if there is no cache.
        if use_cache is None and self.training and not any(each is not None for each in cached.values()):
            use_cache = False
        has_pixels = not (pixel_values is None and pixel_values_videos is None)
        # Without a cache this is a training step, which all ranks take together. In generation they do not.
        if use_cache is False:
            given = cast(torch.Tensor, inputs_embeds if input_ids is None else input_ids)  # one of them is not None
            self._join_collective_encode(has_pixels, given.device)
        features = None
        if visual_codes is None and codes is None and has_pixels:
            wanted = {name: kwargs[name] for name in ("output_hidden_states", "output_attentions") if name in kwargs}
            inputs_embeds, visual_codes, features = self._embed_pixels(
                input_ids, inputs_embeds, pixel_values, pixel_values_videos, **wanted
            )
        else:
            if visual_codes is None and codes is not None:
                visual_codes = self.get_visual_codes(
                    input_ids, pixel_values, pixel_values_videos, codes, inputs_embeds
                )
            if input_ids is not None:
                inputs_embeds = self.embed(input_ids, visual_codes)
            elif inputs_embeds is not None and visual_codes is not None:
                inputs_embeds = self.insert_codes(inputs_embeds, visual_codes, visual_codes[..., 0] >= 0)
        if context_errors is not None and visual_codes is not None and inputs_embeds is not None:
            size = self.config.vision_config.codebook_size
            random_codes = torch.randint(size, visual_codes.shape, device=visual_codes.device)
            inputs_embeds = self.insert_codes(inputs_embeds, random_codes, context_errors)
        # Every rank must use the projector in every training step: distributed training waits for its gradients.
        if visual_codes is None and inputs_embeds is not None and use_cache is False:
            inputs_embeds = self._call_projector_without_codes(inputs_embeds)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            return_dict=True,
            **cached,
            **kwargs,
        )
        image_outputs, video_outputs = split_features(features, pixel_values, pixel_values_videos)
        return VilaUModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            visual_codes=visual_codes,
            image_outputs=image_outputs,
            video_outputs=video_outputs,
            **{CACHE_NAME: outputs[CACHE_NAME] if CACHE_NAME in outputs else None},
        )


class VilaUForConditionalGeneration(
    VilaUAdapterMixin,
    VilaUPreTrainedModel,
    VilaULossMixin,
    VilaUVisualOutputsMixin,
    VilaUGenerationMixin,
    VilaUScoringMixin,
    GenerationMixin,
):
    r"""
    VILA-U with both heads: understands and generates text, images and videos.

    Args:
        config ([`VilaUConfig`]): sizes and token ids.

    Example:
    ```python
    >>> from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor

    >>> model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    >>> processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    >>> prompt = [{"role": "user", "content": "a small red cross at the bottom on a white background"}]
    >>> inputs = processor.apply_chat_template(
    ...     prompt, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    ... )
    >>> codes = model.generate(**inputs, generation_mode="image")
    >>> codes.shape
    torch.Size([1, 8, 8, 4])
    >>> image = processor.post_process_multimodal_output(model.decode_image_tokens(codes), generation_mode="image")[0]
    ```
    """

    output_modalities = ("text", "image")  # type: ignore[assignment]  # the library's models set tuples of any length
    # `VilaUTrainer` counts text labels and visual tokens separately. Other trainers average over the batch.
    accepts_loss_kwargs = False
    # Plans for tensor parallelism, pipeline parallelism and FSDP of the head. The language model has its plans.
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}  # type: ignore[dict-item]  # as in the library's models
    _fsdp_plan = {"lm_head": "keep_full_weight"}
    # Names of LLaMA-like language models. The constructor sets those of the configured one.
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: VilaUConfig) -> None:
        super().__init__(config)
        self.model = VilaUModel(config)
        self.depth_transformer = VilaUDepthTransformer._from_config(config.depth_config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        # Must precede `post_init`, which reads it. GPT-2, for example, has `wte` instead of `embed_tokens`.
        self._tied_weights_keys = {"lm_head.weight": f"{self._name_of(self.get_input_embeddings())}.weight"}
        self.post_init()
        # If true, loading drops the fields of ours in generation_config.json.
        self.generation_config._from_model_config = False

    def _name_of(self, wanted: nn.Module) -> str:
        """Returns the name of a module of this model."""
        return next(name for name, module in self.named_modules() if module is wanted)

    def get_input_embeddings(self) -> nn.Embedding:
        """Returns the token embeddings of the language model."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embeddings of the language model."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Returns the text head."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replaces the text head."""
        self.lm_head = value

    @torch.no_grad()
    def load_language_model(self, language_model: PreTrainedModel) -> None:
        """
        Copies the weights of a causal language model of transformers into this model.

        Text logits are then those of the language model, unless it scales or clips the output of its head.

        Args:
            language_model ([`PreTrainedModel`]): a model with a head, of the sizes in `config.text_config`. Call its
                `resize_token_embeddings(config.text_config.vocab_size)` first if it lacks the visual markers.

        Raises:
            ValueError: if its vocabulary has another size or its head has a bias. Also if only this model shares the
                weight of embeddings and head.
        """
        embeddings = language_model.get_input_embeddings().get_parameter("weight")
        head = language_model.get_output_embeddings()
        head_weight = head.get_parameter("weight")
        vocabulary = self.config.text_config.vocab_size
        if len(head_weight) != vocabulary or len(embeddings) != vocabulary:
            raise ValueError(
                f"`language_model` must have `text_config.vocab_size` ({vocabulary}) tokens, got "
                f"{len(embeddings)} embeddings and {len(head_weight)} logits. Call `resize_token_embeddings`."
            )
        if getattr(head, "bias", None) is not None:
            raise ValueError("`language_model` must have a head without bias, which the head of VILA-U has not.")
        if self.config.tie_word_embeddings and head_weight is not embeddings:
            raise ValueError(
                "`language_model` must share the weight of embeddings and head because `config.tie_word_embeddings` "
                "is True."
            )
        self.model.language_model.load_state_dict(language_model.base_model.state_dict())
        self.lm_head.load_state_dict(head.state_dict())

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: bool | None) -> BaseModelOutputWithPooling:
        """Returns the same as [`VilaUModel.get_image_features`]."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def get_video_features(
        self, pixel_values_videos: torch.Tensor, **kwargs: bool | None
    ) -> BaseModelOutputWithPooling:
        """Returns the same as [`VilaUModel.get_video_features`]."""
        return self.model.get_video_features(pixel_values_videos, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        codes: torch.Tensor | None = None,
        visual_codes: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        output_code_logits: bool = False,
        num_text_items: torch.Tensor | int | None = None,
        num_visual_items: torch.Tensor | int | None = None,
        past_key_values: Cache | None = None,
        context_errors: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> VilaUCausalLMOutputWithPast:
        """
        Computes text logits, and the losses if labels are given.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): text ids, a placeholder at each visual position.
            attention_mask (`torch.Tensor` of shape `(B, T)`): 1 for positions to attend to.
            position_ids (`torch.LongTensor` of shape `(B, T)`): positions of the tokens.
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): images in [-1, 1], in order of their placeholders.
            pixel_values_videos (`torch.Tensor` of shape `(V, F, 3, S, S)`): videos in [-1, 1].
            codes (`torch.LongTensor` of shape `(N, L, D)`): codes instead of pixels; the tower does not run.
            visual_codes (`torch.LongTensor` of shape `(B, T, D)`): codes by position, instead of `codes`.
            cache (`Cache`): keys and values of earlier positions.
            inputs_embeds (`torch.Tensor` of shape `(B, T, H)`): embeddings instead of `input_ids`.
            labels (`torch.LongTensor` of shape `(B, T)`): a text id where this text is the target, a placeholder id
                where the visual token is the target, and -100 elsewhere.
            use_cache (`bool`): return the cache.
            logits_to_keep (`int` or `torch.Tensor`): number of last positions with text logits, or 0 for all; a tensor
                selects positions.
            output_code_logits (`bool`): return the code logits of the visual tokens that are targets.
            num_text_items (`torch.Tensor` or `int`): divisor of the summed loss over text labels. By default this
                batch is counted. Gradient accumulation and data parallelism need the count of all batches.
            num_visual_items (`torch.Tensor` or `int`): the same for visual tokens.
            past_key_values (`Cache`): the name of `cache` before transformers 5.24.
            context_errors (`torch.BoolTensor` of shape `(B, T)`): visual positions that the language model reads as
                random codes, while the loss is for the right ones.
            kwargs: further arguments of the language model, such as `output_hidden_states`. Also `shift_labels`
                `(B, T)`: the target of each position, instead of `labels`.
        """
        # Not a named argument, because Trainer takes every argument with "label" in its name for labels.
        shift_labels = kwargs.pop("shift_labels", None)
        if shift_labels is None and labels is not None:
            shift_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
        # Attention masks of packed samples are made from `position_ids` only if there is no cache.
        if shift_labels is not None:
            use_cache = False
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            codes=codes,
            visual_codes=visual_codes,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            cache=cache,
            past_key_values=past_key_values,
            context_errors=context_errors,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        loss = text_loss = visual_loss = logits = code_logits = None
        # A training step computes the text logits in `_losses`, at labelled positions only.
        if shift_labels is None or not self.training:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden_states[:, kept])
        if shift_labels is not None:
            text_loss, visual_loss, code_logits = self._losses(
                hidden_states, shift_labels, outputs.visual_codes, num_text_items, num_visual_items, output_code_logits
            )
            loss = self.config.text_loss_weight * text_loss + self.config.visual_loss_weight * visual_loss
        return VilaUCausalLMOutputWithPast(
            loss=loss,
            text_loss=text_loss,
            visual_loss=visual_loss,
            logits=logits,
            code_logits=code_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_outputs=outputs.image_outputs,
            video_outputs=outputs.video_outputs,
            **{CACHE_NAME: outputs[CACHE_NAME] if CACHE_NAME in outputs else None},
        )


__all__ = ["VILAU_SKIP_MODULES", "VilaUForConditionalGeneration", "VilaUModel", "VilaUPreTrainedModel"]
