# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Reports the steps of generation to the progress bar and the callback of a pipeline."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


class StepReporter:
    """
    Streamer for `generate` that updates a progress bar and calls `callback_on_step_end` after each visual position.

    Args:
        pipeline ([`VilaUPipeline`]): first argument of the callback.
        progress (`tqdm`): the progress bar.
        callback (`Callable`, *optional*): the callback of the user.
        tensor_inputs (`Sequence[str]`): names under which the callback receives the codes.
    """

    def __init__(
        self, pipeline: Any, progress: Any, callback: Callable[..., dict | None] | None, tensor_inputs: Sequence[str]
    ) -> None:
        self.pipeline = pipeline
        self.progress = progress
        self.callback = callback
        self.tensor_inputs = tensor_inputs
        self.position = 0
        self.codes: torch.Tensor | None = None  # (rows, n, D), those so far; kept only for a callback
        self.is_changed = False

    def put(self, value: torch.Tensor) -> None:
        """Ignores ids of text."""

    def put_visual(self, codes: torch.Tensor) -> torch.Tensor | None:
        """
        Receives the codes of the next position.

        Args:
            codes (`torch.LongTensor` of shape `(rows, D)`): the codes that were drawn.

        Returns:
            The codes `(rows, D)` with which the model continues, or `None` without a callback.
        """
        position = self.position
        self.position += 1
        self.progress.update()
        if self.callback is None:
            return None
        given = codes[:, None] if self.codes is None else torch.cat([self.codes, codes[:, None]], 1)
        self.codes = given
        values = self.callback(self.pipeline, position, position, dict.fromkeys(self.tensor_inputs, given)) or {}
        if not isinstance(values, dict):
            raise ValueError(
                f"`callback_on_step_end` must return None or a dictionary of codes, got {type(values).__name__}."
            )
        for name, value in values.items():
            if value is not given:
                self._check(name, value, given)
                self.codes = value.to(given)
                self.is_changed = True
        return self.codes[:, -1]

    def _check(self, name: Any, value: Any, given: torch.Tensor) -> None:
        """Raises a `ValueError` unless a value of the callback can replace the codes so far."""
        names = self.pipeline._callback_tensor_inputs
        if name not in names:
            raise ValueError(f"`callback_on_step_end` must return values for {', '.join(names)} only, got {name!r}.")
        size = self.pipeline.model.config.vision_config.codebook_size
        is_tensor = isinstance(value, torch.Tensor)
        is_codes = is_tensor and value.shape == given.shape and not (value.is_floating_point() or value.is_complex())
        if not is_codes or bool(((value < 0) | (value >= size)).any()):
            described = f"{value.dtype} of shape {tuple(value.shape)}" if is_tensor else type(value).__name__
            raise ValueError(
                f"`callback_on_step_end` must return `{name}` as integers in [0, {size}) of shape "
                f"{tuple(given.shape)}, got {described}."
            )

    def end(self) -> None:
        """Ignores the end of generation: the context manager of the progress bar closes it."""


__all__ = ["StepReporter"]
