"""The distribution that codes are sampled from, over all codes."""

import torch

from vilau_hf.modeling.generation_sampling_vilau import SamplingSettings, truncated_probabilities


def code_probabilities(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Returns probabilities `(..., K)` of `logits` `(..., K)`."""
    flat = logits.reshape(-1, logits.shape[-1])
    kept, codes = truncated_probabilities(flat, SamplingSettings(True, temperature, top_k, top_p, min_p))
    return torch.zeros_like(flat).scatter(-1, codes, kept / kept.sum(-1, keepdim=True)).view_as(logits)
