"""LoRA adapters on a model: loading, unloading, merging."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from vilau_hf import VilaUForConditionalGeneration
from vilau_hf.training.build_model import lora_config
from vilau_hf.training.recipe_language_model import LoraArguments


ATTENTION = r".*language_model.*\.(q|v)_proj"


def fresh(config):
    """Builds the same model at each call."""
    torch.manual_seed(0)
    model = VilaUForConditionalGeneration(config).eval()
    model.generation_config.unconditional_prompt_ids = [1, 5]
    return model


def adapted(config, seed=1, **settings):
    """Builds a `PeftModel` with random adapters: those of a recipe, or with other `settings`."""
    lora = LoraConfig(**settings) if settings else lora_config(LoraArguments(lora_r=2))
    adapter = get_peft_model(fresh(config), lora).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return adapter


def draw(model, **settings):
    prompts = torch.tensor([[1, 5, 6], [1, 7, 8]])
    return model.generate(prompts, generation_mode="image", do_sample=False, guidance_scale=2.0, **settings)


@pytest.fixture
def saved(config, tmp_path):
    """Folder of an adapter as a recipe saves it, and the codes that it draws."""
    adapter = adapted(config)
    adapter.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", draw(adapter)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_state(model, before):
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_loaded_adapter_draws_as_in_training_and_unloading_restores_the_model(config, saved):
    folder, expected = saved
    model = fresh(config)
    before = state(model)
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    codes = draw(model)
    model.load_lora_weights(folder)
    assert torch.equal(draw(model), expected) and not torch.equal(expected, codes)
    assert model.get_active_adapters() == ["default_0"]
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model.unload_lora_weights()
    assert_same_state(model, before)
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    assert torch.equal(draw(model), codes) and model.get_active_adapters() == []
    model.unload_lora_weights()  # nothing to unload


def test_loaded_adapters_do_not_change_one_another(config, tmp_path):
    expected = {}
    model = fresh(config)
    for seed, name in enumerate(("first", "second", "narrow")):
        settings = {"r": 2, "target_modules": ATTENTION} if name == "narrow" else {}
        adapter = adapted(config, seed, **settings)
        adapter.save_pretrained(tmp_path / name)
        expected[name] = draw(adapter)
        model.load_lora_weights(tmp_path / name, adapter_name=name)
        assert torch.equal(draw(model), expected[name])
    for name, codes in expected.items():
        model.set_adapters(name)
        assert torch.equal(draw(model), codes)


def test_adapters_are_added_with_their_weights(config, tmp_path):
    model = fresh(config)
    reference = fresh(config)
    for seed, name in enumerate(("a", "b")):
        adapter = adapted(config, seed, r=2, target_modules=ATTENTION)
        adapter.save_pretrained(tmp_path / name)
        model.load_lora_weights(tmp_path / name, name)
        changes = adapter.merge_and_unload().state_dict()
        with torch.no_grad():
            base = fresh(config).state_dict()
            for key, value in reference.named_parameters():
                value.add_((0.5, 2.0)[seed] * (changes[key] - base[key]))
    model.set_adapters(["a", "b"], [0.5, 2.0])
    ids = torch.randint(3, 50, (2, 6))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, reference(ids).logits, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"must be among the loaded adapters \['a', 'b'\], got 'c'"):
        model.set_adapters(["a", "c"])
    for names, weights, message in (
        (["a", "b"], [1.0], "must have one entry for each adapter"),
        ([], None, "must have one entry for each adapter"),
        (None, None, "`adapter_names` must be"),
        (["a", 3], None, "`adapter_names` must be"),
        ("a", float("nan"), "`adapter_weights` must be"),
        (["a"], ["1"], "`adapter_weights` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            model.set_adapters(names, weights)
    assert model.get_active_adapters() == ["a", "b"]


def test_modules_trained_in_full_are_neither_added_nor_weighted(config, saved):
    model = fresh(config)
    model.load_lora_weights(saved[0], "a")
    model.load_lora_weights(saved[0], "b")
    for names, weights in ((["a", "b"], None), ("a", 0.5)):
        with pytest.raises(ValueError, match="'a' has modules that were trained in full"):
            model.set_adapters(names, weights)
    assert torch.equal(draw(model), saved[1]) and model.get_active_adapters() == ["b"]


def change_weights(change):
    def damage(folder):
        weights = load_file(folder / "adapter_model.safetensors")
        change(weights, sorted(weights))
        save_file(weights, folder / "adapter_model.safetensors")

    return damage


def change_config(**values):
    def damage(folder):
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return damage


def cut_weights(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


DAMAGES = {
    "missing depth_transformer.code_head.bias": change_weights(lambda weights, names: weights.pop(names[0])),
    "unexpected model.language_model.layers.7": change_weights(
        lambda weights, names: weights.update(
            {"base_model.model.model.language_model.layers.7.mlp.up_proj.lora_A.weight": torch.zeros(1)}
        )
    ),
    r"mismatched depth_transformer.code_head.bias of shape \(23,\), expected \(24,\)": change_weights(
        lambda weights, names: weights.update({names[0]: weights[names[0]][:-1].clone()})
    ),
    r"mismatched .*lora_A.weight of shape \(2, 48\), expected \(3, 48\)": change_config(r=3),
    "does not fit VilaUForConditionalGeneration: No modules were targeted": change_config(
        target_modules=["other_proj"]
    ),
    "must have `bias='none'`": change_config(bias="all"),
    "must be a LoRA adapter, got IA3": lambda folder: (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "IA3", "target_modules": ["q_proj"], "feedforward_modules": []})
    ),
    "has no readable `adapter_config.json`": lambda folder: (folder / "adapter_config.json").write_text("{"),
    "has no readable `adapter_config.json`: Can't find": lambda folder: (folder / "adapter_config.json").unlink(),
    "has no `adapter_model.safetensors`": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "the weights of the adapter .*adapter are damaged": cut_weights,
}


@pytest.mark.parametrize("message", DAMAGES)
def test_rejects_adapters_that_do_not_fit_before_anything_changes(config, saved, message):
    model = fresh(config)
    before = state(model)
    DAMAGES[message](saved[0])
    with pytest.raises(ValueError, match=message) as raised:
        model.load_lora_weights(saved[0])
    assert str(saved[0]) in str(raised.value)
    assert_same_state(model, before)
    assert not hasattr(model, "peft_config")


def test_rejects_the_adapter_of_another_model(config, tmp_path):
    sizes = config.text_config.to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    other = LlamaForCausalLM(LlamaConfig(**{name: sizes[name] for name in names}))
    get_peft_model(other, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).save_pretrained(tmp_path)
    model = fresh(config)
    with pytest.raises(ValueError, match="do not fit .*missing .*; unexpected model.layers.0"):
        model.load_lora_weights(tmp_path)
    assert not hasattr(model, "peft_config")


def test_the_loader_of_the_library_rejects_incomplete_adapters(config, saved):
    DAMAGES["missing depth_transformer.code_head.bias"](saved[0])
    model = fresh(config)
    before = state(model)
    with pytest.raises(ValueError, match="missing depth_transformer.code_head.bias"):
        model.load_adapter(str(saved[0]))
    assert_same_state(model, before)


@pytest.mark.parametrize("name", ["", "a.b", "keys", "__base__", 3])
def test_rejects_names_that_an_adapter_cannot_have(config, saved, name):
    model = fresh(config)
    with pytest.raises(ValueError, match="`adapter_name` must"):
        model.load_lora_weights(saved[0], name)
    assert not hasattr(model, "peft_config")


def test_rejects_taken_names_unknown_arguments_and_offloaded_models(config, saved):
    model = fresh(config)
    model.load_lora_weights(saved[0], "a")
    with pytest.raises(ValueError, match=r"'a' is already loaded. Loaded adapters are \['a'\]"):
        model.load_lora_weights(saved[0], "a")
    with pytest.raises(TypeError, match="unexpected keyword argument `weight_name`"):
        model.load_lora_weights(saved[0], "b", weight_name="x")
    with pytest.raises(ValueError, match="weights of the model are offloaded"):
        fresh(config).to("meta").load_lora_weights(saved[0])


@pytest.mark.slow  # compiles
def test_loading_after_compilation_draws_with_the_adapter(config, saved):
    model = fresh(config)
    codes = draw(model)
    model.compile_generation(backend="eager")
    assert torch.equal(draw(model), codes)
    model.load_lora_weights(saved[0])
    assert torch.equal(draw(model), saved[1])
    model.unload_lora_weights()
    assert torch.equal(draw(model), codes)


@pytest.mark.parametrize("kind", ["recipe", "dora", "head", "tokens"])
def test_merged_copies_draw_the_same_and_the_model_stays_as_it_is(config, kind):
    settings = {
        "recipe": {},
        "dora": {"r": 2, "target_modules": ATTENTION, "use_dora": True},
        "head": {"r": 2, "target_modules": ATTENTION, "modules_to_save": ["lm_head"]},
        "tokens": {"r": 2, "target_modules": ATTENTION, "trainable_token_indices": {"embed_tokens": [5, 6]}},
    }[kind]
    adapter = adapted(config, **settings)
    before = state(adapter)
    merged = adapter.merge_adapters(adapter)
    assert type(merged) is VilaUForConditionalGeneration
    assert list(merged.state_dict()) == list(fresh(config).state_dict())
    assert (
        merged.model.vision_tower.quantizer.codebook.weight
        is adapter.model.model.vision_tower.quantizer.codebook.weight
    )
    ids = torch.randint(3, 50, (2, 6))
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapter(ids).logits, atol=2e-3, rtol=1e-3)
    assert torch.equal(draw(merged), draw(adapter))
    assert_same_state(adapter, before)
    with adapter.disable_adapter():
        assert torch.equal(draw(adapter.merge_adapters(adapter)), draw(fresh(config)))


def test_merging_a_model_without_adapters_returns_it(model):
    assert model.merge_adapters(model) is model


def test_rejects_merging_what_weights_cannot_hold(config):
    prefix = get_peft_model(fresh(config), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ValueError, match="type PREFIX_TUNING cannot be merged"):
        prefix.merge_adapters(prefix)
    tied = type(config)(**{**config.to_dict(), "tie_word_embeddings": True})
    adapter = adapted(tied, r=2, target_modules=["lm_head"])
    with pytest.raises(ValueError, match="shares the weight of embeddings and head"):
        adapter.merge_adapters(adapter)


def test_rejects_unloading_merged_adapters(config, saved):
    model = fresh(config)
    model.load_lora_weights(saved[0])
    next(each for each in model.modules() if isinstance(each, LoraLayer)).merge()
    with pytest.raises(ValueError, match=r"\['default_0'\] are merged into the weights"):
        model.unload_lora_weights()


def test_rejects_saving_adapted_weights_under_other_names(config, saved, tmp_path):
    model = fresh(config)
    model.load_lora_weights(saved[0])
    for each in (model, adapted(config).get_base_model()):
        with pytest.raises(ValueError, match="the model has adapters .*would save its weights under other names"):
            each.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    model.unload_lora_weights()
    model.save_pretrained(tmp_path / "model")
    again = VilaUForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert_same_state(again, state(fresh(config)))
    shutil.rmtree(tmp_path / "model")


def test_rejects_adapters_that_do_not_fit_beside_others_before_anything_changes(config, saved, tmp_path):
    """One adapter trains the depth transformer in full, and the other has matrices in it."""
    matrices = r".*depth_transformer.*\.(qkv|proj)"
    adapted(config, r=2, target_modules=matrices).save_pretrained(tmp_path / "matrices")
    for first, second in ((saved[0], tmp_path / "matrices"), (tmp_path / "matrices", saved[0])):
        model = fresh(config)
        model.load_lora_weights(first, "first")
        before = state(model)
        codes = draw(model)
        with pytest.raises(ValueError, match=r"fit VilaUForConditionalGeneration with the adapters \['first'\]"):
            model.load_lora_weights(second, "second")
        assert_same_state(model, before)
        assert list(model.peft_config) == ["first"] and torch.equal(draw(model), codes)


def test_a_model_in_bfloat16_draws_as_a_peft_model(config, saved):
    expected = draw(PeftModel.from_pretrained(fresh(config).bfloat16(), saved[0]).eval())
    model = fresh(config).bfloat16()
    model.load_lora_weights(saved[0])
    assert torch.equal(draw(model), expected)


def test_a_second_adapter_of_the_loader_of_the_library_is_active_as_a_whole(config, tmp_path):
    model = fresh(config)
    for seed, name in enumerate("ab"):
        adapter = adapted(config, seed)
        adapter.save_pretrained(tmp_path / name)
        model.load_adapter(str(tmp_path / name), name)
        assert torch.equal(draw(model), draw(adapter)), name
