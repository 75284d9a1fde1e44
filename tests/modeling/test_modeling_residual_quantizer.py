import itertools

import pytest
import torch

from vilau_hf import VilaUResidualQuantizer, VilaUVisionConfig

from ..conftest import VISION


@pytest.fixture(params=[True, False], ids=["shared", "separate"])
def quantizer(request):
    quantizer = VilaUResidualQuantizer(VilaUVisionConfig(**{**VISION, "shared_codebook": request.param}))
    return quantizer.eval()


def codebook_of(quantizer, depth):
    size = quantizer.codebook_size
    return (
        quantizer.codebook.weight if quantizer.num_codebooks == 1 else quantizer.codebook.weight[depth * size :][:size]
    )


def test_codes_are_the_nearest_embeddings_of_what_is_left(quantizer):
    features = torch.randn(2, 3, quantizer.codebook.embedding_dim)
    codes = quantizer.encode(features)
    assert codes.shape == (2, 3, quantizer.code_depth)
    for image, position in itertools.product(range(2), range(3)):
        left = features[image, position]
        for depth, code in enumerate(codes[image, position]):
            embeddings = codebook_of(quantizer, depth)
            assert code == (embeddings - left).norm(dim=-1).argmin()
            left = left - embeddings[code]


def test_rows_scored_in_parts_give_the_same_codes(quantizer):
    features = torch.randn(2, 5, quantizer.codebook.embedding_dim)
    codes = quantizer.encode(features)
    quantizer.max_scores = 3 * quantizer.codebook_size
    assert torch.equal(quantizer.encode(features), codes)


def test_quantized_is_the_sum_of_the_code_embeddings(quantizer):
    codes = torch.randint(quantizer.codebook_size, (2, 3, quantizer.code_depth))
    expected = sum(codebook_of(quantizer, depth)[codes[..., depth]] for depth in range(quantizer.code_depth))
    torch.testing.assert_close(quantizer.decode(codes), expected)
    by_depth = sum(quantizer.embed_depth(codes[..., depth], depth) for depth in range(quantizer.code_depth))
    torch.testing.assert_close(by_depth, expected)


def test_gradient_passes_straight_through_and_commitment_is_the_mean_over_partial_sums(quantizer):
    features = torch.randn(2, 3, quantizer.codebook.embedding_dim, requires_grad=True)
    quantized, codes, commitment_loss = quantizer(features)
    torch.testing.assert_close(quantized, quantizer.decode(codes))
    weights = torch.randn_like(quantized)
    (gradient,) = torch.autograd.grad((quantized * weights).sum(), features, retain_graph=True)
    torch.testing.assert_close(gradient, weights)

    expected = 0
    for depth in range(quantizer.code_depth):
        partial = quantizer.code_embeddings(codes)[..., : depth + 1, :].sum(-2).detach()
        expected = expected + ((features - partial) ** 2).mean() / quantizer.code_depth
    torch.testing.assert_close(commitment_loss, expected)
    (actual_gradient,) = torch.autograd.grad(commitment_loss, features)
    (expected_gradient,) = torch.autograd.grad(expected, features)
    torch.testing.assert_close(actual_gradient, expected_gradient)


def test_moving_averages_follow_the_equations(quantizer):
    quantizer.config.restart_unused_codes = False
    quantizer.train()
    quantizer(torch.randn(4, 8, quantizer.codebook.embedding_dim))  # initialises
    features = torch.randn(4, 8, quantizer.codebook.embedding_dim)
    weight, sizes, sums = (
        tensor.clone() for tensor in (quantizer.codebook.weight, quantizer.cluster_size, quantizer.cluster_sum)
    )
    _, codes, _ = quantizer(features)

    size, decay = quantizer.codebook_size, quantizer.config.codebook_decay
    one_hot, totals = torch.zeros_like(sizes), torch.zeros_like(sums)
    for image, position in itertools.product(range(4), range(8)):
        left = features[image, position]
        for depth, code in enumerate(codes[image, position]):
            row = code + (0 if quantizer.num_codebooks == 1 else depth * size)
            one_hot[row] += 1
            totals[row] += left
            left = left - weight[row]
    sizes = decay * sizes + (1 - decay) * one_hot
    sums = decay * sums + (1 - decay) * totals
    torch.testing.assert_close(quantizer.cluster_size, sizes)
    torch.testing.assert_close(quantizer.cluster_sum, sums)
    for book in range(quantizer.num_codebooks):
        part = sizes[book * size :][:size]
        smoothed = (part + 1e-5) / (part.sum() + size * 1e-5) * part.sum()
        expected = sums[book * size :][:size] / smoothed[:, None]
        torch.testing.assert_close(quantizer.codebook.weight[book * size :][:size], expected)


