"""The original algorithm, to time against: whole prefixes at every depth, whole sorts, a host read a code."""

import torch
from torch import nn


def sample(logits: torch.Tensor, top_k: int = 900, top_p: float = 0.96) -> torch.Tensor:
    """Codes `(rows,)` for `logits` `(rows, K)`: the k-th value by a sort of all, the nucleus by another."""
    kth = logits.sort(-1, descending=True).values[:, top_k - 1 : top_k]
    probabilities = logits.masked_fill(logits < kth, -torch.inf).softmax(-1)
    ordered, order = probabilities.sort(-1, descending=True)
    dropped = ordered.cumsum(-1) - ordered >= top_p
    probabilities = probabilities.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), 0)
    return torch.multinomial(probabilities / probabilities.sum(-1, keepdim=True), 1)[:, 0]


@torch.no_grad()
def decode_depths(transformer, codebook: nn.Embedding, hidden: torch.Tensor, scale: float, pick=sample):
    """
    Codes `(rows, D)` after `hidden` `(2 * rows, H)`: at each depth the depth transformer reads all depths before it
    again, and guidance mixes the logits of both streams.
    """
    config, codes = transformer.config, []
    for depth in range(config.code_depth):
        inputs = [transformer.in_proj_hidden(hidden)]
        for length in range(1, depth + 1):
            summed = sum(codebook(code) for code in codes[:length])
            inputs.append(transformer.in_proj_code(summed).repeat(2, 1))
        states = torch.stack(inputs, 1) + transformer.depth_embedding.weight[: depth + 1]
        for layer in transformer.layers:
            states = block(layer, states, causal_mask(depth + 1, states))
        logits = transformer.code_head(transformer.norm(states))[:, -1].float()
        conditional, unconditional = logits.chunk(2)
        codes.append(pick(unconditional + scale * (conditional - unconditional)))
        bool((codes[-1] >= 0).all())  # the original looks at every code on the host
    return torch.stack(codes, -1)


def block(layer, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One block over whole prefixes `(rows, T, W)`: query, key and value by a product each, attention written out."""
    attention, heads = layer.self_attn, layer.self_attn.config.num_attention_heads
    normed, parts = layer.input_layernorm(states), []
    for weight, bias in zip(attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True):
        parts.append(nn.functional.linear(normed, weight, bias).unflatten(-1, (heads, -1)).transpose(1, 2))
    query, key, value = parts
    weights = (query @ key.transpose(-1, -2) * attention.scaling + mask).softmax(-1)
    states = states + attention.proj((weights @ value).transpose(1, 2).flatten(2))
    return states + layer.fc2(layer.activation(layer.fc1(layer.post_attention_layernorm(states))))


def causal_mask(length: int, like: torch.Tensor) -> torch.Tensor:
    return torch.full((1, 1, length, length), torch.finfo(like.dtype).min, dtype=like.dtype).triu(1)


def quantize(features: torch.Tensor, weight: torch.Tensor, depth: int) -> torch.Tensor:
    """Codes `(M, D)` of `features` `(M, C)`: whole squared distances at every depth."""
    residual, codes = features, []
    for _ in range(depth):
        distances = residual.square().sum(-1, keepdim=True) + weight.square().sum(-1) - 2 * residual @ weight.T
        codes.append(distances.argmin(-1))
        residual = residual - weight[codes[-1]]
    return torch.stack(codes, -1)


def moving_average(size, total, vectors: torch.Tensor, codes: torch.Tensor, decay: float = 0.99):
    """One EMA step of cluster sizes `(K,)` and sums `(K, C)` through a one-hot matrix; gives the new embeddings."""
    one_hot = torch.zeros(len(size), len(codes)).scatter_(0, codes[None], 1.0)
    size.mul_(decay).add_(one_hot.sum(1), alpha=1 - decay)
    total.mul_(decay).add_(one_hot @ vectors, alpha=1 - decay)
    smoothed = (size + 1e-5) / (size.sum() + len(size) * 1e-5) * size.sum()
    return total / smoothed[:, None]
