# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Values that a `generate` call derives from its settings and prompts before the model runs."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from .generation_branches_vilau import BranchPrompt
from .generation_prompts_vilau import (
    check_first_frames,
    image_only_ids,
    infer_attention_mask,
    open_prompts,
    unconditional_ids,
)
from .generation_sampling_vilau import CodeSampler, Guidance, seeded_generators
from .generation_settings_vilau import VisualArguments, VisualGenerationSettings


@dataclass(frozen=True)
class GenerationPlan:
    """
    Values derived from the settings and prompts of one call.

    Args:
        settings ([`VisualGenerationSettings`]): the settings of the call.
        sampler ([`CodeSampler`]): sampler with the generators of the rows.
        guidance ([`Guidance`]): guidance, expanded to the rows.
        placeholder_id (`int`): placeholder of an image or of a video.
        num_positions (`int`): visual tokens of an image, or of all frames of a video.
        prompt ([`BranchPrompt`]): conditional prompts, B rows.
        image_only ([`BranchPrompt`], *optional*): prompts of the image-only branch, with an image scale.
        unconditional ([`BranchPrompt`], *optional*): prompts of the unconditional branch, with guidance.
        first_frames (`torch.Tensor`, *optional*): frames that a video begins with, pixels or codes.
    """

    settings: VisualGenerationSettings
    sampler: CodeSampler
    guidance: Guidance
    placeholder_id: int
    num_positions: int
    prompt: BranchPrompt
    image_only: BranchPrompt | None = None
    unconditional: BranchPrompt | None = None
    first_frames: torch.Tensor | None = None

    @property
    def other_prompts(self) -> list[BranchPrompt]:
        """Prompts of the branches besides the conditional one, in the order that [`Guidance.mix`] expects."""
        return [prompt for prompt in (self.image_only, self.unconditional) if prompt is not None]

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt of all branches."""
        return max(prompt.ids.shape[1] for prompt in (self.prompt, *self.other_prompts))

    @classmethod
    def make(
        cls,
        model: Any,
        settings: VisualGenerationSettings,
        arguments: VisualArguments,
        input_ids: torch.Tensor,
        mask: torch.Tensor | None,
        generation_config: GenerationConfig,
    ) -> "GenerationPlan":
        """
        Makes the plan of one call, and checks arguments whose shape depends on the number of prompts and rows.

        Args:
            model ([`VilaUForConditionalGeneration`]): the model; it does not run.
            settings ([`VisualGenerationSettings`]): the settings of the call.
            arguments ([`VisualArguments`]): the arguments of the call: prompts, seeds and first frames.
            input_ids (`torch.Tensor` of shape `(B, T)`): the prompts.
            mask (`torch.Tensor` of shape `(B, T)`, *optional*): their mask.
            generation_config (`GenerationConfig`): the merged generation config.

        Raises:
            ValueError: if an argument does not fit the prompts.
        """
        config = model.config
        num_prompts = len(input_ids)
        rows = num_prompts * (generation_config.num_return_sequences or 1)
        num_positions = config.vision_config.num_visual_tokens * settings.num_frames
        # Results of one prompt follow one another, as the library repeats prompts.
        generators = arguments.generator
        if arguments.seed is not None:
            generators = seeded_generators(arguments.seed, rows, input_ids.device)
        sampler = CodeSampler(
            settings.sampling, config.vision_config.code_depth, arguments.code_logits_processor, generators
        )
        sampler.check_rows(rows)
        guidance = settings.guidance.expand(num_prompts, rows, num_positions, input_ids.device)
        frames = arguments.first_frames
        if frames is not None:
            check_first_frames(model.model, frames, settings.mode, settings.num_frames, num_prompts)
        if mask is None:
            mask = infer_attention_mask(input_ids, generation_config)
        prompt = open_prompts(config, settings.mode, input_ids, mask)
        branch = (config, settings, arguments, prompt.ids, generation_config)
        return cls(
            settings=settings,
            sampler=sampler,
            guidance=guidance,
            placeholder_id=config.image_token_id if settings.mode == "image" else config.video_token_id,
            num_positions=num_positions,
            prompt=prompt,
            unconditional=_unconditional_prompt(*branch) if guidance.num_branches > 1 else None,
            image_only=_image_only_prompt(*branch) if guidance.image_scale is not None else None,
            first_frames=frames,
        )


def _unconditional_prompt(
    config: Any,
    settings: VisualGenerationSettings,
    arguments: VisualArguments,
    conditional_ids: torch.Tensor,
    generation_config: GenerationConfig,
) -> BranchPrompt:
    """Makes the prompts of the unconditional branch."""
    ids = arguments.negative_prompt_ids
    mask = arguments.negative_prompt_attention_mask
    if ids is not None:
        ids = ids.to(conditional_ids.device)
        if mask is None:
            mask = infer_attention_mask(ids, generation_config)
    # The default prompt gets no inferred mask: its bos token may also be the padding token.
    ids = unconditional_ids(config, ids, settings.unconditional_prompt_ids, conditional_ids)
    return open_prompts(config, settings.mode, ids, mask, conditional_ids)


def _image_only_prompt(
    config: Any,
    settings: VisualGenerationSettings,
    arguments: VisualArguments,
    conditional_ids: torch.Tensor,
    generation_config: GenerationConfig,
) -> BranchPrompt:
    """Makes the prompts of the image-only branch."""
    ids = image_only_ids(config, arguments.image_prompt_ids, conditional_ids)
    mask = arguments.image_prompt_attention_mask
    if mask is None:
        mask = infer_attention_mask(ids, generation_config)
    return open_prompts(config, settings.mode, ids, mask, conditional_ids)


__all__ = ["GenerationPlan"]
