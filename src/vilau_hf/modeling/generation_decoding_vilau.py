# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""The decoding loop that `generate` runs for images, videos and interleaved output."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from .compat_modeling_vilau import CACHE_NAME
from .generation_branches_vilau import BranchPrompt, GuidanceBranches
from .generation_depth_vilau import CodeInputs, DepthDecoder
from .generation_loops_vilau import InterleavedGenerator, generate_span
from .generation_plan_vilau import GenerationPlan
from .generation_positions_vilau import GraphWorkspace, PositionDecoder
from .generation_prompts_vilau import encode_first_frames, move_codes
from .outputs_vilau import VilaUGenerateOutput


@dataclass(frozen=True)
class VisualDecoding:
    """
    Decoding loop of one call, as the argument `custom_generate` of transformers' `generate`.

    The library prepares a call (cache, criteria, processors) and then calls the loop. It hands a callable neither the
    streamer nor the tokenizer, so what the loop needs of the call is kept here.

    Args:
        plan ([`GenerationPlan`]): settings and prompts of the call.
        images (`dict`): `pixel_values`, `pixel_values_videos`, `codes` or `visual_codes` of the prompts, if any.
        streamer (*optional*): receives what is generated.
        stopping_criteria (`StoppingCriteriaList`): criteria in addition to those that the library prepares.
    """

    plan: GenerationPlan
    images: dict[str, torch.Tensor]
    streamer: Any
    stopping_criteria: StoppingCriteriaList

    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> torch.Tensor | VilaUGenerateOutput:
        """
        Generates for repeated prompts.

        Args:
            model ([`VilaUForConditionalGeneration`]): the model.
            input_ids (`torch.Tensor` of shape `(rows, T)`): the prompts, repeated for several results each.
            logits_processor (`LogitsProcessorList`): processors of text logits.
            stopping_criteria (`StoppingCriteriaList`): criteria of the library and of the caller.
            generation_config (`GenerationConfig`): the prepared settings.
            **model_kwargs: the mask and the cache.
        """
        plan = self.plan
        settings = plan.settings
        is_parallel = settings.visual_decoding == "parallel"
        rows = len(input_ids)
        prompts, first_codes = self._prompts(model, input_ids, model_kwargs.get("attention_mask"))
        num_given = 0 if first_codes is None else first_codes.shape[1]
        num_new = generation_config.max_length - input_ids.shape[1] - num_given
        checkout: AbstractContextManager[GraphWorkspace | None] = nullcontext()
        if model.position_graphs is not None:
            capacity = plan.longest_prompt + num_given + num_new
            checkout = model.position_graphs.checkout(model, rows * len(prompts), capacity, is_parallel)
        with checkout as workspace:
            # A CUDA graph reads fixed addresses, so a workspace keeps its cache and the library's is not used.
            cache = model_kwargs[CACHE_NAME] if workspace is None else workspace.cache
            decoder = DepthDecoder(
                model,
                plan.sampler,
                plan.guidance,
                CodeInputs(model) if workspace is None else workspace.code_inputs,
                generation_config.output_scores,
                settings.output_log_probs,
            )
            # In interleaved mode the prompts of other branches end with a position for a start marker.
            num_reserved = int(settings.mode == "interleaved")
            branches = GuidanceBranches(model.model, prompts, num_new, cache, num_reserved)
            position_decoder = PositionDecoder(
                model, branches, decoder, workspace, is_parallel, settings.parallel_window
            )
            criteria = StoppingCriteriaList([*stopping_criteria, *self.stopping_criteria])
            if settings.mode == "interleaved":
                return self._generate_interleaved(position_decoder, logits_processor, criteria, generation_config)
            return self._generate_span(position_decoder, first_codes, criteria, input_ids, generation_config)

    def _prompts(
        self, model: Any, input_ids: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[list[BranchPrompt], torch.Tensor | None]:
        """
        Makes the prompts of all branches.

        The images in them are encoded once, before the prompts are repeated.

        Returns:
            The prompts, and codes `(B or 1, f * L, D)` of the first frames, if any.
        """
        plan = self.plan
        rows = len(input_ids)
        codes = self.images.get("visual_codes")
        if codes is None and self.images:
            codes = model.model.get_visual_codes(plan.prompt.ids, **self.images)  # (B, T, D)
        others = plan.other_prompts
        if plan.image_only is not None and codes is not None:
            others[0] = replace(others[0], visual_codes=move_codes(model.config, codes, others[0].ids))
        conditional = BranchPrompt(
            input_ids,
            torch.ones_like(input_ids) if mask is None else mask,
            None if codes is None else codes.repeat_interleave(rows // len(codes), 0),
        )
        prompts = [conditional, *(each.repeat(rows) for each in others)]
        if plan.first_frames is None:
            return prompts, None
        first_codes = encode_first_frames(model.model, plan.first_frames)
        return [prompt.append_visual(plan.placeholder_id, first_codes) for prompt in prompts], first_codes

    def _generate_interleaved(
        self,
        position_decoder: PositionDecoder,
        logits_processor: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
    ) -> VilaUGenerateOutput:
        """Generates text and visual spans in turn."""
        interleaved = InterleavedGenerator(
            position_decoder, self.plan.settings, logits_processor, criteria, generation_config, self.streamer
        )
        spans = interleaved.generate()
        guided, unguided = interleaved.log_probs or (None, None)
        return VilaUGenerateOutput(
            sequences=cast(torch.LongTensor, interleaved.ids),
            visual_codes=cast(torch.LongTensor, interleaved.codes),
            code_log_probs=guided,
            conditional_code_log_probs=unguided,
            spans=spans,
            prompt_length=self.plan.prompt.ids.shape[1],
        )

    def _generate_span(
        self,
        position_decoder: PositionDecoder,
        first_codes: torch.Tensor | None,
        criteria: StoppingCriteriaList,
        input_ids: torch.Tensor,
        generation_config: GenerationConfig,
    ) -> torch.Tensor | VilaUGenerateOutput:
        """Generates one image or video for each row: its codes, or an output with more if that is asked for."""
        plan = self.plan
        rows = len(input_ids)
        vision = position_decoder.model.config.vision_config
        num_given = 0 if first_codes is None else first_codes.shape[1]
        positions = range(num_given, plan.num_positions)
        generated = generate_span(position_decoder, positions, plan.placeholder_id, criteria, self.streamer)
        codes = generated.codes
        if first_codes is not None:
            codes = torch.cat([first_codes.repeat_interleave(rows // len(first_codes), 0), codes], 1)
        grid = (plan.settings.num_frames, vision.grid_size, vision.grid_size)
        codes = codes.unflatten(1, grid)  # (rows, F, h, w, D)
        if plan.settings.mode == "image":
            codes = codes[:, 0]
        if not generation_config.return_dict_in_generate:
            return codes
        span = input_ids.new_full((rows, plan.num_positions), plan.placeholder_id)
        return VilaUGenerateOutput(
            sequences=cast(torch.LongTensor, torch.cat([input_ids, span], 1)),
            codes=codes,
            scores=generated.scores,
            code_log_probs=generated.log_probs,
            conditional_code_log_probs=generated.conditional_log_probs,
        )


__all__ = ["VisualDecoding"]
