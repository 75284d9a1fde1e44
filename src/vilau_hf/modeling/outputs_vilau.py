# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Outputs of the complete model and of `generate`."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.utils import ModelOutput

from .span_display_vilau import span_html


class _NestedOutput(ModelOutput):
    """Base class of outputs that contain outputs of the image encoder."""

    # The base method leaves the contained outputs as they are. The base classes of multimodal outputs in 5.24 convert
    # them as here. It can go when 5.24 is the oldest supported version, with their base classes.
    def to_tuple(self) -> tuple:
        """Returns the fields that are not `None`, with contained outputs as tuples, too."""
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in super().to_tuple())


# The cache is a field of the base classes, so it has the name that the installed version of transformers reads.
@dataclass
class VilaUModelOutputWithPast(_NestedOutput, BaseModelOutputWithPast):
    r"""
    Output of [`VilaUModel`].

    Args:
        last_hidden_state (`torch.Tensor` of shape `(B, T, H)`): output of the language model's last layer, after its
            norm.
        cache (`Cache`, *optional*): keys and values of the language model; `past_key_values` before transformers 5.24.
        hidden_states, attentions (`tuple`, *optional*): those of the language model, if requested.
        visual_codes (`torch.LongTensor` of shape `(B, T, D)`, *optional*, with visual input): codes at visual
            positions, -1 elsewhere.
        image_outputs (`BaseModelOutputWithPooling`, *optional*, with `pixel_values`): result of `get_image_features`.
        video_outputs (`BaseModelOutputWithPooling`, *optional*, with `pixel_values_videos`): result of
            `get_video_features`.
    """

    visual_codes: torch.Tensor | None = None
    image_outputs: BaseModelOutputWithPooling | None = None
    video_outputs: BaseModelOutputWithPooling | None = None


@dataclass
class VilaUCausalLMOutputWithPast(_NestedOutput, CausalLMOutputWithPast):
    r"""
    Output of [`VilaUForConditionalGeneration`].

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*, with `labels`): weighted sum of the two losses.
        logits (`torch.Tensor` of shape `(B, T, vocab_size)`, *optional*): text scores before softmax. A training step
            with `labels` computes them at labelled positions only and does not return them.
        cache (`Cache`, *optional*): keys and values of the language model; `past_key_values` before transformers 5.24.
        hidden_states, attentions (`tuple`, *optional*): those of the language model, if requested.
        text_loss (`torch.Tensor` of shape `()`, *optional*, with `labels`): cross-entropy over text tokens.
        visual_loss (`torch.Tensor` of shape `()`, *optional*, with `labels`): cross-entropy over codes.
        code_logits (`torch.Tensor` of shape `(M, D, K)`, *optional*, with `output_code_logits`): code scores of the M
            visual tokens that are targets, in order.
        image_outputs (`BaseModelOutputWithPooling`, *optional*, with `pixel_values`): result of `get_image_features`.
        video_outputs (`BaseModelOutputWithPooling`, *optional*, with `pixel_values_videos`): result of
            `get_video_features`.
    """

    text_loss: torch.Tensor | None = None
    visual_loss: torch.Tensor | None = None
    code_logits: torch.Tensor | None = None
    image_outputs: BaseModelOutputWithPooling | None = None
    video_outputs: BaseModelOutputWithPooling | None = None


@dataclass
class VisualSpan:
    r"""
    One image or video in a generated row. A notebook shows it once it has pixels.

    Args:
        kind (`str`): `"image"` or `"video"`.
        begin (`int`): index of its first visual token in the sequence.
        num_tokens (`int`): number of visual tokens that were generated.
        codes (`torch.LongTensor` of shape `(h, w, D)` or `(F, h, w, D)`, *optional*): `None` if the span was cut off.
        pixels (`torch.Tensor` of shape `(3, S', S')` or `(F, 3, S', S')`, *optional*): decoded pixels in [-1, 1].
    """

    kind: str
    begin: int
    num_tokens: int = 0
    codes: torch.Tensor | None = None
    pixels: torch.Tensor | None = None

    # The display protocol of Jupyter. An empty result shows the text of the object.
    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {} if self.pixels is None else {"text/html": span_html(self.kind, self.pixels)}


