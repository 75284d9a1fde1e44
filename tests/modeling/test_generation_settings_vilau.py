"""What `generate` was asked for: by keyword, by a generation config, or by the checkpoint's own."""

import logging

import pytest
import torch
from transformers import GenerationConfig

from .test_generation_vilau import PROMPTS, left_padded


IMAGE = [54] + [58] * 16 + [55]
GREEDY = {"generation_mode": "image", "visual_do_sample": False}


def ids_only(*rows):
    return {"input_ids": torch.tensor(rows)}


@pytest.fixture
def warnings(caplog):
    """What transformers warns of."""
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    yield caplog
    library.removeHandler(caplog.handler)


@pytest.fixture
def unmoved(model):
    """A model whose tower and language model must not run."""

    def fail(*_):
        raise AssertionError("the model ran")

    model.model.register_forward_pre_hook(fail)
    model.model.vision_tower.image_encoder.register_forward_pre_hook(fail)
    return model


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_the_kind_of_cache_may_stand_in_a_config(model, warnings, kind):
    expected = model.generate(**left_padded(PROMPTS), **GREEDY)
    config = GenerationConfig(cache_implementation=kind, visual_do_sample=False)
    passed = model.generate(**left_padded(PROMPTS), generation_mode="image", generation_config=config)
    assert torch.equal(passed, expected) and not warnings.records
    model.generation_config.cache_implementation = kind
    assert torch.equal(model.generate(**left_padded(PROMPTS), **GREEDY), expected)
    assert config.cache_implementation == kind and config.max_new_tokens is None  # the caller's stays as it was


def test_static_caches_hold_first_frames_too(model):
    settings = {"generation_mode": "video", "num_frames": 2, "do_sample": False}
    whole = model.generate(**left_padded(PROMPTS), **settings)
    settings["first_frames"] = whole[:, :1].flatten(2, 3)
    assert torch.equal(model.generate(**left_padded(PROMPTS), cache_implementation="static", **settings), whole)


def test_settings_in_a_config_act_as_those_given_by_keyword(model, warnings):
    expected = model.generate(**left_padded(PROMPTS), generation_mode="image", do_sample=False, guidance_scale=2.0)
    for config in (
        GenerationConfig(do_sample=False, guidance_scale=2.0),
        GenerationConfig(visual_do_sample=False, visual_guidance_scale=2.0),
        GenerationConfig(do_sample=True, visual_do_sample=False, visual_guidance_scale=2.0),
    ):
        found = model.generate(**left_padded(PROMPTS), generation_mode="image", generation_config=config)
        assert torch.equal(found, expected)
    assert not warnings.records


def test_arguments_come_before_configs(model):
    config = GenerationConfig(visual_do_sample=True, guidance_scale=5.0, visual_temperature=2.0)
    settings = {"generation_mode": "image", "generation_config": config}
    expected = model.generate(**left_padded(PROMPTS), **GREEDY, guidance_scale=2.0)
    found = model.generate(**left_padded(PROMPTS), **settings, do_sample=False, visual_guidance_scale=2.0)
    assert torch.equal(found, expected)
    model.generation_config.visual_top_k = 1
    top = model.generate(**left_padded(PROMPTS), generation_mode="image", guidance_scale=2.0)
    assert torch.equal(top, expected)


def test_a_config_alone_is_no_mixture_of_config_and_arguments(model, warnings):
    ids = torch.randint(3, 50, (1, 250))
    config = GenerationConfig(max_new_tokens=99, eos_token_id=None, do_sample=False)
    assert model.generate(ids, generation_config=config).shape == (1, 256)
    config = GenerationConfig(max_new_tokens=5, eos_token_id=None, num_frames=1)
    output = model.generate(ids[:, :4], generation_config=config, generation_mode="interleaved", seed=0)
    assert output.sequences.shape == (1, 9)
    assert not warnings.records


def test_settings_for_text_that_a_checkpoint_saves_do_not_hinder_pictures(model, warnings):
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


def test_text_in_turn_with_pictures_has_its_least_length(model, warnings):
    settings = {"generation_mode": "interleaved", "allowed_modalities": ("text",), "seed": 0}
    model.generation_config.eos_token_id = list(range(3, 54))
    config = GenerationConfig(max_new_tokens=9, min_new_tokens=7)
    assert model.generate(**ids_only([1, 5]), generation_config=config, **settings).sequences.shape[1] >= 9
    assert not warnings.records


