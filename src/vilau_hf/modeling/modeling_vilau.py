# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""VILA-U: a language model that reads and writes visual tokens."""

import torch
from torch import nn
from transformers import AutoModel, Cache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .compat_modeling_vilau import CACHE_NAME, CACHE_NAMES, cache_arguments, can_return_tuple, torch_compilable_check
from .configuration_vilau import VilaUConfig
from .distributed_vilau import largest_of_ranks
from .generation_vilau import VilaUGenerationMixin
from .losses_vilau import code_loss
from .modeling_depth_transformer import VilaUDepthTransformer
from .modeling_vision_tower import FLOAT32_MODULES, VilaUVisionTower, VilaUVisionTowerOutput, rounded_dtype
from .module_bases_vilau import LibraryInitialization
from .outputs_vilau import VilaUCausalLMOutputWithPast, VilaUModelOutputWithPast, VisualSpan, frames_to_videos, rows_of
from .scoring_vilau import VilaUScoringMixin


# patterns for `modules_to_not_convert` and the like of quantization configs: a list given there replaces the library's
# own, so it names the head too. What is left are the layers of the language model.
VILAU_SKIP_MODULES = ["lm_head", "depth_transformer", r"(.*\.)?multi_modal_projector", r"(.*\.)?vision_tower"]


class VilaUMultiModalProjector(nn.Module):
    """Two-layer GELU MLP from the code dimension C to the language model's width H."""

    def __init__(self, config: VilaUConfig):
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, width)
        self.activation = nn.GELU()
        self.linear_2 = nn.Linear(width, width)

    def forward(self, quantized: torch.Tensor) -> torch.Tensor:
        return self.linear_2(self.activation(self.linear_1(quantized.to(self.linear_1.weight.dtype))))


class VilaUPreTrainedModel(LibraryInitialization, PreTrainedModel):
    """Weights, loading and dtype rules of the complete model."""

    config_class = VilaUConfig
    config: VilaUConfig
    base_model_prefix = "model"
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    # not the quantizer: it is read by methods beside its `forward`, for which FSDP2 would not gather it
    _no_split_modules = ["SiglipEncoderLayer", "VilaUDepthLayer", "LlamaDecoderLayer"]
    _keep_in_fp32_modules_strict = FLOAT32_MODULES
    # layers of the cache stay on the devices of their language model's layers
    _skip_keys_device_placement = list(CACHE_NAMES)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights; the tower's image encoder and quantizer stay in float32."""
        return rounded_dtype(self)


