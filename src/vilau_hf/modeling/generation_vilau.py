# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Generation of text, images and videos: text by transformers' own loops, visual spans by depth decoding."""

from dataclasses import dataclass

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    StaticCache,
    SuppressTokensLogitsProcessor,
)
from transformers.utils import ModelOutput

from .depth_decoding_vilau import DepthDecoder, Guidance
from .scoring_vilau import default_unconditional_ids
from .span_cache_vilau import VilaUSpanCache
from .visual_sampling_vilau import VISUAL_GENERATION_DEFAULTS, CodeSampling, seeded_generators
from .visual_streams_vilau import StreamPrompt, Streams
from .visual_writing_vilau import InterleavedWriter, VisualSpan, write_span


GENERATION_MODES = ("text", "image", "video", "interleaved")
MODALITIES = ("text", "image", "video")


@dataclass
class VilaUGenerateOutput(ModelOutput):
    r"""
    sequences (`torch.LongTensor` of shape `(rows, T)`): prompts and what was generated, a placeholder for each visual
        token.
    codes (`torch.LongTensor` of shape `(rows, h, w, D)` or `(rows, F, h, w, D)`, *optional*): codes of the image or
        video, -1 from where stopping criteria stopped it.
    scores (`torch.Tensor` of shape `(rows, P, D, K)`, *optional*, with `output_scores`): guided code logits at each of
        the P visual positions, before temperature and truncation.
    code_log_probs, conditional_code_log_probs (`torch.Tensor` of shape `(rows, P, D)`, *optional*, with
        `output_log_probs`): log-probabilities of the codes by the guided logits, and without guidance.
    visual_codes (`torch.LongTensor` of shape `(rows, T, D)`, *optional*, in interleaved mode): codes of the sequences,
        -1 where no visual token stands.
    spans (`list[list[VisualSpan]]`, *optional*, in interleaved mode): images and videos that each row wrote.
    prompt_length (`int`, *optional*, in interleaved mode): where in the sequences the generated part begins.
    """

    sequences: torch.LongTensor | None = None
    codes: torch.LongTensor | None = None
    scores: torch.Tensor | None = None
    code_log_probs: torch.Tensor | None = None
    conditional_code_log_probs: torch.Tensor | None = None
    visual_codes: torch.LongTensor | None = None
    spans: list[list[VisualSpan]] | None = None
    prompt_length: int | None = None


@dataclass
class VisualSettings:
    """What a call that may write visual spans was asked for, checked before any work is done."""

    mode: str
    num_frames: int
    sampling: CodeSampling
    guidance: Guidance
    seed: int | list[int] | None
    output_log_probs: bool
    max_visual_spans: int | None
    allowed_modalities: tuple[str, ...]
    prompts: int  # before they are repeated for several results each
    negative: StreamPrompt | None = None
    image_only: StreamPrompt | None = None
    first_codes: torch.LongTensor | None = None  # (1 or prompts, f * L, D)


