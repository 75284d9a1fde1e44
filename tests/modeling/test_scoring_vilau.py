"""`score` returns the log-probabilities of `generate`, for all kinds of guidance and labels."""

import pytest
import torch

from .test_generation_vilau import PROMPTS, left_padded


IMAGE = [54] + [58] * 16 + [55]
EDIT = torch.tensor([[1, *IMAGE, 5, 6], [1, *IMAGE, 9, 4]])
NEGATIVES = {
    "negative_prompt_ids": torch.tensor([[1, 7, 8, 3], [0, 0, 1, 9]]),
    "negative_prompt_attention_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]),
}
SCHEDULE = torch.linspace(1, 4, 16)[None]


def sampled(model, inputs, **settings):
    """Returns the output of `generate` for `inputs`, and the arguments with which `score` scores it."""
    output = model.generate(
        **inputs,
        generation_mode="image",
        seed=0,
        return_dict_in_generate=True,
        output_log_probs=True,
        **settings,
    )
    ids = output.sequences
    labels = torch.full_like(ids, -100)
    labels[:, -16:] = 58
    mask = inputs["attention_mask"]
    mask = torch.cat([mask, torch.ones(len(ids), ids.shape[1] - mask.shape[1], dtype=torch.long)], 1)
    return output, {"input_ids": ids, "labels": labels, "attention_mask": mask}


@pytest.mark.parametrize(
    "settings",
    [
        {"guidance_scale": [1.5, 4.0]},
        {"guidance_scale": torch.tensor([1.0, 4.0])},
        {"guidance_scale": SCHEDULE},
        {"guidance_scale": SCHEDULE.repeat(2, 1) * torch.tensor([[1.0], [2.0]])},
        {"guidance_scale": 3.0, **NEGATIVES},
        {"guidance_scale": 3.0, "negative_prompt_ids": torch.tensor([[1, 7]])},
        {"guidance_scale": 3.0, "negative_prompt_ids": torch.tensor([[1, 7, 54]])},
    ],
    ids=["list", "tensor", "schedule", "schedules", "negatives", "negative", "marked"],
)
def test_guided_codes_are_scored_as_they_were_sampled(model, settings):
    output, arguments = sampled(model, left_padded(PROMPTS), **settings)
    score = model.score(**arguments, codes=output.codes.flatten(1, 2), **settings)
    torch.testing.assert_close(score.code_log_probs[:, -16:], output.code_log_probs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("negative", [[1, 7], [1, 7, 54], [1, 7, 3, 54]])
def test_ids_before_a_start_marker_are_scored_too(model, negative):
    model.config.start_marker_prefix_ids = [3]
    settings = {"guidance_scale": 3.0, "negative_prompt_ids": torch.tensor([negative])}
    output, arguments = sampled(model, left_padded(PROMPTS), **settings)
    score = model.score(**arguments, codes=output.codes.flatten(1, 2), **settings)
    torch.testing.assert_close(score.code_log_probs[:, -16:], output.code_log_probs, atol=1e-4, rtol=0)


def test_codes_guided_by_two_scales_are_scored_as_they_were_sampled(model):
    before = torch.randint(0, 24, (2, 16, 3))
    inputs = {"input_ids": EDIT, "attention_mask": torch.ones_like(EDIT)}
    settings = {
        "guidance_scale": 3.0,
        "image_guidance_scale": 1.7,
        "image_prompt_ids": torch.tensor([[0, 1, *IMAGE], [1, *IMAGE, 9]]),
        "image_prompt_attention_mask": torch.tensor([[0] + [1] * 19, [1] * 20]),
    }
    output, arguments = sampled(model, {**inputs, "codes": before}, **settings)
    codes = torch.stack([before, output.codes.flatten(1, 2)], 1).flatten(0, 1)  # by row: before, after
    score = model.score(**arguments, codes=codes, **settings)
    torch.testing.assert_close(score.code_log_probs[:, -16:], output.code_log_probs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 2.5, torch.linspace(1, 4, 48)[None]], ids=["unguided", "guided", "schedule"])