def test_unused_codes_restart_at_vectors_of_the_batch(quantizer):
    quantizer.train()
    quantizer(torch.randn(4, 8, quantizer.codebook.embedding_dim))
    quantizer.cluster_size[5], quantizer.cluster_sum[5] = 0.5, 100.0
    features = torch.randn(4, 8, quantizer.codebook.embedding_dim)
    quantizer(features)
    assert quantizer.cluster_size[5] == 1
    assert quantizer.cluster_sum[5].norm() < 20
    distances = (features.flatten(0, 1) - quantizer.cluster_sum[5]).norm(dim=-1)
    if quantizer.num_codebooks > 1:  # the first depth reads the features themselves
        assert distances.min() == 0


def test_training_finds_clusters_and_eval_changes_nothing(quantizer):
    centers = torch.randn(6, quantizer.codebook.embedding_dim) * 5
    quantizer.train()
    losses = []
    for _ in range(60):
        features = centers[torch.randint(6, (4, 16))] + 0.1 * torch.randn(4, 16, quantizer.codebook.embedding_dim)
        losses.append(quantizer(features)[2].item())
    assert losses[-1] < 0.1 * losses[0] + 0.02
    quantizer.eval()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer(torch.randn(2, 3, quantizer.codebook.embedding_dim))
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_features_in_bfloat16_are_scored_in_float32(quantizer):
    features = torch.randn(4, 16, quantizer.codebook.embedding_dim).bfloat16()
    assert torch.equal(quantizer.encode(features), quantizer.encode(features.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.encode(features), quantizer.encode(features.float()))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(2, 3, 5, dtype=torch.long), r"`codes` must have shape \(N, L, 3\), got \(2, 3, 5\)"),
        (torch.zeros(2, 3, 3), "`codes` must be integers, got torch.float32"),
    ],
)
def test_wrong_codes_are_refused(quantizer, codes, message):
    with pytest.raises(ValueError, match=message):
        quantizer.decode(codes)


@torch.no_grad()
@pytest.mark.parametrize("depth", [4, 16])
def test_codes_at_the_published_size_are_those_of_double_precision_whatever_the_dtype(depth):
    config = VilaUVisionConfig(codebook_size=16384, code_depth=depth)  # 1024 wide
    quantizer = VilaUResidualQuantizer(config).eval()
    generator = torch.Generator().manual_seed(0)
    norms = torch.rand(16384, 1, generator=generator) * 0.9 + 0.1
    directions = torch.randn(16384, 1024, generator=generator)
    embeddings = norms * directions / directions.norm(dim=-1, keepdim=True)
    quantizer.codebook.weight.copy_(embeddings)
    chosen = torch.randint(16384, (1, 24, depth), generator=generator)
    noise = 0.01 * torch.randn(1, 24, 1024, generator=generator)
    features = (quantizer.decode(chosen) + noise).bfloat16()
    codes = quantizer.encode(features)
    left, exact = features[0].double(), []
    for _ in range(depth):
        exact.append((embeddings.double().square().sum(-1) / 2 - left @ embeddings.double().T).argmin(-1))
        left = left - embeddings[exact[-1]].double()
    assert (codes[0] == torch.stack(exact, -1)).float().mean() >= 0.999
