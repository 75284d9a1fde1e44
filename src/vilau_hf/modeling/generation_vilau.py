# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Generation of text, images and videos: text by transformers' own loops, visual spans by depth decoding."""

from dataclasses import dataclass

import torch
from transformers import GenerationConfig, LogitsProcessorList, SuppressTokensLogitsProcessor
from transformers.utils import ModelOutput


GENERATION_MODES = ("text", "image", "video")

# what holds where neither the call nor the checkpoint's generation config says otherwise
VISUAL_GENERATION_DEFAULTS = {
    "visual_guidance_scale": 3.0,
    "visual_do_sample": True,
    "visual_temperature": 1.0,
    "visual_top_k": 900,
    "visual_top_p": 0.96,
    "num_frames": 8,
    "unconditional_prompt_ids": None,
}


@dataclass
class VilaUGenerateOutput(ModelOutput):
    r"""
    sequences (`torch.LongTensor` of shape `(rows, T)`): prompt and placeholders of the visual span.
    codes (`torch.LongTensor` of shape `(rows, h, w, D)` or `(rows, F, h, w, D)`): codes of the image or video.
    scores (`torch.Tensor` of shape `(rows, P, D, K)`, *optional*, with `output_scores`): guided code logits at each of
        the P visual positions, before temperature, top-k and top-p.
    """

    sequences: torch.LongTensor | None = None
    codes: torch.LongTensor | None = None
    scores: torch.Tensor | None = None


@dataclass
class VisualSettings:
    """What a visual span is drawn with, checked before any work is done."""

    mode: str
    num_frames: int
    guidance_scale: float
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    generator: torch.Generator | list[torch.Generator] | None
    negative_ids: torch.LongTensor | None  # (1 or B, Tn), ending with the start marker
    negative_mask: torch.LongTensor | None

    def __post_init__(self):
        for name, value, valid, accepted in (
            ("guidance_scale", self.guidance_scale, self.guidance_scale >= 1, "at least 1 (1 means no guidance)"),
            ("num_frames", self.num_frames, self.num_frames >= 1, "at least 1"),
            ("visual_temperature", self.temperature, self.temperature > 0, "greater than 0"),
            ("visual_top_k", self.top_k, self.top_k >= 0, "at least 0 (0 means all codes)"),
            ("visual_top_p", self.top_p, 0 < self.top_p <= 1, "in (0, 1]"),
        ):
            if not valid:
                raise ValueError(f"`{name}` must be {accepted}, got {value}.")


