# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Prompts of a `generate` call: masks, start markers, the prompts of other branches, images and first frames."""

from typing import Any

import torch
from transformers import GenerationConfig

from .argument_checks_vilau import as_int64
from .configuration_vilau import VilaUConfig
from .generation_branches_vilau import BranchPrompt, reserve_marker_position


def infer_attention_mask(input_ids: torch.Tensor, generation_config: GenerationConfig) -> torch.Tensor:
    """
    Returns the mask `(B, T)` that transformers' `generate` infers for `input_ids` `(B, T)` without a mask.

    Padding is masked, unless the padding token is also an end token.
    """
    pad = generation_config.pad_token_id
    ends = generation_config.eos_token_id
    # an integer, several in a list or a tensor, or `None`
    ends = [] if ends is None else torch.as_tensor(ends).flatten().tolist()
    if pad is None or pad in ends:
        return torch.ones_like(input_ids)
    return input_ids.ne(pad).long()


def check_vocabulary(config: VilaUConfig, **ids: torch.Tensor | None) -> None:
    """
    Checks that ids are in the vocabulary of the language model, or placeholders.

    Args:
        config ([`VilaUConfig`]): configuration of the model.
        **ids (`torch.Tensor`, *optional*): ids by the names of their arguments.

    Raises:
        ValueError: for other ids.
    """
    size = config.text_config.vocab_size
    for name, given in ids.items():
        if given is None or given.device.type == "meta":
            continue
        is_outside = ((given < 0) | (given >= size)) & ~config.is_visual(given)
        if bool(is_outside.any()):
            raise ValueError(
                f"`{name}` must be in the vocabulary, [0, {size}), or placeholders, got "
                f"{sorted(set(given[is_outside].tolist()))[:5]}."
            )


def open_prompts(
    config: VilaUConfig,
    mode: str,
    ids: torch.Tensor,
    mask: torch.Tensor | None,
    conditional_ids: torch.Tensor | None = None,
) -> BranchPrompt:
    """
    Adds the start marker of an image or video to prompts.

    In interleaved mode the model generates the marker. Then only the prompts of other branches change, as
    [`reserve_marker_position`] describes.

    Args:
        config ([`VilaUConfig`]): configuration of the model.
        mode (`str`): `"image"`, `"video"` or `"interleaved"`.
        ids (`torch.Tensor` of shape `(1 or B, T)`): the prompts; they may already end with the marker.
        mask (`torch.Tensor` of shape `(1 or B, T)`, *optional*): their mask, by default all ones.
        conditional_ids (`torch.Tensor` of shape `(B, Tc)`, *optional*): the conditional prompts, if `ids` are those of
            another branch.

    Raises:
        ValueError: if the mask has another shape, or some prompts end with the marker and others do not.
    """
    if mask is None:
        mask = torch.ones_like(ids)
    if mask.shape != ids.shape:
        raise ValueError(
            f"an attention mask must have the shape of its prompts, {tuple(ids.shape)}, got {tuple(mask.shape)}."
        )
    starts = {"image": config.image_start_token_id, "video": config.video_start_token_id}
    prefix = [*config.start_marker_prefix_ids]
    if mode == "interleaved":
        if conditional_ids is None:
            return BranchPrompt(ids, mask)
        return BranchPrompt(*reserve_marker_position(ids, mask, conditional_ids[:, -1], [*starts.values()], prefix))
    start = starts[mode]
    num_open = int((ids[:, -1] == start).sum())
    if num_open not in (0, len(ids)):
        raise ValueError(f"{num_open} of {len(ids)} prompts end with the start marker ({start}): all or none must.")
    added = [] if num_open else [*prefix, start]
    opening = ids.new_tensor(added, dtype=torch.long).repeat(len(ids), 1)
    return BranchPrompt(torch.cat([ids, opening], 1), torch.cat([mask, torch.ones_like(opening).to(mask.dtype)], 1))


