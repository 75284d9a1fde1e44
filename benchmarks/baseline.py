"""
The algorithm of the original release, as the baseline of the benchmarks.

It reads the whole prefix again at each depth, sorts all logits, and reads each code on the host. At each position it
computes text logits, copies caches and masks to make them longer, and runs the projector once for each branch.
"""

import torch
from torch import nn
from transformers import DynamicCache

from vilau_hf.modeling.compat_modeling_vilau import cache_arguments


def sample(logits: torch.Tensor, top_k: int = 900, top_p: float = 0.96) -> torch.Tensor:
    """Samples codes `(rows,)` from `logits` `(rows, K)` with one sort for top-k and another one for top-p."""
    kth = logits.sort(-1, descending=True).values[:, min(top_k, logits.shape[-1]) - 1, None]
    probabilities = logits.masked_fill(logits < kth, -torch.inf).softmax(-1)
    ordered, order = probabilities.sort(-1, descending=True)
    dropped = ordered.cumsum(-1) - ordered >= top_p
    probabilities = probabilities.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), 0)
    return torch.multinomial(probabilities / probabilities.sum(-1, keepdim=True), 1)[:, 0]


@torch.no_grad()
def decode_depths(transformer, codebook: nn.Embedding, hidden: torch.Tensor, scale: float, pick=sample):
    """
    Decodes codes `(rows, D)` from `hidden` `(2 * rows, H)`, in which the conditional rows come first.

    At each depth, the depth transformer reads all earlier depths again. Guidance combines the logits of both branches.
    """
    config = transformer.config
    codes = []
    for depth in range(config.code_depth):
        inputs = transformer.in_proj_hidden(hidden)[:, None]
        if codes:
            summed = codebook(torch.stack(codes, -1)).cumsum(-2).to(hidden.dtype)  # (rows, depth, C)
            inputs = torch.cat([inputs, transformer.in_proj_code(summed).repeat(2, 1, 1)], 1)
        states = inputs + transformer.depth_embedding.weight[: depth + 1]
        for layer in transformer.layers:
            states = block(layer, states)
        logits = transformer.code_head(transformer.norm(states))[:, -1].float()
        conditional, unconditional = logits.chunk(2)
        codes.append(pick(unconditional + scale * (conditional - unconditional)))
        bool((codes[-1] >= 0).all())  # the original reads each code on the host
    return torch.stack(codes, -1)


def block(layer, states: torch.Tensor) -> torch.Tensor:
    """Computes a layer of the depth transformer for `states` `(rows, T, W)`, with separate query, key and value."""
    attention = layer.self_attn
    visible = torch.ones(2 * states.shape[1:2], dtype=torch.bool, device=states.device)
    normed = layer.input_layernorm(states)
    heads = (-1, attention.head_dim)
    parameters = zip(attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True)
    query, key, value = (
        nn.functional.linear(normed, *each).unflatten(-1, heads).transpose(1, 2) for each in parameters
    )
    scores = query @ (key.transpose(-1, -2) * attention.scaling)
    weights = scores.masked_fill(~visible.tril(), -torch.inf).softmax(-1)
    states = states + attention.proj((weights @ value).transpose(1, 2).flatten(-2))
    return states + layer.fc2(layer.activation(layer.fc1(layer.post_attention_layernorm(states))))


@torch.no_grad()
def draw(model, ids: torch.Tensor, mask: torch.Tensor, num_positions: int, scale: float, pick=sample) -> torch.Tensor:
    """
    Generates codes `(rows, num_positions, D)` for prompts `ids` `(2 * rows, T)`; the second half is unconditional.

    At each position it runs the language model of the library with a growing cache and mask. It computes text logits
    of all positions that it reads. It decodes codes with `decode_depths` and runs the projector for each branch.
    """
    language_model = model.model.language_model
    codebook = model.model.vision_tower.quantizer.codebook
    cache = DynamicCache(config=model.config.text_config)
    embeds = model.get_input_embeddings()(ids)
    codes = ids.new_empty(len(ids) // 2, 0, model.config.vision_config.code_depth)
    while codes.shape[1] < num_positions:
        hidden = language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, -embeds.shape[1] :],
            **cache_arguments(cache, None),
            use_cache=True,
        ).last_hidden_state
        model.lm_head(hidden).float()
        drawn = decode_depths(model.depth_transformer, codebook, hidden[:, -1], scale, pick)
        codes = torch.cat([codes, drawn[:, None]], 1)
        summed = codebook(drawn).sum(-2)
        embeds = torch.cat([model.model.multi_modal_projector(summed) for _ in range(2)])[:, None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    return codes


def quantize(features: torch.Tensor, weight: torch.Tensor, depth: int) -> torch.Tensor:
    """Quantizes `features` `(M, C)` to codes `(M, D)` with all squared distances at each depth."""
    residual = features
    codes = []
    for _ in range(depth):
        distances = residual.square().sum(-1, keepdim=True) + weight.square().sum(-1) - 2 * residual @ weight.T
        codes.append(distances.argmin(-1))
        residual = residual - weight[codes[-1]]
    return torch.stack(codes, -1)


def moving_average(
    size, total, vectors: torch.Tensor, codes: torch.Tensor, decay: float = 0.99, restart: bool = False
):
    """
    Updates the moving averages of cluster sizes `(K,)` and sums `(K, C)` with a one-hot matrix.

    With `restart`, a random vector replaces each code whose size is under 1.

    Returns:
        The new embeddings, of shape `(K, C)`.
    """
    one_hot = torch.zeros(len(size), len(codes)).scatter_(0, codes[None], 1.0)
    size.mul_(decay).add_(one_hot.sum(1), alpha=1 - decay)
    total.mul_(decay).add_(one_hot @ vectors, alpha=1 - decay)
    if restart:
        drawn = vectors.repeat(-(-len(size) // len(vectors)), 1)
        drawn = drawn[torch.randperm(len(drawn))][: len(size)]
        used = (size >= 1).float()
        total.mul_(used[:, None]).add_(drawn * (1 - used)[:, None])
        size.mul_(used).add_(1 - used)
    smoothed = (size + 1e-5) / (size.sum() + len(size) * 1e-5) * size.sum()
    return total / smoothed[:, None]
