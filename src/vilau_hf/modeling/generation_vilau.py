# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Generation of text, images and videos: text by transformers' own loops, visual spans by depth decoding."""

import torch
from transformers import (
    Cache,
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    StaticCache,
    StoppingCriteriaList,
    StopStringCriteria,
    SuppressTokensLogitsProcessor,
)

from .compat_modeling_vilau import CACHE_NAME, rename_cache
from .generation_branches_vilau import BranchPrompt, VilaUSpanCache, reserve_marker_position
from .generation_decoding_vilau import VisualDecoding
from .generation_positions_vilau import PositionGraphs
from .generation_prompts_vilau import (
    check_first_frames,
    check_image_prompts,
    check_pictures,
    default_unconditional_ids,
    infer_attention_mask,
)
from .generation_sampling_vilau import VISUAL_GENERATION_DEFAULTS
from .generation_settings_vilau import (
    check_cache,
    check_common_arguments,
    check_compilable,
    check_mode,
    check_prefill,
    check_text_arguments,
    check_visual_arguments,
    collect_visual_settings,
    fix_lengths,
    limit_text_length,
    make_visual_settings,
    merge_generation_config,
    passed_settings,
    pop_input_ids,
    wanted_tokens,
)


# arguments of `generate` that hold the images and videos of the prompts: in the order of the prompts, and by position
_IN_ORDER = ("pixel_values", "pixel_values_videos", "codes")
_VISUAL_INPUTS = (*_IN_ORDER, "visual_codes")


