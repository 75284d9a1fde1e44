# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Runs the language model for all guidance branches in one batch, with one cache."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import Cache, DynamicLayer

from .compat_modeling_vilau import cache_arguments


class VilaUSpanCacheLayer(DynamicLayer):
    """
    Cache layer with buffers of full length.

    The base class concatenates, which copies all keys and values at each position. A `StaticLayer` needs a mask over
    its empty positions. This layer copies nothing and returns only the positions that are filled. In parallel decoding
    it also stores each row at slots of its choice, which layers of the library cannot do. Read in transformers 5.20.2
    and 5.24.0; it can go when the library has a layer with these properties.

    Args:
        max_length (`int`): maximum number of positions.
    """

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.length = 0
        self.slots: torch.Tensor | None = None  # (R, T), where the next positions are stored; by default at the end
        self.num_read = 0  # slots that are returned where `slots` are given

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocates the buffers with the dtype, device and sizes of the first keys and values."""
        self.device = key_states.device
        shape = (*key_states.shape[:2], self.max_length)
        # Slots that no row has filled yet are read under a mask, and a weight of 0 times NaN would be NaN.
        self.key_buffer = key_states.new_zeros(*shape, key_states.shape[-1])
        self.value_buffer = value_states.new_zeros(*shape, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Adds keys and values.

        Args:
            key_states (`torch.Tensor` of shape `(R, heads, T, head_dim)`): keys of new positions.
            value_states (`torch.Tensor` of shape `(R, heads, T, head_dim)`): values of new positions.
            *args: not used, like in the base class.
            **kwargs: not used, like in the base class.

        Returns:
            The keys and values of all positions so far.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.slots is not None:
            rows = torch.arange(len(self.slots), device=self.slots.device)[:, None]
            self.key_buffer[rows, :, self.slots] = key_states.transpose(1, 2)
            self.value_buffer[rows, :, self.slots] = value_states.transpose(1, 2)
            return self.key_buffer[:, :, : self.num_read], self.value_buffer[:, :, : self.num_read]
        begin = self.length
        self.length += key_states.shape[-2]
        self.key_buffer[:, :, begin : self.length] = key_states
        self.value_buffer[:, :, begin : self.length] = value_states
        self.keys = self.key_buffer[:, :, : self.length]
        self.values = self.value_buffer[:, :, : self.length]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Returns the number of positions so far."""
        return self.length

    def reset(self) -> None:
        """
        Removes all positions.

        The base method of transformers 5.24 drops the tensors. Graphs read the buffers, so these keep their addresses.
        Zeros, because a call that failed may have left NaN.
        """
        self.length = 0
        if self.is_initialized:
            self.key_buffer.zero_()
            self.value_buffer.zero_()


