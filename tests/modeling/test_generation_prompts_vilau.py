"""Prompts: images in them, given as pixels, as codes or by position; inferred masks."""

import pytest
import torch
from transformers import GenerationConfig

from vilau_hf.modeling.generation_prompts_vilau import infer_attention_mask

from .test_generation_vilau import PROMPTS as TEXT_PROMPTS
from .test_generation_vilau import left_padded


IMAGE = [54] + [58] * 16 + [55]
PROMPTS = [[1, *IMAGE, 5, 6], [1, *IMAGE, 9, 4, 7]]
GREEDY = {"visual_do_sample": False, "do_sample": False, "guidance_scale": 3.0}
GREEDY_IMAGE = {"generation_mode": "image", "visual_do_sample": False}


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 16, 16) * 2 - 1


@pytest.mark.parametrize(
    "mode",
    [
        {"generation_mode": "image"},
        {"generation_mode": "video", "num_frames": 2},
        {"generation_mode": "interleaved", "max_new_tokens": 6},
        {"generation_mode": "text", "visual_do_sample": None, "guidance_scale": None, "max_new_tokens": 6},
    ],
)
def test_codes_by_position_replace_pixels(model, pixels, mode):
    prompts, settings = left_padded(PROMPTS), {**GREEDY, **mode, "return_dict_in_generate": True}
    by_position = model.model.get_visual_codes(prompts["input_ids"], pixels)
    expected = model.generate(**prompts, pixel_values=pixels, **settings)
    found = model.generate(**prompts, visual_codes=by_position, **settings)
    assert torch.equal(found.sequences, expected.sequences)
    if mode["generation_mode"] in ("image", "video"):
        assert torch.equal(found.codes, expected.codes)


def test_codes_by_position_work_with_an_image_only_prompt(model, pixels):
    prompts, alone = left_padded(PROMPTS), left_padded([[1, *IMAGE], [1, 5, *IMAGE]])
    settings = {
        **prompts,
        **GREEDY,
        "generation_mode": "image",
        "image_guidance_scale": 2.0,
        "image_prompt_ids": alone["input_ids"],
        "image_prompt_attention_mask": alone["attention_mask"],
    }
    by_position = model.model.get_visual_codes(prompts["input_ids"], pixels)
    expected = model.generate(**settings, pixel_values=pixels)
    assert torch.equal(model.generate(**settings, visual_codes=by_position), expected)


def test_images_are_encoded_once_for_all_branches(model, pixels):
    calls = []
    model.model.vision_tower.image_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    image_only = left_padded([[1, *IMAGE]] * 2)["input_ids"]
    settings = {"generation_mode": "image", "image_guidance_scale": 2.0, "image_prompt_ids": image_only}
    model.generate(**left_padded(PROMPTS), pixel_values=pixels, **settings)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(2, 5, 3, dtype=torch.long), r"`visual_codes` must be integers of shape \(2, 22, 3\), got"),
        (torch.zeros(2, 22, 3), "`visual_codes` must be a tensor of integers .* got .*float32"),
        (torch.full((2, 22, 3), -1), "`visual_codes` must be codes at the placeholders of the prompts"),
        (
            torch.full((2, 22, 3), 24).where(left_padded(PROMPTS)["input_ids"][..., None] == 58, -1),
            r"`codes` must be in \[0, 24\), got values from 24 to 24",
        ),
        (
            torch.tensor([-1, 0, 0]).where(left_padded(PROMPTS)["input_ids"][..., None] == 58, -1),
            r"`codes` must be in \[0, 24\), got values from -1 to 0",
        ),
        ([1], r"`visual_codes` must be a tensor of integers that is not empty, got \[1\]"),
    ],
)
def test_rejects_wrong_codes_by_position(model, codes, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**left_padded(PROMPTS), visual_codes=codes, generation_mode="image")


def test_rejects_codes_by_position_together_with_pixels(model, pixels):
    prompts = left_padded(PROMPTS)
    codes = model.model.get_visual_codes(prompts["input_ids"], pixels)
    for mode in ("text", "image"):
        with pytest.raises(
            ValueError, match="`visual_codes` replace `pixel_values`, `pixel_values_videos` and `codes`"
        ):
            model.generate(**prompts, visual_codes=codes, pixel_values=pixels, generation_mode=mode)


def test_padding_is_masked_without_a_mask(model):
    masked = left_padded(TEXT_PROMPTS)
    for mode, more in (("image", {}), ("video", {"num_frames": 2}), ("interleaved", {"max_new_tokens": 12})):
        settings = {"generation_mode": mode, "seed": 0, "return_dict_in_generate": True, **more}
        both = [model.generate(**prompts, **settings) for prompts in (masked, {"input_ids": masked["input_ids"]})]
        assert torch.equal(both[0].sequences, both[1].sequences)
        if mode != "interleaved":
            assert torch.equal(both[0].codes, both[1].codes)
    negative = left_padded([[1, 30, 31], [1, 40]])
    ids, mask = negative["input_ids"], negative["attention_mask"]
    masked.update(GREEDY_IMAGE, negative_prompt_ids=ids)
    assert torch.equal(model.generate(**masked, negative_prompt_attention_mask=mask), model.generate(**masked))


def test_a_bos_token_that_is_also_the_padding_token_is_not_masked(model):
    model.generation_config.unconditional_prompt_ids = None
    expected = model.generate(**left_padded(TEXT_PROMPTS), **GREEDY_IMAGE)
    model.generation_config.pad_token_id = 1
    assert torch.equal(model.generate(**left_padded(TEXT_PROMPTS), **GREEDY_IMAGE), expected)


@pytest.mark.parametrize(
    ("ends", "is_masked"), [(2, True), (0, False), ([2, 0], False), (torch.tensor([2, 3]), True), (None, True)]
)
def test_padding_is_masked_unless_it_is_an_end_token(ends, is_masked):
    ids = torch.tensor([[0, 5, 6]])
    mask = infer_attention_mask(ids, GenerationConfig(pad_token_id=0, eos_token_id=ends))
    assert mask.tolist() == [[0 if is_masked else 1, 1, 1]]
