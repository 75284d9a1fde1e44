"""Parallel decoding, compared with sequential decoding of the same call."""

import pytest
import torch
from transformers import LogitsProcessorList

from vilau_hf import TINY_CHECKPOINT, VilaUConfig, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.drawn.shapes import drawings, motions

from ..conftest import DEPTH, TEXT, TOKEN_IDS, VISION
from .test_generation_loops_vilau import talker  # noqa: F401 - a fixture
from .test_generation_vilau import PROMPTS, left_padded


# All comparisons are in float64. A pass over several positions rounds differently from a pass over one. In float32
# this changes a code now and then where two candidates nearly tie, and such a test would fail on some machines.
@pytest.fixture
def model(model):
    return model.double()


def draw(model, window=None, prompts=PROMPTS, **settings):
    """Generates with parallel decoding, or sequentially if `window` is 0."""
    if window != 0:
        settings |= {"visual_decoding": "parallel", "parallel_window": window}
    return model.generate(**left_padded(prompts), **{"generation_mode": "image", **settings})


def first_frames(rows):
    return torch.randint(0, 24, (rows, 1, 16, 3))


SETTINGS = {
    "seeds": {"seed": 5},
    "greedy": {"visual_do_sample": False},
    "one branch": {"seed": 5, "guidance_scale": 1.0},
    "scales by row": {"seed": 5, "guidance_scale": [1.5, 4.0]},
    "scales by position": {"seed": 5, "guidance_scale": torch.linspace(1, 4, 32).view(2, 16)},
    "truncation by depth": {"seed": 5, "visual_top_k": [3, 0, 9], "visual_top_p": 0.8, "visual_temperature": 0.7},
    "min-p": {"seed": 5, "visual_min_p": 0.3, "visual_top_k": 0},
    "several results": {"seed": [1, 2, 3, 4], "num_return_sequences": 2},
    "video": {"seed": 5, "generation_mode": "video", "num_frames": 3},
    "first frames": {"generation_mode": "video", "num_frames": 3, "seed": 5, "first_frames": first_frames(2)},
    "three first frames": {
        "generation_mode": "video",
        "num_frames": 4,
        "seed": 5,
        "first_frames": torch.randint(0, 24, (2, 3, 16, 3)),
    },
    "one first frame": {"generation_mode": "video", "num_frames": 2, "seed": 5, "first_frames": first_frames(1)},
    "static cache": {"seed": 5, "cache_implementation": "static"},
    "one row": {"seed": 5, "prompts": PROMPTS[:1]},
    "long negative prompt": {"seed": 5, "negative_prompt_ids": torch.arange(3, 40)[None]},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_codes_equal_those_of_sequential_decoding(model, name):
    expected = draw(model, 0, **SETTINGS[name])
    for window in (None, 1, 3, 16):
        assert torch.equal(draw(model, window, **SETTINGS[name]), expected), window


def test_edits_with_three_branches_equal_sequential_decoding(model):
    settings = {
        "input_ids": torch.tensor([[1, 54, *[58] * 16, 55, 9, 5]] * 2),
        "codes": torch.randint(0, 24, (2, 16, 3)),
        "image_prompt_ids": torch.tensor([[1, 54, *[58] * 16, 55]] * 2),
        "generation_mode": "image",
        "guidance_scale": 3.0,
        "image_guidance_scale": 1.5,
        "seed": 0,
    }
    expected = model.generate(**settings)
    for window in (None, 4):
        assert torch.equal(model.generate(**settings, visual_decoding="parallel", parallel_window=window), expected)


def test_eager_attention_gives_the_codes_of_sequential_decoding(model):
    model.float()  # the library's eager attention computes its softmax in float32, where the mask of float64 is -inf
    model.set_attn_implementation("eager")
    assert torch.equal(draw(model, 5, seed=1), draw(model, 0, seed=1))


def test_generators_are_used_as_by_sequential_decoding(model):
    """Includes their states after the call, and the default generator of torch."""
    for window in (0, 5):
        shared = torch.Generator().manual_seed(3)
        by_row = [torch.Generator().manual_seed(seed) for seed in (8, 9)]
        torch.manual_seed(4)
        codes = [draw(model, window, generator=each) for each in (shared, by_row, None)]
        states = [each.get_state() for each in (shared, *by_row, torch.default_generator)]
        if window == 0:
            expected = (codes, states)
    for found, wanted in zip((codes, states), expected, strict=True):
        assert all(map(torch.equal, found, wanted))


def test_output_has_the_scores_and_log_probabilities_of_sequential_decoding(model):
    settings = {"seed": 5, "return_dict_in_generate": True, "output_scores": True, "output_log_probs": True}
    found, expected = (draw(model, window, **settings) for window in (6, 0))
    assert torch.equal(found.codes, expected.codes) and torch.equal(found.sequences, expected.sequences)
    for name in ("scores", "code_log_probs", "conditional_code_log_probs"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-4, rtol=0)


class Recorder:
    """A streamer that records codes, and that may change codes of some positions."""

    def __init__(self, changed=()):
        self.changed = changed
        self.seen = []
        self.ended = False

    def put(self, ids):
        """Ignores the prompts."""

    def put_visual(self, codes):
        position = len(self.seen)
        self.seen.append(codes.clone())
        if position in self.changed:
            codes = codes.clone()
            codes[position % 2] = (codes[position % 2] + 1) % 24
            return codes
        return None

    def end(self):
        self.ended = True


@pytest.mark.parametrize("changed", [(), (0, 3, 4, 15)])
def test_streamers_get_each_position_once_and_may_change_its_codes(model, changed):
    found, expected = Recorder(changed), Recorder(changed)
    settings = {"seed": 5, "return_dict_in_generate": True, "output_log_probs": True}
    output = draw(model, 6, streamer=found, **settings)
    reference = draw(model, 0, streamer=expected, **settings)
    assert torch.equal(output.codes, reference.codes)
    assert torch.equal(torch.stack(found.seen), torch.stack(expected.seen)) and found.ended
    torch.testing.assert_close(output.code_log_probs, reference.code_log_probs, atol=1e-4, rtol=0, equal_nan=True)


def test_criteria_are_asked_at_each_position_and_stop_rows(model):
    def generate(window):
        lengths = []

        def stop(ids, scores):
            lengths.append(ids.shape[1])
            return torch.tensor([ids.shape[1] > 12, ids.shape[1] > 9])

        return draw(model, window, seed=5, stopping_criteria=[stop]), lengths

    found, expected = generate(6), generate(0)
    assert torch.equal(found[0], expected[0]) and found[1] == expected[1]
    assert (found[0][1].flatten(0, 1)[-1] == -1).all()


@pytest.mark.parametrize("more", [{"do_sample": True}, {"do_sample": False, "visual_do_sample": False}])
@pytest.mark.parametrize("window", [None, 5])
def test_interleaved_output_equals_that_of_sequential_decoding(talker, window, more):  # noqa: F811 - a fixture
    settings = {
        "generation_mode": "interleaved",
        "prompts": [[1, 5, 6, 54], [1, 9, 4, 4], [1, 7, 56]],
        "num_frames": 2,
        "guidance_scale": 2.5,
        "max_new_tokens": 60,
        "seed": 3,
        "output_log_probs": True,
        **more,
    }
    found, expected = draw(talker, window, **settings), draw(talker, 0, **settings)
    assert torch.equal(found.sequences, expected.sequences) and torch.equal(found.visual_codes, expected.visual_codes)
    torch.testing.assert_close(found.code_log_probs, expected.code_log_probs, atol=1e-4, rtol=0)
    assert sum(map(len, found.spans)) > 2


def test_repeated_codes_need_few_passes(model):
    """Code embeddings of zero make all positions after the first equal, and greedy drafts right."""
    torch.nn.init.zeros_(model.model.multi_modal_projector.linear_2.weight)
    model.model.language_model.rotary_emb.inv_freq.zero_()
    passes = []
    model.model.language_model.register_forward_hook(lambda *_: passes.append(1))
    for window, most in ((0, 16), (16, 4), (None, 6)):
        passes.clear()
        draw(model, window, visual_do_sample=False)
        assert len(passes) <= most, window


def test_first_drafts_are_the_codes_of_the_last_image(model):
    """The model generates code 7 alone, like the given frame."""
    torch.nn.init.zeros_(model.depth_transformer.code_head.weight)
    with torch.no_grad():
        model.depth_transformer.code_head.bias[7] = 9
    frame = torch.full((1, 1, 16, 3), 7)
    passes = []
    model.model.language_model.register_forward_hook(lambda *_: passes.append(1))
    settings = {"generation_mode": "video", "num_frames": 2, "visual_do_sample": False}
    draw(model, 16, first_frames=frame, **settings)
    assert len(passes) == 2  # the prompt, and one window


def test_generation_config_chooses_parallel_decoding(model):
    expected = draw(model, 0, seed=5)
    passes = []
    model.model.language_model.register_forward_hook(lambda *_: passes.append(1))
    model.generation_config.visual_decoding = "parallel"
    model.generation_config.parallel_window = 1
    assert torch.equal(draw(model, 0, seed=5), expected)


@pytest.fixture(scope="module")
def shipped():
    """Returns the shipped checkpoint, a list that has an entry for each pass of its language model, and prompts."""
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT, dtype=torch.float64).eval()
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    passes = []
    model.model.language_model.register_forward_hook(lambda *_: passes.append(1))

    def prompts(targets):
        chats = [[{"role": "user", "content": target.caption}] for target in targets]
        return processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )

    return model, passes, prompts


