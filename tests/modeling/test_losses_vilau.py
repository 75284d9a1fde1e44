import copy
import datetime
import math

import pytest
import torch
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

from vilau_hf import VilaUForConditionalGeneration
from vilau_hf.loading import load_published_config
from vilau_hf.memory.live_memory import LiveMemory, model_on_meta
from vilau_hf.modeling.losses_vilau import code_loss, contrastive_loss, linear_cross_entropy


def inputs_of(dtype=torch.float32):
    """Returns three chunks of unequal length, a head, and targets of which two do not count."""
    chunks = [torch.randn(length, 6, dtype=dtype, requires_grad=True) for length in (4, 1, 3)]
    head = torch.nn.Linear(6, 11, dtype=dtype)
    targets = torch.tensor([3, -100, 0, 10, 5, 5, -100, 1])
    return chunks, head, targets


def gradients_of(loss, chunks, head):
    loss.backward()
    found = [tensor.grad for tensor in (*chunks, head.weight, head.bias)]
    for tensor in (*chunks, head.weight, head.bias):
        tensor.grad = None
    return found


def test_loss_and_gradients_equal_those_without_chunks():
    chunks, head, targets = inputs_of()
    expected = F.cross_entropy(head(torch.cat(chunks)), targets, reduction="sum")
    loss = linear_cross_entropy(chunks, head.weight, head.bias, targets)
    torch.testing.assert_close(loss, expected)
    # a factor after the loss scales the gradients, as a mean or gradient accumulation does
    for ours, theirs in zip(
        gradients_of(loss / 7, chunks, head), gradients_of(expected / 7, chunks, head), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_second_backward_pass_gives_the_same_gradients():
    chunks, head, targets = inputs_of()
    loss = linear_cross_entropy(chunks, head.weight, head.bias, targets)
    first = torch.autograd.grad(loss * 2, [*chunks, head.weight], retain_graph=True)
    second = torch.autograd.grad(loss * 2, [*chunks, head.weight])
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("trained", ["weight", "bias", "neither"])
def test_only_trained_parameters_get_gradients(trained):
    chunks, head, targets = inputs_of()
    F.cross_entropy(head(torch.cat(chunks)), targets, reduction="sum").backward()
    expected = {name: parameter.grad for name, parameter in head.named_parameters()}
    for name, parameter in head.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(name == trained)
    linear_cross_entropy(chunks, head.weight, head.bias, targets).backward()
    for name, parameter in head.named_parameters():
        if name == trained:
            torch.testing.assert_close(parameter.grad, expected[name])
        else:
            assert parameter.grad is None


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_in_chunks_is_as_close_to_float32_as_without_chunks(autocast):
    torch.manual_seed(1)
    states = torch.randn(64, 32)
    head = torch.nn.Linear(32, 200)
    targets = torch.randint(200, (64,))

    def run(function, dtype, uses_autocast):
        copied = copy.deepcopy(head).to(dtype)
        inputs = states.to(dtype, copy=True).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=uses_autocast):
            loss = function(inputs, copied)
        loss.backward()
        return [tensor.detach().float() for tensor in (loss, inputs.grad, copied.weight.grad, copied.bias.grad)]

    def whole(inputs, copied):
        return F.cross_entropy(copied(inputs).float(), targets, reduction="sum")

    def in_chunks(inputs, copied):
        return linear_cross_entropy(inputs.split(16), copied.weight, copied.bias, targets)

    dtype = torch.float32 if autocast else torch.bfloat16
    exact = run(whole, torch.float32, False)
    for ours, theirs, truth in zip(run(in_chunks, dtype, autocast), run(whole, dtype, autocast), exact, strict=True):
        # products of chunks are rounded to bfloat16 before they are summed in float32: one rounding more
        assert (ours - truth).norm() <= 1.5 * (theirs - truth).norm() + 1e-6


def loss_and_gradients(model, max_logits):
    torch.manual_seed(0)
    hidden = torch.randn(20, 48, requires_grad=True)
    codes = torch.randint(24, (20, 3))
    quantizer = model.model.vision_tower.quantizer
    loss, _ = code_loss(model.depth_transformer, quantizer, hidden, codes, max_logits)
    model.zero_grad()
    loss.backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return loss.detach(), {"hidden": hidden.grad, **found}


@pytest.mark.parametrize("rows", [1, 7, 20])
def test_the_code_loss_and_its_gradients_are_equal_in_chunks(model, rows):
    loss, gradients = loss_and_gradients(model, 2**30)
    in_chunks, gradients_in_chunks = loss_and_gradients(model, rows * 24 * 3)
    torch.testing.assert_close(in_chunks, loss)
    assert gradients.keys() == gradients_in_chunks.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_in_chunks[name], gradient, msg=name)


def test_adapters_around_the_head_are_trained(model):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=r".*code_head", init_lora_weights=False)
    model = peft.get_peft_model(model, lora).get_base_model()
    loss, gradients = loss_and_gradients(model, 2**30)
    in_chunks, gradients_in_chunks = loss_and_gradients(model, 7 * 24 * 3)
    torch.testing.assert_close(in_chunks, loss)
    assert any("lora_B" in name for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_in_chunks[name], gradient, msg=name)