def unconditional_ids(
    config: VilaUConfig, ids: torch.Tensor | None, saved: list[int] | None, input_ids: torch.Tensor
) -> torch.Tensor:
    """
    Returns ids `(1 or B, Tn)` of the unconditional branch.

    Args:
        config ([`VilaUConfig`]): configuration of the model.
        ids (`torch.Tensor` of shape `(1 or B, Tn)`, *optional*): negative prompts of the call.
        saved (`list[int]`, *optional*): prompt of the checkpoint, used without `ids`; by default the bos token.
        input_ids (`torch.Tensor` of shape `(B, T)`): the prompts.

    Raises:
        ValueError: if there is no such prompt, or `ids` have another shape.
    """
    if ids is None:
        bos = config.get_text_config().bos_token_id
        if saved is None and bos is None:
            raise ValueError(
                "`guidance_scale` above 1 needs an unconditional prompt: pass `negative_prompt_ids`, set "
                "`generation_config.unconditional_prompt_ids` (the processor's `unconditional_prompt_ids()`), or use "
                "`guidance_scale=1`."
            )
        if saved is not None and len(saved) == 0:
            raise ValueError("`unconditional_prompt_ids` must hold at least one id, got none.")
        ids = torch.tensor([[bos] if saved is None else list(saved)])
        check_vocabulary(config, unconditional_prompt_ids=ids)
    if ids.ndim != 2 or ids.shape[0] not in (1, input_ids.shape[0]):
        raise ValueError(
            f"`negative_prompt_ids` must have shape (1 or {input_ids.shape[0]}, T), got {tuple(ids.shape)}."
        )
    return ids.to(input_ids.device)


def check_image_inputs(model: Any, input_ids: torch.Tensor, images: dict[str, torch.Tensor]) -> None:
    """
    Checks the images of the prompts.

    Args:
        model ([`VilaUModel`]): the model without its heads.
        input_ids (`torch.Tensor` of shape `(B, T)`): the prompts.
        images (`dict`): arguments of `generate` that hold images.

    Raises:
        ValueError: if prompts have placeholders and there are no images, or if `visual_codes` are not integers
            `(B, T, D)` with codes at exactly the placeholders.
    """
    is_visual = model.config.is_visual(input_ids)
    visual_codes = images.get("visual_codes")
    if visual_codes is None:
        names = ("pixel_values", "pixel_values_videos", "codes")
        if all(images.get(name) is None for name in names) and bool(is_visual.any()):
            raise ValueError(
                f"the prompt holds {int(is_visual.sum())} placeholders, but none of `pixel_values`, "
                "`pixel_values_videos` and `codes` is given."
            )
        return
    shape = (*input_ids.shape, model.config.vision_config.code_depth)
    visual_codes = as_int64(visual_codes, "visual_codes")
    # In assisted decoding, the library gives the assistant the codes of the prompt, and ids with new text after it.
    is_visual_after = is_visual[:, visual_codes.shape[1] :] if visual_codes.ndim == 3 else is_visual
    if visual_codes.ndim == 3 and visual_codes.shape[1] < shape[1] and not is_visual_after.any():
        shape = (shape[0], visual_codes.shape[1], shape[2])
        is_visual = is_visual[:, : shape[1]]
    if visual_codes.shape != shape:
        raise ValueError(
            f"`visual_codes` must be integers of shape {shape}, got {visual_codes.dtype} of shape "
            f"{tuple(visual_codes.shape)}."
        )
    if not torch.equal((visual_codes >= 0).any(-1), is_visual.to(visual_codes.device)):
        raise ValueError("`visual_codes` must be codes at the placeholders of the prompts, and -1 elsewhere.")
    if bool(is_visual.any()):
        model.vision_tower.quantizer.check_range(visual_codes[is_visual.to(visual_codes.device)])


