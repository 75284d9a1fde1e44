"""Pipelines with LoRA adapters: loading, unloading, saving, and an adapter for each prompt."""

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import AutoModel

from vilau_hf import (
    TINY_CHECKPOINT,
    VilaUForConditionalGeneration,
    VilaUPipeline,
    VilaUProcessor,
    VilaUTextToImagePipeline,
)
from vilau_hf.training.build_model import lora_config
from vilau_hf.training.recipe_language_model import LoraArguments


PROMPTS = ["a small red cross at the bottom on a white background", "a large blue circle on a black background"]


def load_model():
    return VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()


def adapted(seed=1, **settings):
    """Builds a `PeftModel` with random adapters: those of a recipe, or with other `settings`."""
    lora = LoraConfig(**settings) if settings else lora_config(LoraArguments(lora_r=2))
    adapter = get_peft_model(load_model(), lora).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.1 if "lora_" in name else 0.02))
    return adapter


def pipeline_of(model):
    pipe = VilaUPipeline(model, VilaUProcessor.from_pretrained(TINY_CHECKPOINT))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, **settings):
    return pipe(PROMPTS, do_sample=False, output_type="codes", **settings).images


@pytest.fixture(scope="module")
def plain():
    """Codes without an adapter."""
    return draw(pipeline_of(load_model()))


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("kind", ["peft", "base", "loaded"])
def test_saved_pipelines_draw_as_with_their_adapter(plain, tmp_path, kind, flat):
    adapter = adapted()
    if kind == "loaded":
        adapter.save_pretrained(tmp_path / "adapter")
        pipe = pipeline_of(load_model())
        pipe.load_lora_weights(tmp_path / "adapter")
    else:
        pipe = pipeline_of(adapter if kind == "peft" else adapter.get_base_model())
    expected = draw(pipe)
    assert not torch.equal(expected, plain)
    pipe.save_pretrained(tmp_path / "saved", flat=flat)
    assert not list((tmp_path / "saved").rglob("adapter_*"))
    again = VilaUPipeline.from_pretrained(tmp_path / "saved")
    again.set_progress_bar_config(disable=True)
    assert torch.equal(draw(again), expected)
    assert torch.equal(draw(pipe), expected)  # the pipeline keeps its adapter
    if flat:
        assert isinstance(AutoModel.from_pretrained(tmp_path / "saved"), VilaUForConditionalGeneration)


def test_saved_pipelines_of_transformers_draw_as_with_their_adapter(plain, tmp_path):
    adapter = adapted()
    pipe = VilaUTextToImagePipeline(model=adapter, processor=VilaUProcessor.from_pretrained(TINY_CHECKPOINT))
    pipe.save_pretrained(tmp_path)
    again = pipeline_of(VilaUForConditionalGeneration.from_pretrained(tmp_path))
    expected = draw(pipeline_of(adapter))
    assert torch.equal(draw(again), expected) and not torch.equal(expected, plain)


def test_rejects_saving_an_adapter_that_weights_cannot_hold(tmp_path):
    model = get_peft_model(load_model(), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ValueError, match="type PREFIX_TUNING cannot be merged"):
        pipeline_of(model).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_adapters_are_loaded_chosen_and_unloaded(plain, tmp_path):
    pipe = pipeline_of(load_model())
    expected = {}
    for seed, name in enumerate("ab"):
        adapter = adapted(seed)
        adapter.save_pretrained(tmp_path / name)
        expected[name] = draw(pipeline_of(adapter))
        pipe.load_lora_weights(tmp_path / name, adapter_name=name)
        assert torch.equal(draw(pipe), expected[name])
    assert pipe.get_list_adapters() == {"model": ["a", "b"]} and pipe.get_active_adapters() == ["b"]
    pipe.set_adapters("a")
    assert torch.equal(draw(pipe), expected["a"])
    pipe.unload_lora_weights()
    assert torch.equal(draw(pipe), plain)
    assert pipe.get_list_adapters() == {} and pipe.get_active_adapters() == []


def test_each_prompt_is_drawn_with_its_adapter(tmp_path):
    pipe = pipeline_of(load_model())
    for seed, name in enumerate("ab"):
        adapted(seed, r=4, target_modules=r".*language_model.*_proj").save_pretrained(tmp_path / name)
        pipe.load_lora_weights(tmp_path / name, adapter_name=name)
    codes = draw(pipe, adapter_names=["b", "a"], num_images_per_prompt=2, guidance_scale=3.0)
    for index, name in enumerate("ba"):
        pipe.set_adapters(name)
        alone = pipe(PROMPTS[index], do_sample=False, output_type="codes", guidance_scale=3.0).images[0]
        assert torch.equal(codes[2 * index], alone) and torch.equal(codes[2 * index + 1], alone)
    with pytest.raises(ValueError, match="`rank_by` must be a function if `adapter_names` is given, got 'likelihood'"):
        draw(pipe, adapter_names=["b", "a"], num_candidates=2)


def test_rejects_loading_into_a_peft_model():
    pipe = pipeline_of(adapted())
    for call in (lambda: pipe.load_lora_weights("x"), pipe.unload_lora_weights, lambda: pipe.set_adapters("default")):
        with pytest.raises(ValueError, match="is a `PeftModel`, which manages its adapters"):
            call()
    assert pipe.get_active_adapters() == ["default"]