def test_text_in_turn_with_pictures_can_be_told_not_to_end(model):
    settings = {"generation_mode": "interleaved", "allowed_modalities": ("text",), "max_new_tokens": 20, "seed": 0}
    model.generation_config.eos_token_id = list(range(3, 54))
    assert model.generate(**ids_only([1, 5]), **settings).sequences.shape[1] < 22
    assert model.generate(**ids_only([1, 5]), **settings, eos_token_id=None).sequences.shape == (1, 22)


@pytest.mark.parametrize("mode", ["image", "video", "interleaved"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", 4),
        ("prompt_lookup_num_tokens", 2),
        ("use_mtp", True),
        ("assistant_early_exit", 1),
        ("penalty_alpha", 0.5),
        ("dola_layers", "high"),
        ("force_words_ids", [[5]]),
    ],
)
def test_only_greedy_search_and_sampling_write_codes(unmoved, mode, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .* where codes are generated, got"):
        unmoved.generate(**left_padded(PROMPTS), generation_mode=mode, **{name: value})
    config = GenerationConfig(**{name: value})
    with pytest.raises(ValueError, match=f"`{name}` must be .* where codes are generated, got"):
        unmoved.generate(**left_padded(PROMPTS), generation_mode=mode, generation_config=config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.5}, "`temperature` is for text: use `visual_temperature`"),
        ({"top_k": 5}, "`top_k` is for text: use `visual_top_k`"),
        ({"top_p": 0.5}, "`top_p` is for text: use `visual_top_p`"),
        ({"min_p": 0.5}, "`min_p` is for text: use `visual_min_p`"),
        ({"logits_processor": [abs]}, "`logits_processor` is for text: use `code_logits_processor`"),
        ({"repetition_penalty": 2.0}, "`repetition_penalty` is for text: leave it out"),
        ({"prefix_allowed_tokens_fn": abs}, "`prefix_allowed_tokens_fn` is for text: leave it out"),
        ({"num_frames": 2}, "`num_frames` is for videos, got 2"),
        ({"max_visual_spans": 1}, '`max_visual_spans` is for `generation_mode="interleaved"`'),
        ({"allowed_modalities": ("text",)}, '`allowed_modalities` is for `generation_mode="interleaved"`'),
        ({"image_prompt_ids": torch.ones(2, 2, dtype=torch.long)}, "`image_prompt_ids` needs `image_guidance_scale`"),
        ({"output_log_probs": True}, "`output_log_probs` needs `return_dict_in_generate=True`"),
        ({"position_ids": torch.arange(6)[None]}, "`position_ids` has no effect where codes are generated"),
        ({"use_cache": False}, "`use_cache=False` has no effect where codes are generated"),
        ({"output_hidden_states": True}, "`output_hidden_states=True` has no effect where codes are generated"),
        ({"output_attentions": True}, "`output_attentions=True` has no effect"),
        ({"output_logits": True}, "`output_logits=True` has no effect where codes are generated"),
        ({"prefill_chunk_size": 2}, "`prefill_chunk_size` has no effect where codes are generated"),
        ({"custom_generate": print}, "`custom_generate` has no effect where codes are generated"),
        ({"cache_implementation": "paged"}, "`cache_implementation='paged'` has no effect where codes are generated"),
    ],
)
def test_what_has_no_effect_on_pictures_is_refused(unmoved, arguments, message):
    with pytest.raises(ValueError, match=message):
        unmoved.generate(**left_padded(PROMPTS), **{"generation_mode": "image", **arguments})


