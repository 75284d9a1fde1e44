# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""The language model's side of generating codes: several branches of rows in one batch, with one cache."""

from dataclasses import dataclass

import torch
from transformers import Cache, DynamicLayer

from .compat_modeling_vilau import cache_arguments


class VilaUSpanCacheLayer(DynamicLayer):
    """Writes into buffers of full length: nothing is copied when a position is added, and no mask is needed for it."""

    def __init__(self, max_length: int):
        super().__init__()
        self.max_length = max_length
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.device = key_states.device
        shape = (*key_states.shape[:2], self.max_length)
        self.key_buffer = key_states.new_empty(*shape, key_states.shape[-1])
        self.value_buffer = value_states.new_empty(*shape, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        """Adds keys and values `(rows, heads, T, head_dim)` and returns all there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin, self.length = self.length, self.length + key_states.shape[-2]
        self.key_buffer[:, :, begin : self.length] = key_states
        self.value_buffer[:, :, begin : self.length] = value_states
        self.keys = self.key_buffer[:, :, : self.length]
        self.values = self.value_buffer[:, :, : self.length]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length


class VilaUSpanCache(Cache):
    """
    Cache for at most `max_length` positions.

    Args:
        num_layers (`int`): layers of the language model.
        max_length (`int`): positions there will be.
    """

    def __init__(self, num_layers: int, max_length: int):
        super().__init__(layers=[VilaUSpanCacheLayer(max_length) for _ in range(num_layers)])


@dataclass
class BranchPrompt:
    """
    What a branch has read before it writes: ids `(rows, T)`, mask `(rows, T)`, and codes `(rows, T, D)` at visual
    positions, -1 elsewhere, or none.
    """

    ids: torch.LongTensor
    mask: torch.LongTensor
    visual_codes: torch.LongTensor | None = None

    def repeat(self, rows: int) -> "BranchPrompt":
        """Each prompt several times, so that there are `rows` of them."""
        times = rows // len(self.ids)
        codes = self.visual_codes
        return BranchPrompt(
            self.ids.repeat_interleave(times, 0),
            self.mask.repeat_interleave(times, 0),
            None if codes is None else codes.repeat_interleave(times, 0),
        )

    def append_visual(self, placeholder: int, codes: torch.LongTensor) -> "BranchPrompt":
        """With visual tokens of `codes` `(1 or rows, n, D)` after them."""
        codes = codes.to(self.ids.device).repeat_interleave(len(self.ids) // len(codes), 0)
        own = self.ids.new_full((*self.ids.shape, codes.shape[-1]), -1)
        return BranchPrompt(
            torch.cat([self.ids, self.ids.new_full(codes.shape[:2], placeholder)], 1),
            torch.cat([self.mask, self.mask.new_ones(codes.shape[:2])], 1),
            torch.cat([own if self.visual_codes is None else self.visual_codes, codes], 1),
        )

    def pad(self, length: int, pad_token_id: int, code_depth: int) -> "BranchPrompt":
        """Padded on the left to `length`, with codes in any case."""
        missing, pad = length - self.ids.shape[1], torch.nn.functional.pad
        codes = self.visual_codes
        if codes is None:
            codes = self.ids.new_full((*self.ids.shape, code_depth), -1)
        return BranchPrompt(
            pad(self.ids, (missing, 0), value=pad_token_id),
            pad(self.mask, (missing, 0)),
            pad(codes, (0, 0, missing, 0), value=-1),
        )


def reserve_marker_position(
    ids: torch.LongTensor, mask: torch.Tensor, last: torch.LongTensor, markers: list[int], prefix: list[int]
) -> tuple[torch.LongTensor, torch.Tensor]:
    """
    Prompts for guidance to compare with where rows write their start markers themselves: `prefix` behind them and, as
    the last position, the marker that ends a row's own prompt. Rows without one do not see that position, and nobody a
    marker that ends `ids`: each span brings its own.

    Args:
        ids, mask (`torch.Tensor` of shape `(1 or B, T)`): the prompts.
        last (`torch.LongTensor` of shape `(B,)`): ids that end the rows' own prompts.
        markers, prefix (`list[int]`): ids of all start markers, and of what stands before each.

    Returns:
        Ids and mask `(B, T + len(prefix) + 1)`.
    """
    markers = ids.new_tensor(markers)
    ids, mask = ids.expand(len(last), -1), mask.bool().expand(len(last), -1)
    is_marked, is_open = (torch.isin(each, markers)[:, None] for each in (ids[:, -1], last))
    prefix = ids.new_tensor(prefix, dtype=torch.long).expand(len(last), -1)
    ids = torch.cat([ids, prefix, last[:, None].where(is_open, markers[0])], 1)
    mask = torch.cat([mask[:, :-1], mask[:, -1:] & ~is_marked, (~is_marked).expand_as(prefix), is_open], 1)
    return ids, mask.long()


class GuidanceBranches:
    """
    Steps the language model over `num_branches * rows` rows: those that see everything, and below them those that
    guidance compares with. A row of the latter can be blind for a while (to text that its row writes) and can be set
    back to its prompt.

    Args:
        model ([`VilaUModel`]).
        prompts (`list[BranchPrompt]`): one for each branch, all with as many rows.
        max_new (`int`): positions there will be after the prompts.
        cache (`Cache`): empty; for a static cache of at least `length + max_new` positions.
        opening (`int`, *optional*, defaults to 0): last positions of the comparing prompts that belong to a span: they
            are forgotten when a row is set back.

    `own` is the rows' own prompt as it was given, with codes: it lacks the padding that a longer prompt of another
    branch brings.
    """

    def __init__(self, model, prompts: list[BranchPrompt], max_new: int, cache, opening: int = 0):
        self.model, self.cache = model, cache
        pad, depth = model.config.text_config.pad_token_id or 0, model.config.vision_config.code_depth
        self.length = max(prompt.ids.shape[1] for prompt in prompts)
        self.own = prompts[0].pad(prompts[0].ids.shape[1], pad, depth)
        padded = [prompt.pad(self.length, pad, depth) for prompt in prompts]
        self.ids = torch.cat([prompt.ids for prompt in padded])  # (R, T)
        self.codes = torch.cat([prompt.visual_codes for prompt in padded])
        self.rows = len(prompts[0].ids)
        mask = torch.cat([prompt.mask for prompt in padded]).bool()
        self.kept = self.length - opening
        self.kept_counts = mask[:, : self.kept].sum(-1)  # (R,), positions that are seen again after `reset_to_prompt`
        self.counts = mask.sum(-1)
        self.capacity = self.length + max_new
        if cache.get_max_length() > 0:
            self.capacity = max(self.capacity, cache.get_max_length())
        self.seen = torch.zeros(len(mask), self.capacity, dtype=torch.bool, device=mask.device)
        self.seen[:, : self.length] = mask
        self.end = self.length
        self.has_gaps = not bool(mask.all())
        self.is_static = cache.is_compileable
        self.dtype = None  # of the hidden states, once there are some

    def read_prompts(self) -> torch.Tensor:
        """Hidden states `(R, H)` at the last position of the prompts."""
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

    def step(self, embeds: torch.Tensor, sees: torch.BoolTensor | None = None) -> torch.Tensor:
        """
        Hidden states `(R, H)` after one position more.

        Args:
            embeds (`torch.Tensor` of shape `(rows, H)`): input of each row, the same in all branches.
            sees (`torch.BoolTensor` of shape `(R,)`, *optional*): whether a row sees the position from now on; by
                default all do.
        """
        position_ids, mask = self.prepare_step(sees)
        output = self.model.language_model(
            inputs_embeds=embeds.to(self.dtype)[:, None].repeat(len(self.seen) // self.rows, 1, 1),
            attention_mask=mask,
            position_ids=position_ids,
            **cache_arguments(self.cache, None),
            use_cache=True,
        )
        return output.last_hidden_state[:, -1]

    def prepare_step(self, sees: torch.BoolTensor | None = None) -> tuple[torch.LongTensor, torch.Tensor | None]:
        """Makes room for one position more: its ids of position `(R, 1)` and the mask of what it sees, if any."""
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

    def reset_to_prompt(self, rows: torch.BoolTensor):
        """Makes the comparing branches of `rows` `(rows,)` forget what follows their prompts, `opening` included."""
        chosen = rows.repeat(len(self.seen) // self.rows)
        chosen[: self.rows] = False
        self.seen[:, self.kept : self.end] &= ~chosen[:, None]
        self.counts = self.kept_counts.where(chosen, self.counts)
        self.has_gaps = True

    def _step_mask(self) -> torch.Tensor | None:
        """The mask of one query, ready for use: the library's own preparation would wait for the device."""
        end = self.capacity if self.is_static else self.end
        if not (self.has_gaps or self.is_static):
            return None
        kind = self.model.config.text_config._attn_implementation
        if kind not in ("sdpa", "eager") or any(self.cache.is_sliding):
            return self.seen[:, : self.end].long()
        seen = self.seen[:, None, None, :end]  # (R, 1, 1, T)
        if kind == "sdpa":
            return seen
        return torch.zeros_like(seen, dtype=self.dtype).masked_fill(~seen, torch.finfo(self.dtype).min)


__all__ = ["BranchPrompt", "GuidanceBranches", "VilaUSpanCache", "reserve_marker_position"]
