# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Depth transformer: one hidden state of the language model in, the D codes of the next visual token out."""

from collections.abc import Callable

import torch
from torch import nn
from transformers import AttentionInterface, GradientCheckpointingLayer, PreTrainedModel

from .compat_modeling_vilau import make_causal_mask
from .configuration_vilau import VilaUDepthConfig
from .module_bases_vilau import LibraryInitialization


# Attention functions by name; those that users register are in it, too. `set_attn_implementation` looks for this name
# in the source of a model's file to tell whether the model lets its attention be chosen. Read in 5.20.2 and 5.24.0.
ALL_ATTENTION_FUNCTIONS = AttentionInterface()


class VilaUDepthCache:
    """Keys and values of the depths decoded so far, in buffers of fixed size: `(M, heads, D, head_dim)` a layer."""

    def __init__(self, config):
        self.num_layers, self.code_depth = config.num_hidden_layers, config.code_depth
        self.buffer = None

    def update(self, key_value: torch.Tensor, layer_idx: int, depth: int):
        """Writes key and value, together `(2, M, heads, 1, head_dim)`, of `depth`; returns those of all up to it."""
        if self.buffer is None:  # rows, dtype and device are those of the first key
            _, rows, heads, _, head_dim = key_value.shape
            self.buffer = key_value.new_empty(self.num_layers, 2, rows, heads, self.code_depth, head_dim)
        written = self.buffer[layer_idx]
        written[:, :, :, depth : depth + 1] = key_value
        return written[:, :, :, : depth + 1]


def eager_attention_forward(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Attention written out; `query`, `key`, `value` are `(M, heads, T, head_dim)`."""
    scores = query @ key.transpose(-1, -2) * scaling  # (M, heads, T, T)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class VilaUDepthAttention(nn.Module):
    """Causal self-attention over the depths of one visual token."""

    def __init__(self, config, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.num_key_value_groups = 1
        self.is_causal = True
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)  # one product: steps are many and small
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states, attention_mask=None, cache: VilaUDepthCache | None = None, depth: int = 0, **kwargs
    ):
        shape = (*hidden_states.shape[:-1], 3, -1, self.head_dim)
        qkv = self.qkv(hidden_states).view(shape).permute(2, 0, 3, 1, 4)  # (3, M, heads, T, head_dim)
        query, key, value = qkv.unbind()
        if cache is not None:
            key, value = cache.update(qkv[1:], self.layer_idx, depth).unbind()
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(self, query, key, value, attention_mask, scaling=self.scaling, **kwargs)
        return self.proj(output.flatten(-2)), weights


class VilaUDepthLayer(GradientCheckpointingLayer):
    """Pre-norm transformer block with biases and GELU, as in the RQ-Transformer (Lee et al., 2022)."""

    def __init__(self, config, layer_idx: int):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VilaUDepthAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = nn.GELU()

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + attended
        hidden = self.activation(self.fc1(self.post_attention_layernorm(hidden_states)))
        return hidden_states + self.fc2(hidden)


class VilaUDepthTransformer(LibraryInitialization, PreTrainedModel):
    r"""
    Decodes the D codes of a visual token from the hidden state that precedes it (VILA-U, section 3.2; the depth
    transformer of Lee et al., 2022). The input at depth 1 is the projected hidden state, at depth d > 1 the projected
    sum of the embeddings of the codes before it, `sum_{i<d} e(k_i)` (eq. 6).

    The codebook stays in the vision tower: callers pass code embeddings.

    Args:
        config ([`VilaUDepthConfig`]): sizes.
    """

    config_class = VilaUDepthConfig
    config: VilaUDepthConfig
    base_model_prefix = "depth_transformer"
    main_input_name = "visual_hidden_states"
    supports_gradient_checkpointing = True
    _no_split_modules = ["VilaUDepthLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: VilaUDepthConfig):
        super().__init__(config)
        self.in_proj_hidden = nn.Linear(config.backbone_hidden_size, config.hidden_size)
        self.in_proj_code = nn.Linear(config.code_dim, config.hidden_size)
        self.depth_embedding = nn.Embedding(config.code_depth, config.hidden_size)
        self.layers = nn.ModuleList([VilaUDepthLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.code_head = nn.Linear(config.hidden_size, config.codebook_size)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self):
        return self.in_proj_hidden

    def forward(
        self, visual_hidden_states: torch.Tensor, code_embeddings: torch.Tensor, apply_head: bool = True
    ) -> torch.Tensor:
        """
        Teacher-forced logits of all depths.

        Args:
            visual_hidden_states (`torch.Tensor` of shape `(M, H)`): hidden state before each visual token.
            code_embeddings (`torch.Tensor` of shape `(M, D, C)`): embeddings of its true codes; the last depth's is
                not used.
            apply_head (`bool`, *optional*, defaults to `True`): otherwise what the head would read is returned.

        Returns:
            `torch.Tensor` of shape `(M, D, K)`: logits of the code at each depth; or `(M, D, W)` without the head.
        """
        depth = self.config.code_depth
        if code_embeddings.shape[1:] != (depth, self.config.code_dim):
            raise ValueError(
                f"`code_embeddings` must have shape (M, {depth}, {self.config.code_dim}), "
                f"got {tuple(code_embeddings.shape)}."
            )
        first = self.in_proj_hidden(visual_hidden_states)[:, None]  # (M, 1, W)
        so_far = code_embeddings[:, :-1].cumsum(dim=1).to(first.dtype)  # (M, D - 1, C)
        depths = torch.arange(depth, device=first.device)
        hidden_states = torch.cat([first, self.in_proj_code(so_far)], dim=1) + self.depth_embedding(depths)
        mask = make_causal_mask(self.config, hidden_states)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask=mask)
        hidden_states = self.norm(hidden_states)
        return self.code_head(hidden_states) if apply_head else hidden_states

    def new_cache(self) -> VilaUDepthCache:
        """A cache for steps of one number of rows; it may serve position after position without a reset."""
        return VilaUDepthCache(self.config)

    def step(self, inputs: torch.Tensor, depth: int, cache: VilaUDepthCache) -> torch.Tensor:
        """
        One decoding step.

        Args:
            inputs (`torch.Tensor`): at depth 0 the hidden states `(M, H)`, later the summed embeddings `(M, C)` of the
                codes chosen so far.
            depth (`int`): 0-based depth of the code to predict.
            cache ([`VilaUDepthCache`]): as `new_cache` gave it, used in order of depth.

        Returns:
            `torch.Tensor` of shape `(M, K)`: logits of the code at `depth`.
        """
        project = self.in_proj_hidden if depth == 0 else self.in_proj_code
        position = torch.full((1,), depth, device=inputs.device)
        return self.code_head(self.advance(project(inputs) + self.depth_embedding(position), depth, cache))

    def advance(self, hidden_states: torch.Tensor, depth: int, cache: VilaUDepthCache) -> torch.Tensor:
        """What the head reads at `depth`, `(M, W)`, for inputs `(M, W)` that are projected and have their position."""
        hidden_states = hidden_states[:, None]  # (M, 1, W)
        for layer in self.layers:
            hidden_states = layer(hidden_states, cache=cache, depth=depth)
        return self.norm(hidden_states[:, 0])


__all__ = ["VilaUDepthCache", "VilaUDepthTransformer"]