@pytest.mark.parametrize(
    "arguments",
    [
        {"visual_top_k": 5},
        {"visual_guidance_scale": 2.0},
        {"output_log_probs": True},
        {"max_visual_spans": 1},
        {"allowed_modalities": ("text",)},
        {"negative_prompt_attention_mask": torch.ones(1, 2)},
    ],
)
def test_what_has_no_effect_on_text_is_refused(unmoved, arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}` is for images and videos"):
        unmoved.generate(**left_padded(PROMPTS), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 1.5}, "`seed` must be an integer or a list with one for each row, got 1.5"),
        ({"seed": torch.tensor([1, 2])}, "`seed` must be an integer or a list .* got tensor"),
        ({"seed": "ab"}, "`seed` must be an integer or a list .* got 'ab'"),
        ({"seed": [1, 2.5]}, r"`seed` must be an integer or a list .* got \[1, 2.5\]"),
        ({"generator": (torch.Generator(), torch.Generator())}, "`generator` must be a `torch.Generator` or a list"),
        ({"seed": [1, 2**63]}, r"`seed` must fit into 64 bits, got \[1, 9223372036854775808\]"),
        ({"guidance_scale": ["a", "b"]}, r"`guidance_scale` must be a number, or lists .* got \['a', 'b'\]"),
        ({"guidance_scale": [[1.0], [1.0, 2.0]]}, "`guidance_scale` must be a number, or lists"),
        ({"generation_config": {"seed": 1}}, "`generation_config` must be a `GenerationConfig`, got dict"),
        ({"generator": "x"}, "`generator` must be a `torch.Generator` or a list .* got 'x'"),
        ({"first_frames": [1], "generation_mode": "video"}, "`first_frames` must be a tensor, got list"),
        ({"image_prompt_ids": [[1]], "image_guidance_scale": 2.0}, "`image_prompt_ids` must be a tensor of integers"),
        ({"attention_mask": [[1]]}, "`attention_mask` must be a tensor, got list"),
        ({"max_visual_spans": "2", "generation_mode": "interleaved"}, "`max_visual_spans` must be an integer .*'2'"),
        ({"allowed_modalities": "text", "generation_mode": "interleaved"}, "`allowed_modalities` must be .*'text'"),
        ({"num_return_sequences": "2"}, "`num_return_sequences` must be an integer, got '2'"),
        ({"inputs": torch.ones(2, 6, dtype=torch.long)}, "`inputs` and `input_ids` are the same: give one of them"),
        (
            {"inputs": torch.ones(2, 6, dtype=torch.long), "generation_mode": "text"},
            "`inputs` and `input_ids` are the same: give one of them",
        ),
    ],
)
def test_errors_name_the_argument(unmoved, arguments, message):
    with pytest.raises(ValueError, match=message):
        unmoved.generate(**{**left_padded(PROMPTS), "generation_mode": "image", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": [1, 2, 3]}, "`seed` has 3 entries for 2 rows"),
        ({"generator": [torch.Generator()]}, "`generator` has 1 entries for 2 rows"),
        ({"guidance_scale": [2.0] * 5}, r"`guidance_scale` must have shape \(1,\)"),
        ({"image_guidance_scale": 2.0}, "`image_guidance_scale` needs `image_prompt_ids`"),
        (
            {"image_guidance_scale": 2.0, "image_prompt_ids": torch.tensor([[1, 5]])},
            r"`image_prompt_ids` must hold as many placeholders as the prompts, \[16\], got \[0\]",
        ),
        ({"first_frames": torch.rand(1, 9, 3, 16, 16), "generation_mode": "video"}, "`first_frames` must be fewer"),
        ({"typo": 1}, "typo"),
    ],
)
def test_no_picture_of_the_prompt_is_read_for_a_call_that_is_refused(unmoved, arguments, message):
    prompt = {**ids_only([1, *IMAGE, 5]), "pixel_values": torch.rand(1, 3, 16, 16), "num_return_sequences": 2}
    with pytest.raises(ValueError, match=message):
        unmoved.generate(**prompt, **{"generation_mode": "image", **arguments})


def test_padding_is_seen_without_a_mask(model):
    masked = left_padded(PROMPTS)
    for mode, more in (("image", {}), ("video", {"num_frames": 2}), ("interleaved", {"max_new_tokens": 12})):
        settings = {"generation_mode": mode, "seed": 0, "return_dict_in_generate": True, **more}
        both = [model.generate(**prompts, **settings) for prompts in (masked, {"input_ids": masked["input_ids"]})]
        assert torch.equal(both[0].sequences, both[1].sequences)
        if mode != "interleaved":
            assert torch.equal(both[0].codes, both[1].codes)
    negative = left_padded([[1, 30, 31], [1, 40]])
    ids, mask = negative["input_ids"], negative["attention_mask"]
    masked.update(GREEDY, negative_prompt_ids=ids)
    assert torch.equal(model.generate(**masked, negative_prompt_attention_mask=mask), model.generate(**masked))


def test_a_bos_token_that_pads_too_still_is_a_prompt_to_compare_with(model):
    model.generation_config.unconditional_prompt_ids = None
    expected = model.generate(**left_padded(PROMPTS), **GREEDY)
    model.generation_config.pad_token_id = 1
    assert torch.equal(model.generate(**left_padded(PROMPTS), **GREEDY), expected)
