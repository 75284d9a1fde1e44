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
        for value in values.values():
            if value is not given:
                self.codes = value.to(given)
                self.is_changed = True
        return self.codes[:, -1]

    def end(self) -> None:
        """Ignores the end of generation: the context manager of the progress bar closes it."""


__all__ = ["StepReporter"]