class VilaUGenerationMixin:
    """`generate` of VILA-U; to stand before `GenerationMixin` in a class's bases."""

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
        allowed_modalities: tuple[str, ...] = MODALITIES,
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
                temperature and truncation as lists with one entry for each depth.
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
            output_log_probs (`bool`, *optional*, defaults to `False`): return log-probabilities of the codes.
            max_visual_spans (`int`, *optional*): images and videos a row may write in interleaved mode.
            allowed_modalities (`tuple[str]`, *optional*, defaults to all): what may be written in interleaved mode.
            streamer (*optional*): as for transformers' `generate`; its `put_visual(codes)` gets the codes `(rows, D)`
                of each visual position.
            kwargs: as for transformers' `generate`, `pixel_values`, `pixel_values_videos` and `codes` among them. An
                image or a video has its fixed number of visual tokens: length arguments do not act on them, and
                `stopping_criteria` that stop one leave it unfinished. Text ends at the latest where the language
                model's positions do.

        Returns:
            In text mode what transformers' `generate` returns; in interleaved mode a [`VilaUGenerateOutput`]; else the
            codes, `(rows, h, w, D)` of images or `(rows, F, h, w, D)` of videos, or with `return_dict_in_generate` a
            [`VilaUGenerateOutput`].

        Raises:
            ValueError: for an unknown mode, a setting out of range, or a prompt, image or video beyond the language
                model's positions; before any work is done.
        """
        mode = generation_mode or "text"
        if mode not in GENERATION_MODES:
            raise ValueError(f"`generation_mode` must be one of {', '.join(GENERATION_MODES)}, got {mode!r}.")
        input_ids = inputs if inputs is not None else kwargs.pop("input_ids", None)
        for name, ids in (("input_ids", input_ids), ("negative_prompt_ids", negative_prompt_ids)):
            if ids is not None and (not isinstance(ids, torch.Tensor) or ids.ndim != 2 or ids.is_floating_point()):
                raise ValueError(f"`{name}` must be a tensor of integers of shape (rows, T), got {_described(ids)}.")
        if kwargs.get("num_return_sequences") is not None and kwargs["num_return_sequences"] < 1:
            raise ValueError(f"`num_return_sequences` must be at least 1, got {kwargs['num_return_sequences']}.")
        if mode == "text":
            visual = {
                "guidance_scale": guidance_scale,
                "image_guidance_scale": image_guidance_scale,
                "num_frames": num_frames,
                "first_frames": first_frames,
                "generator": generator,
                "seed": seed,
                "negative_prompt_ids": negative_prompt_ids,
                "image_prompt_ids": image_prompt_ids,
                "code_logits_processor": code_logits_processor,
            }
            given = [name for name, value in visual.items() if value is not None]
            if given:
                raise ValueError(
                    f'`{given[0]}` is for images and videos: use `generation_mode="image"`, "video" or '
                    '"interleaved", or leave it out.'
                )
            return self._generate_text(input_ids, generation_config, kwargs)
        if input_ids is None:
            raise ValueError(f'`input_ids` must be given for `generation_mode="{mode}"`, got None.')
        if generator is not None and seed is not None:
            raise ValueError("`seed` and `generator` both choose the samples: give one of them.")
        saved = self._take_visual_settings(generation_config, kwargs, guidance_scale, num_frames, mode)
        settings = VisualSettings(
            mode=mode,
            num_frames=1 if mode == "image" else saved["num_frames"],
            sampling=CodeSampling(
                do_sample=saved["visual_do_sample"],
                temperature=saved["visual_temperature"],
                top_k=saved["visual_top_k"],
                top_p=saved["visual_top_p"],
                min_p=saved["visual_min_p"],
                code_depth=self.config.vision_config.code_depth,
                processors=code_logits_processor,
                generators=generator,
            ),
            guidance=Guidance(saved["visual_guidance_scale"], image_guidance_scale),
            seed=seed,
            output_log_probs=output_log_probs,
            max_visual_spans=max_visual_spans,
            allowed_modalities=tuple(allowed_modalities),
            prompts=len(input_ids),
        )
        self._check_visual_settings(settings, kwargs)
        opened, mask = self._open_span(input_ids, kwargs.pop("attention_mask", None), mode)
        if settings.guidance.num_streams > 1:
            ids = self._unconditional_ids(negative_prompt_ids, saved, input_ids)
            settings.negative = StreamPrompt(*self._open_span(ids, negative_prompt_attention_mask, mode, opened))
        self._check_streams_fit(settings, opened)
        visual_inputs = {name: kwargs.pop(name, None) for name in ("pixel_values", "pixel_values_videos", "codes")}
        visual_codes = self._codes_of_prompt(opened, visual_inputs)
        if visual_codes is None and kwargs.get("visual_codes") is None:
            placeholders = (opened == self.config.image_token_id) | (opened == self.config.video_token_id)
            if bool(placeholders.any()):
                raise ValueError(
                    f"the prompt holds {int(placeholders.sum())} placeholders, but none of `pixel_values`, "
                    "`pixel_values_videos` and `codes` is given."
                )
        if image_guidance_scale is not None:
            settings.image_only = self._image_only_prompt(
                image_prompt_ids, image_prompt_attention_mask, visual_inputs, opened, mode
            )
        if first_frames is not None:
            settings.first_codes = self._first_codes(first_frames, settings)
        if visual_codes is not None:
            kwargs["visual_codes"] = visual_codes
        return super().generate(
            generation_config=generation_config,
            input_ids=opened,
            attention_mask=mask,
            visual_settings=settings,
            num_beams=1,
            **self._lengths_and_cache(settings, opened, generation_config, kwargs),
        )

    def _generate_text(self, input_ids, generation_config, kwargs):
        """Transformers' own loops, which must not write visual tokens."""
        given = next((x for x in (input_ids, kwargs.get("inputs_embeds")) if x is not None), None)
        length = 0 if given is None else given.shape[1]
        self._check_context(length, 1)
        room = self.config.text_config.max_position_embeddings - length
        wanted = self._wanted_tokens((kwargs, generation_config, self.generation_config), length)
        if wanted is not None and wanted > room:
            kwargs.pop("max_length", None)
            kwargs["max_new_tokens"] = room
        device = self.device if given is None else given.device  # weights may be offloaded
        kwargs["logits_processor"] = self._without_visual_ids(kwargs.pop("logits_processor", None), device)
        embeds = kwargs.get("inputs_embeds")
        visual_inputs = {name: kwargs.pop(name, None) for name in ("pixel_values", "pixel_values_videos", "codes")}
        codes = self._codes_of_prompt(input_ids, visual_inputs, embeds)
        if codes is not None and embeds is not None:
            kwargs["inputs_embeds"] = self.model.place_codes(embeds, codes, codes[..., 0] >= 0)
        elif codes is not None:
            kwargs["visual_codes"] = codes
        if input_ids is not None:
            kwargs["input_ids"] = input_ids
        return super().generate(generation_config=generation_config, **kwargs)

    def _take_visual_settings(self, generation_config, kwargs, guidance_scale, num_frames, mode) -> dict:
        """Takes the visual arguments out of `kwargs`; what is not there comes from the generation configs."""
        num_beams = kwargs.pop("num_beams", None)
        if num_beams not in (None, 1):
            raise ValueError(f"`num_beams` must be 1 where codes are generated, got {num_beams}.")
        saved = dict(VISUAL_GENERATION_DEFAULTS)
        for config in (self.generation_config, generation_config):
            if config is not None:
                values = config.to_dict()
                saved.update({name: values[name] for name in saved if values.get(name) is not None})
        saved.update({name: kwargs.pop(name) for name in saved if kwargs.get(name) is not None})
        given = {"visual_guidance_scale": guidance_scale, "num_frames": num_frames}
        if mode != "interleaved":
            given["visual_do_sample"] = kwargs.pop("do_sample", None)
        saved.update({name: value for name, value in given.items() if value is not None})
        return saved

    def _check_visual_settings(self, settings, kwargs):
        mode = settings.mode
        if not isinstance(settings.num_frames, int) or settings.num_frames < 1:
            raise ValueError(f"`num_frames` must be an integer of at least 1, got {settings.num_frames!r}.")
        if kwargs.get("inputs_embeds") is not None:
            raise ValueError(f'`inputs_embeds` are for text: `generation_mode="{mode}"` reads `input_ids`.')
        unknown = set(settings.allowed_modalities) - set(MODALITIES)
        if unknown or "text" not in settings.allowed_modalities:
            raise ValueError(
                f'`allowed_modalities` must be among {", ".join(MODALITIES)}, with "text", got '
                f"{settings.allowed_modalities}."
            )
        if settings.max_visual_spans is not None and settings.max_visual_spans < 0:
            raise ValueError(f"`max_visual_spans` must be at least 0, got {settings.max_visual_spans}.")
        if kwargs.get("streamer") is not None and not hasattr(kwargs["streamer"], "put_visual"):
            raise ValueError(
                f'`streamer` needs a method `put_visual(codes)` for `generation_mode="{mode}"`; '
                f"{type(kwargs['streamer']).__name__} has none."
            )
        refused = ["assistant_model"] + ["logits_processor"] * (mode != "interleaved")
        for name in refused:
            if kwargs.get(name) is not None:
                raise ValueError(f'`{name}` acts on text: `generation_mode="{mode}"` does not take it.')
        if mode == "interleaved" and (settings.output_log_probs or kwargs.get("output_scores")):
            raise ValueError(
                '`output_log_probs` and `output_scores` are for `generation_mode="image"` and "video"; see `score`.'
            )

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
        interleaved mode the model writes the marker; only what stands beside prompts `like` that end with one gets it.
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
            last = None if like is None else like[:, -1]
            added = [*config.start_marker_prefix_ids]
            if last is not None and bool((last == last[0]).all()) and last[0].item() in starts.values():
                added.append(last[0].item())
            elif like is None:
                added = []
        else:
            start = starts[mode]
            open_rows = int((input_ids[:, -1] == start).sum())
            if open_rows not in (0, input_ids.shape[0]):
                raise ValueError(
                    f"{open_rows} of {input_ids.shape[0]} prompts end with the start marker ({start}): all or none "
                    "must."
                )
            added = [] if open_rows else [*config.start_marker_prefix_ids, start]
        opening = input_ids.new_tensor(added, dtype=torch.long).repeat(input_ids.shape[0], 1)
        return torch.cat([input_ids, opening], 1), torch.cat([mask, torch.ones_like(opening).to(mask.dtype)], 1)

    def _check_streams_fit(self, settings, input_ids):
        """The context must hold the longest prompt and, unless it is up to the model, the whole span."""
        longest = max(input_ids.shape[1], 0 if settings.negative is None else settings.negative.ids.shape[1])
        self._check_context(longest, 1 if settings.mode == "interleaved" else self._num_positions(settings))

    def _num_positions(self, settings) -> int:
        return self.config.vision_config.num_visual_tokens * settings.num_frames

    @staticmethod
    def _wanted_tokens(sources, length: int) -> int | None:
        """New tokens that the first of `sources`, arguments and generation configs, asks for after `length`."""
        for source in (each if isinstance(each, dict) else each.to_dict() for each in sources if each is not None):
            if source.get("max_new_tokens") is not None:
                return source["max_new_tokens"]
            if source.get("max_length") is not None:
                return source["max_length"] - length
        return None

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

    def _codes_of_prompt(self, input_ids, visual_inputs, inputs_embeds=None) -> torch.LongTensor | None:
        """Codes `(B, T, D)` of the prompts' images and videos, which have a row for each prompt and repeat with it."""
        given = {name: value for name, value in visual_inputs.items() if value is not None}
        return self.model.get_visual_codes(input_ids, **given, inputs_embeds=inputs_embeds) if given else None

    def _image_only_prompt(self, ids, mask, visual_inputs, input_ids, mode) -> StreamPrompt:
        if ids is None or ids.shape[0] != input_ids.shape[0]:
            raise ValueError(
                f"`image_guidance_scale` needs `image_prompt_ids` of shape ({input_ids.shape[0]}, T), the prompts "
                f"without their text, got {None if ids is None else tuple(ids.shape)}."
            )
        opened, mask = self._open_span(ids, mask, mode, input_ids)
        return StreamPrompt(opened, mask, self._codes_of_prompt(opened, visual_inputs))

    def _first_codes(self, first_frames, settings) -> torch.LongTensor:
        vision = self.config.vision_config
        frames = first_frames.shape[1] if first_frames.ndim in (4, 5) else 0
        if settings.mode != "video" or not 0 < frames < settings.num_frames:
            raise ValueError(
                "`first_frames` must be fewer than `num_frames` of a video, pixels of shape (rows, f, 3, S, S) or "
                f"codes of shape (rows, f, L, D); got shape {tuple(first_frames.shape)} in mode "
                f'"{settings.mode}" with {settings.num_frames} frames.'
            )
        if first_frames.shape[0] not in (1, settings.prompts):
            raise ValueError(f"`first_frames` must be of 1 or {settings.prompts} rows, got {first_frames.shape[0]}.")
        flat = first_frames.flatten(0, 1)
        if first_frames.is_floating_point():
            flat = self.model.vision_tower.encode(flat).codes
        else:
            self.model.check_codes(flat)
        return flat.reshape(first_frames.shape[0], frames * vision.num_visual_tokens, vision.code_depth)

    def _lengths_and_cache(self, settings, input_ids, generation_config, kwargs) -> dict:
        """The arguments of the library's `generate` that say how much will be written, and where it is remembered."""
        length = input_ids.shape[1]
        if settings.mode == "interleaved":
            room = self.config.text_config.max_position_embeddings - length
            wanted = self._wanted_tokens((kwargs, generation_config), length)  # the checkpoint's own is meant for text
            kwargs.pop("max_length", None)
            kwargs["max_new_tokens"] = room if wanted is None else min(wanted, room)
        else:
            for name in ("max_length", "max_new_tokens", "min_length", "min_new_tokens"):
                kwargs.pop(name, None)
            kwargs.update(max_new_tokens=self._num_positions(settings), do_sample=True)
        prompts = (settings.negative, settings.image_only)
        longest = max(length, *(prompt.ids.shape[1] for prompt in prompts if prompt is not None), 0)
        capacity, config = longest + kwargs["max_new_tokens"], self.config.text_config
        if kwargs.get("past_key_values") is not None:
            raise ValueError("`past_key_values` cannot be gone on with where codes are generated.")
        if kwargs.get("cache_implementation") is None:
            whole = DynamicCache(config=config)
            is_full = not any(whole.is_sliding)  # every layer attends to everything
            kwargs["past_key_values"] = VilaUSpanCache(config.num_hidden_layers, capacity) if is_full else whole
        elif kwargs["cache_implementation"] == "static":  # the library's own would hold but the rows' own prompts
            kwargs["past_key_values"] = StaticCache(config=config, max_cache_len=capacity)
            del kwargs["cache_implementation"]
        return kwargs

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
        if settings.seed is not None:
            settings.sampling.generators = seeded_generators(settings.seed, rows, input_ids.device)
        settings.sampling.check_rows(rows)
        settings.guidance.prepare(settings.prompts, rows, self._num_positions(settings), input_ids.device)
        mask = kwargs.get("attention_mask")
        mask = torch.ones_like(input_ids) if mask is None else mask
        own = StreamPrompt(input_ids, mask, kwargs.get("visual_codes"))
        prompts = [own, *(prompt.repeat(rows) for prompt in (settings.image_only, settings.negative) if prompt)]
        placeholder = self.config.image_token_id if settings.mode == "image" else self.config.video_token_id
        if settings.first_codes is not None:
            prompts = [prompt.append_visual(placeholder, settings.first_codes) for prompt in prompts]
        streams = Streams(
            self.model, prompts, generation_config.max_length - input_ids.shape[1], kwargs["past_key_values"]
        )
        decoder = DepthDecoder(
            self, settings.sampling, settings.guidance, generation_config.output_scores, settings.output_log_probs
        )
        if settings.mode == "interleaved":
            ids, codes, spans = InterleavedWriter(
                self,
                streams,
                decoder,
                settings,
                kwargs["logits_processor"],
                kwargs["stopping_criteria"],
                generation_config,
                kwargs.get("streamer"),
            ).write()
            begin = streams.length
            return VilaUGenerateOutput(sequences=ids, visual_codes=codes, spans=spans, prompt_length=begin)
        forced = 0 if settings.first_codes is None else settings.first_codes.shape[1]
        drawn = write_span(
            self,
            streams,
            decoder,
            self._num_positions(settings) - forced,
            placeholder,
            kwargs["stopping_criteria"],
            kwargs.get("streamer"),
        )
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


def _described(value) -> str:
    return f"shape {tuple(value.shape)} of {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__


__all__ = ["VilaUGenerateOutput", "VilaUGenerationMixin"]