class VilaUSpanCache(Cache):
    """
    Cache for at most `max_length` positions.

    Args:
        num_layers (`int`): layers of the language model.
        max_length (`int`): maximum number of positions.
        has_fixed_shape (`bool`, *optional*, defaults to `False`): whether attention reads all slots in each window of
            parallel decoding, so that a window is one graph.
    """

    def __init__(self, num_layers: int, max_length: int, has_fixed_shape: bool = False) -> None:
        self.max_length = max_length
        self.has_fixed_shape = has_fixed_shape
        # the list of the base class, with its type
        self.span_layers = [VilaUSpanCacheLayer(max_length) for _ in range(num_layers)]
        super().__init__(layers=list(self.span_layers))

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Returns the maximum number of positions, which is the same for all layers."""
        # The base method asks the layers, and a `DynamicLayer` has no maximum. Masks of compiled windows have this
        # length.
        return self.max_length

    def store_at(self, slots: torch.Tensor | None, num_read: int = 0) -> None:
        """
        Chooses where the next positions are stored.

        Args:
            slots (`torch.Tensor` of shape `(R, T)`, *optional*): slots of each row, by default those at the end.
            num_read (`int`, *optional*, defaults to 0): number of first slots that attention reads with these.
        """
        for layer in self.span_layers:
            layer.slots = slots
            layer.num_read = num_read

    def extend(self, count: int) -> None:
        """Adds `count` slots after the end, which are filled already, to the positions so far."""
        for layer in self.span_layers:
            layer.length += count


@dataclass(frozen=True)
class BranchPrompt:
    """
    Prompts of one branch.

    Args:
        ids (`torch.Tensor` of shape `(rows, T)`): token ids.
        mask (`torch.Tensor` of shape `(rows, T)`): 1 for positions to attend to.
        visual_codes (`torch.Tensor` of shape `(rows, T, D)`, *optional*): codes at visual positions, -1 elsewhere.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    visual_codes: torch.Tensor | None = None

    def repeat(self, rows: int) -> "BranchPrompt":
        """Repeats each prompt equally often, so that there are `rows` prompts."""
        times = rows // len(self.ids)
        codes = self.visual_codes
        return BranchPrompt(
            self.ids.repeat_interleave(times, 0),
            self.mask.repeat_interleave(times, 0),
            None if codes is None else codes.repeat_interleave(times, 0),
        )

    def append_visual(self, placeholder: int, codes: torch.Tensor) -> "BranchPrompt":
        """Returns the prompts with visual tokens of `codes` `(1 or rows, n, D)` at their ends."""
        codes = codes.to(self.ids.device).repeat_interleave(len(self.ids) // len(codes), 0)
        before = self.visual_codes
        if before is None:
            before = self.ids.new_full((*self.ids.shape, codes.shape[-1]), -1)
        return BranchPrompt(
            torch.cat([self.ids, self.ids.new_full(codes.shape[:2], placeholder)], 1),
            torch.cat([self.mask, self.mask.new_ones(codes.shape[:2])], 1),
            torch.cat([before, codes], 1),
        )

    def pad(self, length: int, pad_token_id: int) -> "BranchPrompt":
        """Returns the prompts, padded on the left to `length`."""
        missing = length - self.ids.shape[1]
        pad = torch.nn.functional.pad
        codes = self.visual_codes
        return BranchPrompt(
            pad(self.ids, (missing, 0), value=pad_token_id),
            pad(self.mask, (missing, 0)),
            None if codes is None else pad(codes, (0, 0, missing, 0), value=-1),
        )

    def codes_or_empty(self, code_depth: int) -> torch.Tensor:
        """Returns `visual_codes`, or -1 at all positions if there are none."""
        if self.visual_codes is None:
            return self.ids.new_full((*self.ids.shape, code_depth), -1)
        return self.visual_codes


def reserve_marker_position(
    ids: torch.Tensor, mask: torch.Tensor, last: torch.Tensor, markers: list[int], prefix: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Prepares prompts of an image-only or unconditional branch for interleaved mode.

    In this mode the model generates the start markers, and each branch then gets the marker of its row. The prompts
    are extended by `prefix` and one position for a start marker at the end of the conditional prompt. This position is
    masked if the conditional prompt of the row ends without a marker. A marker at the end of `ids` is always masked,
    because each span adds its marker.

    Args:
        ids (`torch.Tensor` of shape `(1 or B, T)`): the prompts.
        mask (`torch.Tensor` of shape `(1 or B, T)`): their mask.
        last (`torch.Tensor` of shape `(B,)`): last ids of the conditional prompts.
        markers (`list[int]`): ids of all start markers.
        prefix (`list[int]`): ids that come before each start marker.

    Returns:
        Ids and mask `(B, T + len(prefix) + 1)`.
    """
    all_markers = ids.new_tensor(markers)
    ids = ids.expand(len(last), -1)
    mask = mask.bool().expand(len(last), -1)
    is_marked = torch.isin(ids[:, -1], all_markers)[:, None]
    is_open = torch.isin(last, all_markers)[:, None]
    prefixes = ids.new_tensor(prefix, dtype=torch.long).expand(len(last), -1)
    ids = torch.cat([ids, prefixes, last[:, None].where(is_open, all_markers[0])], 1)
    # a marked prompt already ends with the prefix
    mask = torch.cat([mask[:, :-1], mask[:, -1:] & ~is_marked, (~is_marked).expand_as(prefixes), is_open], 1)
    return ids, mask.long()


class GuidanceBranches:
    """
    Runs the language model on `R = num_branches * rows` rows.

    The first `rows` rows are the conditional branch. The other branches read the same visual tokens after other
    prompts. A row of the other branches can ignore positions, such as the text that its row generates. It can also be
    reset to its prompt.

    Args:
        model ([`VilaUModel`]): the model without its heads.
        prompts (`list[BranchPrompt]`): one for each branch, all with as many rows.
        max_new (`int`): maximum number of positions after the prompts.
        cache (`Cache`): empty; a static cache needs at least `length + max_new` positions.
        num_reserved (`int`, *optional*, defaults to 0): number of last positions of the other branches' prompts that
            belong to a span. A reset ignores them.
    """

    def __init__(
        self, model: Any, prompts: list[BranchPrompt], max_new: int, cache: Cache, num_reserved: int = 0
    ) -> None:
        self.model = model
        self.cache = cache
        pad = model.config.text_config.pad_token_id or 0
        depth = model.config.vision_config.code_depth
        # as given, without the padding that a longer prompt of another branch would bring
        self.conditional_prompt = prompts[0]
        self.conditional_codes = prompts[0].codes_or_empty(depth)
        self.length = max(prompt.ids.shape[1] for prompt in prompts)
        padded = [prompt.pad(self.length, pad) for prompt in prompts]
        self.ids = torch.cat([prompt.ids for prompt in padded])  # (R, T)
        self.codes = torch.cat([prompt.codes_or_empty(depth) for prompt in padded])  # (R, T, D)
        self.rows = len(prompts[0].ids)
        mask = torch.cat([prompt.mask for prompt in padded]).bool()
        self.total_rows = len(mask)
        self.kept_length = self.length - num_reserved
        self.kept_counts = mask[:, : self.kept_length].sum(-1)  # (R,), positions that a row sees after a reset
        self.counts = mask.sum(-1)  # (R,), positions that a row sees; the next position id
        self.capacity = self.length + max_new
        if cache.get_max_length() > 0:
            self.capacity = max(self.capacity, cache.get_max_length())
        self.seen = torch.zeros(self.total_rows, self.capacity, dtype=torch.bool, device=mask.device)
        self.seen[:, : self.length] = mask
        self.end = self.length
        self.has_gaps = not bool(mask.all())
        self.is_static = cache.is_compileable
        self.dtype = torch.get_default_dtype()  # `read_prompts` sets the dtype of the hidden states

    def read_prompts(self) -> torch.Tensor:
        """Runs the language model on the prompts and returns the hidden states `(R, H)` at their last position."""
        prompt_mask = self.seen[:, : self.length]
        output = self.model(
            input_ids=self.ids,
            attention_mask=prompt_mask.long(),
            position_ids=(prompt_mask.cumsum(-1) - 1).clamp(min=0),
            visual_codes=self.codes if bool((self.codes >= 0).any()) else None,
            cache=self.cache,
            use_cache=True,
        )
        self.dtype = output.last_hidden_state.dtype
        return output.last_hidden_state[:, -1]

    def step(self, embeds: torch.Tensor, sees: torch.Tensor | None = None) -> torch.Tensor:
        """
        Runs the language model at one position.

        Args:
            embeds (`torch.Tensor` of shape `(rows, H)`): input of each row, the same in all branches.
            sees (`torch.Tensor` of shape `(R,)`, bool, *optional*): as for `prepare_step`.

        Returns:
            Hidden states `(R, H)`.
        """
        position_ids, mask = self.prepare_step(sees)
        output = self.model.language_model(
            inputs_embeds=embeds.to(self.dtype)[:, None].repeat(self.total_rows // self.rows, 1, 1),
            attention_mask=mask,
            position_ids=position_ids,
            **cache_arguments(self.cache, None),
            use_cache=True,
        )
        return output.last_hidden_state[:, -1]

    def prepare_step(self, sees: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Adds one position to those that the rows see.

        Args:
            sees (`torch.Tensor` of shape `(R,)`, bool, *optional*): whether a row sees the position, in this step and
                later; by default all do.

        Returns:
            Position ids `(R, 1)`, and the mask that the attention layers need, if any.
        """
        if sees is None:
            self.seen[:, self.end] = True
            positions = self.counts
            self.counts = self.counts + 1
        else:
            self.seen[:, self.end] = sees
            positions = self.counts.where(sees, self.counts - 1).clamp(min=0)
            self.counts = self.counts + sees
            self.has_gaps = True
        self.end += 1
        return positions[:, None], self._step_mask()

    def step_window(self, embeds: torch.Tensor, offsets: torch.Tensor, num_offsets: int) -> torch.Tensor:
        """
        Runs the language model at several positions of a span, of which some may be drafts.

        Args:
            embeds (`torch.Tensor` of shape `(rows, n, H)`): inputs of each row, the same in all branches.
            offsets (`torch.Tensor` of shape `(rows, n)`): as for `prepare_window`.
            num_offsets (`int`): as for `prepare_window`.

        Returns:
            Hidden states `(R * n, H)`, in the order of branches, rows and inputs.
        """
        position_ids, mask, slots = self.prepare_window(offsets, num_offsets)
        self._span_cache.store_at(slots, mask.shape[-1])
        output = self.model.language_model(
            inputs_embeds=embeds.to(self.dtype).repeat(self.total_rows // self.rows, 1, 1),
            attention_mask=mask,
            position_ids=position_ids,
            **cache_arguments(self.cache, None),
            use_cache=True,
        )
        self._span_cache.store_at(None)
        return output.last_hidden_state.flatten(0, 1)

    def prepare_window(
        self, offsets: torch.Tensor, num_offsets: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Prepares a pass over several positions of a span, of which some may be drafts.

        What an earlier pass stored at the same offsets is overwritten. `extend` makes positions final. The cache must
        be a [`VilaUSpanCache`].

        Args:
            offsets (`torch.Tensor` of shape `(rows, n)`): for each position, the number of positions between the last
                final one and this one.
            num_offsets (`int`): number that is above all offsets. Reading it from them would wait for the device.

        Returns:
            Position ids `(R, n)`, the mask `(R, 1, n, T)`, and slots `(R, n)` of the cache.
        """
        num_read = self.capacity if self._span_cache.has_fixed_shape else self.end + num_offsets
        offsets = offsets.repeat(self.total_rows // self.rows, 1)  # (R, n)
        slots = torch.arange(num_read, device=offsets.device) - self.end
        seen = self.seen[:, None, :num_read] | ((slots >= 0) & (slots <= offsets[..., None]))  # (R, n, T)
        return self.counts[:, None] + offsets, self._attention_mask(seen[:, None]), offsets + self.end

    @property
    def _span_cache(self) -> VilaUSpanCache:
        # `check_parallel_decoding` refuses calls with other caches.
        return cast(VilaUSpanCache, self.cache)

    def extend(self, count: int) -> None:
        """Makes the first `count` positions that `step_window` stored final."""
        self._span_cache.extend(count)
        self.seen[:, self.end : self.end + count] = True
        self.counts = self.counts + count
        self.end += count

    def reset_to_prompt(self, rows: torch.Tensor) -> None:
        """Makes the other branches of `rows` `(rows,)` ignore everything after their prompts."""
        chosen = rows.repeat(self.total_rows // self.rows)
        chosen[: self.rows] = False
        self.seen[:, self.kept_length : self.end] &= ~chosen[:, None]
        self.counts = self.kept_counts.where(chosen, self.counts)
        self.has_gaps = True

    def _step_mask(self) -> torch.Tensor | None:
        """
        Makes the mask of one query, in the form that the attention layers read.

        The library can make this mask from a mask `(R, T)`. But it checks first whether that is all ones, which waits
        for the device (`masking_utils._ignore_causal_mask_sdpa`, read in transformers 5.24.0).
        """
        end = self.capacity if self.is_static else self.end
        if not (self.has_gaps or self.is_static):
            return None
        kind = self.model.config.text_config._attn_implementation
        if kind not in ("sdpa", "eager") or any(self.cache.is_sliding):
            return self.seen[:, : self.end].long()
        return self._attention_mask(self.seen[:, None, None, :end])

    def _attention_mask(self, seen: torch.Tensor) -> torch.Tensor:
        """Returns the mask of `seen` `(R, 1, n, T)`, bool, for the attention functions "sdpa" and "eager"."""
        if self.model.config.text_config._attn_implementation == "sdpa":
            return seen
        return torch.zeros_like(seen, dtype=self.dtype).masked_fill(~seen, torch.finfo(self.dtype).min)


__all__ = ["BranchPrompt", "GuidanceBranches", "VilaUSpanCache", "reserve_marker_position"]
