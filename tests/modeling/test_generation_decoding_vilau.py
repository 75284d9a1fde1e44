"""What steers and what reports the drawing of codes."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LogitsProcessorList, StoppingCriteriaList

from vilau_hf.modeling.generation_sampling_vilau import CodeSampling

from ..distributions import code_probabilities
from .test_generation_vilau import PROMPTS, left_padded


GREEDY = {"generation_mode": "image", "visual_do_sample": False}
IMAGE = [54] + [58] * 16 + [55]


class HostReads(TorchDispatchMode):
    """Counts how often the host waits for a value of the device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def draw(model, prompts=PROMPTS, **settings):
    return model.generate(**left_padded(prompts), **{**GREEDY, **settings})


def test_guidance_may_differ_by_row_and_position(model):
    weak, strong = (draw(model, guidance_scale=scale) for scale in (1.5, 6.0))
    mixed = draw(model, guidance_scale=[1.5, 6.0])
    assert torch.equal(mixed[0], weak[0]) and torch.equal(mixed[1], strong[1]) and not torch.equal(weak, strong)
    schedule = torch.full((1, 16), 1.5)
    assert torch.equal(draw(model, guidance_scale=schedule), weak)
    schedule[:, 5:] = 6.0
    changing = draw(model, guidance_scale=schedule).flatten(1, 2)
    assert torch.equal(changing[:, :5], weak.flatten(1, 2)[:, :5]) and not torch.equal(changing, weak.flatten(1, 2))
    repeated = draw(model, guidance_scale=[1.5, 6.0], num_return_sequences=2)
    assert torch.equal(repeated, mixed.repeat_interleave(2, 0))


