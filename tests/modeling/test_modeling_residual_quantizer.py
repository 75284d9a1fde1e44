import copy
import io
import itertools
import math

import pytest
import torch
from accelerate import cpu_offload
from torch.utils._python_dispatch import TorchDispatchMode

from vilau_hf import TINY_CHECKPOINT, VilaUResidualQuantizer, VilaUVisionConfig, VilaUVisionTower

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


def test_codes_are_the_nearest_embeddings_of_the_residual(quantizer):
    features = torch.randn(2, 3, quantizer.codebook.embedding_dim)
    codes = quantizer.encode(features)
    assert codes.shape == (2, 3, quantizer.code_depth)
    for image, position in itertools.product(range(2), range(3)):
        left = features[image, position]
        for depth, code in enumerate(codes[image, position]):
            embeddings = codebook_of(quantizer, depth)
            assert code == (embeddings - left).norm(dim=-1).argmin()
            left = left - embeddings[code]


def test_features_scored_in_chunks_have_the_same_codes(quantizer):
    features = torch.randn(2, 5, quantizer.codebook.embedding_dim)
    codes = quantizer.encode(features)
    quantizer.max_scores = 3 * quantizer.codebook_size
    assert torch.equal(quantizer.encode(features), codes)


def test_quantized_is_the_sum_of_the_code_embeddings(quantizer):
    codes = torch.randint(quantizer.codebook_size, (2, 3, quantizer.code_depth))
    expected = sum(codebook_of(quantizer, depth)[codes[..., depth]] for depth in range(quantizer.code_depth))
    torch.testing.assert_close(quantizer.decode(codes), expected)


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

    size = quantizer.codebook_size
    decay = quantizer.config.codebook_decay
    one_hot = torch.zeros_like(sizes)
    totals = torch.zeros_like(sums)
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
        book_sizes = sizes[book * size :][:size]
        total = book_sizes.sum()
        smoothed = (book_sizes + 1e-5) / (total + size * 1e-5) * total
        expected = sums[book * size :][:size] / smoothed[:, None]
        torch.testing.assert_close(quantizer.codebook.weight[book * size :][:size], expected)


def test_unused_codes_restart_at_vectors_of_the_batch(quantizer):
    quantizer.train()
    quantizer(torch.randn(4, 8, quantizer.codebook.embedding_dim))
    quantizer.cluster_size[5] = 0.5
    quantizer.cluster_sum[5] = 100.0
    features = torch.randn(4, 8, quantizer.codebook.embedding_dim)
    quantizer(features)
    assert quantizer.cluster_size[5] == 1
    assert quantizer.cluster_sum[5].norm() < 20
    distances = (features.flatten(0, 1) - quantizer.cluster_sum[5]).norm(dim=-1)
    if quantizer.num_codebooks > 1:  # the first codebook encodes the features themselves
        assert distances.min() == 0


def test_training_finds_clusters_and_evaluation_mode_changes_nothing(quantizer):
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
def test_rejects_codes_of_a_wrong_shape_or_dtype(quantizer, codes, message):
    with pytest.raises(ValueError, match=message):
        quantizer.decode(codes)


