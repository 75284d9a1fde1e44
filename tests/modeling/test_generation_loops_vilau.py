"""Text and visual spans in turn, compared with a reference that recomputes everything."""

import pytest
import torch
from transformers import GenerationConfig

from .test_generation_vilau import PROMPTS, left_padded


STARTS, ENDS, PLACEHOLDERS = {54: 16, 56: 32}, {54: 55, 56: 57}, {54: 58, 56: 59}


@pytest.fixture
def talker(model):
    """Returns a model that opens images and videos now and then."""
    with torch.no_grad():
        model.lm_head.weight[54] = model.lm_head.weight[[7, 9, 30]].mean(0) * 4
        model.lm_head.weight[56] = model.lm_head.weight[[11, 21]].mean(0) * 2
    return model


@torch.no_grad()
def last_hidden(model, items):
    """Returns the last hidden state after `items`: ids, and tensors of D codes."""
    rows = []
    for item in items:
        if isinstance(item, int):
            rows.append(model.get_input_embeddings().weight[item])
        else:
            embeddings = model.model.vision_tower.quantizer.codebook(item)
            rows.append(model.model.multi_modal_projector(embeddings.sum(0)))
    return model.model.language_model(inputs_embeds=torch.stack(rows)[None], use_cache=False).last_hidden_state[:, -1]


@torch.no_grad()
def greedy_codes(model, hidden, negative_hidden, scale):
    codebook, codes = model.model.vision_tower.quantizer.codebook, []
    for depth in range(3):
        padded = torch.tensor([codes + [0] * (3 - depth)])
        conditional = model.depth_transformer(hidden, codebook(padded))[0, depth]
        unconditional = model.depth_transformer(negative_hidden, codebook(padded))[0, depth]
        codes.append((unconditional + scale * (conditional - unconditional)).argmax().item())
    return torch.tensor(codes)


@torch.no_grad()
def naive(model, prompt, max_length, scale, spans_allowed, negative=(1, 5)):
    """Returns the items of one row, greedy, without cache, padding or batch."""
    items, remaining, start, spans = list(prompt), 0, None, 0
    while len(items) < max_length:
        hidden = last_hidden(model, items)
        if remaining:
            done = items[len(items) - (STARTS[start] - remaining) :] if remaining < STARTS[start] else []
            negative_hidden = last_hidden(model, [*negative, start, *done])
            items.append(greedy_codes(model, hidden, negative_hidden, scale))
            remaining -= 1
            continue
        if start is not None:
            items.append(ENDS[start])
            start = None
            continue
        logits = model.lm_head(hidden)[0]
        logits[[55, 57, 58, 59]] = -torch.inf
        if spans >= spans_allowed:
            logits[[54, 56]] = -torch.inf
        items.append(logits.argmax().item())
        if items[-1] == 2:
            break
        if items[-1] in STARTS:
            start, remaining, spans = items[-1], STARTS[items[-1]], spans + 1
    return items


@pytest.mark.parametrize(("scale", "negative"), [(1.0, [1, 5]), (2.5, [1, 5]), (2.5, [1, *range(10, 39)])])
def test_rows_equal_a_naive_reference_for_each_row_alone(talker, scale, negative):
    prompts = [*PROMPTS, [1, 20, 31], [1, 8]]
    length = max(map(len, prompts))
    new = 60
    output = talker.generate(
        **left_padded(prompts),
        generation_mode="interleaved",
        num_frames=2,
        guidance_scale=scale,
        negative_prompt_ids=torch.tensor([negative]),
        do_sample=False,
        visual_do_sample=False,
        max_visual_spans=2,
        max_new_tokens=new,
    )
    assert output.prompt_length == length and output.sequences.shape[1] == length + new
    kinds = set()
    for row, prompt in enumerate(prompts):
        expected = naive(talker, prompt, len(prompt) + new, scale, 2, negative)[len(prompt) :]
        ids, codes = output.sequences[row, length:].tolist(), output.visual_codes[row, length:]
        for position, item in enumerate(expected):
            if isinstance(item, int):
                assert ids[position] == item and (codes[position] == -1).all(), (row, position)
            else:
                assert ids[position] in PLACEHOLDERS.values() and torch.equal(codes[position], item), (row, position)
        assert all(index == 0 for index in ids[len(expected) :])
        for span in output.spans[row]:
            tokens = 16 if span.kind == "image" else 32
            kinds.add((span.kind, span.codes is not None))
            assert (span.codes is not None) == (span.num_tokens == tokens)
            if span.codes is not None:
                assert torch.equal(span.codes.reshape(-1, 3), output.visual_codes[row, span.begin :][:tokens])
    assert len(kinds) >= 3  # images and videos, finished and cut off


