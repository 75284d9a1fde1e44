"""`generate` in each mode, compared with references that recompute everything without caches."""

import pytest
import torch
from transformers import GenerationConfig

from vilau_hf import VilaUConfig, VilaUForConditionalGeneration

from ..conftest import DEPTH, TEXT, TOKEN_IDS, VISION
from ..distributions import code_probabilities


PROMPTS = [[1, 5, 6], [1, 9, 4, 4, 7, 8]]


def left_padded(prompts):
    length = max(map(len, prompts))
    ids = torch.tensor([[0] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def next_hidden(model, ids, codes):
    """Returns the hidden state after `ids` and visual tokens with `codes` `(P, D)`, computed without a cache."""
    embeds = model.get_input_embeddings()(torch.tensor([ids]))
    if len(codes):
        embeddings = model.model.vision_tower.quantizer.codebook(torch.stack(codes))  # (P, D, C)
        embeds = torch.cat([embeds, model.model.multi_modal_projector(embeddings.sum(1))[None]], 1)
    return model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, -1]


@torch.no_grad()
def naive_codes(model, prompt, negative, num_positions, scale):
    """Returns greedy codes, position by position and depth by depth, from complete forward passes."""
    depth, codebook = model.config.depth_config.code_depth, model.model.vision_tower.quantizer.codebook
    codes = []
    for _ in range(num_positions):
        hidden = next_hidden(model, prompt, codes)
        negative_hidden = next_hidden(model, negative, codes)
        current = []
        for d in range(depth):
            padded = torch.tensor([current + [0] * (depth - d)])  # codes of later depths have no effect
            conditional = model.depth_transformer(hidden, codebook(padded))[0, d]
            unconditional = model.depth_transformer(negative_hidden, codebook(padded))[0, d]
            current.append((unconditional + scale * (conditional - unconditional)).argmax().item())
        codes.append(torch.tensor(current))
    return torch.stack(codes)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize(("mode", "start", "frames"), [("image", 54, 1), ("video", 56, 2)])
def test_codes_equal_a_naive_reference_whatever_the_padding_and_the_other_rows(model, mode, start, frames, scale):
    batch = model.generate(
        **left_padded(PROMPTS),
        generation_mode=mode,
        num_frames=frames,
        guidance_scale=scale,
        visual_do_sample=False,
    )
    assert batch.shape == ((2, 4, 4, 3) if mode == "image" else (2, 2, 4, 4, 3))
    for row, prompt in enumerate(PROMPTS):
        expected = naive_codes(model, prompt + [start], [1, 5, start], 16 * frames, scale)
        assert torch.equal(batch[row].reshape(-1, 3), expected)
        alone = model.generate(
            input_ids=torch.tensor([prompt]),
            generation_mode=mode,
            num_frames=frames,
            guidance_scale=scale,
            visual_do_sample=False,
        )
        assert torch.equal(alone[0], batch[row])


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("qwen3", {"head_dim": 12, "num_key_value_heads": 2}),
        ("mistral", {"num_key_value_heads": 2, "sliding_window": 8}),
        ("gemma2", {"head_dim": 12, "num_key_value_heads": 2, "sliding_window": 8}),
        ("gpt2", {"n_positions": 256}),
    ],
)
def test_other_language_models_equal_their_naive_reference(kind, more):
    config = VilaUConfig(
        vision_config=VISION,
        depth_config=DEPTH,
        text_config={**TEXT, "model_type": kind, **more},
        initializer_range=0.2,
        **TOKEN_IDS,
    )
    model = VilaUForConditionalGeneration(config).eval()
    settings = {"generation_mode": "image", "guidance_scale": 3.0, "visual_do_sample": False}
    batch = model.generate(**left_padded(PROMPTS), negative_prompt_ids=torch.tensor([[1, 5]]), **settings)
    for row, prompt in enumerate(PROMPTS):
        assert torch.equal(batch[row].reshape(-1, 3), naive_codes(model, prompt + [54], [1, 5, 54], 16, 3.0))


def test_text_of_a_padded_batch_with_images_equals_a_cache_free_reference(model):
    image = [54] + [58] * 16 + [55]
    prompts = [[1, *image, 5, 6], [1, 7, 8, 9, *image, 5]]
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    batch = model.generate(**left_padded(prompts), pixel_values=pixels, max_new_tokens=6, do_sample=False)
    for row, prompt in enumerate(prompts):
        ids = list(prompt)
        for _ in range(6):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]), pixel_values=pixels[row : row + 1]).logits[0, -1]
            logits[[54, 55, 56, 57, 58, 59]] = -torch.inf
            ids.append(logits.argmax().item())
            if ids[-1] == 2:
                break
        assert batch[row].tolist()[-6:][: len(ids) - len(prompt)] == ids[len(prompt) :]


