# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""What the complete model and its `generate` return."""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.utils import ModelOutput


class _NestedOutput(ModelOutput):
    """An output whose tuple holds the outputs of the image encoder as tuples, too."""

    def to_tuple(self) -> tuple:
        # as in transformers 5.24, where the base classes of multimodal outputs do the same
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in super().to_tuple())


# The cache is a field of the base classes, so that each version of transformers names it as it reads it.
@dataclass
class VilaUModelOutputWithPast(_NestedOutput, BaseModelOutputWithPast):
    r"""
    last_hidden_state (`torch.Tensor` of shape `(B, T, H)`): output of the language model's last layer, after its norm.
    cache, or past_key_values before transformers 5.24 (`Cache`, *optional*): keys and values of the language model.
    hidden_states, attentions (`tuple`, *optional*): those of the language model, if they are asked for.
    visual_codes (`torch.LongTensor` of shape `(B, T, D)`, *optional*, with visual input): codes at visual positions,
        -1 elsewhere.
    image_outputs, video_outputs (`BaseModelOutputWithPooling`, *optional*, with `pixel_values`,
        `pixel_values_videos`): what `get_image_features` and `get_video_features` give for these pixels.
    """

    visual_codes: torch.LongTensor | None = None
    image_outputs: BaseModelOutputWithPooling | None = None
    video_outputs: BaseModelOutputWithPooling | None = None


@dataclass
class VilaUCausalLMOutputWithPast(_NestedOutput, CausalLMOutputWithPast):
    r"""
    loss (`torch.Tensor` of shape `()`, *optional*, when `labels` is given): weighted sum of the two losses.
    logits (`torch.Tensor` of shape `(B, T, vocab_size)`, *optional*): text scores before softmax; left out when a
        training step with `labels` needs them only where a label stands.
    cache, or past_key_values before transformers 5.24 (`Cache`, *optional*): keys and values of the language model.
    hidden_states, attentions (`tuple`, *optional*): those of the language model, if they are asked for.
    text_loss, visual_loss (`torch.Tensor` of shape `()`, *optional*): cross-entropy over text tokens, over codes.
    code_logits (`torch.Tensor` of shape `(M, D, K)`, *optional*, with `output_code_logits`): code scores of the M
        supervised visual tokens, in order.
    image_outputs, video_outputs (`BaseModelOutputWithPooling`, *optional*, with `pixel_values`,
        `pixel_values_videos`): what `get_image_features` and `get_video_features` give for these pixels.
    """

    text_loss: torch.Tensor | None = None
    visual_loss: torch.Tensor | None = None
    code_logits: torch.Tensor | None = None
    image_outputs: BaseModelOutputWithPooling | None = None
    video_outputs: BaseModelOutputWithPooling | None = None


@dataclass
class VisualSpan:
    r"""
    One image or video in a row of generated positions.

    kind (`str`): `"image"` or `"video"`.
    begin (`int`): index of its first visual token in the sequence.
    num_tokens (`int`): visual tokens that were written.
    codes (`torch.LongTensor` of shape `(h, w, D)` or `(F, h, w, D)`, *optional*): `None` if the span was cut off.
    pixels (`torch.Tensor` of shape `(3, H, W)` or `(F, 3, H, W)`, *optional*): where they were decoded, in [-1, 1].
    """

    kind: str
    begin: int
    num_tokens: int = 0
    codes: torch.LongTensor | None = None
    pixels: torch.Tensor | None = None


@dataclass
class VilaUGenerateOutput(ModelOutput):
    r"""
    sequences (`torch.LongTensor` of shape `(rows, T)`): prompts and what was generated, a placeholder for each visual
        token.
    codes (`torch.LongTensor` of shape `(rows, h, w, D)` or `(rows, F, h, w, D)`, *optional*): codes of the image or
        video, -1 from where stopping criteria stopped the row.
    scores (`torch.Tensor` of shape `(rows, P, D, K)`, *optional*, with `output_scores`): guided code logits at each of
        the P visual positions, before temperature and truncation. NaN where `codes` are -1, and where a streamer
        changed the codes of a position, from the first changed depth on.
    code_log_probs, conditional_code_log_probs (`torch.Tensor` of shape `(rows, P, D)`, *optional*, with
        `output_log_probs`): log-probabilities of the codes by the guided logits, and without guidance; NaN where
        `scores` are. In interleaved mode `(rows, T, D)`, 0 where no visual token was written.
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


def rows_of(features: BaseModelOutputWithPooling, rows: slice) -> BaseModelOutputWithPooling:
    """Returns the `rows` of image features, whose tensors have images and frames in dimension 0."""

    def pick(value):
        if isinstance(value, (tuple, list)):  # of layers; `None` for those that were not asked for
            return tuple(None if each is None else each[rows] for each in value)
        return None if value is None else value[rows]

    return BaseModelOutputWithPooling(**{name: pick(value) for name, value in features.items()})


def frames_to_videos(features: BaseModelOutputWithPooling, num_videos: int) -> BaseModelOutputWithPooling:
    """Joins the tokens of the frames of each video: `(V * F, L, ...)` becomes `(V, F * L, ...)`."""
    for name in ("last_hidden_state", "pooler_output"):
        features[name] = features[name].unflatten(0, (num_videos, -1)).flatten(1, 2)
    return features


__all__ = ["VilaUCausalLMOutputWithPast", "VilaUGenerateOutput", "VilaUModelOutputWithPast", "VisualSpan"]