def test_rows_end_at_the_last_position_after_the_longest_prompt(talker):
    settings = {"generation_mode": "interleaved", "max_new_tokens": 999, "eos_token_id": None, "do_sample": False}
    settings["max_visual_spans"] = 0
    negative = torch.full((1, 200), 7)
    for more, new in (({}, 250), ({"negative_prompt_ids": negative}, 256 - 201)):  # the marker is the 201st
        assert talker.generate(**left_padded(PROMPTS), **settings, **more).sequences.shape[1] == 6 + new


def test_modalities_and_the_number_of_spans_can_be_limited(talker):
    settings = {"generation_mode": "interleaved", "max_new_tokens": 90, "guidance_scale": 1.0, "seed": 0}
    for limits, kinds in (
        ({"max_visual_spans": 0}, set()),
        ({"allowed_modalities": ("text",)}, set()),
        ({"allowed_modalities": ("text", "image")}, {"image"}),
        ({"allowed_modalities": ("text", "video"), "num_frames": 1}, {"video"}),
    ):
        output = talker.generate(**left_padded(PROMPTS), do_sample=True, **settings, **limits)
        assert {span.kind for row in output.spans for span in row} == kinds
    config = GenerationConfig(max_new_tokens=7, eos_token_id=None)
    del settings["max_new_tokens"]
    assert talker.generate(torch.tensor([[1, 5]]), generation_config=config, **settings).sequences.shape == (1, 9)
    with pytest.raises(ValueError, match="`output_scores` is for"):
        talker.generate(**left_padded(PROMPTS), **settings, output_scores=True)
    with pytest.raises(ValueError, match="`allowed_modalities` must be among text, image, video"):
        talker.generate(**left_padded(PROMPTS), **settings, allowed_modalities=("text", "sound"))


@pytest.mark.parametrize("seeds", [[1, 2], [7, 8], [9, 10], [11, 12]])
def test_a_seeded_row_does_not_depend_on_the_other_rows(talker, seeds):
    settings = {"generation_mode": "interleaved", "max_new_tokens": 50, "do_sample": True, "num_frames": 1}
    prompts = [PROMPTS[0], PROMPTS[0][:2] + [7]]
    both = talker.generate(**left_padded(prompts), seed=seeds, **settings)
    is_visual = both.visual_codes[:, 3:, 0] >= 0
    is_text = ~is_visual & (both.sequences[:, 3:] != 0)
    assert (is_visual & is_text.flip(0)).any()  # one row is in a span while the other generates text
    for row, prompt in enumerate(prompts):
        alone = talker.generate(torch.tensor([prompt]), seed=seeds[row], **settings)
        width = alone.sequences.shape[1]
        assert torch.equal(both.sequences[row, :width], alone.sequences[0])
        assert torch.equal(both.visual_codes[row, :width], alone.visual_codes[0])


def test_a_prompt_can_open_the_span(talker):
    ids = torch.tensor([[1, 5, 54]])
    settings = {"do_sample": False, "visual_do_sample": False, "guidance_scale": 3.0}
    output = talker.generate(ids, generation_mode="interleaved", max_new_tokens=17, **settings)
    image = talker.generate(ids, generation_mode="image", **settings)
    assert torch.equal(output.spans[0][0].codes, image[0]) and output.sequences[0, -1] == 55


