# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Decodes visual positions one after the other, each with two calls of modules or with one compiled graph."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock
from types import FunctionType
from typing import Any

import torch
from transformers import Cache, StaticCache

from .compat_modeling_vilau import cache_arguments
from .generation_branches_vilau import GuidanceBranches, VilaUSpanCache
from .generation_depth_vilau import CodeInputs, DecodedPosition, DepthDecoder


# Lengths of static caches are multiples of this number, so that prompts of different lengths share a graph.
_CAPACITY_STEP = 128

# A step of CUDA graphs frees the outputs of the step before, also if another thread made them. See
# `torch._inductor.cudagraph_trees`, read in torch 2.14.1. So one thread replays at a time. The lock is held while
# kernels are launched, not while they run.
_CUDA_GRAPHS = Lock()


class PositionGraphs:
    """
    Compiled positions of a model.

    Each call checks out a workspace for its batch shape, dtype and device: a static cache, code inputs and graphs.
    Calls that run at the same time, in several threads or inside a streamer, get different workspaces. A workspace is
    kept for later calls.

    Args:
        compile_kwargs (`dict`): arguments of `torch.compile`.
    """

    def __init__(self, compile_kwargs: dict[str, Any]) -> None:
        self.compile_kwargs = compile_kwargs
        self._idle: dict[tuple, list[GraphWorkspace]] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple:
        # Copies and pickles begin without graphs: these belong to the process and the model that made them.
        return PositionGraphs, (self.compile_kwargs,)

    @property
    def num_idle(self) -> int:
        """Returns the number of workspaces that no call uses now."""
        with self._lock:
            return sum(map(len, self._idle.values()))

    @contextmanager
    def checkout(self, model: Any, rows: int, capacity: int, is_parallel: bool = False) -> Iterator["GraphWorkspace"]:
        """
        Returns a context manager that gives a workspace to one call.

        Inside the context there is neither inference mode nor a record for gradients. Tensors that are made in
        inference mode cannot be changed outside of it, and a workspace serves calls in both modes.

        Args:
            model ([`VilaUForConditionalGeneration`]): the model.
            rows (`int`): rows of all branches.
            capacity (`int`): positions that the cache holds at least.
            is_parallel (`bool`, *optional*, defaults to `False`): whether decoding is parallel.
        """
        language_model = model.model.language_model
        depth_transformer = model.depth_transformer
        capacity = -(-capacity // _CAPACITY_STEP) * _CAPACITY_STEP
        key = (
            *(rows, capacity, language_model.dtype, language_model.device),
            *(depth_transformer.dtype, depth_transformer.device),
            is_parallel,
        )
        with self._lock:
            idle = self._idle.setdefault(key, [])
            workspace = idle.pop() if idle else None
        with torch.inference_mode(False), torch.no_grad():
            if workspace is None:
                workspace = GraphWorkspace(model, capacity, self.compile_kwargs, is_parallel)
            else:
                workspace.reset(model)
            try:
                yield workspace
            finally:
                # After an error, too: the next call resets the cache and the code inputs.
                with self._lock:
                    idle.append(workspace)


class GraphWorkspace:
    """
    Static cache, code inputs and graphs of one call at a time.

    There is one graph for each set of sampling settings. It is compiled when it is first needed.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        capacity (`int`): positions that the cache holds.
        compile_kwargs (`dict`): arguments of `torch.compile`.
        is_parallel (`bool`): whether decoding is parallel.
    """

    def __init__(self, model: Any, capacity: int, compile_kwargs: dict[str, Any], is_parallel: bool) -> None:
        config = model.model.language_model.config
        self.cache: Cache = StaticCache(config, max_cache_len=capacity)
        if is_parallel:
            # a static cache of the library stores all rows at the same slots
            self.cache = VilaUSpanCache(config.num_hidden_layers, capacity, has_fixed_shape=True)
        self.code_inputs = CodeInputs(model)
        # Otherwise a CUDA graph would copy the table, K times W numbers, into its input at each position.
        for tensor in (self.code_inputs.table, self.code_inputs.starts):
            torch._dynamo.mark_static_address(tensor)
        self._compile_kwargs = compile_kwargs
        self._graphs: dict[tuple, Callable[..., tuple]] = {}

    def reset(self, model: Any) -> None:
        """Empties the cache, and computes the code inputs for the present weights at the same address."""
        self.cache.reset()
        self.code_inputs.refresh(model)

    def run(
        self,
        model: Any,
        branches: GuidanceBranches,
        decoder: DepthDecoder,
        codes: torch.Tensor,
        noise: list[torch.Tensor],
        scale: torch.Tensor,
        position_ids: torch.Tensor,
        mask: torch.Tensor | None,
        slots: torch.Tensor | None = None,
    ) -> tuple:
        """
        Runs one position, or one window of positions, as one graph.

        Values that change from call to call, such as the noise and the scales, are inputs of the graph.

        Args:
            model ([`VilaUForConditionalGeneration`]): the model.
            branches ([`GuidanceBranches`]): the branches, with the cache of this workspace.
            decoder ([`DepthDecoder`]): the decoder, with the code inputs of this workspace.
            codes (`torch.Tensor` of shape `(rows, n, D)`): codes that the language model reads.
            noise (`list[torch.Tensor]`): for each depth, random numbers `(rows * n, K)`.
            scale (`torch.Tensor` of shape `(rows * n, 1)`): scales of guidance.
            position_ids (`torch.Tensor` of shape `(R, n)`): position ids.
            mask (`torch.Tensor`, *optional*): mask that the attention layers need.
            slots (`torch.Tensor` of shape `(R, n)`, *optional*): slots of the cache, by default those at the end.

        Returns:
            The fields of [`DecodedPosition`].
        """
        key = (branches.dtype, codes.device, codes.shape[1], decoder.signature())
        if key not in self._graphs:
            # torch limits how often one code object is compiled, so each graph gets a copy of the code object.
            fresh = FunctionType(_advance.__code__.replace(), _advance.__globals__)
            self._graphs[key] = torch.compile(fresh, fullgraph=True, dynamic=False, **self._compile_kwargs)
        scale = scale.contiguous()
        # A graph is compiled again for tensors of inference mode, in which the scales were made.
        scale = scale.clone() if scale.is_inference() else scale
        with _CUDA_GRAPHS if codes.device.type == "cuda" else nullcontext():
            torch.compiler.cudagraph_mark_step_begin()
            fields = self._graphs[key](
                model, decoder, branches.cache, branches.dtype, codes, noise, scale, position_ids, mask, slots
            )
            # the next replay overwrites the fields
            return tuple(each if each is None else each.clone() for each in fields)


def _advance(
    model: Any,
    decoder: DepthDecoder,
    cache: Any,
    dtype: torch.dtype,
    codes: torch.Tensor,
    noise: list[torch.Tensor],
    scale: torch.Tensor,
    position_ids: torch.Tensor,
    mask: torch.Tensor | None,
    slots: torch.Tensor | None,
) -> tuple:
    """Reads visual positions and decodes those after them, without any work on the host."""
    embeds = model.model.embed_codes(codes).to(dtype)
    if slots is not None:
        cache.store_at(slots, cache.max_length)
    hidden = model.model.language_model(
        inputs_embeds=embeds.repeat(len(position_ids) // len(codes), 1, 1),
        attention_mask=mask,
        position_ids=position_ids,
        **cache_arguments(cache, None),
        use_cache=True,
    ).last_hidden_state.flatten(0, 1)
    if slots is not None:
        cache.store_at(None)
    return decoder.compute(hidden, noise, scale)


class PositionDecoder:
    """
    Decodes visual positions.

    Call `decode_first` after text, `decode_next` after a visual position, and `read_codes` before text. The argument
    `active` of the first two names the rows whose codes are used, by default all. `decode_window` decodes several
    positions in place of `decode_next`.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        branches ([`GuidanceBranches`]): the branches.
        decoder ([`DepthDecoder`]): decoder of a position.
        graphs ([`GraphWorkspace`], *optional*): runs `decode_next` and `decode_window` as one graph.
        is_parallel (`bool`, *optional*, defaults to `False`): whether spans are decoded with `decode_window`.
        window (`int`, *optional*): positions that `decode_window` gets, by default chosen as they are accepted.
    """

    def __init__(
        self,
        model: Any,
        branches: GuidanceBranches,
        decoder: DepthDecoder,
        graphs: GraphWorkspace | None = None,
        is_parallel: bool = False,
        window: int | None = None,
    ) -> None:
        self.model = model
        self.branches = branches
        self.decoder = decoder
        self.graphs = graphs
        self.is_parallel = is_parallel
        self.window = window

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
            noise = self.decoder.draw_noise(len(codes), codes.device, active)
            scale = self.decoder.guidance.at(position)
            inputs = (codes[:, None], noise, scale, *self.branches.prepare_step())
            return DecodedPosition(*self.graphs.run(self.model, self.branches, self.decoder, *inputs))
        return self.decoder.decode(self.read_codes(codes), position, active)

    def decode_window(
        self,
        codes: torch.Tensor,
        offsets: torch.Tensor,
        num_offsets: int,
        noise: list[torch.Tensor],
        positions: torch.Tensor,
    ) -> DecodedPosition:
        """
        Decodes the positions that follow `codes`, of which some may be drafts.

        Args:
            codes (`torch.Tensor` of shape `(rows, n, D)`): codes that the language model reads.
            offsets (`torch.Tensor` of shape `(rows, n)`): as for [`GuidanceBranches.step_window`].
            num_offsets (`int`): as for [`GuidanceBranches.step_window`].
            noise (`list[torch.Tensor]`): for each depth, random numbers `(rows * n, K)`.
            positions (`torch.Tensor` of shape `(rows, n)`): indices of the decoded positions in the span.

        Returns:
            The decoded positions, with `rows * n` rows.
        """
        scale = self.decoder.guidance.at(positions).reshape(-1, 1)
        if self.graphs is not None:
            inputs = (codes, noise, scale, *self.branches.prepare_window(offsets, num_offsets))
            return DecodedPosition(*self.graphs.run(self.model, self.branches, self.decoder, *inputs))
        hidden = self.branches.step_window(self.model.model.embed_codes(codes), offsets, num_offsets)
        return DecodedPosition(*self.decoder.compute(hidden, noise, scale))

    def read_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """Returns the hidden states `(R, H)` after a visual position with `codes` `(rows, D)`."""
        return self.branches.step(self.model.model.embed_codes(codes))


__all__ = ["GraphWorkspace", "PositionDecoder", "PositionGraphs"]
