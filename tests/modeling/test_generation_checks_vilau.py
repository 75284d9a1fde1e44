"""Arguments of `generate` that are rejected before any work is done."""

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList

from vilau_hf.compat import enable_activation_checkpointing
from vilau_hf.modeling.compat_modeling_vilau import CHECKPOINTING_DROPS_CACHE

from .test_generation_vilau import PROMPTS, left_padded


IMAGE = [54] + [58] * 16 + [55]


def ids_only(*rows):
    return {"input_ids": torch.tensor(rows)}


@pytest.fixture
def idle_model(model):
    """Returns a model whose vision tower and language model must not run."""

    def fail(*_):
        raise AssertionError("the model ran")

    model.model.register_forward_pre_hook(fail)
    model.model.vision_tower.image_encoder.register_forward_pre_hook(fail)
    return model


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
def test_rejects_other_decoding_methods(idle_model, mode, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .* where codes are generated, got"):
        idle_model.generate(**left_padded(PROMPTS), generation_mode=mode, **{name: value})
    config = GenerationConfig(**{name: value})
    with pytest.raises(ValueError, match=f"`{name}` must be .* where codes are generated, got"):
        idle_model.generate(**left_padded(PROMPTS), generation_mode=mode, generation_config=config)


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
def test_rejects_arguments_without_effect_on_images(idle_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        idle_model.generate(**left_padded(PROMPTS), **{"generation_mode": "image", **arguments})


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
def test_rejects_arguments_without_effect_on_text(idle_model, arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}` is for images and videos"):
        idle_model.generate(**left_padded(PROMPTS), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 1.5}, "`seed` must be an integer, a list of integers or a tuple of integers, got 1.5"),
        ({"seed": torch.tensor([1, 2])}, "`seed` must be an integer, a list .* got a tensor of shape"),
        ({"seed": "ab"}, "`seed` must be an integer, a list .* got 'ab'"),
        ({"seed": [1, 2.5]}, r"`seed` must be an integer, a list .* got \[1, 2.5\]"),
        (
            {"generator": (torch.Generator(), torch.Generator())},
            "`generator` must be a `Generator` or a list of `Generator`",
        ),
        ({"seed": [1, 2**63]}, r"`seed` must fit into 64 bits, got \[1, 9223372036854775808\]"),
        ({"guidance_scale": ["a", "b"]}, r"`guidance_scale` must be a number, or a list .* got \['a', 'b'\]"),
        ({"guidance_scale": [[1.0], [1.0, 2.0]]}, "`guidance_scale` must be a number, or a list"),
        ({"generation_config": {"seed": 1}}, "`generation_config` must be a `GenerationConfig`, got {'seed': 1}"),
        ({"generator": "x"}, "`generator` must be a `Generator` or a list .* got 'x'"),
        (
            {"first_frames": [1], "generation_mode": "video"},
            r"`first_frames` must be a tensor that is not empty, got \[1\]",
        ),
        ({"image_prompt_ids": [[1]], "image_guidance_scale": 2.0}, "`image_prompt_ids` must be a tensor of integers"),
        ({"attention_mask": [[1]]}, r"`attention_mask` must be a tensor of zeros and ones, got \[\[1\]\]"),
        ({"max_visual_spans": "2", "generation_mode": "interleaved"}, "`max_visual_spans` must be an integer .*'2'"),
        ({"allowed_modalities": "text", "generation_mode": "interleaved"}, "`allowed_modalities` must be .*'text'"),
        ({"num_return_sequences": "2"}, "`num_return_sequences` must be an integer of at least 1, got '2'"),
        ({"inputs": torch.ones(2, 6, dtype=torch.long)}, "`inputs` and `input_ids` are the same: give one of them"),
        (
            {"inputs": torch.ones(2, 6, dtype=torch.long), "generation_mode": "text"},
            "`inputs` and `input_ids` are the same: give one of them",
        ),
    ],
)
def test_errors_name_the_argument(idle_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        idle_model.generate(**{**left_padded(PROMPTS), "generation_mode": "image", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": [1, 2, 3]}, "`seed` has 3 entries for 2 rows"),
        ({"generator": [torch.Generator()]}, "`generator` has 1 entries for 2 rows"),
        ({"guidance_scale": [2.0] * 5}, r"`guidance_scale` must have shape \(1,\)"),
        ({"image_guidance_scale": 2.0}, "`image_guidance_scale` needs `image_prompt_ids`"),
        (
            {"image_guidance_scale": 2.0, "image_prompt_ids": torch.tensor([[1, 5]])},
            r"`image_prompt_ids` must hold as many placeholders as `input_ids`, \[16\], got \[0\]",
        ),
        ({"first_frames": torch.rand(1, 9, 3, 16, 16), "generation_mode": "video"}, "`first_frames` must be fewer"),
        ({"typo": 1}, "typo"),
    ],
)
def test_a_rejected_call_encodes_no_images(idle_model, arguments, message):
    prompt = {**ids_only([1, *IMAGE, 5]), "pixel_values": torch.rand(1, 3, 16, 16), "num_return_sequences": 2}
    with pytest.raises(ValueError, match=message):
        idle_model.generate(**prompt, **{"generation_mode": "image", **arguments})


NAN = float("nan")
IDS = torch.ones(2, 6, dtype=torch.long)


@pytest.mark.parametrize("mode", ["text", "image", "video", "interleaved"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"input_ids": torch.ones(1, 0, dtype=torch.long)},
        {"input_ids": torch.ones(0, 3, dtype=torch.long)},
        {"input_ids": IDS.to(torch.uint8)},
        {"input_ids": IDS * 60},
        {"input_ids": -IDS},
        {"attention_mask": torch.full((2, 6), NAN)},
        {"attention_mask": IDS * 2},
        {"max_length": "x"},
        {"max_new_tokens": 0},
        {"num_return_sequences": -1},
        {"codes": torch.ones(2, 16, 3)},
        {"visual_codes": torch.ones(2, 6, 3)},
        {"pixel_values": []},
        {"streamer": "x"},
        {"stopping_criteria": [1]},
        {"pad_token_id": ""},
        {"pad_token_id": torch.ones(2)},
        {"eos_token_id": 1.5},
        {"eos_token_id": torch.ones(2, 3)},
        {"repetition_penalty": 2},
        {"repetition_penalty": -1.0},
        {"top_k": torch.ones(2)},
        {"top_p": "x"},
        {"temperature": NAN},
        {"assistant_model": torch.ones(2)},
        {"output_log_probs": torch.tensor(True)},
        {"code_logits_processor": "x"},
        {"code_logits_processor": [abs]},
        {"image_guidance_scale": NAN},
        {"guidance_scale": "x"},
        {"num_frames": True},
        {"first_frames": torch.rand(1, 0, 3, 16, 16)},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_rejects_wrong_values_in_every_mode(idle_model, mode, arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}` must "):
        idle_model.generate(**{**left_padded(PROMPTS), "generation_mode": mode, **arguments})


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"guidance_scale": NAN}, "guidance_scale"),
        ({"guidance_scale": float("inf")}, "guidance_scale"),
        ({"guidance_scale": [2.0, NAN]}, "guidance_scale"),
        ({"guidance_scale": torch.tensor([2.0, float("inf")])}, "guidance_scale"),
        ({"guidance_scale": []}, "guidance_scale"),
        ({"image_guidance_scale": float("inf")}, "image_guidance_scale"),
        ({"visual_temperature": float("inf")}, "visual_temperature"),
        ({"visual_top_p": [NAN, 0.5, 0.5]}, "visual_top_p"),
        ({"visual_top_k": True}, "visual_top_k"),
        ({"negative_prompt_ids": torch.tensor([[60]])}, "negative_prompt_ids"),
        ({"negative_prompt_ids": torch.ones(1, 0, dtype=torch.long)}, "negative_prompt_ids"),
        ({"unconditional_prompt_ids": "x"}, "unconditional_prompt_ids"),
        ({"unconditional_prompt_ids": []}, "unconditional_prompt_ids"),
        ({"unconditional_prompt_ids": [60]}, "unconditional_prompt_ids"),
        ({"seed": True}, "seed"),
    ],
)
def test_rejects_wrong_values_for_images(idle_model, arguments, name):
    with pytest.raises(ValueError, match=f"`{name}` must "):
        idle_model.generate(**{**left_padded(PROMPTS), "generation_mode": "image", **arguments})


