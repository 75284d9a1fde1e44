# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Depth transformer: decodes the D codes of the next visual token from one hidden state of the language model."""

from collections.abc import Callable

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from .compat_modeling_vilau import make_causal_mask
from .complete_loading_vilau import CompleteLoading
from .configuration_vilau import VilaUDepthConfig
from .module_bases_vilau import LibraryInitialization


# Attention functions by name, including those that users register. `set_attn_implementation` searches the source of a
# model's file for this name, to find out whether the attention can be chosen. Read in 5.20.2 and 5.24.0.
ALL_ATTENTION_FUNCTIONS = AttentionInterface()


class VilaUDepthCache:
    """
    Keys and values of the depths decoded so far.

    The buffer has a fixed size, `(M, heads, D, head_dim)` a layer, so decoding allocates nothing at each depth.

    Args:
        config ([`VilaUDepthConfig`]): sizes.
    """

    def __init__(self, config: VilaUDepthConfig) -> None:
        self.num_layers = config.num_hidden_layers
        self.code_depth = config.code_depth
        self.buffer: torch.Tensor | None = None

    def update(self, key_value: torch.Tensor, layer_idx: int, depth: int) -> torch.Tensor:
        """
        Stores key and value of one depth.

        Args:
            key_value (`torch.Tensor` of shape `(2, M, heads, 1, head_dim)`): key and value.
            layer_idx (`int`): index of the layer.
            depth (`int`): 0-based depth.

        Returns:
            Keys and values `(2, M, heads, depth + 1, head_dim)` of all depths so far.
        """
        # Rows, dtype and device are those of the first key. All layers share one buffer.
        if self.buffer is None:
            _, rows, heads, _, head_dim = key_value.shape
            self.buffer = key_value.new_empty(self.num_layers, 2, rows, heads, self.code_depth, head_dim)
        layer = self.buffer[layer_idx]
        layer[:, :, :, depth : depth + 1] = key_value
        return layer[:, :, :, : depth + 1]


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Computes attention without a fused kernel, in the form that transformers expects of an attention function.

    Args:
        module (`nn.Module`): the attention layer.
        query (`torch.Tensor` of shape `(M, heads, T, head_dim)`): queries.
        key (`torch.Tensor` of shape `(M, heads, T, head_dim)`): keys.
        value (`torch.Tensor` of shape `(M, heads, T, head_dim)`): values.
        attention_mask (`torch.Tensor`, *optional*): added to the scores.
        scaling (`float`): factor of the scores.
        dropout (`float`, *optional*, defaults to 0.0): dropout of the attention weights in training mode.
        kwargs: arguments of other attention functions, not used.

    Returns:
        The output `(M, T, heads, head_dim)` and the attention weights `(M, heads, T, T)`.
    """
    scores = query @ key.transpose(-1, -2) * scaling  # (M, heads, T, T)
    if attention_mask is not None:
        scores = scores + attention_mask
    # softmax in float32, as in the eager attention of transformers
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class VilaUDepthAttention(nn.Module):
    """Causal self-attention over the depths of one visual token."""

    def __init__(self, config: VilaUDepthConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        # attention functions of transformers read these two attributes
        self.num_key_value_groups = 1
        self.is_causal = True
        # One product for query, key and value: the steps of decoding are many and small, so their number counts.
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: VilaUDepthCache | None = None,
        depth: int = 0,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends over `hidden_states` `(M, T, W)`, or with `cache` over one depth and the depths before it."""
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


class VilaUDepthLayer(nn.Module):
    """Pre-norm transformer block with biases and GELU, as in the RQ-Transformer (Lee et al., 2022)."""

    def __init__(self, config: VilaUDepthConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VilaUDepthAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = nn.GELU()

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: VilaUDepthCache | None = None,
        depth: int = 0,
    ) -> torch.Tensor:
        """Transforms `hidden_states` `(M, T, W)`; the other arguments are those of the attention."""
        attended, _ = self.self_attn(
            self.input_layernorm(hidden_states), attention_mask=attention_mask, cache=cache, depth=depth
        )
        hidden_states = hidden_states + attended
        hidden = self.activation(self.fc1(self.post_attention_layernorm(hidden_states)))
        return hidden_states + self.fc2(hidden)