@torch.no_grad()
def test_the_code_loss_without_gradients_is_equal_in_chunks(model):
    hidden = torch.randn(20, 48)
    codes = torch.randint(24, (20, 3))
    quantizer = model.model.vision_tower.quantizer
    whole, in_chunks = (
        code_loss(model.depth_transformer, quantizer, hidden, codes, limit)[0] for limit in (2**30, 7 * 24 * 3)
    )
    torch.testing.assert_close(in_chunks, whole)


@pytest.mark.slow
def test_logits_of_a_long_pack_take_less_than_half_a_gibibyte():
    config = load_published_config("vilau-7b-384")
    config.text_config.num_hidden_layers = config.depth_config.num_hidden_layers = (
        1  # their number does not matter here
    )

    class Logits(LiveMemory):
        def _add(self, tensor):
            if tensor.shape[-1:] == (config.depth_config.codebook_size,):
                super()._add(tensor)

    run = Logits(model_on_meta(config, torch.bfloat16).train())
    with run:
        hidden = torch.empty(8192, 4096, dtype=torch.bfloat16, requires_grad=True)
        codes = torch.zeros(8192, 16, dtype=torch.long)
        run.module._code_loss(hidden, codes, False)[0].backward()
    assert 8192 * 16 * 16384 * 4 == 8 * 2**30
    assert 0 < run.peak < 2**29


def batch_of_images(count, as_pixels):
    """Returns a text with `count` images as codes, or with images and a video of two frames as pixels."""
    ids = [1, 5] + ([54] + [58] * 16 + [55]) * count
    ids = torch.tensor([ids + ([56] + [59] * 32 + [57] if as_pixels and count else []) + [2]])
    batch = {"input_ids": ids, "labels": ids, "num_text_items": 20, "num_visual_items": 64}
    generator = torch.Generator().manual_seed(count)
    if as_pixels and count:
        pixels = torch.rand(count + 2, 3, 16, 16, generator=generator) * 2 - 1
        batch.update(pixel_values=pixels[:count], pixel_values_videos=pixels[None, count:])
    elif count:
        batch["codes"] = torch.randint(24, (count, 16, 3), generator=generator)
    return batch


def gradients_on_rank(rank, config, counts, as_pixels, folder):
    """Runs in a separate process; the first rank saves the gradients of a sharded model."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group(
        "gloo", store, rank=rank, world_size=len(counts), timeout=datetime.timedelta(seconds=60)
    )
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (len(counts),))
    model = VilaUForConditionalGeneration(config).train()
    model.load_state_dict(torch.load(folder / "model.pt"))
    model.max_code_logits = 5 * 24 * 3
    for module in list(model.modules()):
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model(**batch_of_images(counts[rank], as_pixels)).loss.backward()
    gradients = {n: p.grad.full_tensor() for n, p in model.named_parameters() if p.grad is not None}
    if rank == 0:
        torch.save(gradients, folder / "gradients.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("as_pixels", [False, True])
def test_sharded_ranks_with_unequal_numbers_of_visual_tokens_get_the_gradients_of_one_process(
    model, tmp_path, as_pixels
):
    counts = (0, 3)  # no visual tokens, and at least ten chunks
    torch.save(model.state_dict(), tmp_path / "model.pt")
    torch.multiprocessing.spawn(gradients_on_rank, (model.config, counts, as_pixels, tmp_path), nprocs=len(counts))
    gradients = torch.load(tmp_path / "gradients.pt")
    model.train()
    for count in counts:
        loss = model(**batch_of_images(count, as_pixels)).loss
        (loss / len(counts)).backward()  # the gradients of ranks are averaged
    expected = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, msg=name)


@pytest.fixture
def pairs():
    images, texts = (F.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    return {
        "image_embeds": images,
        "text_embeds": texts,
        "logit_scale": torch.tensor([1.2]),
        "logit_bias": torch.tensor([-2.0]),
        "across_ranks": True,  # there is only one rank
    }


def similarity(pairs, image, text):
    return (pairs["image_embeds"][image] @ pairs["text_embeds"][text]).item() * math.exp(1.2)


def test_sigmoid_loss_equals_the_equation(pairs):
    """Zhai et al. (2023), eq. 1."""
    total = 0.0
    for i in range(5):
        for j in range(5):
            sign = 1 if i == j else -1
            total += math.log(1 / (1 + math.exp(-sign * (similarity(pairs, i, j) - 2.0))))
    assert contrastive_loss("sigmoid", **pairs).item() == pytest.approx(-total / 5, rel=1e-5)


def test_softmax_loss_equals_the_equation(pairs):
    """Radford et al. (2021), figure 3: the mean of the cross-entropies of images and of texts."""
    total = 0.0
    for n in range(5):
        for others in ([(n, j) for j in range(5)], [(i, n) for i in range(5)]):
            partition = sum(math.exp(similarity(pairs, *pair)) for pair in others)
            total -= math.log(math.exp(similarity(pairs, n, n)) / partition)
    assert contrastive_loss("softmax", **pairs).item() == pytest.approx(total / 10, rel=1e-5)


def test_rejects_an_image_without_a_text(pairs):
    pairs["text_embeds"] = pairs["text_embeds"][:4]
    with pytest.raises(ValueError, match="got 5 images and 4 texts"):
        contrastive_loss("sigmoid", **pairs)
