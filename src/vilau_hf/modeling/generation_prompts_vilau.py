# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""
Prompts of a call and of its guidance. The images in them are checked before anything is read, then encoded once for
all branches.
"""

import torch


def infer_attention_mask(input_ids: torch.LongTensor, generation_config) -> torch.LongTensor:
    """
    Returns the mask `(B, T)` that transformers' `generate` infers for `input_ids` `(B, T)` without a mask.

    Padding is masked, unless the padding token is also an end token.
    """
    pad, ends = generation_config.pad_token_id, generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else ends or []
    if pad is None or pad in ends:
        return torch.ones_like(input_ids)
    return input_ids.ne(pad).long()


def check_pictures(model, input_ids: torch.LongTensor, given: dict):
    """
    Raises a `ValueError` if prompts have placeholders, and `given`, the arguments of `generate`, no pictures for them;
    or if `visual_codes` are not integers `(B, T, D)` with codes at the placeholders alone.
    """
    is_visual, visual_codes = model.config.is_visual(input_ids), given.get("visual_codes")
    if visual_codes is None:
        names = ("pixel_values", "pixel_values_videos", "codes")
        if all(given.get(name) is None for name in names) and bool(is_visual.any()):
            raise ValueError(
                f"the prompt holds {int(is_visual.sum())} placeholders, but none of `pixel_values`, "
                "`pixel_values_videos` and `codes` is given."
            )
        return
    shape = (*input_ids.shape, model.config.vision_config.code_depth)
    if visual_codes.shape != shape or visual_codes.is_floating_point():
        raise ValueError(
            f"`visual_codes` must be integers of shape {shape}, got {visual_codes.dtype} of shape "
            f"{tuple(visual_codes.shape)}."
        )
    if not torch.equal((visual_codes >= 0).any(-1), is_visual.to(visual_codes.device)):
        raise ValueError("`visual_codes` must be codes at the placeholders of the prompts, and -1 elsewhere.")
    if bool(is_visual.any()):
        model.vision_tower.quantizer.check_range(visual_codes[visual_codes[..., 0] >= 0])


def check_image_prompts(config, image_prompt_ids: torch.LongTensor | None, input_ids: torch.LongTensor):
    """Raises a `ValueError` unless there is one prompt of images alone for each prompt, with its placeholders."""
    if image_prompt_ids is None or len(image_prompt_ids) != len(input_ids):
        raise ValueError(
            f"`image_guidance_scale` needs `image_prompt_ids` of shape ({len(input_ids)}, T), the prompts without "
            f"their text, got {None if image_prompt_ids is None else tuple(image_prompt_ids.shape)}."
        )
    expected, found = (config.is_visual(ids).sum(-1).tolist() for ids in (input_ids, image_prompt_ids))
    if found != expected:
        raise ValueError(f"`image_prompt_ids` must hold as many placeholders as the prompts, {expected}, got {found}.")


def default_unconditional_ids(config, saved: list[int] | None) -> list[int]:
    """Ids of the prompt that guidance compares with: the `saved` ones, or the bos token alone."""
    if saved is not None:
        return saved
    if config.text_config.bos_token_id is None:
        raise ValueError(
            "`guidance_scale` above 1 needs an unconditional prompt: pass `negative_prompt_ids`, set "
            "`generation_config.unconditional_prompt_ids` (the processor's `unconditional_prompt_ids()`), or use "
            "`guidance_scale=1`."
        )
    return [config.text_config.bos_token_id]


def check_first_frames(model, first_frames: torch.Tensor, settings):
    """Raises a `ValueError` unless `first_frames` are pixels or codes that a video of `settings` can begin with."""
    frames = first_frames.shape[1] if first_frames.ndim in (4, 5) else 0
    if settings.mode != "video" or not 0 < frames < settings.num_frames:
        raise ValueError(
            "`first_frames` must be fewer than `num_frames` of a video, pixels of shape (rows, f, 3, S, S) or "
            f"codes of shape (rows, f, L, D); got shape {tuple(first_frames.shape)} in mode "
            f'"{settings.mode}" with {settings.num_frames} frames.'
        )
    if first_frames.shape[0] not in (1, settings.prompts):
        raise ValueError(f"`first_frames` must be of 1 or {settings.prompts} rows, got {first_frames.shape[0]}.")
    if not first_frames.is_floating_point():
        model.check_codes(first_frames.flatten(0, 1))


def encode_first_frames(model, first_frames: torch.Tensor) -> torch.LongTensor:
    """Codes `(rows, f * L, D)` of pixels `(rows, f, 3, S, S)` or codes `(rows, f, L, D)`."""
    if not first_frames.is_floating_point():
        return first_frames.flatten(1, 2)
    codes = model.vision_tower.encode(first_frames.flatten(0, 1)).codes  # (rows * f, L, D)
    return codes.unflatten(0, first_frames.shape[:2]).flatten(1, 2)


def move_codes(config, visual_codes: torch.LongTensor, image_prompt_ids: torch.LongTensor) -> torch.LongTensor:
    """`visual_codes` `(B, T, D)` of the prompts as those `(B, Ti, D)` of the prompts of images alone."""
    moved = visual_codes.new_full((*image_prompt_ids.shape, visual_codes.shape[-1]), -1)
    moved[config.is_visual(image_prompt_ids)] = visual_codes[visual_codes[..., 0] >= 0]
    return moved
