"""The distribution that codes are drawn from, against its definition by a full sort."""

import pytest
import torch

from vilau_hf.modeling.generation_sampling_vilau import kept_probabilities


CODES = 16384


def defined_probabilities(logits, temperature, top_k, top_p, min_p):
    """Probabilities `(K,)` of one row of logits in falling order, in float64: each step as it is defined."""
    values = (logits.double() / temperature).sort(descending=True).values
    if top_k:
        values = torch.where(values >= values[top_k - 1], values, -torch.inf)
    probabilities = values.softmax(-1)
    total, kept = 0.0, []
    for probability in probabilities.tolist():
        if total >= top_p or probability < min_p * probabilities[0].item():
            break
        total += probability
        kept.append(probability)
    kept = torch.tensor(kept, dtype=torch.float64)
    return torch.nn.functional.pad(kept / kept.sum(), (0, len(values) - len(kept)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "settings",
    [(1.0, 900, 0.96, 0.0), (1.0, 0, 1.0, 0.0), (0.7, 0, 0.9, 0.0), (1.3, 50, 1.0, 0.0), (1.0, 900, 0.96, 0.02)],
    ids=["published", "all", "top_p", "top_k", "min_p"],
)
def test_total_variation_from_a_full_sort_is_at_most_a_millionth(settings, dtype):
    """
    The probabilities are compared in falling order, since codes of equal logits may stand in for each other at the
    edge of top-p. Logits that bfloat16 can hold are often equal: some are tied with the k-th largest, and all of them
    stay. That holds for up to 124 codes beyond the k-th: this many more than k are looked at.
    """
    logits = (torch.randn(8, CODES, generator=torch.Generator().manual_seed(0)) * 2).to(dtype).float()
    kept, codes = kept_probabilities(logits, *settings)
    of_codes = (logits / settings[0]).gather(1, codes)
    assert (of_codes.diff(dim=1) <= 0).all()  # the codes that the probabilities belong to
    kept = torch.nn.functional.pad(kept, (0, CODES - kept.shape[1])).double()
    kept = (kept / kept.sum(-1, keepdim=True)).sort(descending=True).values
    expected = torch.stack([defined_probabilities(row, *settings) for row in logits])
    assert ((kept - expected).abs().sum(-1) / 2).max() <= 1e-6
    top_k = settings[1]
    if dtype == torch.bfloat16 and top_k:  # the rounded logits do have ties there
        kth = logits.topk(top_k).values[:, -1:]
        assert ((logits >= kth).sum(-1) > top_k).any()


@pytest.mark.parametrize(("tied", "left"), [(124, 900 + 124), (125, 900 + 124), (CODES - 900, 900 + 124)])
def test_up_to_124_codes_tied_with_the_last_of_top_k_stay(tied, left):
    logits = torch.zeros(1, CODES)
    logits[:, : 900 + tied] = 1.0
    assert kept_probabilities(logits, 1.0, 900, 1.0, 0.0)[0].count_nonzero() == left
