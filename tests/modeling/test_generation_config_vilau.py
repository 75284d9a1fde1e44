"""Merging of generation configs: the call's, the checkpoint's and keyword arguments; length limits."""

import logging

import pytest
import torch
from transformers import GenerationConfig

from vilau_hf.modeling.generation_config_vilau import MergedGenerationConfig, limit_text_length, wanted_tokens

from .test_generation_vilau import PROMPTS, left_padded


GREEDY = {"generation_mode": "image", "visual_do_sample": False}


def ids_only(*rows):
    return {"input_ids": torch.tensor(rows)}


@pytest.fixture
def warnings(caplog):
    """Returns the warnings that transformers logs."""
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    yield caplog
    library.removeHandler(caplog.handler)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_config_can_choose_the_cache(model, warnings, kind):
    expected = model.generate(**left_padded(PROMPTS), **GREEDY)
    config = GenerationConfig(cache_implementation=kind, visual_do_sample=False)
    passed = model.generate(**left_padded(PROMPTS), generation_mode="image", generation_config=config)
    assert torch.equal(passed, expected) and not warnings.records
    model.generation_config.cache_implementation = kind
    assert torch.equal(model.generate(**left_padded(PROMPTS), **GREEDY), expected)
    assert config.cache_implementation == kind and config.max_new_tokens is None  # the caller's stays as it was


def test_a_static_cache_has_room_for_first_frames(model):
    settings = {"generation_mode": "video", "num_frames": 2, "do_sample": False}
    whole = model.generate(**left_padded(PROMPTS), **settings)
    settings["first_frames"] = whole[:, :1].flatten(2, 3)
    assert torch.equal(model.generate(**left_padded(PROMPTS), cache_implementation="static", **settings), whole)


def test_a_config_acts_like_keyword_arguments(model, warnings):
    expected = model.generate(**left_padded(PROMPTS), generation_mode="image", do_sample=False, guidance_scale=2.0)
    for config in (
        GenerationConfig(do_sample=False, guidance_scale=2.0),
        GenerationConfig(visual_do_sample=False, visual_guidance_scale=2.0),
        GenerationConfig(do_sample=True, visual_do_sample=False, visual_guidance_scale=2.0),
    ):
        found = model.generate(**left_padded(PROMPTS), generation_mode="image", generation_config=config)
        assert torch.equal(found, expected)
    assert not warnings.records


def test_arguments_win_over_configs(model):
    config = GenerationConfig(visual_do_sample=True, guidance_scale=5.0, visual_temperature=2.0)
    settings = {"generation_mode": "image", "generation_config": config}
    expected = model.generate(**left_padded(PROMPTS), **GREEDY, guidance_scale=2.0)
    found = model.generate(**left_padded(PROMPTS), **settings, do_sample=False, visual_guidance_scale=2.0)
    assert torch.equal(found, expected)
    model.generation_config.visual_top_k = 1
    top = model.generate(**left_padded(PROMPTS), generation_mode="image", guidance_scale=2.0)
    assert torch.equal(top, expected)


def test_a_config_without_arguments_gives_no_warning(model, warnings):
    ids = torch.randint(3, 50, (1, 250))
    config = GenerationConfig(max_new_tokens=99, eos_token_id=None, do_sample=False)
    assert model.generate(ids, generation_config=config).shape == (1, 256)
    config = GenerationConfig(max_new_tokens=5, eos_token_id=None, num_frames=1)
    output = model.generate(ids[:, :4], generation_config=config, generation_mode="interleaved", seed=0)
    assert output.sequences.shape == (1, 9)
    assert not warnings.records


def test_text_settings_of_a_checkpoint_do_not_affect_images(model, warnings):
    expected = model.generate(**left_padded(PROMPTS), **GREEDY)
    saved = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 5,
        "num_beams": 3,
        "prompt_lookup_num_tokens": 2,
        "guidance_scale": 2.0,
        "min_new_tokens": 40,
        "max_length": 20,
        "use_cache": False,
        "stop_strings": ["x"],
        "token_healing": True,
    }
    for name, value in saved.items():
        setattr(model.generation_config, name, value)
    assert torch.equal(model.generate(**left_padded(PROMPTS), **GREEDY), expected)
    assert not warnings.records


def test_interleaved_output_respects_the_minimum_length(model, warnings):
    settings = {"generation_mode": "interleaved", "allowed_modalities": ("text",), "seed": 0}
    model.generation_config.eos_token_id = list(range(3, 54))
    config = GenerationConfig(max_new_tokens=9, min_new_tokens=7)
    assert model.generate(**ids_only([1, 5]), generation_config=config, **settings).sequences.shape[1] >= 9
    assert not warnings.records


def test_interleaved_output_can_ignore_end_tokens(model):
    settings = {"generation_mode": "interleaved", "allowed_modalities": ("text",), "max_new_tokens": 20, "seed": 0}
    model.generation_config.eos_token_id = list(range(3, 54))
    assert model.generate(**ids_only([1, 5]), **settings).sequences.shape[1] < 22
    assert model.generate(**ids_only([1, 5]), **settings, eos_token_id=None).sequences.shape == (1, 22)


def test_a_fixed_field_survives_a_merge_with_defaults():
    merged = MergedGenerationConfig(max_new_tokens=5)
    merged.fix(stop_strings=None, top_k=7)
    merged.update(defaults_only=True, stop_strings=["x"], top_k=9, top_p=0.5)
    assert merged.stop_strings is None and merged.top_k == 7 and merged.top_p == 0.5
    merged.update(top_k=9)
    assert merged.top_k == 9


@pytest.mark.parametrize(
    ("kwargs", "config", "expected"),
    [
        ({"max_new_tokens": 3, "max_length": 99}, None, 3),
        ({"max_length": 30}, GenerationConfig(max_new_tokens=4), 20),
        ({}, GenerationConfig(max_new_tokens=4), 4),
        ({}, GenerationConfig(), None),
        ({}, None, None),
    ],
)
def test_wanted_tokens_come_from_the_first_source_that_says(kwargs, config, expected):
    assert wanted_tokens(kwargs, config, length=10) == expected


def test_text_is_limited_to_the_room_that_is_left():
    saved = GenerationConfig(max_new_tokens=50)
    kwargs = {}
    assert limit_text_length(None, saved, kwargs, length=10, room=7) is None and kwargs == {"max_new_tokens": 7}
    given = GenerationConfig(max_length=40)
    limited = limit_text_length(given, GenerationConfig(), {}, length=10, room=7)
    assert (limited.max_new_tokens, limited.max_length) == (7, None) and given.max_length == 40
    assert limit_text_length(given, GenerationConfig(), {}, length=10, room=30) is given