def image_only_ids(config: VilaUConfig, ids: torch.Tensor | None, input_ids: torch.Tensor) -> torch.Tensor:
    """
    Returns ids `(B, Ti)` of the image-only branch.

    Args:
        config ([`VilaUConfig`]): configuration of the model.
        ids (`torch.Tensor` of shape `(B, Ti)`, *optional*): the prompts with their images and without their text.
        input_ids (`torch.Tensor` of shape `(B, T)`): the prompts.

    Raises:
        ValueError: if the number of rows, or of placeholders in a row, differs from `input_ids`.
    """
    if ids is None or len(ids) != len(input_ids):
        raise ValueError(
            f"`image_guidance_scale` needs `image_prompt_ids` of shape ({len(input_ids)}, T), each prompt with its "
            f"images and without its text, got {None if ids is None else tuple(ids.shape)}."
        )
    expected, found = (config.is_visual(each).sum(-1).tolist() for each in (input_ids, ids))
    if found != expected:
        raise ValueError(f"`image_prompt_ids` must hold as many placeholders as `input_ids`, {expected}, got {found}.")
    return ids.to(input_ids.device)


def check_first_frames(model: Any, first_frames: torch.Tensor, mode: str, num_frames: int, num_prompts: int) -> None:
    """
    Checks the frames that a video begins with.

    Args:
        model ([`VilaUModel`]): the model without its heads.
        first_frames (`torch.Tensor`): pixels `(1 or B, f, 3, S, S)` or codes `(1 or B, f, L, D)`.
        mode (`str`): the generation mode.
        num_frames (`int`): frames of the video.
        num_prompts (`int`): number B of prompts.

    Raises:
        ValueError: if their shape does not fit, or codes are out of range.
    """
    frames = first_frames.shape[1] if first_frames.ndim in (4, 5) else 0
    if mode != "video" or not 0 < frames < num_frames:
        raise ValueError(
            '`first_frames` must be fewer than `num_frames` in mode "video": pixels of shape (rows, f, 3, S, S) or '
            f"codes of shape (rows, f, L, D). Got shape {tuple(first_frames.shape)} in mode "
            f'"{mode}" with {num_frames} frames.'
        )
    if first_frames.shape[0] not in (1, num_prompts):
        raise ValueError(f"`first_frames` must have 1 or {num_prompts} rows, got {first_frames.shape[0]}.")
    if first_frames.is_floating_point():
        if first_frames.ndim != 5:
            raise ValueError(
                f"`first_frames` of pixels must have shape (rows, f, 3, S, S), got shape {tuple(first_frames.shape)}."
            )
        model.vision_tower.check_pixels(first_frames, "first_frames", "rows, f")
    else:
        model.check_codes(first_frames.flatten(0, 1))


def encode_first_frames(model: Any, first_frames: torch.Tensor) -> torch.Tensor:
    """Encodes pixels `(B, f, 3, S, S)`, or reshapes codes `(B, f, L, D)`, into codes `(B, f * L, D)`."""
    if not first_frames.is_floating_point():
        return first_frames.flatten(1, 2).long()
    # The tower encodes images, so frames are images of one batch.
    codes = model.vision_tower.encode(first_frames.flatten(0, 1)).codes  # (B * f, L, D)
    return codes.unflatten(0, first_frames.shape[:2]).flatten(1, 2)


def move_codes(config: VilaUConfig, visual_codes: torch.Tensor, image_prompt_ids: torch.Tensor) -> torch.Tensor:
    """Moves `visual_codes` `(B, T, D)` of the prompts to the placeholders `(B, Ti, D)` of the image-only prompts."""
    moved = visual_codes.new_full((*image_prompt_ids.shape, visual_codes.shape[-1]), -1)
    # Both masks select in row order, and each row has as many placeholders in both prompts.
    moved[config.is_visual(image_prompt_ids)] = visual_codes[visual_codes[..., 0] >= 0]
    return moved
