# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Generation of text, images and videos: text by transformers' loops, visual spans by depth decoding."""

from typing import Any

import torch
from transformers import (
    Cache,
    DynamicCache,
    DynamicLayer,
    GenerationConfig,
    LogitsProcessorList,
    StaticCache,
    StoppingCriteriaList,
    StopStringCriteria,
    SuppressTokensLogitsProcessor,
)

from .argument_checks_vilau import (
    AttentionMask,
    FilledTensor,
    NonNegativeInt,
    PositiveInt,
    TokenIds,
    check_arguments,
)
from .compat_modeling_vilau import CACHE_NAME, CHUNKS_ARE_LATER_ITERATIONS, rename_cache
from .generation_branches_vilau import VilaUSpanCache
from .generation_checks_vilau import (
    check_cache,
    check_common_arguments,
    check_compilable,
    check_context,
    check_library_arguments,
    check_log_probs,
    check_mode,
    check_parallel_decoding,
    check_prefill,
    check_text_arguments,
    check_training_mode,
    check_visual_arguments,
)
from .generation_config_vilau import (
    MergedGenerationConfig,
    fix_lengths,
    limit_text_length,
    merge_generation_config,
    passed_settings,
    wanted_tokens,
)
from .generation_decoding_vilau import VisualDecoding
from .generation_plan_vilau import GenerationPlan
from .generation_positions_vilau import PositionGraphs
from .generation_prompts_vilau import check_image_inputs, check_vocabulary
from .generation_sampling_vilau import PER_DEPTH_SETTINGS
from .generation_settings_vilau import VISUAL_GENERATION_DEFAULTS, VisualArguments, VisualGenerationSettings
from .generation_streaming_vilau import streamed_call
from .mixed_adapters_vilau import adapters_of_rows, mixed_adapters


# Arguments of `generate` that hold the images and videos of the prompts: in the order of the prompts, and by position.
_IN_ORDER = ("pixel_values", "pixel_values_videos", "codes")
_VISUAL_INPUTS = (*_IN_ORDER, "visual_codes")


