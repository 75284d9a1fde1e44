# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Decodes visual positions one after the other, each with two calls of modules or with one compiled graph."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from transformers import Cache, StaticCache

from .compat_modeling_vilau import cache_arguments
from .generation_branches_vilau import GuidanceBranches
from .generation_depth_vilau import CodeInputs, DecodedPosition, DepthDecoder


# Lengths of static caches are multiples of this number, so that prompts of different lengths share a graph.
_CAPACITY_STEP = 128


class PositionGraphs:
    """
    Compiled positions of a model.

    There is one graph for each combination of batch shape, settings, dtype and device. It is compiled when it is first
    needed, and kept with its static cache.

    Args:
        compile_kwargs (`dict`): arguments of `torch.compile`.
    """

    def __init__(self, compile_kwargs: dict[str, Any]) -> None:
        self.compile_kwargs = compile_kwargs
        self._code_inputs: dict[tuple, CodeInputs] = {}
        self._caches: dict[tuple, StaticCache] = {}
        self._graphs: dict[tuple, Callable[..., tuple]] = {}

    def __reduce__(self) -> tuple:
        # Copies and pickles begin without graphs: these belong to the process and the model that made them.
        return PositionGraphs, (self.compile_kwargs,)

    def cache(self, model: Any, rows: int, capacity: int) -> StaticCache:
        """
        Returns an empty static cache, always the same one for the same sizes, dtype and device.

        Args:
            model ([`PreTrainedModel`]): the language model.
            rows (`int`): rows of all branches.
            capacity (`int`): positions that the cache holds at least.
        """
        capacity = -(-capacity // _CAPACITY_STEP) * _CAPACITY_STEP
        key = (rows, capacity, model.dtype, model.device)
        if key in self._caches:
            self._caches[key].reset()
        else:
            self._caches[key] = StaticCache(model.config, max_cache_len=capacity)
        return self._caches[key]

    def code_inputs(self, model: Any) -> CodeInputs:
        """Returns the depth transformer's inputs for the present weights of `model`, at a fixed address."""
        key = (model.depth_transformer.dtype, model.depth_transformer.device)
        if key in self._code_inputs:
            self._code_inputs[key].refresh(model)
        else:
            self._code_inputs[key] = CodeInputs(model)
            # Otherwise a CUDA graph would copy the table, K times W numbers, into its input at each position.
            for tensor in (self._code_inputs[key].table, self._code_inputs[key].starts):
                torch._dynamo.mark_static_address(tensor)
        return self._code_inputs[key]

    def run(
        self,
        model: Any,
        branches: GuidanceBranches,
        decoder: DepthDecoder,
        codes: torch.Tensor,
        position: int | torch.Tensor,
        active: list[bool] | None,
    ) -> tuple:
        """
        Runs one position as one graph.

        Args:
            model ([`VilaUForConditionalGeneration`]): the model.
            branches ([`GuidanceBranches`]): the branches, with a cache of these graphs.
            decoder ([`DepthDecoder`]): the decoder, with code inputs of these graphs.
            codes (`torch.Tensor` of shape `(rows, D)`): codes of the position before.
            position (`int`, or `torch.Tensor` of shape `(rows,)`): index of the position in its span.
            active (`list[bool]`, *optional*): rows whose codes are used, by default all.

        Returns:
            The fields of [`DecodedPosition`].
        """
        # What changes from call to call, such as the noise and the scales, is an input of the graph.
        position_ids, mask = branches.prepare_step()
        noise = decoder.draw_noise(len(codes), codes.device, active)
        key = (branches.total_rows, branches.capacity, branches.dtype, codes.device, decoder.signature())
        if key not in self._graphs:
            # torch limits how often one code object is compiled, so each graph gets a copy of the code object.
            fresh = FunctionType(_advance.__code__.replace(), _advance.__globals__)
            self._graphs[key] = torch.compile(fresh, fullgraph=True, dynamic=False, **self.compile_kwargs)
        torch.compiler.cudagraph_mark_step_begin()
        scale = decoder.guidance.at(position).contiguous()
        fields = self._graphs[key](
            model, decoder, branches.cache, branches.dtype, codes, noise, scale, position_ids, mask
        )
        return tuple(each if each is None else each.clone() for each in fields)  # the next replay overwrites them


def _advance(
    model: Any,
    decoder: DepthDecoder,
    cache: Cache,
    dtype: torch.dtype,
    codes: torch.Tensor,
    noise: list[torch.Tensor],
    scale: torch.Tensor,
    position_ids: torch.Tensor,
    mask: torch.Tensor | None,
) -> tuple:
    """Reads one visual position and decodes the next, without any work on the host."""
    embeds = model.model.embed_codes(codes).to(dtype)
    hidden = model.model.language_model(
        inputs_embeds=embeds[:, None].repeat(len(position_ids) // len(codes), 1, 1),
        attention_mask=mask,
        position_ids=position_ids,
        **cache_arguments(cache, None),
        use_cache=True,
    ).last_hidden_state[:, -1]
    return decoder.compute(hidden, noise, scale)


class PositionDecoder:
    """
    Decodes visual positions.

    Call `decode_first` after text, `decode_next` after a visual position, and `read_codes` before text. The argument
    `active` of the first two names the rows whose codes are used, by default all.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        branches ([`GuidanceBranches`]): the branches.
        decoder ([`DepthDecoder`]): decoder of a position.
        graphs ([`PositionGraphs`], *optional*): runs `decode_next` as one graph.
    """

    def __init__(
        self, model: Any, branches: GuidanceBranches, decoder: DepthDecoder, graphs: PositionGraphs | None = None
    ) -> None:
        self.model = model
        self.branches = branches
        self.decoder = decoder
        self.graphs = graphs

    def decode_first(
        self, hidden: torch.Tensor, position: int | torch.Tensor, active: list[bool] | None = None
    ) -> DecodedPosition:
        """Decodes the codes at `position` of the span after hidden states `(R, H)` of the position before."""
        return self.decoder.decode(hidden, position, active)

    def decode_next(
        self, codes: torch.Tensor, position: int | torch.Tensor, active: list[bool] | None = None
    ) -> DecodedPosition:
        """Decodes the codes at `position` of the span after a visual position with `codes` `(rows, D)`."""
        if self.graphs is not None:
            return DecodedPosition(*self.graphs.run(self.model, self.branches, self.decoder, codes, position, active))
        return self.decoder.decode(self.read_codes(codes), position, active)

    def read_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """Returns the hidden states `(R, H)` after a visual position with `codes` `(rows, D)`."""
        return self.branches.step(self.model.model.embed_codes(codes))


__all__ = ["PositionDecoder", "PositionGraphs"]
