# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""The decoding loop that `generate` runs for images, videos and interleaved output."""

from dataclasses import dataclass, replace

import torch
from transformers import StoppingCriteriaList

from .compat_modeling_vilau import CACHE_NAME
from .generation_branches_vilau import BranchPrompt, GuidanceBranches
from .generation_depth_vilau import CodeInputs, DepthDecoder
from .generation_loops_vilau import InterleavedGenerator, generate_span
from .generation_positions_vilau import PositionDecoder
from .generation_prompts_vilau import encode_first_frames, move_codes
from .generation_settings_vilau import VisualSettings
from .outputs_vilau import VilaUGenerateOutput


@dataclass(frozen=True)
class VisualDecoding:
    """
    Decoding loop of one call, as the argument `custom_generate` of transformers' `generate`.

    The library prepares a call (cache, criteria, processors) and then calls the loop. It hands a callable neither the
    streamer nor the tokenizer, so what the loop needs of the call is kept here.

    Args:
        settings ([`VisualSettings`]): what the call asks for.
        input_ids (`torch.LongTensor` of shape `(B, T)`): the prompts, before they are repeated for several results.
        images (`dict`): `pixel_values`, `pixel_values_videos`, `codes` or `visual_codes` of the prompts, if any.
        streamer (*optional*): gets what is generated.
        stopping_criteria (`StoppingCriteriaList`): criteria beside those that the library prepares.
    """

    settings: VisualSettings
    input_ids: torch.LongTensor
    images: dict[str, torch.Tensor]
    streamer: object | None
    stopping_criteria: StoppingCriteriaList

    def __call__(self, model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
        """Generates for the repeated prompts `input_ids` `(rows, T)`; the other arguments are those of the library."""
        settings, rows = self.settings, len(input_ids)
        prompts, first_codes = self._prompts(model, input_ids, model_kwargs.get("attention_mask"))
        forced = 0 if first_codes is None else first_codes.shape[1]
        num_new = generation_config.max_length - input_ids.shape[1] - forced
        graphs, cache = model.position_graphs, model_kwargs[CACHE_NAME]
        if graphs is not None:
            capacity = settings.longest + forced + num_new
            cache = graphs.cache(model.model.language_model, rows * len(prompts), capacity)
        decoder = DepthDecoder(
            model,
            settings.sampling,
            settings.guidance,
            CodeInputs(model) if graphs is None else graphs.code_inputs(model),
            generation_config.output_scores,
            settings.output_log_probs,
        )
        branches = GuidanceBranches(model.model, prompts, num_new, cache, opening=int(settings.mode == "interleaved"))
        position_decoder = PositionDecoder(model, branches, decoder, graphs)
        criteria = StoppingCriteriaList([*stopping_criteria, *self.stopping_criteria])
        if settings.mode == "interleaved":
            return self._interleaved(position_decoder, logits_processor, criteria, generation_config)
        return self._span(position_decoder, first_codes, criteria, input_ids, generation_config)

    def _prompts(self, model, input_ids, mask) -> tuple[list[BranchPrompt], torch.LongTensor | None]:
        """
        Prompts of all branches, the images in them encoded once, and codes `(B or 1, f * L, D)` of the first frames.
        """
        settings, rows = self.settings, len(input_ids)
        codes = self.images.get("visual_codes")
        if codes is None and self.images:
            codes = model.model.get_visual_codes(self.input_ids, **self.images)  # (B, T, D)
        image_only = settings.image_only
        if image_only is not None and codes is not None:
            image_only = replace(image_only, visual_codes=move_codes(model.config, codes, image_only.ids))
        conditional = BranchPrompt(
            input_ids,
            torch.ones_like(input_ids) if mask is None else mask,
            None if codes is None else codes.repeat_interleave(rows // len(codes), 0),
        )
        prompts = [conditional, *(each.repeat(rows) for each in (image_only, settings.negative) if each is not None)]
        if settings.first_frames is None:
            return prompts, None
        first_codes = encode_first_frames(model.model, settings.first_frames)
        return [prompt.append_visual(_placeholder(model, settings), first_codes) for prompt in prompts], first_codes

    def _interleaved(self, position_decoder, logits_processor, criteria, generation_config) -> VilaUGenerateOutput:
        interleaved = InterleavedGenerator(
            position_decoder, self.settings, logits_processor, criteria, generation_config, self.streamer
        )
        spans = interleaved.generate()
        guided, unguided = interleaved.log_probs or (None, None)
        return VilaUGenerateOutput(
            sequences=interleaved.ids,
            visual_codes=interleaved.codes,
            code_log_probs=guided,
            conditional_code_log_probs=unguided,
            spans=spans,
            prompt_length=self.input_ids.shape[1],
        )

    def _span(self, position_decoder, first_codes, criteria, input_ids, generation_config):
        """One image or video for each row: its codes, or an output with what else was asked for."""
        settings, rows, model = self.settings, len(input_ids), position_decoder.model
        vision, placeholder = model.config.vision_config, _placeholder(model, settings)
        forced = 0 if first_codes is None else first_codes.shape[1]
        num_positions = vision.num_visual_tokens * settings.num_frames
        drawn = generate_span(position_decoder, range(forced, num_positions), placeholder, criteria, self.streamer)
        codes = drawn.codes
        if forced:
            codes = torch.cat([first_codes.repeat_interleave(rows // len(first_codes), 0), codes], 1)
        codes = codes.unflatten(1, (settings.num_frames, vision.grid_size, vision.grid_size))  # (rows, F, h, w, D)
        if settings.mode == "image":
            codes = codes[:, 0]
        if not generation_config.return_dict_in_generate:
            return codes
        span = input_ids.new_full((rows, num_positions), placeholder)
        return VilaUGenerateOutput(
            sequences=torch.cat([input_ids, span], 1),
            codes=codes,
            scores=drawn.scores,
            code_log_probs=drawn.log_probs,
            conditional_code_log_probs=drawn.conditional_log_probs,
        )


def _placeholder(model, settings: VisualSettings) -> int:
    return model.config.image_token_id if settings.mode == "image" else model.config.video_token_id


__all__ = ["VisualDecoding"]