def compare_with_sequential(shipped, targets, mode, seeds, **parallel):
    """Compares the codes of `targets`, and returns the passes of both kinds of decoding."""
    model, passes, prompts = shipped
    inputs = {**prompts(targets), "generation_mode": mode, "seed": seeds}
    counts = []
    codes = []
    for settings in ({}, {"visual_decoding": "parallel", **parallel}):
        passes.clear()
        codes.append(model.generate(**inputs, **settings))
        counts.append(len(passes))
    assert torch.equal(*codes), seeds
    return counts


def test_images_of_the_shipped_checkpoint_need_fewer_passes(shipped):
    for window, share in ((None, 0.5), (32, 0.45)):
        counts = [
            compare_with_sequential(shipped, [target], "image", seed, parallel_window=window)
            for seed, target in enumerate(drawings("test")[:3])
        ]
        sequential, parallel = map(sum, zip(*counts, strict=True))
        assert sequential == 3 * 64 and parallel <= share * sequential


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 5])
def test_200_seeds_give_the_codes_of_sequential_decoding(shipped, rows):
    targets = drawings("test")
    for seed in range(0, 200, rows):
        chosen = [targets[(seed + row) % len(targets)] for row in range(rows)]
        compare_with_sequential(shipped, chosen, "image", seed, parallel_window=(None, 4, 16, 64)[seed % 4])