@pytest.mark.parametrize(
    "settings", [{"seed": 0}, {"visual_do_sample": False}, {"generation_mode": "video", "num_frames": 1}]
)
@pytest.mark.parametrize("value", [NAN, -float("inf")])
def test_rejects_logits_that_allow_no_choice(model, settings, value):
    processor = LogitsProcessorList([lambda codes, logits: torch.full_like(logits, value)])
    with pytest.raises(ValueError, match="the logits of .* codes are NaN, or -inf for every code"):
        model.generate(
            **left_padded(PROMPTS), code_logits_processor=processor, **{"generation_mode": "image", **settings}
        )


@pytest.mark.parametrize("mode", ["image", "interleaved"])
def test_rejects_weights_that_are_not_numbers(model, mode):
    with torch.no_grad():
        model.depth_transformer.code_head.weight.fill_(NAN)
    prompt = {"input_ids": torch.tensor([[1, 5, 54]]), "generation_mode": mode}
    more = {"max_new_tokens": 20} if mode == "interleaved" else {}
    with pytest.raises(ValueError, match="the logits of .* codes are NaN"):
        model.generate(**prompt, **more)


def test_training_mode_with_checkpointing_gives_the_codes_of_evaluation_or_is_refused(model):
    enable_activation_checkpointing(model)
    for scale in (1.0, 3.0):
        expected = model.eval().generate(
            **left_padded(PROMPTS), generation_mode="image", visual_do_sample=False, guidance_scale=scale
        )
        model.train()
        settings = {"generation_mode": "image", "visual_do_sample": False, "guidance_scale": scale}
        if CHECKPOINTING_DROPS_CACHE:
            with pytest.raises(ValueError, match=r"call `model.eval\(\)` before"):
                model.generate(**left_padded(PROMPTS), **settings)
        else:
            assert torch.equal(model.generate(**left_padded(PROMPTS), **settings), expected)


