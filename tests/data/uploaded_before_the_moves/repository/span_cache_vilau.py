# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Keys and values of a text that is as long as is known beforehand."""

import torch
from transformers import Cache, DynamicLayer


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


__all__ = ["VilaUSpanCache"]
