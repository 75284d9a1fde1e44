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
            states = layer(states, attention_mask=causal_mask(depth + 1, states))
        logits = transformer.code_head(transformer.norm(states))[:, -1].float()
        conditional, unconditional = logits.chunk(2)
        codes.append(pick(unconditional + scale * (conditional - unconditional)))
        bool((codes[-1] >= 0).all())  # the original looks at every code on the host
    return torch.stack(codes, -1)


def causal_mask(length: int, like: torch.Tensor) -> torch.Tensor:
    return torch.full((1, 1, length, length), torch.finfo(like.dtype).min, dtype=like.dtype).triu(1)