class VilaUModel(VilaUPreTrainedModel):
    r"""
    Vision tower, projector and language model, without heads.

    Args:
        config ([`VilaUConfig`]): sizes and token ids.
    """

    def __init__(self, config: VilaUConfig):
        super().__init__(config)
        self.vision_tower = VilaUVisionTower._from_config(config.vision_config)
        self.vision_tower.requires_grad_(False)  # nothing flows back through codes
        self.multi_modal_projector = VilaUMultiModalProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.language_model.set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): pixels in [-1, 1].
            kwargs: `output_hidden_states`, `output_attentions` for those of the image encoder.

        Returns:
            `last_hidden_state` `(N, L, C)`, the quantized features, and `pooler_output` `(N, L, H)`, what the language
            model reads.
        """
        features = self.vision_tower.get_image_features(pixel_values, return_dict=True, **kwargs)
        features.pooler_output = self.multi_modal_projector(features.last_hidden_state)
        return features

    @can_return_tuple
    def get_video_features(self, pixel_values_videos: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """
        Returns the features of videos `(V, F, 3, S, S)`, like `get_image_features`.

        `last_hidden_state` is `(V, F * L, C)`, `pooler_output` `(V, F * L, H)`. `hidden_states` and `attentions` are
        those of the frames, `(V * F, ...)`.
        """
        features = self.get_image_features(pixel_values_videos.flatten(0, 1), return_dict=True, **kwargs)
        return frames_to_videos(features, len(pixel_values_videos))

    @torch.no_grad()
    def get_visual_codes(
        self,
        input_ids: torch.LongTensor | None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        codes: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.LongTensor:
        """
        Codes at the placeholders of `input_ids`, -1 elsewhere.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): ids with one placeholder for each visual token.
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`, *optional*): images in order of their placeholders.
            pixel_values_videos (`torch.Tensor` of shape `(V, F, 3, S, S)`, *optional*): videos, likewise.
            codes (`torch.LongTensor` of shape `(N, L, D)`, *optional*): codes of all images and frames in order of
                their placeholders, in place of pixels.
            inputs_embeds (`torch.Tensor` of shape `(B, T, H)`, *optional*): embeddings of the ids, where those are
                not given.

        Returns:
            `torch.LongTensor` of shape `(B, T, D)`.

        Raises:
            ValueError: if placeholders and visual tokens differ in number, or `codes` are wrong in shape or range.
        """
        is_image, is_video = self._placeholders(input_ids, inputs_embeds)
        if codes is not None:
            if pixel_values is not None or pixel_values_videos is not None:
                raise ValueError("`codes` replace `pixel_values` and `pixel_values_videos`: give one or the other.")
            self.check_codes(codes)
            return self._place(self._empty_grid(is_image), is_image | is_video, codes, "codes")
        if pixel_values is None and pixel_values_videos is None:
            raise ValueError(
                f"the prompt holds {int((is_image | is_video).sum())} placeholders, but none of `pixel_values`, "
                "`pixel_values_videos` and `codes` is given."
            )
        codes = self._encode_pixels(pixel_values, pixel_values_videos).codes
        return self._place_pixel_codes(is_image, is_video, pixel_values, pixel_values_videos, codes)

    def _empty_grid(self, mask: torch.BoolTensor) -> torch.LongTensor:
        """Codes `(B, T, D)` of a batch without visual tokens, all -1; `mask` `(B, T)` gives rows and device."""
        shape = (*mask.shape, self.config.vision_config.code_depth)
        return torch.full(shape, -1, dtype=torch.long, device=mask.device)

    def _place_pixel_codes(self, is_image, is_video, pixel_values, pixel_values_videos, codes) -> torch.LongTensor:
        """Puts `codes` `(N + V * F, L, D)` of the pixels at their placeholders; `(B, T, D)`, -1 elsewhere."""
        grid = self._empty_grid(is_image)
        num_images = 0 if pixel_values is None else len(pixel_values)
        for mask, given, its_codes, name in (
            (is_image, pixel_values, codes[:num_images], "pixel_values"),
            (is_video, pixel_values_videos, codes[num_images:], "pixel_values_videos"),
        ):
            if given is not None:
                grid = self._place(grid, mask, its_codes, name)
            else:
                torch_compilable_check(
                    ~mask.any(),
                    lambda mask=mask, name=name: (
                        f"the prompt holds {mask.sum()} placeholders of `{name}`, which is not given."
                    ),
                )
        return grid

    @torch.no_grad()
    def _encode_pixels(self, pixel_values, pixel_values_videos, **kwargs) -> VilaUVisionTowerOutput:
        """
        Encodes images `(N, 3, S, S)` and the frames of videos `(V, F, 3, S, S)`, one of them optional, in this order.

        One call encodes all: where the tower's weights are in shards, every rank must call it equally often.
        """
        frames = None if pixel_values_videos is None else pixel_values_videos.flatten(0, 1)  # (V * F, 3, S, S)
        given = [pixels for pixels in (pixel_values, frames) if pixels is not None]
        for pixels in given:
            self.vision_tower.check_pixels(pixels)
        return self.vision_tower.encode(torch.cat(given), **kwargs)

    def _join_collective_encode(self, has_pixels: bool, device: torch.device):
        """Runs a dummy encode if the tower is sharded and only other ranks have pixels, so that collectives match."""
        if largest_of_ranks(int(has_pixels), self.vision_tower) and not has_pixels:
            side = self.config.vision_config.image_size
            with torch.no_grad():
                self.vision_tower.encode(torch.zeros(1, 3, side, side, device=device))

    def _placeholders(self, input_ids, inputs_embeds) -> tuple[torch.BoolTensor, torch.BoolTensor]:
        """
        Returns where placeholders of images and of videos stand, `(B, T)` each.

        Without ids a placeholder is known by its embedding.
        """
        token_ids = (self.config.image_token_id, self.config.video_token_id)
        if input_ids is not None:
            return tuple(input_ids == token_id for token_id in token_ids)
        table = self.get_input_embeddings()
        return tuple(
            (inputs_embeds == table(torch.tensor(token_id, device=inputs_embeds.device))).all(-1)
            if token_id < table.num_embeddings
            else torch.zeros(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
            for token_id in token_ids
        )

    def check_codes(self, codes: torch.LongTensor):
        """Raises a `ValueError` unless `codes` have shape `(N, L, D)` and are in range."""
        vision = self.config.vision_config
        expected = (vision.num_visual_tokens, vision.code_depth)
        if codes.ndim != 3 or codes.shape[1:] != expected or codes.is_floating_point():
            raise ValueError(
                f"`codes` must be integers of shape (N, {expected[0]}, {expected[1]}), got {codes.dtype} of shape "
                f"{tuple(codes.shape)}."
            )
        self.vision_tower.quantizer.check_range(codes)

    def _insert_features(self, inputs_embeds, is_image, is_video, features, num_images):
        """Puts `features.pooler_output` at the placeholders; of its rows the first `num_images` are images."""
        embedded = features.pooler_output.to(inputs_embeds.device, inputs_embeds.dtype)  # (N + V * F, L, H)
        inputs_embeds = inputs_embeds.masked_scatter(is_image[..., None], embedded[:num_images])
        return inputs_embeds.masked_scatter(is_video[..., None], embedded[num_images:])

    def _place(self, grid, mask, codes, name):
        num_tokens = codes.shape[0] * codes.shape[1]
        torch_compilable_check(
            mask.sum() == num_tokens,
            lambda: (
                f"`{name}` give {num_tokens} visual tokens ({codes.shape[0]} images or frames of {codes.shape[1]}), "
                f"but the prompt holds {mask.sum()} placeholders."
            ),
        )
        return grid.masked_scatter(mask[..., None], codes.to(grid.device, grid.dtype))

    def embed(self, input_ids: torch.LongTensor, visual_codes: torch.LongTensor | None = None) -> torch.Tensor:
        """Input embeddings `(B, T, H)`: those of `input_ids` `(B, T)`, or of `visual_codes` `(B, T, D)` where >= 0."""
        is_visual = self.config.is_visual(input_ids)
        embeds = self.get_input_embeddings()(input_ids.masked_fill(is_visual, 0))
        return embeds if visual_codes is None else self.place_codes(embeds, visual_codes, is_visual)

    def place_codes(
        self, inputs_embeds: torch.Tensor, visual_codes: torch.LongTensor, is_visual: torch.BoolTensor
    ) -> torch.Tensor:
        """`inputs_embeds` `(B, T, H)` with the embeddings of `visual_codes` `(B, T, D)` where `is_visual` `(B, T)`."""
        embedded = self.embed_codes(visual_codes[is_visual])  # (M, H)
        return inputs_embeds.masked_scatter(
            is_visual[..., None], embedded.to(inputs_embeds.device, inputs_embeds.dtype)
        )

    def embed_codes(self, codes: torch.LongTensor) -> torch.Tensor:
        """Language-model inputs `(..., H)` of visual tokens with `codes` `(..., D)`."""
        return self.multi_modal_projector(self.vision_tower.quantizer.decode(codes))

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        codes: torch.LongTensor | None = None,
        visual_codes: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> VilaUModelOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): text ids, a placeholder at each visual position.
            attention_mask (`torch.Tensor` of shape `(B, T)`): 1 for positions to attend to.
            position_ids (`torch.LongTensor` of shape `(B, T)`): positions of the tokens.
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`): images in [-1, 1], in order of their placeholders.
            pixel_values_videos (`torch.Tensor` of shape `(V, F, 3, S, S)`): videos in [-1, 1].
            codes (`torch.LongTensor` of shape `(N, L, D)`): codes in place of pixels; the tower is not run.
            visual_codes (`torch.LongTensor` of shape `(B, T, D)`): the same by position, as `get_visual_codes` gives.
            cache (`Cache`): keys and values of earlier positions.
            inputs_embeds (`torch.Tensor` of shape `(B, T, H)`): embeddings in place of `input_ids`.
            use_cache (`bool`): return the cache.
            past_key_values (`Cache`): the name of `cache` before transformers 5.24.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give one of `input_ids` and `inputs_embeds`.")
        cached = cache_arguments(cache, past_key_values)
        if use_cache is None and self.training and not any(each is not None for each in cached.values()):
            use_cache = False  # a cache would hide packed samples from the attention masks
        has_pixels = not (pixel_values is None and pixel_values_videos is None)
        if use_cache is False:
            self._join_collective_encode(has_pixels, (inputs_embeds if input_ids is None else input_ids).device)
        features = None
        if visual_codes is None and has_pixels and codes is None:
            is_image, is_video = self._placeholders(input_ids, inputs_embeds)
            # before the projector, as where codes or no images are given: ranks with shards call in the same order
            embeds = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
            wanted = {name: kwargs[name] for name in ("output_hidden_states", "output_attentions") if name in kwargs}
            encoded = self._encode_pixels(pixel_values, pixel_values_videos, **wanted)
            visual_codes = self._place_pixel_codes(
                is_image, is_video, pixel_values, pixel_values_videos, encoded.codes
            )
            features = BaseModelOutputWithPooling(
                last_hidden_state=encoded.quantized,
                pooler_output=self.embed_codes(encoded.codes),  # (N + V * F, L, H), with gradients for the projector
                hidden_states=encoded.hidden_states,
                attentions=encoded.attentions,
            )
            num_images = 0 if pixel_values is None else len(pixel_values)
            inputs_embeds = self._insert_features(embeds, is_image, is_video, features, num_images)
        elif visual_codes is None and codes is not None:
            visual_codes = self.get_visual_codes(input_ids, pixel_values, pixel_values_videos, codes, inputs_embeds)
        if inputs_embeds is None:
            inputs_embeds = self.embed(input_ids, visual_codes)
        elif visual_codes is not None and features is None:
            inputs_embeds = self.place_codes(inputs_embeds, visual_codes, visual_codes[..., 0] >= 0)
        if visual_codes is None and use_cache is False:
            # the projector is part of each training step on each rank, or distributed training waits for ever
            no_codes = torch.zeros(
                0, self.config.vision_config.code_depth, dtype=torch.long, device=inputs_embeds.device
            )
            inputs_embeds = inputs_embeds + self.embed_codes(no_codes).sum().to(inputs_embeds.dtype)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            return_dict=True,
            **cached,
            **kwargs,
        )
        return VilaUModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            visual_codes=visual_codes,
            image_outputs=None
            if pixel_values is None or features is None
            else rows_of(features, slice(0, num_images)),
            video_outputs=(
                None
                if pixel_values_videos is None or features is None
                else frames_to_videos(rows_of(features, slice(num_images, None)), len(pixel_values_videos))
            ),
            **{CACHE_NAME: outputs[CACHE_NAME] if CACHE_NAME in outputs else None},
        )


