# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Pixels of generated images and videos."""

from typing import Annotated, TypeAlias

import torch

from .argument_checks_vilau import IntegerTensor, Rule, check_arguments, check_value
from .outputs_vilau import VisualSpan
from .visual_inputs_vilau import VilaUVisualInputsMixin


# Not checked by `isinstance`: code from the Hub may define the class a second time.
Spans: TypeAlias = Annotated[
    list,
    Rule(
        "with a list of `VisualSpan` for each row",
        lambda rows: all(
            isinstance(row, list) and all(hasattr(span, "codes") and hasattr(span, "kind") for span in row)
            for row in rows
        ),
    ),
]


class VilaUVisualOutputsMixin:
    """Methods of [`VilaUForConditionalGeneration`] that decode generated codes into pixels."""

    # set by the model
    model: VilaUVisualInputsMixin

    @torch.no_grad()
    def decode_image_tokens(self, image_tokens: IntegerTensor) -> torch.Tensor:
        """
        Decodes the code grids that `generate` returned for images.

        Args:
            image_tokens (`torch.LongTensor` of shape `(rows, h, w, D)`): codes.

        Returns:
            Pixels `(rows, 3, S', S')` in [-1, 1].

        Raises:
            ValueError: for another shape, or codes out of range.
        """
        check_arguments(VilaUVisualOutputsMixin.decode_image_tokens, locals())
        tower = self.model.vision_tower
        grid = tower.config.grid_size
        depth = tower.config.code_depth
        if image_tokens.ndim != 4 or image_tokens.shape[1:] != (grid, grid, depth):
            raise ValueError(
                f"`image_tokens` must have shape (rows, {grid}, {grid}, {depth}), got {tuple(image_tokens.shape)}."
            )
        return tower.decode(image_tokens.flatten(1, 2)).clamp(-1, 1)

    @torch.no_grad()
    def decode_video_tokens(self, video_tokens: IntegerTensor) -> torch.Tensor:
        """
        Decodes the code grids that `generate` returned for videos.

        Args:
            video_tokens (`torch.LongTensor` of shape `(rows, F, h, w, D)`): codes.

        Returns:
            Pixels `(rows, F, 3, S', S')` in [-1, 1].

        Raises:
            ValueError: for another shape, or codes out of range.
        """
        check_arguments(VilaUVisualOutputsMixin.decode_video_tokens, locals())
        vision = self.model.vision_tower.config
        expected = (vision.grid_size, vision.grid_size, vision.code_depth)
        if video_tokens.ndim != 5 or video_tokens.shape[2:] != expected:
            raise ValueError(
                f"`video_tokens` must have shape (rows, F, {', '.join(map(str, expected))}), got "
                f"{tuple(video_tokens.shape)}."
            )
        rows = video_tokens.shape[0]
        return self.decode_image_tokens(video_tokens.flatten(0, 1)).unflatten(0, (rows, -1))

    @torch.no_grad()
    def decode_visual_spans(self, spans: Spans) -> list[list[VisualSpan]]:
        """
        Sets the `pixels` of the finished spans that `generate` returned in interleaved mode.

        Args:
            spans (`list[list[VisualSpan]]`): spans of each row. Those that were cut off have no codes and stay as
                they are.

        Returns:
            The same `spans`.
        """
        check_arguments(VilaUVisualOutputsMixin.decode_visual_spans, locals())
        finished = []
        frames = []
        for span in (span for row in spans for span in row):
            if span.codes is not None:
                check_value("span.codes", span.codes, IntegerTensor)
                if span.codes.ndim != (4 if span.kind == "video" else 3):
                    raise ValueError(
                        "`codes` of a span must have shape (h, w, D) for an image and (F, h, w, D) for a video, got "
                        f"{tuple(span.codes.shape)} for {span.kind!r}."
                    )
                finished.append(span)
                frames.append(span.codes if span.kind == "video" else span.codes[None])
        if finished:
            # one call decodes the images and frames of all spans
            pixels = self.decode_image_tokens(torch.cat(frames)).split([len(each) for each in frames])
            for span, each in zip(finished, pixels, strict=True):
                span.pixels = each if span.kind == "video" else each[0]
        return spans


__all__ = ["VilaUVisualOutputsMixin"]