class VilaUGenerationMixin:
    """`generate` of VILA-U; to stand before `GenerationMixin` in a class's bases."""

    # compiled positions, where `compile_generation` asked for them
    position_graphs: PositionGraphs | None = None

    def compile_generation(self, enabled: bool = True, **compile_kwargs):
        """
        Makes `generate` write each visual position as one compiled graph: a step of the language model and all depths,
        with a static cache; on CUDA one replay of a CUDA graph. The first picture of each batch shape and of each set
        of sampling settings waits for its compilation; its graph and cache are kept until the next call of this
        method. Guidance scales, seeds and prompts may change freely; lengths of prompts count in steps of 128.

        Args:
            enabled (`bool`, *optional*, defaults to `True`): `False` goes back to what runs without compilation.
            compile_kwargs: for `torch.compile`, by default `mode="reduce-overhead"`.

        Raises:
            ValueError: if parts of the model are offloaded.
        """
        devices = {str(device) for device in getattr(self, "hf_device_map", {}).values()}
        if enabled and len(devices) > 1 and devices & {"cpu", "disk"}:
            raise ValueError(
                f"a model with parts on {', '.join(sorted(devices))} cannot be compiled: offload nothing."
            )
        self.position_graphs = PositionGraphs(compile_kwargs or {"mode": "reduce-overhead"}) if enabled else None

    def generate(
        self,
        inputs: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        generation_mode: str | None = None,
        guidance_scale: float | list | torch.Tensor | None = None,
        image_guidance_scale: float | None = None,
        num_frames: int | None = None,
        first_frames: torch.Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        seed: int | list[int] | None = None,
        negative_prompt_ids: torch.LongTensor | None = None,
        negative_prompt_attention_mask: torch.Tensor | None = None,
        image_prompt_ids: torch.LongTensor | None = None,
        image_prompt_attention_mask: torch.Tensor | None = None,
        code_logits_processor: LogitsProcessorList | None = None,
        output_log_probs: bool = False,
        max_visual_spans: int | None = None,
        allowed_modalities: tuple[str, ...] | None = None,
        **kwargs,
    ):
        r"""
        Generates text, an image, a video, or text and visual spans in turn for each row of a left-padded batch of
        prompts.

        Args:
            inputs (`torch.LongTensor` of shape `(B, T)`, *optional*): the prompts; the same as `input_ids`.
            generation_config (`GenerationConfig`, *optional*): settings in place of the model's own. Visual sampling
                has names of its own: `visual_guidance_scale`, `visual_do_sample`, `visual_temperature`,
                `visual_top_k`, `visual_top_p`, `visual_min_p`, `num_frames`; each may also be given as an argument,
                temperature and truncation as lists with one entry for each depth. `guidance_scale` and, for an image
                or a video, `do_sample` may stand for those of codes.
            generation_mode (`str`, *optional*, defaults to `"text"`): `"text"`, `"image"`, `"video"` or
                `"interleaved"`, in which the model itself opens images and videos.
            guidance_scale (`float`, or a list or tensor of shape `(B,)` or `(1 or B, P)`, *optional*): strength of
                classifier-free guidance of codes, `uncond + scale * (cond - uncond)`; 1 turns it off. One for each
                row, or one for each of the P positions of a span.
            image_guidance_scale (`float`, *optional*): strength of guidance against the prompt's images alone, for
                editing: `uncond + image_scale * (image - uncond) + scale * (cond - image)`.
            num_frames (`int`, *optional*): frames of a video.
            first_frames (`torch.Tensor`, *optional*): what a video begins with: pixels `(1 or B, f, 3, S, S)` in
                [-1, 1] or codes `(1 or B, f, L, D)`.
            generator (`torch.Generator` or a list of one for each row, *optional*): source of the samples of codes,
                and of text in interleaved mode.
            seed (`int` or `list[int]`, *optional*): in place of `generator`: each row has a seed of its own (the n-th
                `seed + n`), so that its samples do not hang on its neighbours.
            negative_prompt_ids (`torch.LongTensor` of shape `(1 or B, Tn)`, *optional*): prompt of the unconditional
                branch; by default the checkpoint's `generation_config.unconditional_prompt_ids` (the processor's
                `unconditional_prompt_ids()`, what training has seen) or, where it has none, the bos token alone.
            negative_prompt_attention_mask (`torch.Tensor` of shape `(1 or B, Tn)`, *optional*): its mask.
            image_prompt_ids (`torch.LongTensor` of shape `(B, Ti)`, *optional*): the prompts without their text, with
                as many placeholders; for `image_guidance_scale`.
            image_prompt_attention_mask (`torch.Tensor` of shape `(B, Ti)`, *optional*): its mask.
            code_logits_processor (`LogitsProcessorList`, *optional*): for codes; called with the codes so far
                `(rows, d)` of a position and the guided logits `(rows, K)`.
            output_log_probs (`bool`, *optional*, defaults to `False`): return log-probabilities of the codes; of an
                image or a video with `return_dict_in_generate`.
            max_visual_spans (`int`, *optional*): images and videos a row may write in interleaved mode.
            allowed_modalities (`tuple[str]`, *optional*, defaults to all): what may be written in interleaved mode.
            streamer (*optional*): as for transformers' `generate`; its `put_visual(codes)` gets the codes `(rows, D)`
                of each visual position, -1 in rows that write none there. In image and video mode it may return codes
                `(rows, D)` in their place: the model goes on from these. In interleaved mode a text streamer without
                this method does too; `put(ids)` gets the ids `(rows,)` of each position at which some row writes text,
                with the placeholder for rows that draw there and padding for those that are done.
            kwargs: as for transformers' `generate`; pictures of the prompts as `pixel_values`, `pixel_values_videos`,
                `codes` or, by position, `visual_codes`; without `attention_mask` padding counts as in transformers. An
                image or a video has its fixed number of visual tokens: length arguments do not act on them, and
                `stopping_criteria` that stop a row leave its own unfinished, and the others go on. Text ends at the
                latest where the language model's positions do, those after the longest prompt, of guidance too.

        Returns:
            In text mode what transformers' `generate` returns; in interleaved mode a [`VilaUGenerateOutput`]; else the
            codes, `(rows, h, w, D)` of images or `(rows, F, h, w, D)` of videos, or with `return_dict_in_generate` a
            [`VilaUGenerateOutput`].

        Raises:
            ValueError: for an unknown mode, an argument of the wrong type or size, out of range or without effect in
                this mode, or a prompt, image or video beyond the language model's positions. It is raised before any
                work is done; only names that transformers does not know are found after images of a text prompt were
                encoded.
        """
        mode = generation_mode or "text"
        check_mode(mode)
        rename_cache(kwargs)
        own = {
            "guidance_scale": guidance_scale,
            "image_guidance_scale": image_guidance_scale,
            "num_frames": num_frames,
            "first_frames": first_frames,
            "generator": generator,
            "seed": seed,
            "negative_prompt_ids": negative_prompt_ids,
            "negative_prompt_attention_mask": negative_prompt_attention_mask,
            "image_prompt_ids": image_prompt_ids,
            "image_prompt_attention_mask": image_prompt_attention_mask,
            "code_logits_processor": code_logits_processor,
            "output_log_probs": output_log_probs or None,
            "max_visual_spans": max_visual_spans,
            "allowed_modalities": allowed_modalities,
            **{name: kwargs.pop(name) for name in VISUAL_GENERATION_DEFAULTS if name in kwargs},
        }
        own = {name: value for name, value in own.items() if value is not None}
        input_ids = pop_input_ids(inputs, kwargs)
        check_common_arguments(input_ids, own, generation_config, kwargs)
        if mode == "text":
            check_text_arguments(own)
            return self._generate_text(input_ids, generation_config, kwargs)
        check_visual_arguments(mode, input_ids, own, generation_config, kwargs)
        return self._generate_visual(mode, input_ids, own, generation_config, kwargs)

    def _generate_text(self, input_ids, generation_config, kwargs):
        """Generates text by transformers' own loops, which must not write visual tokens."""
        embeds = kwargs.get("inputs_embeds")
        given = input_ids if embeds is None else embeds
        length = 1 if given is None else given.shape[1]  # without a prompt the library begins with the bos token
        self._check_context(length, 1)
        room = self.config.text_config.max_position_embeddings - length
        generation_config = limit_text_length(generation_config, self.generation_config, kwargs, length, room)
        device = self.device if given is None else given.device  # weights may be offloaded
        kwargs["logits_processor"] = self._without_visual_ids(kwargs.pop("logits_processor", None), device)
        if input_ids is not None:
            kwargs["input_ids"] = input_ids
        check_prefill(generation_config, self.generation_config, kwargs, _VISUAL_INPUTS)
        self._encode_images(input_ids, kwargs)
        return super().generate(generation_config=generation_config, **kwargs)

    @torch.no_grad()
    def _encode_images(self, input_ids, kwargs):
        """
        Replaces images and videos in `kwargs` by their codes, which have a row for each prompt.

        The library repeats arguments row by row for beams and several results. Rows of pixels are images, of which a
        prompt may have none or many.
        """
        images = {name: kwargs.pop(name) for name in _IN_ORDER if kwargs.get(name) is not None}
        embeds = kwargs.get("inputs_embeds")
        if not images:
            return
        codes = self.model.get_visual_codes(input_ids, **images, inputs_embeds=embeds)
        if embeds is None:
            kwargs["visual_codes"] = codes
        else:
            kwargs["inputs_embeds"] = self.model.insert_codes(embeds, codes, codes[..., 0] >= 0)

    def _generate_visual(self, mode, input_ids, own, generation_config, kwargs):
        """Generates visual spans, alone or between text. The images of the prompts are read after all checks."""
        if self.position_graphs is not None:
            passed = passed_settings(generation_config, kwargs)
            check_compilable(own.get("code_logits_processor"), passed.get("cache_implementation"))
        values = collect_visual_settings(mode, own, kwargs, generation_config, self.generation_config)
        wanted = wanted_tokens((kwargs, generation_config), input_ids.shape[1])  # the checkpoint's own is for text
        merged, kwargs = merge_generation_config(mode, generation_config, self.generation_config, kwargs)
        check_cache(merged.cache_implementation, self.device)
        settings = make_visual_settings(self.config, mode, input_ids, own, values, merged)
        mask = kwargs.pop("attention_mask", None)
        images = {name: kwargs.pop(name) for name in _VISUAL_INPUTS if kwargs.get(name) is not None}
        check_pictures(self.model, input_ids, images)
        if settings.first_frames is not None:
            check_first_frames(self.model, settings.first_frames, settings)
        opened, mask = self._open_span(input_ids, self._mask_of(input_ids, mask, merged), mode)
        self._set_comparing_prompts(settings, opened, own, values, merged)
        self._check_branches_fit(settings, opened)
        room = self.config.text_config.max_position_embeddings - settings.longest
        fix_lengths(merged, mode, self._num_positions(settings), room if wanted is None else min(wanted, room))
        if "visual_codes" in images:
            codes, missing = images["visual_codes"].to(opened.device), opened.shape[1] - input_ids.shape[1]
            images["visual_codes"] = torch.nn.functional.pad(codes, (0, 0, 0, missing), value=-1)
        streamer, criteria = kwargs.get("streamer"), self._stop_strings(merged, kwargs.pop("tokenizer", None))
        cache = self._make_cache(merged, settings)
        if cache is not None:
            kwargs[CACHE_NAME] = cache
        decoding = VisualDecoding(settings, opened, images, streamer, criteria)
        return super().generate(
            generation_config=merged, input_ids=opened, attention_mask=mask, custom_generate=decoding, **kwargs
        )

    def _stop_strings(self, merged, tokenizer) -> StoppingCriteriaList:
        """Criteria of the `stop_strings` of interleaved output: the library hands a callable no tokenizer."""
        if not merged.stop_strings:
            return StoppingCriteriaList()
        if tokenizer is None:
            raise ValueError("`stop_strings` needs a tokenizer: pass `tokenizer=`, got None.")
        criterion = StopStringCriteria(tokenizer=tokenizer, stop_strings=merged.stop_strings)
        merged.fix(stop_strings=None)
        return StoppingCriteriaList([criterion])

    def _make_cache(self, merged, settings) -> Cache | None:
        """
        A cache for the prompts of all branches and what is generated, or `None` for kinds that grow as they are used.

        The library's own would have the size of the rows' own prompts.
        """
        kind = merged.cache_implementation
        if kind not in (None, "static", "offloaded_static"):
            return None
        merged.fix(cache_implementation=None)  # the library takes either a cache or the name of one
        config, capacity = self.config.text_config, settings.longest + merged.max_new_tokens
        if kind is not None:
            return StaticCache(config, max_cache_len=capacity, offloading=kind == "offloaded_static")
        whole = DynamicCache(config=config)
        # buffers of full length only where every layer attends to everything
        return whole if any(whole.is_sliding) else VilaUSpanCache(config.num_hidden_layers, capacity)

    def _mask_of(self, input_ids, mask, generation_config):
        """The mask that is given, or else what the library infers from padding."""
        return infer_attention_mask(input_ids, generation_config) if mask is None else mask

    def _set_comparing_prompts(self, settings, opened, own, values, generation_config):
        """What guidance compares with: the unconditional prompts and those of images alone."""
        if settings.guidance.num_branches > 1:
            ids, mask = own.get("negative_prompt_ids"), own.get("negative_prompt_attention_mask")
            if ids is not None:
                ids = ids.to(opened.device)
                mask = self._mask_of(ids, mask, generation_config)
            ids = self._unconditional_ids(ids, values, opened)
            settings.negative = BranchPrompt(*self._open_span(ids, mask, settings.mode, opened))
        if settings.guidance.image_scale is not None:
            ids = own.get("image_prompt_ids")
            check_image_prompts(self.config, ids, opened)
            ids = ids.to(opened.device)
            mask = self._mask_of(ids, own.get("image_prompt_attention_mask"), generation_config)
            settings.image_only = BranchPrompt(*self._open_span(ids, mask, settings.mode, opened))

    def _unconditional_ids(self, ids, saved, input_ids) -> torch.LongTensor:
        if ids is None:
            ids = torch.tensor([default_unconditional_ids(self.config, saved["unconditional_prompt_ids"])])
        if ids.ndim != 2 or ids.shape[0] not in (1, input_ids.shape[0]):
            raise ValueError(
                f"`negative_prompt_ids` must have shape (1 or {input_ids.shape[0]}, T), got {tuple(ids.shape)}."
            )
        return ids.to(input_ids.device)

    def _open_span(self, input_ids, mask, mode, like=None):
        """
        Ids and mask with the start marker at the end, appended with its prefix unless the prompts have it. In
        interleaved mode the model writes the marker; what stands beside prompts `like` has a place for those that end
        with one.
        """
        if mask is None:
            mask = torch.ones_like(input_ids)
        if mask.shape != input_ids.shape:
            raise ValueError(
                f"an attention mask must have the shape of its prompts, {tuple(input_ids.shape)}, got "
                f"{tuple(mask.shape)}."
            )
        config = self.config
        starts = {"image": config.image_start_token_id, "video": config.video_start_token_id}
        if mode == "interleaved":
            if like is None:
                return input_ids, mask
            prefix = config.start_marker_prefix_ids
            return reserve_marker_position(input_ids, mask, like[:, -1], [*starts.values()], [*prefix])
        start = starts[mode]
        open_rows = int((input_ids[:, -1] == start).sum())
        if open_rows not in (0, input_ids.shape[0]):
            raise ValueError(
                f"{open_rows} of {input_ids.shape[0]} prompts end with the start marker ({start}): all or none must."
            )
        added = [] if open_rows else [*config.start_marker_prefix_ids, start]
        opening = input_ids.new_tensor(added, dtype=torch.long).repeat(input_ids.shape[0], 1)
        return torch.cat([input_ids, opening], 1), torch.cat([mask, torch.ones_like(opening).to(mask.dtype)], 1)

    def _check_branches_fit(self, settings, input_ids):
        """The context must hold the longest prompt and, unless it is up to the model, the whole span."""
        prompts = (settings.negative, settings.image_only)
        lengths = [prompt.ids.shape[1] for prompt in prompts if prompt is not None]
        settings.longest = max(input_ids.shape[1], *lengths, 0)
        self._check_context(settings.longest, 1 if settings.mode == "interleaved" else self._num_positions(settings))

    def _num_positions(self, settings) -> int:
        return self.config.vision_config.num_visual_tokens * settings.num_frames

    def _check_context(self, length: int, num_new: int):
        limit = self.config.text_config.max_position_embeddings
        if length + num_new > limit:
            raise ValueError(
                f"the prompt of {length} tokens and {num_new} new ones exceed the language model's {limit} positions "
                "(`text_config.max_position_embeddings`)."
            )

    def _without_visual_ids(self, logits_processor, device):
        """Text mode must not write markers or placeholders: nothing there would decode them."""
        config = self.config
        ids = [config.image_token_id, config.video_token_id, config.image_start_token_id, config.image_end_token_id]
        ids += [config.video_start_token_id, config.video_end_token_id]
        ids = [index for index in ids if index < config.text_config.vocab_size]
        suppress = SuppressTokensLogitsProcessor(ids, device=device)
        return LogitsProcessorList([*(logits_processor or []), suppress])

    def prepare_inputs_for_generation(
        self, input_ids, visual_codes=None, is_first_iteration=False, inputs_embeds=None, **kwargs
    ):
        model_inputs = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, inputs_embeds=inputs_embeds, **kwargs
        )
        if visual_codes is not None and (is_first_iteration or kwargs.get(CACHE_NAME) is None):
            length = model_inputs["input_ids"].shape[1]
            missing = length - visual_codes.shape[1]
            if missing > 0:  # text that came after the prompt
                visual_codes = torch.nn.functional.pad(visual_codes, (0, 0, 0, missing), value=-1)
            model_inputs["visual_codes"] = visual_codes[:, -length:]
        return model_inputs


__all__ = ["VilaUGenerationMixin"]