class VilaUForConditionalGeneration(VilaUPreTrainedModel, VilaUGenerationMixin, VilaUScoringMixin, GenerationMixin):
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

    output_modalities = ("text", "image")
    accepts_loss_kwargs = False  # `VilaUTrainer` counts labels and visual tokens apart; others average by batch
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    # code logits computed at once in a training step: 64 MiB in float32
    max_code_logits = 2**24

    def __init__(self, config: VilaUConfig):
        super().__init__(config)
        self.model = VilaUModel(config)
        self.depth_transformer = VilaUDepthTransformer._from_config(config.depth_config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()
        self.generation_config._from_model_config = False  # or a saved file's own fields are dropped at loading

    def get_input_embeddings(self):
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """As [`VilaUModel.get_image_features`]."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def get_video_features(self, pixel_values_videos: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """As [`VilaUModel.get_video_features`]."""
        return self.model.get_video_features(pixel_values_videos, **kwargs)

    @torch.no_grad()
    def decode_image_tokens(self, image_tokens: torch.LongTensor) -> torch.Tensor:
        """
        Pixels `(rows, 3, S', S')` in [-1, 1] of the code grids `(rows, h, w, D)` that `generate` returned.

        Raises:
            ValueError: for another shape, or codes out of range.
        """
        tower = self.model.vision_tower
        grid, depth = tower.config.grid_size, tower.config.code_depth
        if image_tokens.ndim != 4 or image_tokens.shape[1:] != (grid, grid, depth):
            raise ValueError(
                f"`image_tokens` must have shape (rows, {grid}, {grid}, {depth}), got {tuple(image_tokens.shape)}."
            )
        return tower.decode(image_tokens.flatten(1, 2)).clamp(-1, 1)

    @torch.no_grad()
    def decode_video_tokens(self, video_tokens: torch.LongTensor) -> torch.Tensor:
        """Pixels `(rows, F, 3, S', S')` in [-1, 1] of the code grids `(rows, F, h, w, D)` that `generate` returned."""
        if video_tokens.ndim != 5:
            raise ValueError(f"`video_tokens` must have shape (rows, F, h, w, D), got {tuple(video_tokens.shape)}.")
        rows = video_tokens.shape[0]
        return self.decode_image_tokens(video_tokens.flatten(0, 1)).unflatten(0, (rows, -1))

    @torch.no_grad()
    def decode_visual_spans(self, spans: list[list[VisualSpan]]) -> list[list[VisualSpan]]:
        """Gives the finished spans that `generate` returned in interleaved mode their `pixels`; returns them all."""
        finished = [span for row in spans for span in row if span.codes is not None]
        if finished:
            frames = [span.codes if span.kind == "video" else span.codes[None] for span in finished]
            pixels = self.decode_image_tokens(torch.cat(frames)).split([len(each) for each in frames])
            for span, each in zip(finished, pixels, strict=True):
                span.pixels = each if span.kind == "video" else each[0]
        return spans

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        codes: torch.LongTensor | None = None,
        visual_codes: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        output_code_logits: bool = False,
        num_text_items: torch.Tensor | int | None = None,
        num_visual_items: torch.Tensor | int | None = None,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> VilaUCausalLMOutputWithPast:
        """
        Inputs as for [`VilaUModel.forward`], and:

        Args:
            labels (`torch.LongTensor` of shape `(B, T)`): -100 where nothing is supervised, a text id where that text
                is the target, a placeholder id where the visual token there is the target.
            logits_to_keep (`int` or `torch.Tensor`): text logits for the last so many positions, 0 for all.
            output_code_logits (`bool`): return the code logits of the supervised visual tokens.
            num_text_items, num_visual_items (`torch.Tensor` or `int`): what the sums of the losses over text labels
                and over visual tokens are divided by, in place of this batch's own counts (gradient accumulation,
                data parallelism).
            kwargs: `output_hidden_states` and `output_attentions` of the language model among them, and `shift_labels`
                `(B, T)`, in place of `labels` what each position predicts. (Trainer takes named arguments for labels.)
        """
        shift_labels = kwargs.pop("shift_labels", None)
        if shift_labels is None and labels is not None:
            shift_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
        if shift_labels is not None:
            use_cache = False  # a cache would hide packed sequences from the attention masks
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
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        loss = text_loss = visual_loss = logits = code_logits = None
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

    def _losses(self, hidden_states, targets, visual_codes, num_text_items, num_visual_items, output_code_logits):
        """
        Cross-entropy over text (VILA-U, eq. 5) and over the codes at all depths (eq. 7); `targets` `(B, T)` say what
        each position predicts, which is the token after it.
        """
        targets = targets.to(hidden_states.device)
        is_visual = self.config.is_visual(targets)
        is_text = (targets != -100) & ~is_visual
        text_loss = self._text_loss(hidden_states[is_text], targets[is_text])
        text_loss = text_loss / self._count(is_text, num_text_items)
        if visual_codes is None:
            torch_compilable_check(
                ~is_visual.any(),
                lambda: f"`labels` ask for {is_visual.sum()} visual tokens, but neither pixels nor `codes` are given.",
            )
            visual_codes = targets.new_zeros(*targets.shape, self.config.depth_config.code_depth)
        next_codes = visual_codes.to(targets.device).roll(-1, dims=1)
        target_codes = next_codes[is_visual]  # (M, D)
        torch_compilable_check(
            (target_codes >= 0).all(),
            lambda: (
                f"`labels` hold a placeholder at {int((target_codes < 0).any(-1).sum())} positions where `input_ids` "
                "have no visual token: its codes are unknown."
            ),
        )
        visual_loss, code_logits = self._code_loss(hidden_states[is_visual], target_codes, output_code_logits)
        visual_loss = visual_loss / (self._count(is_visual, num_visual_items) * next_codes.shape[-1])
        return text_loss, visual_loss, code_logits

    @staticmethod
    def _count(mask, num_items):
        """What a summed loss is divided by: the global count if given, else this batch's own; never 0."""
        count = mask.sum() if num_items is None else torch.as_tensor(num_items, device=mask.device)
        return count.clamp(min=1)

    def _text_loss(self, text_hidden, target_ids):
        """Summed cross-entropy over `target_ids` `(number of text labels,)`."""
        return nn.functional.cross_entropy(self.lm_head(text_hidden).float(), target_ids, reduction="sum")

    def _code_loss(self, visual_hidden, target_codes, output_code_logits):
        """Summed cross-entropy over `target_codes` `(M, D)`, and the logits if they are asked for."""
        quantizer, max_logits = self.model.vision_tower.quantizer, self.max_code_logits
        return code_loss(
            self.depth_transformer, quantizer, visual_hidden, target_codes, max_logits, output_code_logits
        )


__all__ = ["VILAU_SKIP_MODULES", "VilaUForConditionalGeneration", "VilaUModel", "VilaUPreTrainedModel"]