@pytest.mark.slow
def test_videos_need_less_than_a_third_of_the_passes(shipped):
    counts = [
        compare_with_sequential(shipped, [target], "video", seed, parallel_window=64)
        for seed, target in enumerate(motions("test")[:10])
    ]
    sequential, parallel = map(sum, zip(*counts, strict=True))
    assert sequential == 10 * 256 and parallel <= sequential / 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"visual_decoding": "fast"}, "`visual_decoding` must be one of sequential, parallel, got 'fast'"),
        ({"parallel_window": 0}, "`parallel_window` must be an integer of at least 1, got 0"),
        ({"parallel_window": 4, "visual_decoding": "sequential"}, "`parallel_window` has an effect with .* only"),
        ({"code_logits_processor": LogitsProcessorList()}, "`code_logits_processor` is not supported with"),
        ({"cache_implementation": "quantized"}, "`cache_implementation='quantized'` is not supported with"),
        ({"generation_mode": "interleaved", "max_time": 9.0}, '`max_time` of `generation_mode="interleaved"` is not'),
    ],
)
def test_rejects_what_parallel_decoding_does_not_support(model, settings, message):
    with pytest.raises(ValueError, match=message):
        model.generate(
            **left_padded(PROMPTS), **{"generation_mode": "image", "visual_decoding": "parallel", **settings}
        )


def test_rejects_language_models_with_sliding_windows():
    text = {**TEXT, "model_type": "mistral", "sliding_window": 8}
    sizes = {"vision_config": VISION, "depth_config": DEPTH, "text_config": text}
    model = VilaUForConditionalGeneration(VilaUConfig(**sizes, **TOKEN_IDS)).eval()
    with pytest.raises(ValueError, match="layers all attend to all positions"):
        draw(model)
