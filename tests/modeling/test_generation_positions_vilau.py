"""Positions that run as one compiled graph."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import LogitsProcessorList

from .test_generation_loops_vilau import talker  # noqa: F401 - a fixture
from .test_generation_vilau import PROMPTS, left_padded


class CountingBackend:
    """Runs graphs without compiling them, and counts the graphs and their calls."""

    def __init__(self):
        self.graphs = self.calls = 0

    def __call__(self, graph, example_inputs):
        self.graphs += 1

        def run(*args):
            self.calls += 1
            return graph.forward(*args)

        return run

    def __deepcopy__(self, memo):
        return self


@pytest.fixture
def backend(model):
    torch._dynamo.reset()
    counting = CountingBackend()
    model.compile_generation(backend=counting)
    yield counting
    model.compile_generation(False)


def draw(model, prompts=PROMPTS, **settings):
    return model.generate(**left_padded(prompts), **{"generation_mode": "image", **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"visual_do_sample": False},
        {"seed": 5},
        {"seed": [3, 4], "guidance_scale": [1.5, 4.0], "visual_temperature": [1.0, 0.8, 0.7]},
        {"seed": 5, "guidance_scale": 1.0},
        {"generation_mode": "video", "num_frames": 2, "generator": torch.Generator()},
        {"seed": [3, 4], "visual_decoding": "parallel", "parallel_window": 5},
        {"seed": 5, "visual_decoding": "parallel", "guidance_scale": 1.0},
    ],
)
def test_compiled_codes_equal_those_without_compilation(model, settings):
    def seeded():
        if "generator" in settings:
            settings["generator"].manual_seed(0)
        return draw(model, **settings)

    expected = seeded()
    torch._dynamo.reset()
    model.compile_generation(backend="aot_eager")
    found = seeded()
    model.compile_generation(False)
    assert torch.equal(found, expected)


def test_each_position_is_one_call_of_one_graph(model, backend):
    draw(model, seed=0)
    assert (backend.graphs, backend.calls) == (1, 15)  # the first of 16 positions follows text
    draw(model, PROMPTS[::-1], seed=1, guidance_scale=2.0)
    draw(model, [PROMPTS[0][:2], PROMPTS[1]], guidance_scale=torch.linspace(1, 4, 16)[None])
    assert (backend.graphs, backend.calls) == (1, 45)
    draw(model, visual_do_sample=False)
    draw(model, PROMPTS[:1])
    assert backend.graphs == 3


def test_each_window_is_one_call_of_one_graph(model, backend):
    settings = {"visual_decoding": "parallel", "parallel_window": 4}
    draw(model, seed=0, **settings)
    draw(model, PROMPTS[::-1], seed=1, guidance_scale=2.0, **settings)
    assert backend.graphs == 1 and backend.calls <= 30


def test_compiled_positions_follow_changed_weights(model, backend):
    before = draw(model, visual_do_sample=False)
    weight = model.depth_transformer.in_proj_code.weight
    original = weight.detach().clone()
    with torch.no_grad():
        weight.neg_()
    changed = draw(model, visual_do_sample=False)
    model.compile_generation(False)
    assert torch.equal(changed, draw(model, visual_do_sample=False)) and not torch.equal(changed, before)
    with torch.no_grad():
        weight.copy_(original)


@pytest.mark.parametrize(
    "target",
    [
        torch.bfloat16,
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
    ],
)
def test_a_compiled_model_can_change_dtype_and_device(model, backend, target):
    def moved(where, **settings):
        model.to(where)
        prompts = {name: tensor.to(model.device) for name, tensor in left_padded(PROMPTS).items()}
        return model.generate(**prompts, generation_mode="image", visual_do_sample=False, **settings).cpu()

    model.to(torch.bfloat16)  # rounds the weights, so that later changes of dtype lose nothing
    home = torch.float32 if isinstance(target, torch.dtype) else "cpu"
    compiled = [moved(where) for where in (home, target, home)]
    assert torch.equal(compiled[2], compiled[0]) and backend.graphs == 2
    model.compile_generation(False)
    assert torch.equal(compiled[1], moved(target, cache_implementation="static"))


def test_a_graph_returns_scores_and_log_probabilities(model):
    settings = {"seed": 2, "return_dict_in_generate": True, "output_scores": True, "output_log_probs": True}
    expected = draw(model, **settings)
    torch._dynamo.reset()
    model.compile_generation(backend="aot_eager")
    found = draw(model, **settings)
    model.compile_generation(False)
    for name in ("codes", "scores", "code_log_probs", "conditional_code_log_probs"):
        torch.testing.assert_close(found[name], expected[name])


def test_interleaved_spans_are_compiled_too(talker, backend):  # noqa: F811
    def tell():
        settings = {"generation_mode": "interleaved", "max_new_tokens": 40, "num_frames": 1, "do_sample": False}
        return talker.generate(torch.tensor([[1, 5]]), seed=3, **settings)

    found = tell()
    assert backend.calls > 0
    talker.compile_generation(False)
    expected = tell()
    assert torch.equal(found.sequences, expected.sequences) and torch.equal(found.visual_codes, expected.visual_codes)


def test_a_copy_of_a_compiled_model_has_its_graphs(model, backend):
    expected = draw(model, seed=0)
    assert torch.equal(draw(copy.deepcopy(model), seed=0), expected)
    assert backend.graphs == 2


def test_rejects_arguments_that_cannot_be_compiled(model, backend):
    for name, value in (("code_logits_processor", LogitsProcessorList()), ("cache_implementation", "static")):
        with pytest.raises(ValueError, match=f"`{name}` has no effect on compiled positions"):
            draw(model, **{name: value})
    model.hf_device_map = {"model": "cpu", "lm_head": "disk"}
    with pytest.raises(ValueError, match="with modules on cpu, disk cannot be compiled"):
        model.compile_generation()
    del model.hf_device_map


class CallingStreamer:
    """Calls a function after five positions."""

    def __init__(self, function):
        self.function = function
        self.count = 0

    def put(self, ids):
        pass

    def put_visual(self, codes):
        self.count += 1
        if self.count == 5:
            self.function()

    def end(self):
        pass


def test_concurrent_calls_give_the_codes_of_calls_in_turn(model, backend):
    # Greedy codes depend on the prompt, so calls that share a cache would differ from calls in turn.
    prompts = [[1, 5, token] for token in range(10, 16)]
    expected = [draw(model, [prompt], visual_do_sample=False) for prompt in prompts]
    assert len({tuple(codes.flatten().tolist()) for codes in expected}) == len(prompts)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda prompt: draw(model, [prompt], visual_do_sample=False), prompts * 2))
    for codes, other in zip(found, expected * 2, strict=True):
        assert torch.equal(codes, other)
    assert backend.graphs <= 3  # one for each thread at most, and idle ones are used again


def test_a_streamer_can_generate_in_the_middle_of_a_call(model, backend):
    expected = [draw(model, prompts, visual_do_sample=False) for prompts in (PROMPTS, PROMPTS[::-1])]
    inner = []
    streamer = CallingStreamer(lambda: inner.append(draw(model, PROMPTS[::-1], visual_do_sample=False)))
    assert torch.equal(draw(model, visual_do_sample=False, streamer=streamer), expected[0])
    assert torch.equal(inner[0], expected[1])
    assert model.position_graphs.num_idle == 2  # both workspaces are back


@pytest.mark.parametrize(
    ("first", "second"), [(torch.inference_mode, torch.enable_grad), (torch.no_grad, torch.inference_mode)]
)
def test_a_graph_serves_calls_with_and_without_inference_mode(model, backend, first, second):
    expected = draw(model, seed=0)
    with first():
        one = draw(model, seed=0)
    with second():
        other = draw(model, seed=0)
    assert torch.equal(one, expected) and torch.equal(other, expected)
    assert not other.requires_grad and backend.graphs == 1


def test_a_call_after_an_error_gives_the_codes_of_a_call_alone(model, backend):
    def fail():
        raise KeyError("stopped")

    expected = draw(model, visual_do_sample=False)
    with pytest.raises(KeyError, match="stopped"):
        draw(model, PROMPTS[::-1], visual_do_sample=False, streamer=CallingStreamer(fail))
    assert torch.equal(draw(model, visual_do_sample=False), expected) and backend.graphs == 1