def test_given_frames_are_context(model, scale):
    first, prompts = torch.randint(0, 24, (2, 1, 16, 3)), left_padded(PROMPTS)
    output = model.generate(
        **prompts,
        generation_mode="video",
        num_frames=3,
        first_frames=first,
        guidance_scale=scale,
        seed=0,
        return_dict_in_generate=True,
        output_log_probs=True,
    )
    labels = torch.full_like(output.sequences, -100)
    labels[:, -32:] = 59
    mask = torch.cat([prompts["attention_mask"], torch.ones(2, 49, dtype=torch.long)], 1)
    codes = output.codes.flatten(0, 1).flatten(1, 2)
    score = model.score(output.sequences, labels, mask, codes=codes, guidance_scale=scale)
    torch.testing.assert_close(score.code_log_probs[:, -32:], output.code_log_probs, atol=1e-4, rtol=0)
    assert score.code_log_probs.count_nonzero() == 2 * 32 * 3


def test_any_visual_tokens_of_a_span_may_be_labelled(model):
    ids, codes = torch.tensor([[1, 5, *IMAGE, 7, *IMAGE, 8]]), torch.randint(0, 24, (2, 16, 3))
    settings = {"codes": codes, "guidance_scale": SCHEDULE}
    every = model.score(ids, ids.where(ids == 58, -100), **settings).code_log_probs
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    chosen[:, [4, 9, 10, 25]] = True
    some = model.score(ids, ids.where(chosen, -100), **settings).code_log_probs
    torch.testing.assert_close(some, every * chosen[..., None])


def test_guidance_does_not_change_text_scores(model):
    ids, codes = torch.tensor([[1, *IMAGE, 5, 7, 8]]), torch.randint(0, 24, (1, 16, 3))
    labels = ids.where(ids == 8, -100)
    plain, guided = (model.score(ids, labels, codes=codes, guidance_scale=scale) for scale in (1.0, 3.0))
    assert torch.equal(plain.log_probs, guided.log_probs) and not guided.code_log_probs.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guidance_scale": 0.5}, "`guidance_scale` must be at least 1"),
        ({"guidance_scale": [2.0, 3.0, 4.0]}, r"`guidance_scale` must have shape \(2,\)"),
        (
            {"guidance_scale": SCHEDULE[:, :9]},
            "`guidance_scale` must have 1 position, or at least the 16 positions .* got 9",
        ),
        (
            {"guidance_scale": 2.0, "negative_prompt_ids": torch.ones(3, 2, dtype=torch.long)},
            r"`negative_prompt_ids` must have shape \(1 or 2, T\), got \(3, 2\)",
        ),
        (
            {"guidance_scale": 2.0, **NEGATIVES, "negative_prompt_attention_mask": torch.ones(1, 4)},
            r"`negative_prompt_attention_mask` must have the shape of its prompts, \(2, 4\), got \(1, 4\)",
        ),
        (
            {"image_guidance_scale": 2.0},
            r"`image_guidance_scale` needs `image_prompt_ids` of shape \(2, T\)",
        ),
        (
            {"image_guidance_scale": 2.0, "image_prompt_ids": torch.tensor([[1, *IMAGE, *IMAGE]] * 2)},
            r"`image_prompt_ids` may hold placeholders only for images before the first labelled span, at most \[16",
        ),
        ({"guidance_scale": float("nan")}, "`guidance_scale` must be a finite number"),
        ({"guidance_scale": torch.tensor([2.0, float("inf")])}, "`guidance_scale` must be a finite number"),
        ({"attention_mask": torch.full((2, 41), float("nan"))}, "`attention_mask` must be a tensor of zeros and ones"),
        ({"labels": [[1]]}, r"`labels` must be a tensor of integers .* got \[\[1\]\]"),
        ({"labels": torch.full((2, 39), 99)}, r"`labels` must be in the vocabulary, \[0, 60\), .*99"),
        ({"codes": torch.ones(4, 16, 3)}, "`codes` must be a tensor of integers"),
        ({"visual_codes": torch.ones(2, 5, 3).long(), "codes": None}, "`visual_codes` must be integers of shape"),
        ({"negative_prompt_ids": torch.tensor([[-1]])}, "`negative_prompt_ids` must be in the vocabulary"),
        (
            {"input_ids": torch.ones(1, 257).long(), "labels": torch.ones(1, 257).long(), "codes": None},
            "257 tokens exceed the language model's 256 positions",
        ),
        ({"codes": None}, "`labels` name 32 visual tokens for which no pixels or codes are given"),
        (
            {"input_ids": torch.tensor([[1, 5] + [58] * 32 + [9] * 7] * 2), "guidance_scale": 2.0},
            "begin without a start marker",
        ),
    ],
)
def test_rejects_what_cannot_be_scored(model, arguments, message):
    ids = torch.cat([EDIT, torch.tensor([IMAGE] * 2)], 1)
    labels = torch.full_like(ids, -100)
    labels[:, 22:38] = 58
    codes = torch.randint(0, 24, (4, 16, 3))
    if "input_ids" in arguments and "labels" not in arguments:
        labels = arguments["input_ids"].where(arguments["input_ids"] == 58, -100)
    with pytest.raises(ValueError, match=message):
        model.score(**{"input_ids": ids, "labels": labels, "codes": codes, **arguments})


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_scores_of_samples_equal_one_teacher_forced_pass(model, scale):
    prompts = left_padded(PROMPTS)
    output = model.generate(
        **prompts,
        generation_mode="image",
        guidance_scale=scale,
        seed=0,
        return_dict_in_generate=True,
        output_log_probs=True,
        output_scores=True,
    )
    codes = output.codes.flatten(1, 2)
    expected = output.scores.log_softmax(-1).gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(output.code_log_probs, expected)
    mask = torch.cat([prompts["attention_mask"], torch.ones(2, 17, dtype=torch.long)], 1)
    labels = output.sequences.where(output.sequences == 58, -100)
    settings = {"input_ids": output.sequences, "labels": labels, "attention_mask": mask, "codes": codes}
    score = model.score(**settings, guidance_scale=scale)
    torch.testing.assert_close(score.code_log_probs[:, 7:], output.code_log_probs, atol=1e-4, rtol=0)
    torch.testing.assert_close(score.log_probs, output.code_log_probs.sum((1, 2)), atol=1e-3, rtol=0)
    plain = model.score(**settings)
    torch.testing.assert_close(plain.code_log_probs[:, 7:], output.conditional_code_log_probs, atol=1e-4, rtol=0)