class VilaUDepthTransformer(CompleteLoading, LibraryInitialization, PreTrainedModel):
    r"""
    Decodes the D codes of a visual token from the hidden state that precedes it.

    It is the depth transformer of Lee et al., 2022 (VILA-U, section 3.2). The input at depth 1 is the projected hidden
    state. At depth d > 1 it is the projected sum of the embeddings of earlier codes, `sum_{i<d} e(k_i)` (eq. 6).

    The codebook stays in the vision tower: callers pass code embeddings.

    Args:
        config ([`VilaUDepthConfig`]): sizes.
    """

    config_class = VilaUDepthConfig
    config: VilaUDepthConfig
    base_model_prefix = "depth_transformer"
    main_input_name = "visual_hidden_states"
    supports_gradient_checkpointing = True
    # layers that stay on one device, and that FSDP2 gathers as a unit
    _no_split_modules = ["VilaUDepthLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: VilaUDepthConfig) -> None:
        super().__init__(config)
        self.in_proj_hidden = nn.Linear(config.backbone_hidden_size, config.hidden_size)
        self.in_proj_code = nn.Linear(config.code_dim, config.hidden_size)
        self.depth_embedding = nn.Embedding(config.code_depth, config.hidden_size)
        self.layers = nn.ModuleList([VilaUDepthLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.code_head = nn.Linear(config.hidden_size, config.codebook_size)
        # `code_loss` reads it, and runs chunks of tokens again with all layers at once. Layers that were checkpointed
        # one by one as well would run a third time.
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the layer that projects the hidden states of the language model."""
        return self.in_proj_hidden

    def forward(
        self, visual_hidden_states: torch.Tensor, code_embeddings: torch.Tensor, apply_head: bool = True
    ) -> torch.Tensor:
        """
        Computes the logits of all depths from the true codes (teacher forcing).

        Args:
            visual_hidden_states (`torch.Tensor` of shape `(M, H)`): hidden state before each visual token.
            code_embeddings (`torch.Tensor` of shape `(M, D, C)`): embeddings of the true codes. The embedding
                of the last depth is not used.
            apply_head (`bool`, *optional*, defaults to `True`): whether to apply the code head.

        Returns:
            Logits `(M, D, K)` of the code at each depth. If `apply_head` is `False`, the inputs `(M, D, W)` of the
            head.
        """
        depth = self.config.code_depth
        if code_embeddings.shape[1:] != (depth, self.config.code_dim):
            raise ValueError(
                f"`code_embeddings` must have shape (M, {depth}, {self.config.code_dim}), "
                f"got {tuple(code_embeddings.shape)}."
            )
        first = self.in_proj_hidden(visual_hidden_states)[:, None]  # (M, 1, W)
        # The sum is taken in the dtype of the codebook, float32, and rounded to that of the weights afterwards.
        so_far = code_embeddings[:, :-1].cumsum(dim=1).to(first.dtype)  # (M, D - 1, C)
        depths = torch.arange(depth, device=first.device)
        hidden_states = torch.cat([first, self.in_proj_code(so_far)], dim=1) + self.depth_embedding(depths)
        mask = make_causal_mask(self.config, hidden_states)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask=mask)
        hidden_states = self.norm(hidden_states)
        return self.code_head(hidden_states) if apply_head else hidden_states

    def new_cache(self) -> VilaUDepthCache:
        """
        Returns a cache for steps with a fixed number of rows.

        It can be used for one position after another: each depth overwrites keys and values of the previous position.
        """
        return VilaUDepthCache(self.config)

    def step(self, inputs: torch.Tensor, depth: int, cache: VilaUDepthCache) -> torch.Tensor:
        """
        Decodes one depth.

        Args:
            inputs (`torch.Tensor`): at depth 0 the hidden states `(M, H)`, at later depths the summed embeddings
                `(M, C)` of the codes chosen so far.
            depth (`int`): 0-based depth of the code to predict.
            cache ([`VilaUDepthCache`]): cache from `new_cache`, used in order of depth.

        Returns:
            Logits `(M, K)` of the code at `depth`.
        """
        project = self.in_proj_hidden if depth == 0 else self.in_proj_code
        position = torch.full((1,), depth, device=inputs.device)
        return self.code_head(self.advance(project(inputs) + self.depth_embedding(position), depth, cache))

    def advance(self, hidden_states: torch.Tensor, depth: int, cache: VilaUDepthCache) -> torch.Tensor:
        """
        Runs the layers at one depth, without input projection and head.

        Args:
            hidden_states (`torch.Tensor` of shape `(M, W)`): projected inputs, with the embedding of their depth.
            depth (`int`): 0-based depth.
            cache ([`VilaUDepthCache`]): cache from `new_cache`, used in order of depth.

        Returns:
            Inputs `(M, W)` of the code head.
        """
        hidden_states = hidden_states[:, None]  # (M, 1, W)
        for layer in self.layers:
            hidden_states = layer(hidden_states, cache=cache, depth=depth)
        return self.norm(hidden_states[:, 0])


__all__ = ["VilaUDepthCache", "VilaUDepthTransformer"]
