# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Visual positions one after the other: a step of the language model and D of the depth transformer, or one graph."""

from types import FunctionType

import torch
from transformers import StaticCache

from .compat_modeling_vilau import cache_arguments
from .generation_branches_vilau import GuidanceBranches
from .generation_depth_vilau import CodeInputs, DecodedPosition, DepthDecoder


# prompts of different lengths share a graph: its cache has a multiple of this many positions
_CAPACITY_STEP = 128


class PositionGraphs:
    """
    Compiled positions of a model: one graph for each combination of batch shape, settings, dtype and device, made when
    it is first needed and kept, with a static cache.

    Args:
        compile_kwargs (`dict`): for `torch.compile`.
    """

    def __init__(self, compile_kwargs: dict):
        self.compile_kwargs = compile_kwargs
        self._code_inputs, self._caches, self._graphs = {}, {}, {}

    def __reduce__(self):
        return PositionGraphs, (self.compile_kwargs,)  # graphs belong to the process and the model that made them

    def cache(self, model, rows: int, capacity: int) -> StaticCache:
        """An empty static cache for `rows` rows of at least `capacity` positions of the text `model`."""
        capacity = -(-capacity // _CAPACITY_STEP) * _CAPACITY_STEP
        key = (rows, capacity, model.dtype, model.device)
        if key in self._caches:
            self._caches[key].reset()
        else:
            self._caches[key] = StaticCache(model.config, max_cache_len=capacity)
        return self._caches[key]

    def code_inputs(self, model) -> CodeInputs:
        """The depth transformer's inputs for the weights as they are now, at an address that stays."""
        key = (model.depth_transformer.dtype, model.depth_transformer.device)
        if key in self._code_inputs:
            self._code_inputs[key].refresh(model)
        else:
            self._code_inputs[key] = CodeInputs(model)
            for tensor in (self._code_inputs[key].table, self._code_inputs[key].starts):
                torch._dynamo.mark_static_address(tensor)
        return self._code_inputs[key]

    def run(
        self, model, branches: GuidanceBranches, decoder: DepthDecoder, codes: torch.LongTensor, position, drawing
    ) -> tuple:
        """What [`DepthDecoder.compute`] gives after one step of the language model over `codes` `(rows, D)`."""
        position_ids, mask = branches.prepare_step()
        noise = decoder.draw_noise(len(codes), codes.device, drawing)
        key = (len(branches.seen), branches.capacity, branches.dtype, codes.device, decoder.signature())
        if key not in self._graphs:
            # a code object of its own: compilations of one function are limited in number
            fresh = FunctionType(_advance.__code__.replace(), _advance.__globals__)
            self._graphs[key] = torch.compile(fresh, fullgraph=True, dynamic=False, **self.compile_kwargs)
        torch.compiler.cudagraph_mark_step_begin()
        scale = decoder.guidance.at(position).contiguous()
        fields = self._graphs[key](
            model, decoder, branches.cache, branches.dtype, codes, noise, scale, position_ids, mask
        )
        return tuple(field if field is None else field.clone() for field in fields)  # the next replay overwrites them


def _advance(model, decoder, cache, dtype, codes, noise, scale, position_ids, mask):
    """One position: codes of the last one in, codes of the next one out."""
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
    Decodes visual positions: `first` after text, `next` after a visual position, `leave` back to text. Codes matter in
    the rows that are `drawing`, by default all.

    Args:
        model ([`VilaUForConditionalGeneration`]).
        branches ([`GuidanceBranches`]).
        decoder ([`DepthDecoder`]).
        graphs ([`PositionGraphs`], *optional*): runs `next` as one graph.
    """

    def __init__(self, model, branches: GuidanceBranches, decoder: DepthDecoder, graphs: PositionGraphs | None = None):
        self.model, self.branches, self.decoder, self.graphs = model, branches, decoder, graphs

    def first(
        self, hidden: torch.Tensor, position: int | torch.Tensor, drawing: list[bool] | None = None
    ) -> DecodedPosition:
        """Codes after the hidden states `(R, H)` of the last position, at `position` in the span."""
        return self.decoder.decode(hidden, position, drawing)

    def next(
        self, codes: torch.LongTensor, position: int | torch.Tensor, drawing: list[bool] | None = None
    ) -> DecodedPosition:
        """Codes at `position` after a visual position with `codes` `(rows, D)`."""
        if self.graphs is not None:
            return DecodedPosition(*self.graphs.run(self.model, self.branches, self.decoder, codes, position, drawing))
        return self.decoder.decode(self.leave(codes), position, drawing)

    def leave(self, codes: torch.LongTensor) -> torch.Tensor:
        """Hidden states `(R, H)` after a visual position with `codes` `(rows, D)`."""
        return self.branches.step(self.model.model.embed_codes(codes))


__all__ = ["PositionGraphs", "PositionDecoder"]