def test_scores_of_text_equal_those_of_generation_and_have_gradients(model):
    prompts = left_padded(PROMPTS)
    output = model.generate(
        **prompts,
        max_new_tokens=4,
        eos_token_id=None,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    new = output.sequences[:, 6:]
    expected = torch.stack(output.logits, 1).log_softmax(-1).gather(-1, new[..., None])[..., 0]
    labels = torch.cat([torch.full((2, 6), -100), new], 1)
    mask = torch.cat([prompts["attention_mask"], torch.ones_like(new)], 1)
    score = model.score(output.sequences, labels, mask)
    torch.testing.assert_close(score.text_log_probs[:, 6:], expected, atol=1e-4, rtol=0)
    assert not score.text_log_probs[:, :6].any() and not score.code_log_probs.any()
    score.log_probs.sum().backward()
    assert model.lm_head.weight.grad.abs().sum() > 0


def test_spans_of_a_row_can_be_scored_alone(model):
    row, codes = [1, 5, *IMAGE, 7, *IMAGE, 8], torch.randint(0, 24, (2, 16, 3))
    ids = torch.tensor([row])
    labels = ids.where((ids == 58) | (ids == 7), -100)
    both = model.score(ids, labels, codes=codes, guidance_scale=3.0).code_log_probs
    for span, first in ((0, 3), (1, 22)):
        only = torch.full_like(ids, -100)
        only[:, first : first + 16] = 58
        alone = model.score(ids, only, codes=codes, guidance_scale=3.0).code_log_probs
        torch.testing.assert_close(alone[:, first : first + 16], both[:, first : first + 16])
        assert alone.count_nonzero() == 16 * 3, span