def random_quantizer(size, dim, depth, search="exact", seed=0, **settings):
    """Returns a quantizer with embeddings in all directions and norms between 0.1 and 1."""
    settings = {**VISION, "codebook_size": size, "code_depth": depth, **settings}
    settings["encoder_config"] = {**VISION["encoder_config"], "hidden_size": dim}
    quantizer = VilaUResidualQuantizer(VilaUVisionConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    rows = quantizer.num_codebooks * size
    directions = torch.nn.functional.normalize(torch.randn(rows, dim, generator=generator), dim=-1)
    norms = torch.rand(rows, 1, generator=generator) * 0.9 + 0.1
    quantizer.codebook.weight.data = norms * directions
    quantizer.search = search
    return quantizer.eval()


def random_features(quantizer, count, noise, seed=1):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(quantizer.codebook_size, (1, count, quantizer.code_depth), generator=generator)
    quantized = quantizer.decode(codes)
    return quantized + noise * torch.randn(quantized.shape, generator=generator)


def codes_in_double_precision(quantizer, features):
    left = features.flatten(0, -2).double()
    codes = []
    for depth in range(quantizer.code_depth):
        embeddings = codebook_of(quantizer, depth).double()
        codes.append(torch.stack([(embeddings - vector).square().sum(-1).argmin() for vector in left]))
        left = left - embeddings[codes[-1]]
    return torch.stack(codes, -1).view(*features.shape[:-1], -1)


class Operations(TorchDispatchMode):
    """Counts products with a codebook and reads by the host, and records the size of the largest new tensor."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.products = 0
        self.reads = 0
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = str(function).removeprefix("aten.")
        self.reads += name.startswith(("_local_scalar", "is_nonzero", "nonzero"))
        self.products += name.startswith(("mm", "addmm")) and result.shape[-1] == self.size
        if isinstance(result, torch.Tensor) and not name.startswith(("expand", "view", "_unsafe_view")):
            self.largest = max(self.largest, result.numel())
        return result


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("depth", [4, 16])
@pytest.mark.parametrize(
    ("search", "shared"),
    [("exact", True), ("exact", False), ("gram", True), ("bfloat16", True), ("bfloat16", False)],
)
def test_every_search_finds_the_codes_of_double_precision(search, shared, depth, dtype):
    quantizer = random_quantizer(512, 192, depth, search, shared_codebook=shared)
    features = random_features(quantizer, 100, noise=0.1).to(dtype)
    expected = codes_in_double_precision(quantizer, features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.encode(features), expected)


@torch.no_grad()
@pytest.mark.parametrize("search", ["gram", "bfloat16"])
def test_all_searches_agree_for_the_shipped_tower(search):
    tower = VilaUVisionTower.from_pretrained(f"{TINY_CHECKPOINT}/tower").eval()
    pixels = torch.nn.functional.interpolate(torch.rand(8, 3, 4, 4), 32) * 2 - 1
    expected = tower.encode(pixels).codes
    assert len(expected.unique()) > 50
    tower.quantizer.search = search
    assert torch.equal(tower.encode(pixels).codes, expected)


@torch.no_grad()
@pytest.mark.parametrize(("search", "products"), [("exact", 4), ("gram", 1), ("bfloat16", 4)])
def test_encoding_reuses_prepared_matrices_and_never_waits_for_the_device(search, products):
    quantizer = random_quantizer(128, 32, 4, search)
    features = random_features(quantizer, 5, noise=0.1)
    quantizer.encode(features)
    with Operations(128) as operations:
        quantizer.encode(features)
    assert operations.products == products and operations.reads == 0
    assert operations.largest <= 128 * 32  # neither the Gram matrix nor a second codebook


@torch.no_grad()
@pytest.mark.parametrize("search", ["exact", "gram", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_no_search_exceeds_the_allowed_number_of_scores(search, rows):
    quantizer = random_quantizer(64, 16, 3, search)
    features = random_features(quantizer, 100, noise=0.1)
    expected = quantizer.encode(features)
    quantizer.max_scores = rows * 64
    with Operations(64) as operations:
        codes = quantizer.encode(features)
    assert torch.equal(codes, expected)
    allowed = quantizer.max_scores // (2 if search == "gram" else 1)  # scores, and rows that are subtracted
    assert operations.largest <= max(allowed, features.numel())
    assert operations.products >= math.ceil(100 / rows) * (1 if search == "gram" else 3)


def ema_step(quantizer, weight):
    quantizer.train()
    quantizer.cluster_sum.copy_(weight)
    quantizer(random_features(quantizer, 64, noise=0.1))
    quantizer.eval()


def change_in_place(quantizer, weight):
    quantizer.codebook.weight.copy_(weight)


def change_one_row(quantizer, weight):
    quantizer.codebook.weight[3] = weight[3]


def load(quantizer, weight):
    quantizer.load_state_dict({**quantizer.state_dict(), "codebook.weight": weight})


def load_by_assignment(quantizer, weight):
    quantizer.load_state_dict({**quantizer.state_dict(), "codebook.weight": weight.clone()}, assign=True)


def replace_the_parameter(quantizer, weight):
    quantizer.codebook.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)


def replace_the_data(quantizer, weight):
    quantizer.codebook.weight.data = weight.clone()


def free_and_allocate(quantizer, weight):
    quantizer.codebook.weight.data = torch.empty(0)
    quantizer.codebook.weight.data = weight.clone()  # perhaps at the address of the old data


def empty_and_fill(quantizer, weight):
    quantizer.to("meta").to_empty(device="cpu").codebook.weight.copy_(weight)


def change_the_data_and_set_the_search_again(quantizer, weight):
    quantizer.codebook.weight.data.copy_(weight)
    quantizer.search = quantizer.search


CHANGES = [
    ema_step,
    change_in_place,
    change_one_row,
    load,
    load_by_assignment,
    replace_the_parameter,
    replace_the_data,
]
CHANGES += [free_and_allocate, empty_and_fill, change_the_data_and_set_the_search_again]


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("search", ["gram", "bfloat16"])
def test_a_search_notices_changes_of_the_codebook(search, change):
    quantizer = random_quantizer(64, 16, 4, search)
    quantizer.initialized.fill_(True)
    quantizer.cluster_size.fill_(1.0)
    before = quantizer.codebook.weight.clone()
    quantizer.encode(random_features(quantizer, 64, noise=0.1))
    for seed in (1, 2):
        change(quantizer, random_quantizer(64, 16, 4, seed=seed).codebook.weight)
        assert not torch.equal(quantizer.codebook.weight, before)
        features = random_features(quantizer, 64, noise=0.1)
        assert torch.equal(quantizer.encode(features), codes_in_double_precision(quantizer, features))


@torch.no_grad()
def test_forward_is_exact_with_every_search():
    quantizer = random_quantizer(512, 192, 4, "bfloat16")
    quantizer.initialized.fill_(True)
    quantizer.num_proposals = 1
    features = random_features(quantizer, 100, noise=0.1)
    expected = codes_in_double_precision(quantizer, features)
    assert not torch.equal(quantizer.encode(features), expected)
    for training in (False, True):
        assert torch.equal(quantizer.train(training)(features)[1], expected)


@torch.no_grad()
@pytest.mark.parametrize("search", ["gram", "bfloat16"])
def test_prepared_matrices_are_neither_saved_nor_copied(search):
    quantizer = random_quantizer(64, 8, 2)
    names = list(quantizer.state_dict())
    length = len(pickled(quantizer))
    quantizer.search = search
    features = random_features(quantizer, 64, noise=0.1)
    codes = quantizer.encode(features)
    assert list(quantizer.state_dict()) == names
    assert len(pickled(quantizer)) < length + 100
    copied = copy.deepcopy(quantizer)
    assert copied.search == search and torch.equal(copied.encode(features), codes)


def pickled(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    return buffer.getvalue()


def test_rejects_unknown_and_impossible_searches(quantizer):
    with pytest.raises(ValueError, match="`search` must be one of 'exact', 'gram', 'bfloat16', got 'fast'"):
        quantizer.search = "fast"
    if quantizer.num_codebooks > 1:
        with pytest.raises(ValueError, match="`search` may be 'gram' only if all depths share one codebook"):
            quantizer.search = "gram"
    assert quantizer.search == "exact"


@torch.no_grad()
@pytest.mark.parametrize("search", ["gram", "bfloat16"])
def test_rejects_a_search_for_codebooks_without_a_count_of_changes(search):
    quantizer = random_quantizer(64, 8, 2)
    features = random_features(quantizer, 5, noise=0.1)
    expected = quantizer.encode(features)
    with torch.inference_mode():
        quantizer.codebook.weight = torch.nn.Parameter(quantizer.codebook.weight.clone(), requires_grad=False)
    quantizer.search = search
    with pytest.raises(ValueError, match="a codebook that was made under `torch.inference_mode"):
        quantizer.encode(features)
    cpu_offload(quantizer, execution_device=torch.device("cpu"))
    with pytest.raises(ValueError, match=f"a codebook that is offloaded, got '{search}'"):
        quantizer.encode(features)
    quantizer.search = "exact"
    assert torch.equal(quantizer.encode(features), expected)


@torch.no_grad()
@pytest.mark.parametrize("search", ["exact", "gram", "bfloat16"])
def test_compiled_searches_notice_changes_of_the_codebook(search):
    torch._dynamo.reset()
    quantizer = random_quantizer(64, 16, 3, search)
    encode = torch.compile(quantizer.encode, backend="aot_eager", fullgraph=search == "exact")
    for seed in (1, 2):
        change_in_place(quantizer, random_quantizer(64, 16, 3, seed=seed).codebook.weight)
        features = random_features(quantizer, 64, noise=0.1)
        assert torch.equal(encode(features), codes_in_double_precision(quantizer, features))


@torch.no_grad()
@pytest.mark.parametrize("depth", [4, 16])
@pytest.mark.parametrize("search", ["exact", "bfloat16", pytest.param("gram", marks=pytest.mark.slow)])
def test_bfloat16_features_at_the_published_size_have_the_codes_of_double_precision(search, depth):
    quantizer = random_quantizer(16384, 1024, depth, search)
    features = random_features(quantizer, 24, noise=0.01).bfloat16()
    embeddings = quantizer.codebook.weight.double()
    left = features[0].double()
    exact = []
    for _ in range(depth):
        exact.append((embeddings.square().sum(-1) / 2 - left @ embeddings.T).argmin(-1))
        left = left - embeddings[exact[-1]]
    assert (quantizer.encode(features)[0] == torch.stack(exact, -1)).float().mean() >= 0.999
