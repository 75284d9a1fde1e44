# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Generation of text, images and videos: text by transformers' own loops, visual spans by depth decoding."""

import copy

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    StaticCache,
    SuppressTokensLogitsProcessor,
)

from .depth_decoding_vilau import CodeInputs, DepthDecoder
from .outputs_vilau import VilaUGenerateOutput
from .scoring_vilau import default_unconditional_ids
from .span_cache_vilau import VilaUSpanCache
from .visual_positions_vilau import PositionGraphs, PositionWriter
from .visual_prompts_vilau import (
    check_first_frames,
    check_image_prompts,
    check_pictures,
    encode_first_frames,
    move_codes,
)
from .visual_sampling_vilau import VISUAL_GENERATION_DEFAULTS
from .visual_settings_vilau import (
    check_cache,
    check_common_arguments,
    check_compilable,
    check_mode,
    check_text_arguments,
    check_visual_arguments,
    keep_to_sampling,
    make_visual_settings,
    passed_settings,
    set_lengths,
    take_input_ids,
    take_visual_settings,
    wanted_tokens,
)
from .visual_streams_vilau import StreamPrompt, Streams, hold_place_for_markers
from .visual_writing_vilau import InterleavedWriter, write_span


class VilaUGenerationMixin:
    """`generate` of VILA-U; to stand before `GenerationMixin` in a class's bases."""

    _position_graphs: PositionGraphs | None = None

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
        self._position_graphs = PositionGraphs(compile_kwargs or {"mode": "reduce-overhead"}) if enabled else None

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
                stream; by default the checkpoint's `generation_config.unconditional_prompt_ids` (the processor's
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
                this mode, or a prompt, image or video beyond the language model's positions; before any work is done.
        """
        mode = generation_mode or "text"
        check_mode(mode)
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
        input_ids = take_input_ids(inputs, kwargs)
        check_common_arguments(input_ids, own, generation_config, kwargs)
        if mode == "text":
            check_text_arguments(own)
            return self._generate_text(input_ids, generation_config, kwargs)
        check_visual_arguments(mode, input_ids, own, generation_config, kwargs)
        return self._generate_visual(mode, input_ids, own, generation_config, kwargs)

    def _generate_text(self, input_ids, generation_config, kwargs):
        """Transformers' own loops, which must not write visual tokens."""
        given = next((x for x in (input_ids, kwargs.get("inputs_embeds")) if x is not None), None)
        self._check_context(0 if given is None else given.shape[1], 1)
        device = self.device if given is None else given.device  # weights may be offloaded
        kwargs["logits_processor"] = self._without_visual_ids(kwargs.pop("logits_processor", None), device)
        if input_ids is not None:
            kwargs["input_ids"] = input_ids
        return super().generate(generation_config=generation_config, **kwargs)

    def _generate_visual(self, mode, input_ids, own, generation_config, kwargs):
        """Visual spans, alone or between text. Only what the library's `generate` does at last reads pictures."""
        if self._position_graphs is not None:
            passed = passed_settings(generation_config, kwargs)
            check_compilable(own.get("code_logits_processor"), passed.get("cache_implementation"))
        values = take_visual_settings(mode, own, kwargs, generation_config, self.generation_config)
        wanted = wanted_tokens((kwargs, generation_config), input_ids.shape[1])  # the checkpoint's own is for text
        config, kwargs = self._merge_settings(mode, generation_config, kwargs)
        check_cache(config.cache_implementation, self.device)
        settings = make_visual_settings(self.config, mode, input_ids, own, values, config)
        mask = kwargs.pop("attention_mask", None)
        self._prepare_special_tokens(config, mask is not None, input_ids.device, len(input_ids))
        check_pictures(self.model, input_ids, kwargs)
        if settings.first_frames is not None:
            check_first_frames(self.model, settings.first_frames, settings)
        opened, mask = self._open_span(input_ids, self._mask_of(input_ids, mask, config), mode)
        self._set_comparing_prompts(settings, opened, own, values, config)
        self._check_streams_fit(settings, opened)
        room = self.config.text_config.max_position_embeddings - settings.longest
        set_lengths(config, settings, self._num_positions(settings), room if wanted is None else min(wanted, room))
        if kwargs.get("visual_codes") is not None:
            codes, missing = kwargs["visual_codes"].to(opened.device), opened.shape[1] - input_ids.shape[1]
            kwargs["visual_codes"] = torch.nn.functional.pad(codes, (0, 0, 0, missing), value=-1)
        return super().generate(
            generation_config=config, input_ids=opened, attention_mask=mask, visual_settings=settings, **kwargs
        )

    def _merge_settings(self, mode, generation_config, kwargs) -> tuple[GenerationConfig, dict]:
        """One generation config of what the call, its own config and the checkpoint's say; and the other arguments."""
        if mode != "interleaved":  # codes have `visual_do_sample`; of greedy text the library repeats no prompt
            kwargs.pop("do_sample", None)
            if generation_config is None:
                kwargs["do_sample"] = True
            else:
                generation_config = copy.deepcopy(generation_config)
                generation_config.do_sample = True
        config, kwargs = self._prepare_generation_config(generation_config, **kwargs)
        keep_to_sampling(config, mode)
        return config, kwargs

    def _mask_of(self, input_ids, mask, generation_config):
        """The mask that is given, or else what the library infers from padding."""
        if mask is not None:
            return mask
        return self._prepare_attention_mask_for_generation(input_ids, generation_config, {})

    def _set_comparing_prompts(self, settings, opened, own, values, generation_config):
        """What guidance compares with: the unconditional prompts and those of images alone."""
        if settings.guidance.num_streams > 1:
            ids, mask = own.get("negative_prompt_ids"), own.get("negative_prompt_attention_mask")
            if ids is not None:
                ids = ids.to(opened.device)
                mask = self._mask_of(ids, mask, generation_config)
            ids = self._unconditional_ids(ids, values, opened)
            settings.negative = StreamPrompt(*self._open_span(ids, mask, settings.mode, opened))
        if settings.guidance.image_scale is not None:
            ids = own.get("image_prompt_ids")
            check_image_prompts(self.config, ids, opened)
            ids = ids.to(opened.device)
            mask = self._mask_of(ids, own.get("image_prompt_attention_mask"), generation_config)
            settings.image_only = StreamPrompt(*self._open_span(ids, mask, settings.mode, opened))

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
            return hold_place_for_markers(input_ids, mask, like[:, -1], [*starts.values()], [*prefix])
        start = starts[mode]
        open_rows = int((input_ids[:, -1] == start).sum())
        if open_rows not in (0, input_ids.shape[0]):
            raise ValueError(
                f"{open_rows} of {input_ids.shape[0]} prompts end with the start marker ({start}): all or none must."
            )
        added = [] if open_rows else [*config.start_marker_prefix_ids, start]
        opening = input_ids.new_tensor(added, dtype=torch.long).repeat(input_ids.shape[0], 1)
        return torch.cat([input_ids, opening], 1), torch.cat([mask, torch.ones_like(opening).to(mask.dtype)], 1)

    def _check_streams_fit(self, settings, input_ids):
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

    def _prepare_generation_config(self, generation_config, **kwargs):
        if kwargs.get("visual_settings") is not None:  # it was merged for the checks
            return generation_config, kwargs
        return super()._prepare_generation_config(generation_config, **kwargs)

    def _prepare_model_inputs(self, inputs=None, bos_token_id=None, model_kwargs=None):
        """Pictures become codes; all that can be wrong with a call was found before."""
        names = ("pixel_values", "pixel_values_videos", "codes")
        given = {name: model_kwargs.pop(name) for name in names if name in model_kwargs}
        ids, embeds = model_kwargs.get("input_ids"), model_kwargs.get("inputs_embeds")
        if any(value is not None for value in given.values()):
            codes = self.model.get_visual_codes(ids, **given, inputs_embeds=embeds)
            if embeds is None:
                model_kwargs["visual_codes"] = codes  # a row for each prompt, which repeats with it
            else:
                model_kwargs["inputs_embeds"] = self.model.place_codes(embeds, codes, codes[..., 0] >= 0)
        settings, codes = model_kwargs.get("visual_settings"), model_kwargs.get("visual_codes")
        if settings is not None and settings.image_only is not None and codes is not None:
            settings.image_only.visual_codes = move_codes(self.config, codes, settings.image_only.ids)
        if settings is not None and settings.first_frames is not None:
            settings.first_codes = encode_first_frames(self.model, settings.first_frames)
        return super()._prepare_model_inputs(inputs, bos_token_id, model_kwargs)

    def _prepare_generated_length(self, generation_config, input_ids_length, inputs_tensor, **kwargs):
        """Text ends where the language model's positions do."""
        config = super()._prepare_generated_length(
            generation_config=generation_config,
            input_ids_length=input_ids_length,
            inputs_tensor=inputs_tensor,
            **kwargs,
        )
        room = self.config.text_config.max_position_embeddings - inputs_tensor.shape[1]
        config.max_length = min(config.max_length, input_ids_length + room)
        return config

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, generation_mode, batch_size, max_length):
        settings, kind = model_kwargs.get("visual_settings"), generation_config.cache_implementation
        if settings is None or kind not in (None, "static", "offloaded_static"):
            return super()._prepare_cache_for_generation(
                generation_config, model_kwargs, generation_mode, batch_size, max_length
            )
        # the library's own would hold but the rows' own prompts
        config, capacity = self.config.text_config, settings.longest + generation_config.max_new_tokens
        whole = DynamicCache(config=config)
        if kind is not None:
            cache = StaticCache(config, max_cache_len=capacity, offloading=kind == "offloaded_static")
        elif any(whole.is_sliding):
            cache = whole
        else:  # every layer attends to everything
            cache = VilaUSpanCache(config.num_hidden_layers, capacity)
        model_kwargs["past_key_values"] = cache

    def _validate_model_kwargs(self, model_kwargs):
        super()._validate_model_kwargs({k: v for k, v in model_kwargs.items() if k != "visual_settings"})

    def prepare_inputs_for_generation(
        self, input_ids, visual_codes=None, is_first_iteration=False, inputs_embeds=None, **kwargs
    ):
        model_inputs = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, inputs_embeds=inputs_embeds, **kwargs
        )
        if visual_codes is not None and (is_first_iteration or kwargs.get("past_key_values") is None):
            length = model_inputs["input_ids"].shape[1]
            missing = length - visual_codes.shape[1]
            if missing > 0:  # text that came after the prompt
                visual_codes = torch.nn.functional.pad(visual_codes, (0, 0, 0, missing), value=-1)
            model_inputs["visual_codes"] = visual_codes[:, -length:]
        return model_inputs

    def _sample(self, input_ids, generation_config, visual_settings=None, **kwargs):
        """The stock loop for text; for what has visual spans our own."""
        if visual_settings is None:
            return super()._sample(input_ids, generation_config=generation_config, **kwargs)
        settings, rows = visual_settings, input_ids.shape[0]
        mask = kwargs.get("attention_mask")
        mask = torch.ones_like(input_ids) if mask is None else mask
        own = StreamPrompt(input_ids, mask, kwargs.get("visual_codes"))
        prompts = [own, *(prompt.repeat(rows) for prompt in (settings.image_only, settings.negative) if prompt)]
        placeholder = self.config.image_token_id if settings.mode == "image" else self.config.video_token_id
        if settings.first_codes is not None:
            prompts = [prompt.append_visual(placeholder, settings.first_codes) for prompt in prompts]
        forced = 0 if settings.first_codes is None else settings.first_codes.shape[1]
        num_new, graphs = generation_config.max_length - input_ids.shape[1] - forced, self._position_graphs
        cache = kwargs["past_key_values"]
        if graphs is not None:
            cache = graphs.cache(self.model.language_model, rows * len(prompts), settings.longest + forced + num_new)
        decoder = DepthDecoder(
            self,
            settings.sampling,
            settings.guidance,
            CodeInputs(self) if graphs is None else graphs.code_inputs(self),
            generation_config.output_scores,
            settings.output_log_probs,
        )
        streams = Streams(self.model, prompts, num_new, cache, opening=int(settings.mode == "interleaved"))
        writer = PositionWriter(self, streams, decoder, graphs)
        criteria, streamer = kwargs["stopping_criteria"], kwargs.get("streamer")
        if settings.mode == "interleaved":
            interleaved = InterleavedWriter(
                writer, settings, kwargs["logits_processor"], criteria, generation_config, streamer
            )
            spans = interleaved.write()
            guided, unguided = interleaved.log_probs or (None, None)
            return VilaUGenerateOutput(
                sequences=interleaved.ids,
                visual_codes=interleaved.codes,
                code_log_probs=guided,
                conditional_code_log_probs=unguided,
                spans=spans,
                prompt_length=input_ids.shape[1],
            )
        places = range(forced, self._num_positions(settings))
        drawn = write_span(writer, places, placeholder, criteria, streamer)
        codes = drawn.codes
        if forced:
            codes = torch.cat([settings.first_codes.repeat_interleave(rows // len(settings.first_codes), 0), codes], 1)
        grid = self.config.vision_config.grid_size
        codes = codes.unflatten(1, (settings.num_frames, grid, grid))  # (rows, F, h, w, D)
        if settings.mode == "image":
            codes = codes[:, 0]
        if not generation_config.return_dict_in_generate:
            return codes
        span = input_ids.new_full((rows, self._num_positions(settings)), placeholder)
        return VilaUGenerateOutput(
            sequences=torch.cat([input_ids, span], 1),
            codes=codes,
            scores=drawn.scores,
            code_log_probs=drawn.log_probs,
            conditional_code_log_probs=drawn.conditional_log_probs,
        )


__all__ = ["VilaUGenerationMixin"]
