from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from vilau_hf.original.weight_files import LazyTensor
from vilau_hf.original.weights import WeightMapping, add_marker_rows


FOLDER = Path("release")


def lazy(tensors):
    return {
        name: LazyTensor(tuple(value.shape), value.dtype, lambda value=value: value) for name, value in tensors.items()
    }


@pytest.fixture
def language_model():
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=6, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )


def test_marker_rows_are_the_mean_of_the_other_rows():
    table = torch.randn(5, 3)
    names = ("llm/model.embed_tokens.weight", "llm/lm_head.weight", "llm/model.norm.weight")
    grown = add_marker_rows(lazy(dict.fromkeys(names, table)), rows=7)
    for name in names[:2]:
        value = grown[name].load()
        assert grown[name].shape == tuple(value.shape) == (7, 3)
        assert torch.equal(value[:5], table)
        torch.testing.assert_close(value[5:], table.mean(0).expand(2, -1))
    assert grown[names[2]].shape == (5, 3)


def test_mapping_renames_casts_and_checks(language_model):
    state = {f"llm/{name}": tensor for name, tensor in language_model.state_dict().items()}
    mapping = WeightMapping(FOLDER)
    mapping.add(lazy(state), "llm/", "")
    weights = mapping.check_and_cast(language_model, torch.bfloat16, left_over=set())
    assert list(weights) == list(language_model.state_dict())
    for name, tensor in language_model.state_dict().items():
        assert weights[name].dtype == torch.bfloat16
        assert torch.equal(weights[name].load(), tensor.bfloat16())


def test_mapping_rejects_missing_unknown_and_misshapen_weights(language_model):
    state = {f"llm/{name}": tensor for name, tensor in language_model.state_dict().items()}
    del state["llm/model.norm.weight"]
    state["llm/model.bias"] = torch.zeros(1)
    state["llm/lm_head.weight"] = torch.zeros(5, 8)
    mapping = WeightMapping(FOLDER)
    mapping.add(lazy(state), "llm/", "")
    with pytest.raises(ValueError) as error:
        mapping.check_and_cast(language_model, None, left_over={"extra"})
    for problem in (
        "unknown extra",
        "unknown llm/model.bias",
        "missing model.norm.weight",
        "llm/lm_head.weight of shape (5, 8), expected (6, 8)",
    ):
        assert problem in str(error.value)


def test_skipped_weights_are_known_but_not_added():
    mapping = WeightMapping(FOLDER)
    mapping.add(lazy({"llm/lm_head.weight": torch.zeros(1)}), "llm/", "", skip=True)
    assert mapping.taken == {"llm/lm_head.weight"} and not mapping.weights