def test_text_mode_generates_no_markers_or_placeholders(model):
    with torch.no_grad():
        model.lm_head.weight[54:60] = model.lm_head.weight[54:60] * 100
    ids = model.generate(**left_padded(PROMPTS), max_new_tokens=20, do_sample=True)
    assert not (ids[:, 6:] >= 54).any()


def test_images_in_the_prompt_change_the_generated_image(model):
    prompt = {"input_ids": torch.tensor([[1, 54] + [58] * 16 + [55, 5]])}
    settings = {"generation_mode": "image", "visual_do_sample": False, "guidance_scale": 2.0}
    first, second = (
        model.generate(**prompt, pixel_values=torch.rand(1, 3, 16, 16) * 2 - 1, **settings) for _ in range(2)
    )
    assert not torch.equal(first, second)


def test_codes_can_be_given_in_place_of_pixels(model):
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    prompt = {"input_ids": torch.tensor([[1, 54] + [58] * 16 + [55, 5]]), "do_sample": False, "max_new_tokens": 5}
    codes = model.model.vision_tower.encode(pixels).codes
    assert torch.equal(model.generate(**prompt, pixel_values=pixels), model.generate(**prompt, codes=codes))


def test_repeated_rows_keep_their_images(model):
    image = [54] + [58] * 16 + [55]
    prompt = {"input_ids": torch.tensor([[1, *image, *image, 5]]), "max_new_tokens": 5}
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1  # two images in one row
    once = model.generate(**prompt, pixel_values=pixels, do_sample=False)
    beams = model.generate(**prompt, pixel_values=pixels, num_beams=2, num_return_sequences=2, do_sample=False)
    assert beams.shape[0] == 2
    torch.manual_seed(0)
    samples = model.generate(**prompt, pixel_values=pixels, do_sample=True, top_k=1, num_return_sequences=3)
    for sample in samples:
        assert sample.tolist() == once[0].tolist()


