import inspect

import pytest
import torch
from transformers import Cache, DynamicCache, LlamaModel

from vilau_hf.modeling.compat_modeling_vilau import CACHE_NAME, cache_arguments, make_causal_mask, rename_cache


IDS = torch.tensor([[1, 5, 7, 9]])


def test_the_cache_has_the_name_that_the_installed_language_models_know():
    assert CACHE_NAME in inspect.signature(LlamaModel.forward).parameters


@torch.no_grad()
@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_forward_and_generate_accept_both_names_of_the_cache(model, name):
    whole = model(IDS).logits[:, -1]
    for each in (model, model.model):
        begun = each(IDS[:, :3], use_cache=True)
        assert isinstance(begun[CACHE_NAME], Cache)
        ended = each(IDS[:, 3:], **{name: begun[CACHE_NAME]})
        assert ended[CACHE_NAME].get_seq_length() == 4
    torch.testing.assert_close(model.lm_head(ended.last_hidden_state)[:, -1], whole)
    settings = {"do_sample": False, "max_new_tokens": 4, "eos_token_id": None}
    cache = DynamicCache(config=model.config.text_config)
    assert torch.equal(model.generate(IDS, **{name: cache}, **settings), model.generate(IDS, **settings))
    assert cache.get_seq_length() == 7


def test_rejects_two_caches(model):
    cache = DynamicCache(config=model.config.text_config)
    for call in (model, model.generate):
        with pytest.raises(ValueError, match="`cache` and `past_key_values` are two names of one argument"):
            call(IDS, cache=cache, past_key_values=cache)


def test_a_paged_cache_keeps_its_name_before_5_24():
    paged = object()
    assert cache_arguments(paged, None)["cache"] is paged
    kwargs = {"cache": None, "past_key_values": None, "use_cache": True}
    rename_cache(kwargs)
    assert kwargs == {"use_cache": True}


def test_the_causal_mask_hides_later_positions(model):
    config = model.config.depth_config
    config._attn_implementation = "eager"
    mask = make_causal_mask(config, torch.zeros(2, 3, config.hidden_size))
    assert torch.equal(mask[0, 0] == 0, torch.ones(3, 3).tril().bool())
