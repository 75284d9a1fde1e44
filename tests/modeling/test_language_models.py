"""Causal language models of other families as the body of the model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, PhiConfig, Qwen3Config

from vilau_hf import VilaUConfig, VilaUForConditionalGeneration

from ..conftest import DEPTH, TEXT, TOKEN_IDS, VISION


IMAGE = [54] + [58] * 16 + [55]
SIZES = {"vocab_size": 60, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BODY = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT_CONFIGS = {
    # learned position embeddings, a head that shares its weight with the embeddings, and other names of the sizes
    "gpt2": GPT2Config(**SIZES, n_positions=64, n_embd=48, n_layer=2, n_head=4),
    "gpt_neox": GPTNeoXConfig(**SIZES, **BODY, max_position_embeddings=64),
    "qwen3": Qwen3Config(**SIZES, **BODY, max_position_embeddings=64, num_key_value_heads=2, head_dim=12),
}


@pytest.fixture(params=list(TEXT_CONFIGS))
def text_config(request):
    # a copy, because building a model sets fields of its configuration
    return type(TEXT_CONFIGS[request.param])(**TEXT_CONFIGS[request.param].to_dict())


def build(text_config, tied=False):
    sizes = {"vision_config": VISION, "depth_config": DEPTH, "text_config": text_config}
    config = VilaUConfig(**sizes, **TOKEN_IDS, initializer_range=0.2, tie_word_embeddings=tied)
    model = VilaUForConditionalGeneration(config)
    model.generation_config.unconditional_prompt_ids = [1, 5]
    return model.eval()


@pytest.fixture
def batch():
    ids = torch.tensor([[1, 5, 6, *IMAGE, 2], [1, *IMAGE, 7, 8, 2]])
    return {"input_ids": ids, "labels": ids, "pixel_values": torch.rand(2, 3, 16, 16) * 2 - 1}


@pytest.mark.parametrize("tied", [False, True])
def test_a_step_trains_every_weight_outside_of_the_tower(text_config, batch, tied):
    model = build(text_config, tied).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(4):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("model.vision_tower."), name


@torch.no_grad()
def test_cached_generation_of_an_image_agrees_with_a_whole_pass(text_config):
    model = build(text_config)
    # prompts of two lengths, so one row is padded on the left
    ids = torch.tensor([[0, 0, 1, 5], [1, 7, 8, 9]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    codes = model.generate(**inputs, generation_mode="image", do_sample=False, guidance_scale=1.0)
    assert codes.shape == (2, 4, 4, 3)
    for prompt, grid in zip(([1, 5], [1, 7, 8, 9]), codes, strict=True):
        whole = torch.tensor([[*prompt, *IMAGE]])
        labels = whole.masked_fill(whole != 58, -100)
        output = model(input_ids=whole, labels=labels, codes=grid.flatten(0, 1)[None], output_code_logits=True)
        assert torch.equal(output.code_logits.argmax(-1), grid.flatten(0, 1))


@torch.no_grad()
def test_guided_and_sampled_images_are_decoded(text_config):
    model = build(text_config)
    codes = model.generate(torch.tensor([[1, 5, 6]]), generation_mode="image", guidance_scale=3.0, seed=0)
    assert model.decode_image_tokens(codes).shape == (1, 3, 16, 16)


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_saving_and_loading_is_bit_equal(text_config, batch, tmp_path, tied):
    model = build(text_config, tied)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    model.save_pretrained(tmp_path)
    again = VilaUForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert (again.lm_head.weight is again.get_input_embeddings().weight) == tied
    assert again.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(again(**batch).logits, model(**batch).logits)


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_text_logits_are_those_of_the_language_model_that_was_loaded(text_config, tied):
    text_config.tie_word_embeddings = tied
    language_model = AutoModelForCausalLM.from_config(text_config).eval()
    ids = torch.randint(3, 50, (2, 7))
    expected = language_model(ids).logits
    model = build(text_config, tied)
    model.load_language_model(language_model)
    assert torch.equal(model(ids).logits, expected)


@torch.no_grad()
def test_a_language_model_without_markers_is_resized_first(text_config):
    ids = torch.randint(3, 50, (2, 7))
    smaller = type(text_config)(**{**text_config.to_dict(), "vocab_size": 54})
    language_model = AutoModelForCausalLM.from_config(smaller).eval()
    expected = language_model(ids).logits
    model = build(text_config)
    with pytest.raises(ValueError, match=r"`text_config.vocab_size` \(60\) tokens, got 54 embeddings and 54 logits"):
        model.load_language_model(language_model)
    language_model.resize_token_embeddings(60)
    model.load_language_model(language_model)
    torch.testing.assert_close(model(ids).logits[..., :54], expected)


@torch.no_grad()
def test_resizing_the_vocabulary_keeps_rows(text_config):
    model = build(text_config)
    ids = torch.randint(3, 50, (2, 7))
    before = model(ids).logits
    model.resize_token_embeddings(75)
    assert model.config.text_config.vocab_size == 75
    torch.testing.assert_close(model(ids).logits[..., :60], before)


def test_a_head_with_a_bias_is_rejected():
    text_config = PhiConfig(**SIZES, **BODY)
    language_model = AutoModelForCausalLM.from_config(text_config)
    with pytest.raises(ValueError, match="must have a head without bias"):
        build(text_config).load_language_model(language_model)


def test_separate_embeddings_and_head_are_rejected_where_they_share_a_weight():
    text_config = LlamaConfig(**TEXT)
    language_model = AutoModelForCausalLM.from_config(text_config)
    with pytest.raises(ValueError, match="must share the weight of embeddings and head"):
        build(text_config, tied=True).load_language_model(language_model)
