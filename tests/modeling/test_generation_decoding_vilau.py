"""The loop over visual positions: first frames, stopping criteria, streamers, waits for the device."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import StoppingCriteriaList

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


def test_first_frames_are_kept_and_change_later_frames(model):
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


def test_stopping_criteria_leave_a_span_unfinished(model):
    codes = draw(
        model, stopping_criteria=StoppingCriteriaList([lambda ids, scores: torch.tensor([ids.shape[1] >= 12] * 2)])
    )
    assert torch.equal(codes.flatten(1, 2)[:, :5], draw(model).flatten(1, 2)[:, :5])
    assert (codes.flatten(1, 2)[:, 5:] == -1).all()
    with pytest.raises(ValueError, match=r"`codes` must be in \[0, 24\), got values from -1"):
        model.decode_image_tokens(codes)


def test_a_stopped_row_stays_stopped_and_the_others_continue(model):
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
    for row, generated in ((0, 10), (1, 5)):  # 7 positions before the first
        for found, expected, filling in (
            (stopped.codes.flatten(1, 2), whole.codes.flatten(1, 2), -1),
            (stopped.scores, whole.scores, float("nan")),
            (stopped.code_log_probs, whole.code_log_probs, float("nan")),
        ):
            assert torch.equal(found[row, :generated], expected[row, :generated])
            rest = found[row, generated:]
            torch.testing.assert_close(rest, torch.full_like(rest, filling), equal_nan=True)
    assert torch.equal(torch.stack(positions, 1), stopped.codes.flatten(1, 2)[:, :10])


def test_codes_that_a_streamer_replaces_have_no_log_probability(model):
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
    lost[0, 3, 1:] = True  # deeper codes followed another code
    for found, scale in ((output.code_log_probs, 3.0), (output.conditional_code_log_probs, 1.0)):
        expected = model.score(**settings, guidance_scale=scale).code_log_probs[:, 7:]
        expected = expected.masked_fill(lost, torch.nan)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0, equal_nan=True)
    assert torch.equal(output.scores.isnan(), lost[..., None].expand_as(output.scores))


def test_criteria_see_the_length_of_the_rows_not_of_a_longer_negative_prompt(model):
    seen, negative = [], torch.tensor([[1, *range(10, 30)]])

    def never(ids, scores):
        seen.append(ids.shape[1])
        return torch.zeros(len(ids), dtype=torch.bool)

    codes = draw(model, negative_prompt_ids=negative, stopping_criteria=StoppingCriteriaList([never]))
    assert seen == list(range(8, 24))  # prompts of 6, the marker, 16 positions
    assert torch.equal(codes, draw(model, negative_prompt_ids=negative))


@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_no_position_of_a_span_waits_for_the_device(model, scale, cache):
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
def test_rejects_an_offloaded_cache_on_the_cpu(model, kind):
    with pytest.raises(ValueError, match="needs a model on an accelerator, got one on the CPU"):
        draw(model, cache_implementation=kind)


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (lambda codes: codes[:1], r"integer codes of shape \(2, 3\), got torch.int64 of shape \(1, 3\)"),
        (lambda codes: codes.float(), r"integer codes of shape \(2, 3\), got torch.float32"),
        (lambda codes: codes.tolist(), r"integer codes of shape \(2, 3\), got list"),
        (lambda codes: codes + 24, r"codes of `put_visual` must be in \[0, 24\), got 96 others"),
        (lambda codes: codes - 24, r"codes of `put_visual` must be in \[0, 24\), got 96 others"),
    ],
)
def test_rejects_codes_of_a_streamer_that_cannot_replace_the_codes(model, replace, message):
    class Streamer:
        def put(self, ids):
            pass

        def put_visual(self, codes):
            return replace(codes)

        def end(self):
            pass

    with pytest.raises(ValueError, match=f"`streamer`: .*{message}"):
        draw(model, streamer=Streamer())