def test_generators_make_rows_reproducible_in_any_batch(model):
    def draw(prompts, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return model.generate(**left_padded(prompts), generation_mode="image", generator=generators)

    both = draw(PROMPTS, [1, 2])
    assert torch.equal(draw(PROMPTS[1:], [2])[0], both[1])
    assert not torch.equal(draw(PROMPTS[1:], [3])[0], both[1])


def test_negative_prompt_replaces_the_unconditional_one(model):
    settings = {"generation_mode": "image", "visual_do_sample": False, "guidance_scale": 4.0}
    default = model.generate(**left_padded(PROMPTS), **settings)
    negative = torch.tensor([[1, 30, 31, 32]])
    changed = model.generate(**left_padded(PROMPTS), negative_prompt_ids=negative, **settings)
    assert not torch.equal(default, changed)
    same = model.generate(**left_padded(PROMPTS), negative_prompt_ids=torch.tensor([[1, 5]]), **settings)
    assert torch.equal(default, same)


def test_dict_output_holds_sequences_and_scores_of_the_chosen_codes(model):
    output = model.generate(
        **left_padded(PROMPTS),
        generation_mode="image",
        visual_do_sample=False,
        num_return_sequences=2,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert output.sequences.shape == (4, 6 + 1 + 16)
    assert (output.sequences[:, 7:] == 58).all() and (output.sequences[:, 6] == 54).all()
    assert output.scores.shape == (4, 16, 3, 24)
    assert torch.equal(output.scores.argmax(-1), output.codes.flatten(1, 2))


def test_static_cache_gives_the_codes_of_the_dynamic_one(model):
    settings = {"generation_mode": "image", "visual_do_sample": False}
    dynamic = model.generate(**left_padded(PROMPTS), **settings)
    assert torch.equal(model.generate(**left_padded(PROMPTS), cache_implementation="static", **settings), dynamic)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def test_every_mode_runs_in_every_dtype_and_on_every_device(model, dtype, device):
    model.to(device=device, dtype=dtype)
    prompts = {name: tensor.to(device) for name, tensor in left_padded(PROMPTS).items()}
    codes = model.generate(**prompts, generation_mode="image")
    assert torch.isfinite(model.decode_image_tokens(codes)).all()
    codes = model.generate(**prompts, generation_mode="video", num_frames=2)
    assert model.decode_video_tokens(codes).shape == (2, 2, 3, 16, 16)
    assert model.generate(**prompts, max_new_tokens=3).shape[1] == 9


def test_probabilities_follow_their_definition():
    logits = torch.randn(5, 50)
    for temperature, top_k, top_p in ((1.0, 0, 1.0), (0.7, 10, 1.0), (1.3, 0, 0.8), (0.9, 7, 0.5)):
        actual = code_probabilities(logits, temperature, top_k, top_p)
        for row, probabilities in zip(logits, actual, strict=True):
            order = row.argsort(descending=True)[: top_k or None].tolist()
            weights = (row[order] / temperature).exp()
            weights, kept, total = weights / weights.sum(), [], 0.0
            for code, weight in zip(order, weights.tolist(), strict=True):
                if total >= top_p:
                    break
                kept.append((code, weight))
                total += weight
            expected = torch.zeros(50)
            for code, weight in kept:
                expected[code] = weight / total
            torch.testing.assert_close(probabilities, expected)


def test_top_k_keeps_codes_tied_with_the_k_th():
    probabilities = code_probabilities(torch.tensor([[3.0, 1.0, 1.0, 0.0]]), 1.0, 2, 1.0)
    assert (probabilities > 0).tolist() == [[True, True, True, False]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"generation_mode": "audio"},
            "`generation_mode` must be one of text, image, video, interleaved, got 'audio'",
        ),
        ({"generation_mode": "image", "guidance_scale": 0.5}, "`guidance_scale` must be at least 1 .*got 0.5"),
        ({"generation_mode": "video", "num_frames": 0}, "`num_frames` must be an integer of at least 1, got 0"),
        ({"generation_mode": "video", "num_frames": 99}, "1584 new ones exceed the language model's 256 positions"),
        ({"generation_mode": "image", "visual_top_p": 0.0}, r"`visual_top_p` must be in \(0, 1\], got 0.0"),
        ({"generation_mode": "image", "visual_temperature": 0.0}, "`visual_temperature` must be greater than 0"),
        (
            {"generation_mode": "image", "visual_temperature": [1.0, 1e-40, 1.0]},
            "`visual_temperature` must be greater than 0 and at least 1e-30, got .*1e-40",
        ),
        ({"do_sample": True, "temperature": 1e-40}, "`temperature` must be a finite number of at least 1e-30"),
        ({"repetition_penalty": 1e-40}, "`repetition_penalty` must be .* from 1e-30 to .* got 1e-40"),
        (
            {"generation_config": GenerationConfig(do_sample=True, temperature=1e-40)},
            "`temperature` must be a finite number of at least 1e-30",
        ),
        ({"generation_mode": "image", "num_beams": 2}, "`num_beams` must be 1 where codes are generated, got 2"),
        (
            {"generation_mode": "image", "guidance_scale": "3"},
            "`guidance_scale` must be a finite number, a list, a tuple or a tensor, got '3'",
        ),
        ({"generation_mode": "video", "num_frames": 2.5}, "`num_frames` must be an integer .* got 2.5"),
        ({"generation_mode": "image", "visual_top_k": 2.5}, "`visual_top_k` must be an integer, .* got 2.5"),
        (
            {"generation_mode": "image", "visual_top_p": [0.9]},
            r"`visual_top_p` .* a list of 3 numbers .*, got \[0.9\]",
        ),
        ({"generation_mode": "image", "visual_do_sample": "no"}, "`visual_do_sample` must be True or False, got 'no'"),
        ({"generation_mode": "image", "attention_mask": torch.ones(2, 3)}, r"shape of its prompts, \(2, 6\), got"),
        (
            {"generation_mode": "image", "negative_prompt_ids": [[1]]},
            r"`negative_prompt_ids` must be a tensor .* got \[\[1\]\]",
        ),
        (
            {"generation_mode": "image", "num_return_sequences": 0},
            "`num_return_sequences` must be an integer of at least 1, got 0",
        ),
        ({"generation_mode": "image", "seed": 1, "generator": torch.Generator()}, "`seed` and `generator` both"),
        ({"generation_mode": "image", "guidance_scale": [2.0] * 5}, r"`guidance_scale` must have shape \(2,\)"),
        ({"guidance_scale": 3.0}, "`guidance_scale` is for images and videos"),
        ({"num_frames": 3}, "`num_frames` is for images and videos"),
        (
            {"generation_mode": "image", "negative_prompt_ids": torch.zeros(3, 2, dtype=torch.long)},
            r"`negative_prompt_ids` must have shape \(1 or 2, T\), got \(3, 2\)",
        ),
        ({"generation_mode": "image", "typo": 1}, "typo"),
    ],
)
def test_rejects_wrong_arguments_before_the_model_runs(model, arguments, message):
    def fail(*_):
        raise AssertionError("the model ran")

    model.model.register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match=message):
        model.generate(**{**left_padded(PROMPTS), **arguments})