@dataclass
class VilaUGenerateOutput(ModelOutput):
    r"""
    Output of `generate` for images, videos and interleaved rows.

    A notebook shows the images and videos of each row, after `decode_visual_spans` has decoded them.

    Args:
        sequences (`torch.LongTensor` of shape `(rows, T)`): prompts and generated tokens, a placeholder for each
            visual token.
        codes (`torch.LongTensor` of shape `(rows, h, w, D)` or `(rows, F, h, w, D)`, *optional*): codes of the image
            or video, -1 after stopping criteria stopped the row.
        scores (`torch.Tensor` of shape `(rows, P, D, K)`, *optional*, with `output_scores`): guided code logits at
            each of the P visual positions, before temperature and truncation. They are NaN where `codes` are -1. If a
            streamer changed the codes of a position, they are NaN from the first changed depth on.
        code_log_probs (`torch.Tensor` of shape `(rows, P, D)`, *optional*, with `output_log_probs`): log-probabilities
            of the codes by the guided logits, NaN where `scores` are. In interleaved mode `(rows, T, D)`, 0 at
            positions without a generated visual token.
        conditional_code_log_probs (`torch.Tensor`, *optional*, with `output_log_probs`): the same without guidance.
        visual_codes (`torch.LongTensor` of shape `(rows, T, D)`, *optional*, in interleaved mode): codes of the
            sequences, -1 at positions without a visual token.
        spans (`list[list[VisualSpan]]`, *optional*, in interleaved mode): generated images and videos of each row.
        prompt_length (`int`, *optional*, in interleaved mode): index in the sequences of the first generated token.
    """

    sequences: torch.Tensor | None = None
    codes: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    code_log_probs: torch.Tensor | None = None
    conditional_code_log_probs: torch.Tensor | None = None
    visual_codes: torch.Tensor | None = None
    spans: list[list[VisualSpan]] | None = None
    prompt_length: int | None = None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        rows = []
        for spans in self.spans or []:
            elements = [span_html(span.kind, span.pixels) for span in spans if span.pixels is not None]
            if elements:
                rows.append(f"<div>{''.join(elements)}</div>")
        return {"text/html": "".join(rows)} if rows else {}


def rows_of(features: BaseModelOutputWithPooling, rows: slice) -> BaseModelOutputWithPooling:
    """Returns the `rows` of image features, whose tensors have images and frames in dimension 0."""

    def pick(value: torch.Tensor | None) -> torch.Tensor | None:
        return None if value is None else value[rows]

    # one tensor for each layer, or `None` for layers that were not requested
    def pick_layers(values: tuple[torch.Tensor, ...] | None) -> tuple[torch.Tensor, ...] | None:
        return None if values is None else tuple(None if each is None else each[rows] for each in values)

    return BaseModelOutputWithPooling(
        last_hidden_state=pick(features.last_hidden_state),
        pooler_output=pick(features.pooler_output),
        hidden_states=pick_layers(features.hidden_states),
        attentions=pick_layers(features.attentions),
    )


def frames_to_videos(features: BaseModelOutputWithPooling, num_videos: int) -> BaseModelOutputWithPooling:
    """Joins the tokens of the frames of each video in place: `(V * F, L, ...)` becomes `(V, F * L, ...)`."""
    for name in ("last_hidden_state", "pooler_output"):
        features[name] = features[name].unflatten(0, (num_videos, -1)).flatten(1, 2)
    return features


__all__ = ["VilaUCausalLMOutputWithPast", "VilaUGenerateOutput", "VilaUModelOutputWithPast", "VisualSpan"]
