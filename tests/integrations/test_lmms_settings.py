import pytest
from transformers import GenerationConfig

from vilau_hf.integrations.lmms_settings import (
    MAX_NEW_TOKENS,
    MODES,
    SEED_STEP,
    AdapterSettings,
    TextSettings,
    positive_batch_size,
    split_drawing_prompt,
)


SAVED = GenerationConfig(max_new_tokens=32)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "draw"}, f"`mode` must be one of {', '.join(MODES)}, got 'draw'"),
        ({"output_form": "zip"}, "`output_form` must be one of json, folder, path, got 'zip'"),
        ({"seed": -1}, "`seed` must be an integer of at least 0, got -1"),
        ({"seed": 1.5}, "`seed` must be an integer of at least 0, got 1.5"),
        ({"num_images": 0}, "`num_images` must be an integer of at least 1, got 0"),
        ({"num_frames": True}, "`num_frames` must be an integer of at least 1, got True"),
        ({"drawing_prompt": "draw it"}, "`drawing_prompt` must contain {question}, got 'draw it'"),
        ({"visual": {"cfg": 3}}, "unknown `--model_args`: cfg. Accepted are .*guidance_scale.*visual_top_p"),
        (
            {"mode": "understanding", "visual": {"image_guidance_scale": 2.0}},
            "needs `mode=\"edit\"`, got 'understanding'",
        ),
    ],
)
def test_rejects_settings_out_of_range(given, message):
    with pytest.raises(ValueError, match=message):
        AdapterSettings("model", **given)


def test_images_have_seeds_of_their_document_and_number():
    settings = AdapterSettings("model", seed=7)
    assert settings.seed_of(3, 0) == 10
    assert settings.seed_of(3, 2) == 10 + 2 * SEED_STEP


def test_videos_are_paths_and_images_are_json_by_default():
    assert AdapterSettings("model").form_of("video") == "path"
    assert AdapterSettings("model").form_of("edit") == "json"
    assert AdapterSettings("model", output_form="folder").form_of("generate") == "folder"


def test_reads_settings_and_arguments_of_generate_from_one_dictionary():
    given = {"pretrained": "model", "seed": 3, "visual_top_p": 0.9}
    assert AdapterSettings.from_arguments(given) == AdapterSettings("model", seed=3, visual={"visual_top_p": 0.9})
    with pytest.raises(ValueError, match="unknown `--model_args`: visual"):
        AdapterSettings.from_arguments({"pretrained": "model", "visual": {}})


@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        ({}, {"max_new_tokens": 32, "do_sample": False}),
        ({"temperature": 0, "top_p": 1.0, "num_beams": 1}, {"max_new_tokens": 32, "num_beams": 1, "do_sample": False}),
        ({"do_sample": True, "temperature": 0}, {"max_new_tokens": 32, "do_sample": False}),
        ({"do_sample": False, "temperature": 0.7}, {"max_new_tokens": 32, "do_sample": False}),
        (
            {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 16},
            {"max_new_tokens": 16, "temperature": 0.7, "top_p": 0.9, "do_sample": True},
        ),
    ],
)
def test_temperature_zero_is_greedy(task, arguments):
    assert TextSettings.from_task(task, SAVED).arguments == arguments


def test_answers_have_a_length_limit_where_neither_task_nor_checkpoint_has_one():
    assert TextSettings.from_task({}, GenerationConfig()).arguments["max_new_tokens"] == MAX_NEW_TOKENS


def test_cuts_answers_at_the_first_stop():
    settings = TextSettings.from_task({"until": ["\n\n", "ASSISTANT:"]}, SAVED)
    assert settings.cut(" red ASSISTANT: blue\n\n ") == "red"
    assert TextSettings.from_task({"until": "."}, SAVED).cut("red. It is red.") == "red"
    assert TextSettings.from_task({"until": None}, SAVED).cut(" red\n\nblue ") == "red\n\nblue"


def test_warns_of_settings_without_effect(monkeypatch):
    messages = []
    monkeypatch.setattr("vilau_hf.integrations.lmms_settings.logger.warning_once", messages.append)
    TextSettings.from_task({"image_aspect_ratio": "pad", "penalty_alpha": 0.6}, SAVED)
    assert messages == ["generation settings of a task without effect on this model: penalty_alpha."]


@pytest.mark.parametrize("size", ["auto", 0, "1.5", True, None])
def test_rejects_batch_sizes_that_are_no_numbers(size):
    with pytest.raises(ValueError, match="must be an integer of at least 1, got"):
        positive_batch_size(size)


def test_takes_batch_sizes_of_the_command_line():
    assert positive_batch_size("8") == 8


def test_splits_the_prompt_of_the_image_from_the_question():
    text = "[GEN_PROMPT]draw {question} as lines[/GEN_PROMPT][QUESTION]\nhow many?\n[/QUESTION]"
    assert split_drawing_prompt(text, "unused {question}") == ("draw how many? as lines", "how many?")
    assert split_drawing_prompt("how many?", "draw: {question}") == ("draw: how many?", "how many?")