@pytest.mark.parametrize("settings", [{"do_sample": False}, {"seed": 0, "do_sample": True}])
@pytest.mark.parametrize("value", [NAN, -float("inf")])
def test_rejects_text_logits_of_interleaved_output_that_allow_no_choice(model, settings, value):
    processor = LogitsProcessorList([lambda ids, logits: torch.full_like(logits, value)])
    with pytest.raises(ValueError, match="the logits of .* text tokens are NaN, or -inf for every text token"):
        model.generate(
            torch.tensor([[1, 5, 6]]),
            generation_mode="interleaved",
            logits_processor=processor,
            max_new_tokens=4,
            **settings,
        )


def test_rejects_a_text_head_that_is_not_a_number_in_interleaved_output(model):
    with torch.no_grad():
        model.lm_head.weight.fill_(NAN)
    with pytest.raises(ValueError, match="text tokens are NaN"):
        model.generate(torch.tensor([[1, 5, 6]]), generation_mode="interleaved", max_new_tokens=4)


@pytest.mark.parametrize("max_length", [1, 6])
def test_rejects_a_length_without_room_for_new_tokens(idle_model, max_length):
    with pytest.raises(ValueError, match="`max_length` must be greater than the number of tokens of the prompt"):
        idle_model.generate(IDS, generation_mode="interleaved", max_length=max_length)