def test_text_ends_at_the_last_position_of_the_language_model(model):
    ids = torch.randint(3, 50, (1, 250))
    assert model.generate(ids, max_new_tokens=999, eos_token_id=None, do_sample=False).shape == (1, 256)
    assert model.generate(ids, max_length=999, eos_token_id=None, do_sample=False).shape == (1, 256)
    embeds = model.get_input_embeddings()(ids)
    assert model.generate(inputs_embeds=embeds, max_new_tokens=9, eos_token_id=None, do_sample=False).shape == (1, 6)
    with pytest.raises(ValueError, match="the prompt of 256 tokens and 1 new ones exceed .* 256 positions"):
        model.generate(torch.randint(3, 50, (1, 256)), max_new_tokens=1)


def test_the_default_unconditional_prompt_is_the_bos_token_and_must_exist(model):
    model.generation_config.unconditional_prompt_ids = None
    settings = {"generation_mode": "image", "guidance_scale": 4.0, "visual_do_sample": False}
    default, bos = (
        model.generate(**left_padded(PROMPTS), negative_prompt_ids=ids, **settings)
        for ids in (None, torch.tensor([[1]]))
    )
    assert torch.equal(default, bos)
    model.config.text_config.bos_token_id = None
    with pytest.raises(ValueError, match="needs an unconditional prompt"):
        model.generate(**left_padded(PROMPTS), generation_mode="image")
    model.generate(**left_padded(PROMPTS), generation_mode="image", guidance_scale=1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16])
def test_codes_of_every_integer_type_give_the_same(model, dtype):
    codes = torch.randint(0, 24, (1, 16, 3))
    small = codes.to(dtype)
    grids = [each.view(1, 4, 4, 3) for each in (codes, small)]
    assert torch.equal(*map(model.decode_image_tokens, grids))
    assert torch.equal(*(model.decode_video_tokens(each[None]) for each in grids))
    prompt = {"input_ids": torch.tensor([[1, 54] + [58] * 16 + [55, 5]])}
    labels = prompt["input_ids"].where(prompt["input_ids"] == 58, -100)
    assert torch.equal(*(model.score(**prompt, labels=labels, codes=each).log_probs for each in (codes, small)))
    assert torch.equal(*(model(**prompt, labels=labels, codes=each).loss for each in (codes, small)))
    for settings in ({"max_new_tokens": 2}, {"generation_mode": "image", "visual_do_sample": False}):
        assert torch.equal(*(model.generate(**prompt, **settings, codes=each) for each in (codes, small)))
    video = {"generation_mode": "video", "num_frames": 2, "visual_do_sample": False}
    assert torch.equal(
        *(model.generate(torch.tensor([[1, 5]]), **video, first_frames=each[None]) for each in (codes, small))
    )


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (None, "`image_tokens` must be a tensor of integers that is not empty, got None"),
        (torch.zeros(1, 4, 4, 3), "`image_tokens` must be a tensor of integers"),
        (torch.zeros(0, 4, 4, 3, dtype=torch.long), "`image_tokens` must be a tensor of integers that is not empty"),
        (torch.full((1, 4, 4, 3), 24, dtype=torch.uint8), r"`codes` must be in \[0, 24\), got values from 24 to 24"),
        (torch.zeros(1, 4, 3, dtype=torch.long), r"must have shape \(rows, 4, 4, 3\), got \(1, 4, 3\)"),
        (torch.full((1, 4, 4, 3), 24), r"`codes` must be in \[0, 24\), got values from 24 to 24"),
        (torch.full((1, 4, 4, 3), -1), r"`codes` must be in \[0, 24\), got values from -1 to -1"),
    ],
)
def test_rejects_wrong_code_grids(model, codes, message):
    with pytest.raises(ValueError, match=message):
        model.decode_image_tokens(codes)


def test_the_prefix_of_the_start_marker_is_added_once(model, monkeypatch):
    monkeypatch.setattr(model.config, "start_marker_prefix_ids", [9, 4])
    settings = {"generation_mode": "image", "guidance_scale": 1.0, "do_sample": False, "return_dict_in_generate": True}
    plain = model.generate(input_ids=torch.tensor([[1, 5]]), **settings)
    assert plain.sequences[0, :5].tolist() == [1, 5, 9, 4, 54]
    complete = model.generate(input_ids=torch.tensor([[1, 5, 9, 4, 54]]), **settings)
    assert torch.equal(complete.sequences, plain.sequences) and torch.equal(complete.codes, plain.codes)