def test_two_scales_follow_instruct_pix2pix(model):
    ids, pixels = torch.tensor([[1, *IMAGE, 5, 6]]), torch.rand(1, 3, 16, 16) * 2 - 1
    image_only = torch.tensor([[1, *IMAGE]])
    output = model.generate(
        ids,
        pixel_values=pixels,
        image_prompt_ids=image_only,
        guidance_scale=3.0,
        image_guidance_scale=1.7,
        return_dict_in_generate=True,
        output_scores=True,
        **GREEDY,
    )
    codes, logits = output.codes.flatten(1, 2), []
    for prompt, has_image in ((ids, True), (image_only, True), (torch.tensor([[1, 5]]), False)):
        opened = torch.cat([prompt, torch.tensor([[54]])], 1)
        start = model.model.get_visual_codes(opened, pixels) if has_image else torch.full((1, opened.shape[1], 3), -1)
        visual = torch.cat([start, codes], 1)
        whole = torch.cat([opened, torch.full((1, 16), 58)], 1)
        with torch.no_grad():
            hidden = model.model(whole, visual_codes=visual).last_hidden_state[0, -17:-1]
            embeddings = model.model.vision_tower.quantizer.code_embeddings(codes[0])
            logits.append(model.depth_transformer(hidden, embeddings))
    full, image, nothing = logits
    expected = nothing + 1.7 * (image - nothing) + 3.0 * (full - image)
    torch.testing.assert_close(output.scores[0], expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(expected.argmax(-1), codes[0])
    with pytest.raises(ValueError, match="`image_guidance_scale` needs `image_prompt_ids`"):
        model.generate(ids, pixel_values=pixels, image_guidance_scale=1.7, **GREEDY)


def test_first_frames_are_kept_and_steer_what_follows(model):
    settings = {"generation_mode": "video", "visual_do_sample": False, "num_frames": 3, "guidance_scale": 2.0}
    whole = model.generate(**left_padded(PROMPTS), **settings)
    again = model.generate(**left_padded(PROMPTS), first_frames=whole[:, :1].flatten(2, 3), **settings)
    assert torch.equal(again, whole)
    pixels = torch.rand(1, 2, 3, 16, 16) * 2 - 1
    forced = model.generate(**left_padded(PROMPTS), first_frames=pixels, return_dict_in_generate=True, **settings)
    codes = model.model.vision_tower.encode(pixels[0]).codes
    assert torch.equal(forced.codes[:, :2].flatten(2, 3), codes.expand(2, -1, -1, -1))
    assert not torch.equal(forced.codes[:, 2], whole[:, 2])
    assert forced.sequences.shape == (2, 7 + 3 * 16)
    with pytest.raises(ValueError, match="`first_frames` must be fewer than `num_frames`"):
        model.generate(**left_padded(PROMPTS), first_frames=torch.rand(1, 3, 3, 16, 16), **settings)


def test_settings_may_differ_by_depth(model):
    greedy = draw(model)
    first = draw(model, visual_do_sample=True, visual_top_k=[1, 0, 0], visual_top_p=1.0, seed=0)
    every = draw(model, visual_do_sample=True, visual_top_k=[1, 1, 1], seed=0)
    assert torch.equal(every, greedy)
    assert torch.equal(first[:, 0, 0, 0], greedy[:, 0, 0, 0]) and not torch.equal(first, greedy)
    hot = draw(model, visual_do_sample=True, visual_temperature=[1e-3] * 3, seed=0)
    assert torch.equal(hot, greedy)
    assert torch.equal(draw(model, visual_do_sample=True, visual_min_p=0.999, seed=0), greedy)


def test_processors_see_the_codes_so_far(model):
    seen = []

    def only_even(codes, logits):
        seen.append(codes.shape)
        return logits.index_fill(-1, torch.arange(1, 24, 2), -torch.inf)

    codes = draw(model, code_logits_processor=LogitsProcessorList([only_even]))
    assert not (codes % 2).any()
    assert seen[:4] == [(2, 0), (2, 1), (2, 2), (2, 0)]


def test_seeds_make_rows_reproducible_whatever_the_batch_and_the_cache(model):
    settings = {"generation_mode": "image", "guidance_scale": 2.0}
    both = model.generate(**left_padded(PROMPTS), seed=5, **settings)
    assert torch.equal(model.generate(**left_padded(PROMPTS[1:]), seed=6, **settings)[0], both[1])
    static = model.generate(**left_padded(PROMPTS), seed=[5, 6], cache_implementation="static", **settings)
    assert torch.equal(static, both)
    several = model.generate(**left_padded(PROMPTS[:1]), seed=5, num_return_sequences=3, **settings)
    assert torch.equal(several[0], both[0]) and not torch.equal(several[1], several[0])


@pytest.mark.parametrize(("settings", "draws"), [({"seed": 5}, 2), ({"generator": torch.Generator()}, 1), ({}, 1)])
def test_each_generator_draws_once_a_position(model, settings, draws):
    class Draws(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function is torch.ops.aten.exponential_.default
            return function(*args, **(kwargs or {}))

    with Draws() as counted:
        model.generate(**left_padded(PROMPTS), generation_mode="image", **settings)
    assert counted.count == 16 * draws


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("rows", [None, 2])
def test_generators_of_the_host_do_not_wait_for_the_device(rows):
    generator = torch.Generator() if rows is None else [torch.Generator().manual_seed(row) for row in range(rows)]
    sampling = CodeSampling(True, 1.0, 20, 0.9, 0.0, code_depth=3, generators=generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        noise = sampling.draw_noise(2, 24, torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [each.shape for each in noise] == [(2, 24)] * 3 and all((each > 0).all() for each in noise)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_generators_of_rows_are_on_one_device(model):
    with pytest.raises(ValueError, match="entries of `generator` must be on one device, got cpu, cuda"):
        draw(model, generator=[torch.Generator(), torch.Generator("cuda")])


def test_sampling_follows_the_distribution():
    logits = torch.randn(1, 40) * 2
    sampling = CodeSampling(True, 0.8, 20, 0.9, 0.05, code_depth=1, generators=torch.Generator().manual_seed(0))
    logits, size = logits.expand(500, -1), logits.shape[-1]
    drawn = [sampling.pick(logits, 0, [], sampling.draw_noise(500, size, logits.device)) for _ in range(100)]
    drawn = torch.stack(drawn).flatten()
    found = torch.bincount(drawn, minlength=40) / drawn.numel()
    expected = code_probabilities(logits, 0.8, 20, 0.9, 0.05)[0]
    assert (found - expected).abs().max() < 0.01 and not found[expected == 0].any()


def test_min_p_drops_what_is_far_less_probable_than_the_best():
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    probabilities = code_probabilities(logits, min_p=0.2)[0]
    weights = torch.tensor([1, torch.tensor(-1.0).exp()])  # exp(-2) is less than a fifth
    torch.testing.assert_close(probabilities, torch.cat([weights / weights.sum(), torch.zeros(2)]))


def test_stopping_criteria_leave_a_span_unfinished(model):
    codes = draw(
        model, stopping_criteria=StoppingCriteriaList([lambda ids, scores: torch.tensor([ids.shape[1] >= 12] * 2)])
    )
    assert torch.equal(codes.flatten(1, 2)[:, :5], draw(model).flatten(1, 2)[:, :5])
    assert (codes.flatten(1, 2)[:, 5:] == -1).all()
    with pytest.raises(ValueError, match=r"`codes` must be in \[0, 24\), got values from -1"):
        model.decode_image_tokens(codes)


def test_a_row_that_is_stopped_stays_stopped_and_leaves_the_others_alone(model):
    settings = {"return_dict_in_generate": True, "output_log_probs": True, "output_scores": True}
    whole, positions = draw(model, **settings), []

    def second_row_at_12_first_row_at_17(ids, scores):
        return torch.tensor([ids.shape[1] == 17, ids.shape[1] == 12])

    class Streamer:
        def put(self, ids):
            pass

        def put_visual(self, codes):
            positions.append(codes)

        def end(self):
            pass

    stopped = draw(
        model,
        stopping_criteria=StoppingCriteriaList([second_row_at_12_first_row_at_17]),
        streamer=Streamer(),
        **settings,
    )
    for row, written in ((0, 10), (1, 5)):  # 7 positions before the first
        for found, expected, filling in (
            (stopped.codes.flatten(1, 2), whole.codes.flatten(1, 2), -1),
            (stopped.scores, whole.scores, float("nan")),
            (stopped.code_log_probs, whole.code_log_probs, float("nan")),
        ):
            assert torch.equal(found[row, :written], expected[row, :written])
            rest = found[row, written:]
            torch.testing.assert_close(rest, torch.full_like(rest, filling), equal_nan=True)
    assert torch.equal(torch.stack(positions, 1), stopped.codes.flatten(1, 2)[:, :10])


def test_what_a_streamer_writes_over_codes_has_no_log_probability(model):
    class Streamer:
        position = 0

        def put(self, ids):
            pass

        def put_visual(self, codes):
            self.position += 1
            if self.position == 4:
                codes = codes.clone()
                codes[0, 1] = (codes[0, 1] + 1) % 24
            return codes

        def end(self):
            pass

    prompts = left_padded(PROMPTS)
    output = draw(model, streamer=Streamer(), return_dict_in_generate=True, output_log_probs=True, output_scores=True)
    labels = output.sequences.where(output.sequences == 58, -100)
    mask = torch.cat([prompts["attention_mask"], torch.ones(2, 17, dtype=torch.long)], 1)
    settings = {"input_ids": output.sequences, "labels": labels, "attention_mask": mask}
    settings["codes"] = output.codes.flatten(1, 2)
    lost = torch.zeros(2, 16, 3, dtype=torch.bool)
    lost[0, 3, 1:] = True  # what was drawn there followed another code
    for found, scale in ((output.code_log_probs, 3.0), (output.conditional_code_log_probs, 1.0)):
        expected = model.score(**settings, guidance_scale=scale).code_log_probs[:, 7:]
        expected = expected.masked_fill(lost, torch.nan)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0, equal_nan=True)
    assert torch.equal(output.scores.isnan(), lost[..., None].expand_as(output.scores))


def test_criteria_count_the_positions_of_the_rows_not_of_a_longer_negative_prompt(model):
    seen, negative = [], torch.tensor([[1, *range(10, 30)]])

    def never(ids, scores):
        seen.append(ids.shape[1])
        return torch.zeros(len(ids), dtype=torch.bool)

    codes = draw(model, negative_prompt_ids=negative, stopping_criteria=StoppingCriteriaList([never]))
    assert seen == list(range(8, 24))  # prompts of 6, the marker, 16 positions
    assert torch.equal(codes, draw(model, negative_prompt_ids=negative))


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_scores_of_what_was_sampled_equal_one_teacher_forced_pass(model, scale):
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


def test_scores_of_text_are_those_of_generation_and_carry_gradients(model):
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


def test_scores_of_interleaved_rows_split_into_their_spans(model):
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


@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_nothing_inside_a_span_waits_for_the_device(model, scale, cache):
    counts = []
    for frames in (1, 3):
        with HostReads() as reads:
            model.generate(
                **left_padded(PROMPTS),
                generation_mode="video",
                num_frames=frames,
                guidance_scale=scale,
                seed=0,
                **cache,
            )
        counts.append(reads.count)
    assert counts[0] == counts[1]  # some before the span, none for each of its positions


@pytest.mark.parametrize("kind", ["offloaded", "offloaded_static"])
def test_a_cache_is_not_offloaded_to_where_it_is(model, kind):
    with pytest.raises(ValueError, match="needs a model on an accelerator, got one on the CPU"):
        draw(model, cache_implementation=kind)
