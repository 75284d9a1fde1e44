"""Initialisation, restarts and updates of the codebook. `test_modeling_residual_quantizer.py` has the equations."""

import pytest
import torch

from vilau_hf import VilaUResidualQuantizer, VilaUVisionConfig

from ..conftest import VISION


def make_quantizer(**kwargs):
    return VilaUResidualQuantizer(VilaUVisionConfig(**{**VISION, **kwargs})).train()


def initialize(quantizer, features):
    """Fills the codebook like the first batch does, without the EMA step that follows."""
    with torch.no_grad():
        quantizer._initialize(features.flatten(0, 1))


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_random_initialisation_takes_different_vectors_of_the_batch(shared):
    quantizer = make_quantizer(shared_codebook=shared)
    features = torch.randn(2, 16, 32)
    initialize(quantizer, features)
    distances = (quantizer.codebook.weight[:24, None] - features.flatten(0, 1)).norm(dim=-1)
    assert not distances.min(-1).values.any()
    assert distances.argmin(-1).unique().numel() == 24


def test_with_fewer_vectors_than_codes_every_vector_is_taken_before_one_repeats():
    quantizer = make_quantizer()
    features = torch.randn(1, 10, 32)
    initialize(quantizer, features)
    taken = torch.cdist(quantizer.codebook.weight, features[0]).argmin(-1).bincount(minlength=10)
    assert taken.min() == 2 and taken.max() == 3


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_k_means_converges_to_the_means_of_its_clusters(shared):
    quantizer = make_quantizer(codebook_initialization="kmeans", shared_codebook=shared)
    quantizer.k_means_iterations = 50
    features = torch.randn(4, 64, 32)
    initialize(quantizer, features)
    left = features.flatten(0, 1)
    for book in range(quantizer.num_codebooks):
        rows = slice(book * 24, book * 24 + 24)
        embeddings = quantizer.codebook.weight[rows]
        nearest = torch.cdist(left, embeddings).argmin(-1)
        for code in range(24):
            members = left[nearest == code]
            assert len(members)
            torch.testing.assert_close(embeddings[code], members.mean(0), rtol=1e-4, atol=1e-5)
            assert quantizer.cluster_size[rows][code] == len(members)
        left = left - embeddings[nearest]
    sums = quantizer.codebook.weight * quantizer.cluster_size[:, None]
    torch.testing.assert_close(quantizer.cluster_sum, sums)


def test_k_means_leaves_smaller_residuals_than_random_vectors():
    features = torch.randn(4, 64, 32)
    left = {}
    for kind in ("random", "kmeans"):
        quantizer = make_quantizer(codebook_initialization=kind)
        initialize(quantizer, features)
        left[kind] = (features - quantizer.decode(quantizer.encode(features))).square().mean()
    assert left["kmeans"] < 0.9 * left["random"]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_only_dead_codes_restart_and_each_at_another_vector(shared):
    quantizer = make_quantizer(shared_codebook=shared, codebook_decay=0.5)
    features = torch.randn(4, 16, 32)
    initialize(quantizer, features)
    quantizer.cluster_size.fill_(100.0)
    dead = torch.tensor([0, 5, 6, len(quantizer.cluster_size) - 1])
    quantizer.cluster_size[dead] = 0.0
    quantizer.cluster_sum[dead] = 1e4  # so far away that no vector is assigned to them
    quantizer.codebook.weight.data[dead] = 1e4
    sums = quantizer.cluster_sum.clone()
    sizes = quantizer.cluster_size.clone()
    with torch.no_grad():
        rows, residuals = quantizer._quantize(features.flatten(0, 1))
        quantizer._update(rows, residuals)
    given = residuals.flatten(0, 1) if shared else residuals
    restarted = []
    for row in dead.tolist():
        vectors = given if shared else given[row // 24]
        distances = (vectors - quantizer.cluster_sum[row]).norm(dim=-1)
        assert distances.min() == 0 and quantizer.cluster_size[row] == 1
        restarted.append(quantizer.cluster_sum[row])
    assert torch.stack(restarted).unique(dim=0).shape[0] == 4
    alive = torch.ones(len(sizes), dtype=torch.bool)
    alive[dead] = False
    counts = rows.flatten().bincount(minlength=len(sizes))
    expected = sums[alive] * 0.5
    for row in counts.nonzero()[:, 0].tolist():
        expected[alive.cumsum(0)[row] - 1] += 0.5 * residuals.flatten(0, 1)[rows.flatten() == row].sum(0)
    torch.testing.assert_close(quantizer.cluster_sum[alive], expected)
    torch.testing.assert_close(quantizer.cluster_size[alive], 0.5 * sizes[alive] + 0.5 * counts[alive])


def test_no_random_numbers_are_drawn_if_no_code_is_dead():
    quantizer = make_quantizer()
    features = torch.randn(4, 16, 32)
    initialize(quantizer, features)
    quantizer.cluster_size.fill_(100.0)
    before = torch.get_rng_state()
    quantizer(features)
    assert torch.equal(torch.get_rng_state(), before)


def test_restarts_keep_every_code_in_use():
    """Without restarts, codes that begin far away from all features are never used."""
    usage = {}
    for restarts in (True, False):
        torch.manual_seed(0)
        quantizer = make_quantizer(restart_unused_codes=restarts, code_depth=1)
        quantizer(torch.randn(2, 32, 32))  # around the origin
        centers = 20 + 5 * torch.randn(24, 32)
        for _ in range(80):
            features = centers[torch.randint(24, (4, 64))] + 0.1 * torch.randn(4, 64, 32)
            _, codes, _ = quantizer(features)
        usage[restarts] = codes.unique().numel()
    assert usage[True] >= 20 and usage[False] <= 5


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_same_seed_gives_the_same_codebook_with_deterministic_algorithms(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA, where the order of sums by index is random otherwise")
    features = torch.randn(3, 8, 512, 32, device=device)
    weights = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            torch.manual_seed(1)
            quantizer = make_quantizer(codebook_initialization="kmeans").to(device)
            for batch in features:
                quantizer(batch)
            weights.append(quantizer.codebook.weight.clone())
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*weights)
