import pytest
import torch
from torch.nn import functional as F

from vilau_hf import VilaUDepthConfig, VilaUDepthTransformer

from ..conftest import DEPTH


@pytest.fixture
def depth_transformer():
    return VilaUDepthTransformer(VilaUDepthConfig(**DEPTH)).eval()


@pytest.fixture
def inputs():
    return torch.randn(5, 48), torch.randn(5, 3, 32)


def linear(layer, x):
    return x @ layer.weight.T + layer.bias


def naive_logits(model, hidden, embeddings, depth):
    """Computes the logits at one depth with equation 6 for the inputs and attention without a kernel."""
    tokens = [linear(model.in_proj_hidden, hidden)]
    for d in range(1, depth + 1):
        tokens.append(linear(model.in_proj_code, sum(embeddings[:, i] for i in range(d))))
    x = torch.stack(tokens, 1) + model.depth_embedding.weight[: depth + 1]
    for layer in model.layers:
        normed = F.layer_norm(x, x.shape[-1:], layer.input_layernorm.weight, layer.input_layernorm.bias)
        q, k, v = (states.chunk(2, -1) for states in linear(layer.self_attn.qkv, normed).chunk(3, -1))  # two heads
        heads = []
        for head in range(2):
            scores = q[head] @ k[head].transpose(1, 2) / 16**0.5
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
            heads.append(scores.softmax(-1) @ v[head])
        x = x + linear(layer.self_attn.proj, torch.cat(heads, -1))
        norm = layer.post_attention_layernorm
        normed = F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias)
        x = x + linear(layer.fc2, F.gelu(linear(layer.fc1, normed)))
    x = F.layer_norm(x[:, -1], x.shape[-1:], model.norm.weight, model.norm.bias)
    return linear(model.code_head, x)


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_logits_equal_those_of_a_naive_implementation(depth_transformer, inputs, implementation):
    depth_transformer.set_attn_implementation(implementation)
    logits = depth_transformer(*inputs)
    assert logits.shape == (5, 3, 24)
    for depth in range(3):
        torch.testing.assert_close(logits[:, depth], naive_logits(depth_transformer, *inputs, depth))


@torch.no_grad()
def test_cached_steps_equal_the_teacher_forced_pass(depth_transformer, inputs):
    cache = depth_transformer.new_cache()
    for _ in range(2):  # one cache is used for one position after another
        hidden = torch.randn_like(inputs[0])
        embeddings = torch.randn_like(inputs[1])
        expected = depth_transformer(hidden, embeddings)
        for depth in range(3):
            step_input = hidden if depth == 0 else embeddings[:, :depth].sum(1)
            torch.testing.assert_close(depth_transformer.step(step_input, depth, cache), expected[:, depth])


@torch.no_grad()
def test_a_depth_depends_on_earlier_codes_only(depth_transformer, inputs):
    hidden, embeddings = inputs
    logits = depth_transformer(hidden, embeddings)
    for depth in range(3):
        changed = embeddings.clone()
        changed[:, depth:] = 7.0
        torch.testing.assert_close(depth_transformer(hidden, changed)[:, : depth + 1], logits[:, : depth + 1])


def test_every_parameter_but_the_last_embedding_gets_a_gradient(depth_transformer, inputs):
    hidden, embeddings = inputs
    embeddings.requires_grad_()
    depth_transformer(hidden, embeddings).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in depth_transformer.parameters())
    assert (embeddings.grad[:, -1] == 0).all() and (embeddings.grad[:, :-1] != 0).any()


def test_saving_and_loading_is_bit_equal(depth_transformer, inputs, tmp_path):
    depth_transformer.save_pretrained(tmp_path)
    again = VilaUDepthTransformer.from_pretrained(tmp_path).eval()
    assert torch.equal(again(*inputs), depth_transformer(*inputs))


@torch.no_grad()
def test_logits_in_bfloat16_are_finite(depth_transformer, inputs):
    depth_transformer.bfloat16()
    assert torch.isfinite(depth_transformer(inputs[0].bfloat16(), inputs[1])).all()


def test_rejects_embeddings_of_a_wrong_shape(depth_transformer):
    with pytest.raises(ValueError, match=r"`code_embeddings` must have shape \(M, 3, 32\), got \(5, 2, 32\)"):
        depth_transformer(torch.randn(5, 48), torch.randn(5, 2, 32))