# transformers looks for "GenerationMixin" in the names of a class's bases (`PreTrainedModel.can_generate`, read in
# 5.24.0), so the name of this class contains it.
class VilaUGenerationMixin:
    """Adds `generate` of VILA-U to a model class; it comes before `GenerationMixin` in the list of bases."""

    # Attributes of the class that has this mixin: a `VilaUConfig`, whose nested configurations are annotated as
    # dictionaries too, and a `VilaUModel`, whose module cannot be imported here, since it imports this one.
    config: Any
    model: Any
    generation_config: GenerationConfig

    # Settings for sampling codes, without their prefix `visual_`. Pipelines cannot import them: they are an island.
    sampling_settings: tuple[str, ...] = PER_DEPTH_SETTINGS

    # For pipelines, which check their arguments by annotations as well.
    check_arguments = staticmethod(check_arguments)

    # compiled positions, after `compile_generation`
    position_graphs: PositionGraphs | None = None

    def compile_generation(self, enabled: bool = True, **compile_kwargs: Any) -> None:
        """
        Makes `generate` run each visual position as one compiled graph.

        A graph is a step of the language model and all depths, with a static cache. On CUDA it is one replay of a CUDA
        graph. The first image of each batch shape and of each set of sampling settings waits for its compilation. Its
        graph and cache are kept until the next call of this method. Guidance scales, seeds and prompts may change
        freely; lengths of prompts count in steps of 128.

        Args:
            enabled (`bool`, *optional*, defaults to `True`): `False` runs positions without compilation.
            **compile_kwargs: arguments of `torch.compile`, by default `mode="reduce-overhead"`.

        Raises:
            ValueError: if modules of the model are offloaded.
        """
        devices = {str(device) for device in getattr(self, "hf_device_map", {}).values()}
        if enabled and len(devices) > 1 and devices & {"cpu", "disk"}:
            raise ValueError(
                f"a model with modules on {', '.join(sorted(devices))} cannot be compiled: offload nothing."
            )
        self.position_graphs = PositionGraphs(compile_kwargs or {"mode": "reduce-overhead"}) if enabled else None

    def generate(
        self,
        inputs: TokenIds | None = None,
        generation_config: GenerationConfig | None = None,
        generation_mode: str | None = None,
        guidance_scale: float | list | tuple | torch.Tensor | None = None,
        image_guidance_scale: float | None = None,
        num_frames: PositiveInt | None = None,
        first_frames: FilledTensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        seed: int | list[int] | tuple[int, ...] | None = None,
        negative_prompt_ids: TokenIds | None = None,
        negative_prompt_attention_mask: AttentionMask | None = None,
        image_prompt_ids: TokenIds | None = None,
        image_prompt_attention_mask: AttentionMask | None = None,
        code_logits_processor: LogitsProcessorList | None = None,
        output_log_probs: bool | None = False,
        max_visual_spans: NonNegativeInt | None = None,
        allowed_modalities: tuple[str, ...] | list[str] | set[str] | None = None,
        adapter_names: list[str] | tuple[str, ...] | None = None,
        **kwargs: Any,
    ) -> Any:
        r"""
        Generates text, an image, a video, or text and visual spans in turn, for each row of a left-padded batch.

        Args:
            inputs (`torch.LongTensor` of shape `(B, T)`, *optional*): the prompts; the same as `input_ids`.
            generation_config (`GenerationConfig`, *optional*): settings that replace those of the model. Visual
                settings have these names: `visual_guidance_scale`, `visual_do_sample`, `visual_temperature`,
                `visual_top_k`, `visual_top_p`, `visual_min_p`, `num_frames`, `visual_decoding`, `parallel_window`.
                Each is also an argument of `generate`.
                Temperature and truncation may be lists with one entry for each depth. `guidance_scale` is another name
                of `visual_guidance_scale` and, in image and video mode, `do_sample` of `visual_do_sample`.
                `visual_decoding="parallel"` decodes several positions in each pass of the language model, by default
                one. `parallel_window` is their number, by default chosen from how many are accepted. The codes are
                those of sequential decoding, up to rounding. Matrix products and attention round otherwise for other
                sizes, so codes that nearly tie may change. In float32 this is rare. In bfloat16 most images
                change, without a change of their distribution. In interleaved mode, visual positions are decoded
                singly while another row generates text. If stopping criteria stop all rows, more random numbers than
                those of the returned codes have been drawn.
            generation_mode (`str`, *optional*, defaults to `"text"`): `"text"`, `"image"`, `"video"` or
                `"interleaved"`. In interleaved mode the model itself opens images and videos.
            guidance_scale (`float`, or a list or tensor of shape `(B,)` or `(1 or B, P)`, *optional*): strength of
                classifier-free guidance of codes, `uncond + scale * (cond - uncond)`; 1 turns it off. One for each
                row, or one for each of the P positions of a span.
            image_guidance_scale (`float`, *optional*): strength of guidance against the prompt's images alone, for
                editing: `uncond + image_scale * (image - uncond) + scale * (cond - image)`.
            num_frames (`int`, *optional*): frames of a video.
            first_frames (`torch.Tensor`, *optional*): frames that a video begins with: pixels `(1 or B, f, 3, S, S)`
                in [-1, 1], or codes `(1 or B, f, L, D)`.
            generator (`torch.Generator` or a list of one for each row, *optional*): source of the random numbers for
                codes, and for text in interleaved mode.
            seed (`int` or `list[int]`, *optional*): used in place of `generator`. Each row has its seed (row n gets
                `seed + n`), so that its samples do not depend on the other rows.
            negative_prompt_ids (`torch.LongTensor` of shape `(1 or B, Tn)`, *optional*): prompt of the unconditional
                branch. By default it is the checkpoint's `generation_config.unconditional_prompt_ids`, which training
                has seen (`unconditional_prompt_ids()` of the processor), or else the bos token alone.
            negative_prompt_attention_mask (`torch.Tensor` of shape `(1 or B, Tn)`, *optional*): its mask.
            image_prompt_ids (`torch.LongTensor` of shape `(B, Ti)`, *optional*): for `image_guidance_scale`, the
                prompts without their text, with as many placeholders.
            image_prompt_attention_mask (`torch.Tensor` of shape `(B, Ti)`, *optional*): its mask.
            code_logits_processor (`LogitsProcessorList`, *optional*): for codes; called with the codes so far
                `(rows, d)` of a position and the guided logits `(rows, K)`.
            output_log_probs (`bool`, *optional*, defaults to `False`): return log-probabilities of the codes. For an
                image or a video it needs `return_dict_in_generate`.
            max_visual_spans (`int`, *optional*): most images and videos of a row in interleaved mode.
            allowed_modalities (`tuple[str]`, *optional*, defaults to all): what may be generated in interleaved mode.
            adapter_names (`list[str]`, *optional*): a loaded LoRA adapter for each prompt, or `"__base__"` for none.
                By default all prompts use the active adapters. All results and guidance branches of a prompt use its
                adapter.
            **kwargs: as for transformers' `generate`.
                Images of the prompts are `pixel_values`, `pixel_values_videos`, `codes` or, by position,
                `visual_codes`. Without `attention_mask`, padding counts as in transformers.
                The method `put_visual(codes)` of a `streamer` receives the codes `(rows, D)` of each visual position,
                -1 in rows without one. In image and video mode it may return other codes `(rows, D)`, from which the
                model continues. In interleaved mode the method is optional, and `put(ids)` receives the ids `(rows,)`
                of each position at which some row generates text. Those are placeholders in rows that generate an
                image, and padding in rows that are done.
                An image or a video has its fixed number of visual tokens, so length arguments do not change it.
                `stopping_criteria` that stop a row leave its image unfinished; the other rows continue. Text ends
                at the latest where the positions of the language model end, counted from the longest prompt of all
                branches.

        Returns:
            In text mode the result of transformers' `generate`; in interleaved mode a [`VilaUGenerateOutput`]; else
            the codes, `(rows, h, w, D)` of images or `(rows, F, h, w, D)` of videos. With `return_dict_in_generate`
            images and videos are returned in a [`VilaUGenerateOutput`] too.

        Raises:
            ValueError: for an unknown mode, and for an argument that is wrong or has no effect in this mode. Also for
                a prompt or span beyond the language model's positions. It is raised before any work is done, with one
                exception: in text mode, names that transformers does not know are found after images were encoded.
        """
        with streamed_call(kwargs.get("streamer")):
            check_arguments(VilaUGenerationMixin.generate, locals())
            check_library_arguments(generation_config, kwargs)
            mode = generation_mode or "text"
            check_mode(mode)
            rename_cache(kwargs)
            arguments = VisualArguments(
                guidance_scale=guidance_scale,
                image_guidance_scale=image_guidance_scale,
                num_frames=num_frames,
                first_frames=first_frames,
                generator=generator,
                seed=seed,
                negative_prompt_ids=negative_prompt_ids,
                negative_prompt_attention_mask=negative_prompt_attention_mask,
                image_prompt_ids=image_prompt_ids,
                image_prompt_attention_mask=image_prompt_attention_mask,
                code_logits_processor=code_logits_processor,
                output_log_probs=output_log_probs or None,
                max_visual_spans=max_visual_spans,
                allowed_modalities=allowed_modalities,
                by_name={name: kwargs.pop(name) for name in VISUAL_GENERATION_DEFAULTS if name in kwargs},
            )
            input_ids = kwargs.pop("input_ids", None)
            if inputs is not None and input_ids is not None:
                raise ValueError("`inputs` and `input_ids` are the same: give one of them.")
            input_ids = input_ids if inputs is None else inputs
            check_common_arguments(input_ids, arguments, kwargs)
            check_training_mode(self)  # type: ignore[arg-type]  # the class that has this mixin is a module
            check_vocabulary(
                self.config,
                input_ids=input_ids,
                negative_prompt_ids=negative_prompt_ids,
                image_prompt_ids=image_prompt_ids,
            )
            given = kwargs.get("inputs_embeds") if input_ids is None else input_ids
            names = adapters_of_rows(self, adapter_names, 1 if given is None else len(given), kwargs.get("num_beams"))
            if mode == "text":
                check_text_arguments(arguments)
                with mixed_adapters(self, names):
                    return self._generate_text(input_ids, generation_config, kwargs)
            check_visual_arguments(mode, input_ids, arguments, generation_config, kwargs)
            return self._generate_visual(mode, input_ids, arguments, generation_config, kwargs, names)

    def _generate_text(
        self, input_ids: torch.Tensor | None, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> Any:
        """Generates text with transformers' loops, without visual tokens."""
        embeds = kwargs.get("inputs_embeds")
        given = input_ids if embeds is None else embeds
        length = 1 if given is None else given.shape[1]  # without a prompt the library begins with the bos token
        max_positions = self.config.text_config.max_position_embeddings
        check_context(max_positions, length, 1)
        generation_config = limit_text_length(
            generation_config, self.generation_config, kwargs, length, max_positions - length
        )
        device = self.model.device if given is None else given.device  # weights may be offloaded
        kwargs["logits_processor"] = self._without_visual_ids(kwargs.pop("logits_processor", None), device)
        if input_ids is not None:
            kwargs["input_ids"] = input_ids
        check_prefill(generation_config, self.generation_config, kwargs)
        self._encode_images(input_ids, kwargs)
        return super().generate(generation_config=generation_config, **kwargs)  # type: ignore[misc]  # a later base

    @torch.no_grad()
    def _encode_images(self, input_ids: torch.Tensor | None, kwargs: dict[str, Any]) -> None:
        """
        Replaces images and videos in `kwargs` by their codes, which have a row for each prompt.

        The library repeats arguments row by row for beams and several results. Rows of pixels are images, of which a
        prompt may have none or many.
        """
        images = {name: kwargs.pop(name) for name in _IN_ORDER if kwargs.get(name) is not None}
        embeds = kwargs.get("inputs_embeds")
        if not images:
            if input_ids is not None and kwargs.get("visual_codes") is not None:
                check_image_inputs(self.model, input_ids, kwargs)
            return
        codes = self.model.get_visual_codes(input_ids, **images, inputs_embeds=embeds)
        if embeds is None:
            kwargs["visual_codes"] = codes
        else:
            kwargs["inputs_embeds"] = self.model.insert_codes(embeds, codes, codes[..., 0] >= 0)

    def _generate_visual(
        self,
        mode: str,
        input_ids: torch.Tensor,
        arguments: VisualArguments,
        generation_config: GenerationConfig | None,
        kwargs: dict[str, Any],
        adapter_names: list[str] | None,
    ) -> Any:
        """Generates visual spans, alone or between text. The images of the prompts are encoded after all checks."""
        passed = passed_settings(generation_config, {**kwargs, **arguments.given()})
        if self.position_graphs is not None:
            check_compilable(arguments.code_logits_processor, passed.get("cache_implementation"))
        settings = VisualGenerationSettings.collect(mode, arguments, kwargs, generation_config, self.generation_config)
        wanted = wanted_tokens(kwargs, generation_config, input_ids.shape[1])
        merged, kwargs = merge_generation_config(mode, generation_config, self.generation_config, kwargs)
        check_cache(merged.cache_implementation, self.model.device)
        check_log_probs(mode, settings.output_log_probs, merged.return_dict_in_generate)
        mask = kwargs.pop("attention_mask", None)
        images = {name: kwargs.pop(name) for name in _VISUAL_INPUTS if kwargs.get(name) is not None}
        check_image_inputs(self.model, input_ids, images)
        plan = GenerationPlan.make(self, settings, arguments, input_ids, mask, merged)
        max_positions = self.config.text_config.max_position_embeddings
        check_context(max_positions, plan.longest_prompt, 1 if mode == "interleaved" else plan.num_positions)
        room = max_positions - plan.longest_prompt
        fix_lengths(merged, mode, plan.num_positions, room if wanted is None else min(wanted, room))
        if "visual_codes" in images:
            codes = images["visual_codes"].to(plan.prompt.ids.device, torch.long)
            added = plan.prompt.ids.shape[1] - input_ids.shape[1]
            images["visual_codes"] = torch.nn.functional.pad(codes, (0, 0, 0, added), value=-1)
        streamer = kwargs.get("streamer")
        criteria = self._stop_strings(merged, kwargs.pop("tokenizer", None))
        is_parallel = settings.visual_decoding == "parallel"
        cache_implementation = merged.cache_implementation
        cache = self._make_cache(merged, plan.longest_prompt + merged.max_new_tokens, is_parallel)
        check_parallel_decoding(
            mode,
            is_parallel,
            passed,
            arguments.code_logits_processor,
            self.config.text_config._attn_implementation,
            cache_implementation,
            cache,
            adapter_names,
        )
        if cache is not None:
            kwargs[CACHE_NAME] = cache
        results = merged.num_return_sequences or 1
        with mixed_adapters(self, adapter_names, plan.guidance.num_branches, results):
            return super().generate(  # type: ignore[misc]  # a later base has it
                generation_config=merged,
                input_ids=plan.prompt.ids,
                attention_mask=plan.prompt.mask,
                custom_generate=VisualDecoding(plan, images, streamer, criteria),
                **kwargs,
            )

    def _stop_strings(self, merged: MergedGenerationConfig, tokenizer: Any) -> StoppingCriteriaList:
        """
        Makes criteria of the `stop_strings` of interleaved output, and removes these from `merged`.

        The library would make them itself, but has no tokenizer then: it takes the tokenizer out of the arguments and
        passes it to its decoding loops only (`_extract_generation_mode_kwargs`, read in transformers 5.24.0).
        """
        if not merged.stop_strings:
            return StoppingCriteriaList()
        if tokenizer is None:
            raise ValueError("`stop_strings` needs a tokenizer: pass `tokenizer=`, got None.")
        criterion = StopStringCriteria(tokenizer=tokenizer, stop_strings=merged.stop_strings)
        merged.fix(stop_strings=None)
        return StoppingCriteriaList([criterion])

    def _make_cache(self, merged: MergedGenerationConfig, capacity: int, is_parallel: bool) -> Cache | None:
        """
        Makes a cache of `capacity` positions, or returns `None` for kinds that grow as they are used.

        The library would make a static cache for the length of the conditional prompts, which may be shorter than
        those of other branches. Parallel decoding needs one of our caches, which are full and have no sliding window.
        """
        kind = merged.cache_implementation
        if kind not in (None, "static", "offloaded_static"):
            return None
        merged.fix(cache_implementation=None)  # the library takes either a cache or the name of one
        text_config = self.config.text_config
        dynamic = DynamicCache(config=text_config)
        if is_parallel and kind != "offloaded_static" and all(type(layer) is DynamicLayer for layer in dynamic.layers):
            return VilaUSpanCache(text_config.num_hidden_layers, capacity, has_fixed_shape=kind == "static")
        if is_parallel:
            return None  # `check_parallel_decoding` raises
        if kind is not None:
            return StaticCache(text_config, max_cache_len=capacity, offloading=kind == "offloaded_static")
        # A layer with a sliding window keeps fewer positions than a span cache.
        return dynamic if any(dynamic.is_sliding) else VilaUSpanCache(text_config.num_hidden_layers, capacity)

    def _without_visual_ids(
        self, logits_processor: LogitsProcessorList | None, device: torch.device
    ) -> LogitsProcessorList:
        """Adds a processor that suppresses markers and placeholders, which text mode would not decode."""
        config = self.config
        ids = [config.image_token_id, config.video_token_id, config.image_start_token_id, config.image_end_token_id]
        ids += [config.video_start_token_id, config.video_end_token_id]
        ids = [index for index in ids if index < config.text_config.vocab_size]
        suppress = SuppressTokensLogitsProcessor(ids, device=str(device))
        return LogitsProcessorList([*(logits_processor or []), suppress])

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        visual_codes: torch.LongTensor | None = None,
        is_first_iteration: bool = False,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """
        Prepares the arguments of `forward` for one step of text generation, like the base method.

        The base method cuts `input_ids` to the positions that the cache lacks. It passes other arguments on as they
        are, so the codes of the prompt are cut here. Read in transformers 5.20.2, 5.23.0 and 5.24.0.

        Args:
            input_ids (`torch.LongTensor` of shape `(rows, T)`): prompts and what was generated.
            visual_codes (`torch.LongTensor` of shape `(rows, Tp, D)`, *optional*): codes by position of the prompts.
            is_first_iteration (`bool`, *optional*, defaults to `False`): whether the prompts are read.
            inputs_embeds (`torch.Tensor`, *optional*): as for the base method.
            **kwargs: as for the base method.
        """
        model_inputs = super().prepare_inputs_for_generation(  # type: ignore[misc]  # a later base has it
            input_ids, is_first_iteration=is_first_iteration, inputs_embeds=inputs_embeds, **kwargs
        )
        cache = kwargs.get(CACHE_NAME)
        if visual_codes is None or not (is_first_iteration or cache is None or CHUNKS_ARE_LATER_ITERATIONS):
            return model_inputs
        # With `prefill_chunk_size`, the ids are a chunk of the prompt that follows the positions in the cache.
        begin = 0 if cache is None else int(cache.get_seq_length())
        end = begin + model_inputs["input_ids"].shape[1]
        if begin < visual_codes.shape[1]:
            missing = max(0, end - visual_codes.shape[1])  # text that came after the prompt
            padded = torch.nn.functional.pad(visual_codes, (0, 0, 0, missing), value=-1)
            model_inputs["visual_codes"] = padded[:, begin:end]
        return model_inputs


__all__ = ["VilaUGenerationMixin"]