def code_probabilities(logits: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    """
    The distribution that codes are drawn from: temperature, top-k, softmax, top-p, in this order.

    Args:
        logits (`torch.Tensor` of shape `(..., K)`): code logits.
        temperature (`float`): divides the logits.
        top_k (`int`): codes at or above the k-th largest logit stay, ties included; 0 or at least K keeps all.
        top_p (`float`): the smallest set of most probable codes whose probability reaches this stays.

    Returns:
        `torch.Tensor` of shape `(..., K)`: float32 probabilities.
    """
    logits = logits.float() / temperature
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -torch.inf)
    probabilities = logits.softmax(-1)
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered  # probability of all codes more probable than this one
        dropped = torch.empty_like(order, dtype=torch.bool).scatter_(-1, order, before >= top_p)
        probabilities = probabilities.masked_fill(dropped, 0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


class VilaUGenerationMixin:
    """`generate` of VILA-U; to stand before `GenerationMixin` in a class's bases."""

    def generate(
        self,
        inputs: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        generation_mode: str | None = None,
        guidance_scale: float | None = None,
        num_frames: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        negative_prompt_ids: torch.LongTensor | None = None,
        negative_prompt_attention_mask: torch.Tensor | None = None,
        **kwargs,
    ):
        r"""
        Generates text, an image or a video for each row of a left-padded batch of prompts.

        Args:
            inputs (`torch.LongTensor` of shape `(B, T)`, *optional*): the prompts; the same as `input_ids`.
            generation_config (`GenerationConfig`, *optional*): settings in place of the model's own. Visual sampling
                has names of its own: `visual_guidance_scale`, `visual_do_sample`, `visual_temperature`,
                `visual_top_k`, `visual_top_p`, `num_frames`; each may also be given as an argument.
            generation_mode (`str`, *optional*, defaults to `"text"`): `"text"`, `"image"` or `"video"`.
            guidance_scale (`float`, *optional*): strength of classifier-free guidance of codes,
                `uncond + scale * (cond - uncond)`; 1 turns it off.
            num_frames (`int`, *optional*): frames of a video.
            generator (`torch.Generator` or a list of one for each row, *optional*): source of the visual samples.
            negative_prompt_ids (`torch.LongTensor` of shape `(1 or B, Tn)`, *optional*): prompt of the unconditional
                stream; by default the checkpoint's `generation_config.unconditional_prompt_ids`.
            negative_prompt_attention_mask (`torch.Tensor` of shape `(1 or B, Tn)`, *optional*): its mask.
            streamer (*optional*): as for transformers' `generate`; its `put_visual(codes)` gets the codes `(rows, D)`
                of each visual position.
            kwargs: as for transformers' `generate`, `pixel_values`, `pixel_values_videos` and `codes` among them. An
                image or a video has its fixed number of visual tokens: length arguments act in text mode alone. Text
                ends at the latest where the language model's positions do.

        Returns:
            In text mode what transformers' `generate` returns; else the codes, `(rows, h, w, D)` of images or
            `(rows, F, h, w, D)` of videos, or with `return_dict_in_generate` a [`VilaUGenerateOutput`].

        Raises:
            ValueError: for an unknown mode, a setting out of range, or a prompt, image or video beyond the language
                model's positions; before any work is done.
        """
        mode = generation_mode or "text"
        if mode not in GENERATION_MODES:
            raise ValueError(f"`generation_mode` must be one of {', '.join(GENERATION_MODES)}, got {mode!r}.")
        input_ids = inputs if inputs is not None else kwargs.pop("input_ids", None)
        if mode == "text":
            self._check_context(input_ids, 1)
            room = self.config.text_config.max_position_embeddings - (0 if input_ids is None else input_ids.shape[1])
            if self._new_text_tokens(generation_config, kwargs) > room:
                kwargs["max_new_tokens"] = room
            if guidance_scale is not None or negative_prompt_ids is not None:
                raise ValueError(
                    '`guidance_scale` and `negative_prompt_ids` guide visual spans: use `generation_mode="image"` or '
                    '"video", or leave them out.'
                )
            given = next((x for x in (input_ids, kwargs.get("inputs_embeds")) if x is not None), None)
            device = self.device if given is None else given.device  # weights may be offloaded
            kwargs["logits_processor"] = self._without_visual_ids(kwargs.pop("logits_processor", None), device)
            kwargs = self._encode_visual_inputs(input_ids, kwargs)
            if input_ids is not None:
                kwargs["input_ids"] = input_ids
            return super().generate(generation_config=generation_config, **kwargs)

        if input_ids is None:
            raise ValueError(f'`input_ids` must be given for `generation_mode="{mode}"`, got None.')
        settings = self._visual_settings(
            mode, generation_config, kwargs, guidance_scale, num_frames, generator, input_ids.device
        )
        if settings.guidance_scale > 1:
            self._set_negative_prompt(
                settings, generation_config, negative_prompt_ids, negative_prompt_attention_mask, input_ids
            )
        input_ids, mask = self._open_span(input_ids, kwargs.pop("attention_mask", None), mode)
        num_positions = self._num_positions(settings)
        longest = max(input_ids.shape[1], 0 if settings.negative_ids is None else settings.negative_ids.shape[1])
        self._check_context(input_ids, num_positions + longest - input_ids.shape[1])
        for name in ("max_length", "max_new_tokens", "min_length", "min_new_tokens", "do_sample", "inputs_embeds"):
            kwargs.pop(name, None)
        if kwargs.get("streamer") is not None and not hasattr(kwargs["streamer"], "put_visual"):
            raise ValueError(
                f'`streamer` needs a method `put_visual(codes)` for `generation_mode="{mode}"`; '
                f"{type(kwargs['streamer']).__name__} has none."
            )
        for name in ("assistant_model", "stopping_criteria", "logits_processor"):
            if kwargs.get(name) is not None:
                raise ValueError(f'`{name}` acts on text: `generation_mode="{mode}"` does not take it.')
        kwargs = self._encode_visual_inputs(input_ids, kwargs)
        return super().generate(
            generation_config=generation_config,
            input_ids=input_ids,
            attention_mask=mask,
            visual_settings=settings,
            max_new_tokens=num_positions,
            num_beams=1,
            do_sample=True,
            **kwargs,
        )

    def _visual_settings(self, mode, generation_config, kwargs, guidance_scale, num_frames, generator, device):
        """Takes the visual arguments out of `kwargs`; what is not there comes from the generation configs."""
        if kwargs.get("num_beams") not in (None, 1):
            raise ValueError(f"`num_beams` must be 1 where codes are generated, got {kwargs['num_beams']}.")
        kwargs.pop("num_beams", None)
        given = {
            "visual_guidance_scale": guidance_scale,
            "num_frames": num_frames,
            "visual_do_sample": kwargs.get("do_sample"),
        }
        saved = self._saved_visual_settings(generation_config)
        for name in VISUAL_GENERATION_DEFAULTS:
            value = kwargs.pop(name, None)
            if value is not None:
                saved[name] = value
            if given.get(name) is not None:
                saved[name] = given[name]
        return VisualSettings(
            mode=mode,
            num_frames=saved["num_frames"] if mode == "video" else 1,
            guidance_scale=saved["visual_guidance_scale"],
            do_sample=saved["visual_do_sample"],
            temperature=saved["visual_temperature"],
            top_k=saved["visual_top_k"],
            top_p=saved["visual_top_p"],
            generator=generator,
            negative_ids=None,
            negative_mask=None,
        )

    def _saved_visual_settings(self, generation_config) -> dict:
        saved = dict(VISUAL_GENERATION_DEFAULTS)
        for config in (self.generation_config, generation_config):
            if config is not None:
                values = config.to_dict()
                saved.update({name: values[name] for name in saved if values.get(name) is not None})
        return saved

    def _set_negative_prompt(self, settings, generation_config, ids, mask, input_ids):
        if ids is None:
            saved = self._saved_visual_settings(generation_config)["unconditional_prompt_ids"]
            if saved is None:
                raise ValueError(
                    "`guidance_scale` above 1 needs an unconditional prompt: pass `negative_prompt_ids`, set "
                    "`generation_config.unconditional_prompt_ids` (the processor's `unconditional_prompt_ids()`), or "
                    "use `guidance_scale=1`."
                )
            ids = torch.tensor([saved], device=input_ids.device)
        if ids.ndim != 2 or ids.shape[0] not in (1, input_ids.shape[0]):
            raise ValueError(
                f"`negative_prompt_ids` must have shape (1 or {input_ids.shape[0]}, T), got {tuple(ids.shape)}."
            )
        settings.negative_ids, settings.negative_mask = self._open_span(ids.to(input_ids.device), mask, settings.mode)

    def _open_span(self, input_ids, mask, mode):
        """Ids and mask with the start marker at the end, appended with its prefix unless the prompts have it."""
        if mask is None:
            mask = torch.ones_like(input_ids)
        start = self.config.image_start_token_id if mode == "image" else self.config.video_start_token_id
        open_rows = int((input_ids[:, -1] == start).sum())
        if open_rows == input_ids.shape[0]:
            return input_ids, mask
        if open_rows:
            raise ValueError(
                f"{open_rows} of {input_ids.shape[0]} prompts end with the start marker ({start}): all or none must."
            )
        opening = input_ids.new_tensor([*self.config.start_marker_prefix_ids, start]).repeat(input_ids.shape[0], 1)
        return torch.cat([input_ids, opening], 1), torch.cat([mask, torch.ones_like(opening).to(mask.dtype)], 1)

    def _num_positions(self, settings) -> int:
        return self.config.vision_config.num_visual_tokens * settings.num_frames

    def _new_text_tokens(self, generation_config, kwargs) -> int:
        for source in (kwargs, {} if generation_config is None else generation_config.to_dict()):
            if source.get("max_new_tokens") is not None:
                return source["max_new_tokens"]
        return self.generation_config.max_new_tokens or 1

    def _check_context(self, input_ids, num_new: int):
        limit = self.config.text_config.max_position_embeddings
        length = 0 if input_ids is None else input_ids.shape[1]
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

    def _encode_visual_inputs(self, input_ids, kwargs):
        """Turns pixels and codes into `visual_codes`, which have a row for each prompt and repeat with it."""
        names = ("pixel_values", "pixel_values_videos", "codes")
        visual = {name: kwargs.pop(name) for name in names if kwargs.get(name) is not None}
        if visual:
            codes = self.model.get_visual_codes(input_ids, **visual, inputs_embeds=kwargs.get("inputs_embeds"))
            if kwargs.get("inputs_embeds") is None:
                kwargs["visual_codes"] = codes
            else:
                kwargs["inputs_embeds"] = self.model.place_codes(kwargs["inputs_embeds"], codes, codes[..., 0] >= 0)
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
        """The stock loop for text; for a visual span one language-model step and D depth steps a position."""
        if visual_settings is None:
            return super()._sample(input_ids, generation_config=generation_config, **kwargs)
        settings, rows = visual_settings, input_ids.shape[0]
        run_ids, mask, visual_codes = input_ids, kwargs.get("attention_mask"), kwargs.get("visual_codes")
        mask = torch.ones_like(input_ids) if mask is None else mask
        if settings.negative_ids is not None:
            run_ids, mask, visual_codes = self._with_unconditional_rows(settings, run_ids, mask, visual_codes)
        codes, scores = self._draw_span(
            run_ids,
            mask.long(),
            visual_codes,
            settings,
            kwargs["past_key_values"],
            generation_config.output_scores,
            kwargs.get("streamer"),
        )
        vision = self.config.vision_config
        codes = codes.unflatten(1, (settings.num_frames, vision.grid_size, vision.grid_size))  # (rows, F, h, w, D)
        if settings.mode == "image":
            codes = codes[:, 0]
        if not generation_config.return_dict_in_generate:
            return codes
        placeholder = self.config.image_token_id if settings.mode == "image" else self.config.video_token_id
        span = input_ids.new_full((rows, self._num_positions(settings)), placeholder)
        return VilaUGenerateOutput(sequences=torch.cat([input_ids, span], 1), codes=codes, scores=scores)

    def _with_unconditional_rows(self, settings, input_ids, mask, visual_codes):
        """`[cond; uncond]`, the shorter prompts padded on the left."""
        rows = input_ids.shape[0]
        times = rows // settings.negative_ids.shape[0]
        negative_ids = settings.negative_ids.repeat_interleave(times, 0)
        negative_mask = settings.negative_mask.to(mask.device, mask.dtype).repeat_interleave(times, 0)
        length = max(input_ids.shape[1], negative_ids.shape[1])

        def left_pad(tensor, value=0):
            return torch.nn.functional.pad(tensor, (length - tensor.shape[1], 0), value=value)

        pad = self.config.text_config.pad_token_id or 0
        run_ids = torch.cat([left_pad(input_ids, pad), left_pad(negative_ids, pad)])
        run_mask = torch.cat([left_pad(mask), left_pad(negative_mask)])
        if visual_codes is not None:
            missing = length - visual_codes.shape[1]
            visual_codes = torch.nn.functional.pad(visual_codes, (0, 0, missing, 0, 0, rows), value=-1)
        return run_ids, run_mask, visual_codes

    def _draw_span(self, input_ids, mask, visual_codes, settings, cache, output_scores, streamer):
        """Codes `(rows, P, D)` and, if asked for, guided logits `(rows, P, D, K)`; no host sync inside the loop."""
        num_positions, length = self._num_positions(settings), input_ids.shape[1]
        mask = torch.cat([mask, mask.new_ones(mask.shape[0], num_positions)], 1)  # of all positions to come
        position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
        depth_cache = self.depth_transformer.new_cache()
        hidden = self.model(
            input_ids=input_ids,
            attention_mask=mask[:, :length],
            position_ids=position_ids[:, :length],
            visual_codes=visual_codes,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        codes, scores = [], []
        for position in range(num_positions):
            code, summed, score = self._decode_depths(hidden, settings, depth_cache, output_scores)
            codes.append(code)
            scores.append(score)
            if streamer is not None:
                streamer.put_visual(code)
            if position + 1 == num_positions:
                break
            embeds = self.model.multi_modal_projector(summed)[:, None]  # (rows, 1, H)
            if settings.guidance_scale > 1:
                embeds = torch.cat([embeds, embeds])
            end = length + position + 1
            hidden = self.model.language_model(
                inputs_embeds=embeds,
                attention_mask=mask[:, :end],
                position_ids=position_ids[:, end - 1 : end],
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
        if streamer is not None:
            streamer.end()
        return torch.stack(codes, 1), torch.stack(scores, 1) if output_scores else None

    def _decode_depths(self, hidden, settings, depth_cache, output_scores):
        """The D codes `(rows, D)` after `hidden` `(rows or 2 * rows, H)`, the sum of their embeddings, the logits."""
        quantizer, guided = self.model.vision_tower.quantizer, settings.guidance_scale > 1
        inputs, summed, codes, scores = hidden, 0, [], []
        for depth in range(self.config.depth_config.code_depth):
            logits = self.depth_transformer.step(inputs, depth, depth_cache).float()
            if guided:
                conditional, unconditional = logits.chunk(2)
                logits = unconditional + settings.guidance_scale * (conditional - unconditional)
            code = self._pick_code(logits, settings)
            codes.append(code)
            if output_scores:
                scores.append(logits)
            summed = summed + quantizer.embed_depth(code, depth)  # (rows, C)
            inputs = summed.to(hidden.dtype)
            if guided:
                inputs = torch.cat([inputs, inputs])
        return torch.stack(codes, -1), summed, torch.stack(scores, 1) if output_scores else None

    @staticmethod
    def _pick_code(logits, settings):
        if not settings.do_sample:
            return logits.argmax(-1)
        probabilities = code_probabilities(logits, settings.temperature, settings.top_k, settings.top_p)
        if isinstance(settings.generator, list):
            if len(settings.generator) != len(probabilities):
                raise ValueError(
                    f"`generator` has {len(settings.generator)} entries for {len(probabilities)} rows: give one each."
                )
            rows = zip(probabilities, settings.generator, strict=True)
            return torch.cat([torch.multinomial(row, 1, generator=source) for row, source in rows])
        return torch.multinomial(probabilities, 1, generator=settings.generator)[:, 0]


__all__ = ["VilaUGenerateOutput", "VilaUGenerationMixin", "code_probabilities"]
