"""Settings of runs: values that a checkpoint saves, and mistakes that are found before anything is drawn."""

import pytest

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.evaluation.benchmark_layouts import get_layout
from vilau_hf.evaluation.drawing_model import load_pipeline
from vilau_hf.evaluation.drawing_settings import DrawingOptions, check_prompt_lengths, describe_drawing
from vilau_hf.evaluation.prompt_files import Prompt


PROMPTS = [Prompt("a cat", "a.txt, line 1"), Prompt("a dog", "a.txt, line 2")]


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(TINY_CHECKPOINT)


def describe(pipe, **options):
    return describe_drawing(pipe, PROMPTS, get_layout("plain"), DrawingOptions(**options), {"name": "tiny"})


def test_describes_given_settings_and_those_of_the_checkpoint(pipe):
    settings = describe(pipe, seed=3, sampling={"temperature": 0.7, "top_k": None, "visual_decoding": "parallel"})
    assert settings["guidance_scale"] == 1.5 and settings["top_p"] == pytest.approx(0.9)
    assert settings["temperature"] == 0.7 and settings["top_k"] == 0 and settings["visual_decoding"] == "parallel"
    assert settings["model"] == {"name": "tiny", "dtype": "float32"}
    assert settings["seeds"] == "image n of prompt i, both counted from 0: 3 + i * 1 + n"
    assert set(settings["versions"]) == {"vilau_hf", "torch", "transformers", "diffusers"}
    assert describe(pipe, is_video=True)["num_frames"] == 4
    assert describe(pipe, num_candidates=2, rank_by="answer")["ranking"]["ranking_answer"] == "{prompt}"
    assert describe(pipe, sampling={"do_sample": False})["do_sample"] is False


def test_hashes_prompts_with_their_fields(pipe):
    first = describe(pipe)["prompts"]
    changed = [PROMPTS[0], Prompt("a dog", "b.txt, line 9", {"tag": "x"})]
    second = describe_drawing(pipe, changed, get_layout("plain"), DrawingOptions(), {})["prompts"]
    assert first["number"] == second["number"] == 2 and first["sha256"] != second["sha256"]
    assert first == describe(pipe, seed=1)["prompts"]


def test_pipeline_arguments_leave_out_what_is_not_given(pipe):
    options = DrawingOptions(is_video=True, sampling={"top_p": None, "top_k": 5})
    assert options.pipeline_arguments(pipe) == {
        "top_k": 5,
        "num_frames": 4,
        "negative_prompt": None,
        "num_candidates": 1,
        "rank_by": "likelihood",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": {"guidance_scale": 0.5}}, "`guidance_scale` must be at least 1"),
        ({"sampling": {"temperature": -1.0}}, "temperature"),
        ({"sampling": {"top_p": 2.0}}, "top_p"),
        ({"sampling": {"steps": 4}}, "unknown setting 'steps'"),
        ({"num_candidates": 0}, "`num_candidates` must be an integer of at least 1, got 0"),
        ({"num_candidates": 2, "is_video": True}, "`num_candidates` must be 1 for videos, got 2"),
        ({"negative_prompt": "\ud800"}, "`negative_prompt`: the text is not UTF-8"),
        ({"num_frames": 2}, "`num_frames` is for videos, got 2 for images"),
        ({"num_frames": 0, "is_video": True}, "num_frames"),
    ],
)
def test_rejects_settings_out_of_range(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        DrawingOptions(**options).generation_settings(pipe)


def test_finds_the_first_prompt_that_is_too_long(pipe):
    long = Prompt("red " * 1000, "a.txt, line 3")
    check_prompt_lengths(pipe, PROMPTS, DrawingOptions())
    with pytest.raises(ValueError, match=r"a\.txt, line 3: the prompt of \d+ tokens and 64 new ones exceed"):
        check_prompt_lengths(pipe, [*PROMPTS, long], DrawingOptions())
    with pytest.raises(ValueError, match="`negative_prompt`: the prompt of"):
        check_prompt_lengths(pipe, PROMPTS, DrawingOptions(negative_prompt=long.text))
    with pytest.raises(ValueError, match=r"a\.txt, line 1: the prompt of \d+ tokens and 1280 new ones exceed"):
        check_prompt_lengths(pipe, PROMPTS, DrawingOptions(is_video=True, num_frames=20))