def test_a_batch_can_mix_prompts_that_open_spans_with_others(talker):
    prompts = [[1, 5, 6, 54], [1, 9, 4, 4], [1, 7, 56]]
    settings = {
        "generation_mode": "interleaved",
        "do_sample": False,
        "visual_do_sample": False,
        "guidance_scale": 3.0,
        "num_frames": 1,
        "max_new_tokens": 60,
        "max_visual_spans": 2,
    }
    batch = talker.generate(**left_padded(prompts), **settings)
    for row, prompt in enumerate(prompts):
        alone = talker.generate(torch.tensor([prompt]), **settings)
        begin, width = 4 - len(prompt), alone.sequences.shape[1]
        assert batch.sequences[row, begin : begin + width].tolist() == alone.sequences[0].tolist(), row
        assert torch.equal(batch.visual_codes[row, begin : begin + width], alone.visual_codes[0]), row
    assert [span.begin for row in batch.spans for span in row][:1] == [4] and batch.prompt_length == 4


@pytest.mark.parametrize(
    ("negative", "prefix"),
    [([1, 5], []), ([1, 5, 54], []), ([1, 5], [9, 4]), ([1, 5, 9, 4, 54], [9, 4])],
)
def test_the_unconditional_branch_of_each_span_is_the_negative_prompt_and_one_marker(
    talker, negative, prefix, monkeypatch
):
    monkeypatch.setattr(talker.config, "start_marker_prefix_ids", prefix)
    output = talker.generate(
        torch.tensor([[1, 5, 54]]),
        generation_mode="interleaved",
        negative_prompt_ids=torch.tensor([negative]),
        guidance_scale=2.5,
        num_frames=1,
        do_sample=True,
        seed=0,
        max_new_tokens=100,
        eos_token_id=None,
        output_log_probs=True,
    )
    assert len(output.spans[0]) > 1
    labels = output.sequences.where((output.visual_codes >= 0).any(-1), -100)
    settings = {"input_ids": output.sequences, "labels": labels, "visual_codes": output.visual_codes}
    guided = talker.score(**settings, guidance_scale=2.5, negative_prompt_ids=torch.tensor([[1, 5]])).code_log_probs
    torch.testing.assert_close(guided, output.code_log_probs, atol=1e-4, rtol=0)


def test_streamers_receive_text_and_codes_in_order(talker):
    class Streamer:
        def __init__(self):
            self.received = []

        def put(self, ids):
            self.received.append(ids.tolist())

        def put_visual(self, codes):
            self.received.append(codes)

        def end(self):
            self.received.append("end")

    streamer = Streamer()
    output = talker.generate(
        torch.tensor([[1, 5, 54]]),
        generation_mode="interleaved",
        max_new_tokens=18,
        guidance_scale=1.0,
        do_sample=False,
        streamer=streamer,
    )
    prompt, *codes = streamer.received[:17]
    assert prompt == [[1, 5, 54]]
    assert torch.equal(torch.cat(codes), output.spans[0][0].codes.flatten(0, 1))
    assert streamer.received[17] == [55] and streamer.received[-1] == "end"


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_log_probabilities_of_spans_equal_one_teacher_forced_pass(talker, scale):
    output = talker.generate(
        torch.tensor([[1, 5]]),
        generation_mode="interleaved",
        num_frames=1,
        guidance_scale=scale,
        do_sample=False,
        seed=1,
        max_new_tokens=70,
        output_log_probs=True,
    )
    assert len(output.spans[0]) > 1
    labels = output.sequences.where((output.visual_codes >= 0).any(-1), -100)
    settings = {"input_ids": output.sequences, "labels": labels, "visual_codes": output.visual_codes}
    guided = talker.score(**settings, guidance_scale=scale).code_log_probs
    torch.testing.assert_close(guided, output.code_log_probs, atol=1e-4, rtol=0)
    unguided = talker.score(**settings).code_log_probs
    torch.testing.assert_close(unguided, output.conditional_code_log_probs, atol=1e-4, rtol=0)
