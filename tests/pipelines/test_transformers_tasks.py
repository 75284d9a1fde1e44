"""The other tasks of transformers' `pipeline` on the shipped checkpoint."""

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, pipeline

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.drawn import drawn_shapes
from vilau_hf.drawn.oracle import read_drawing


CIRCLE = "a large blue circle in the center on a black background"


@pytest.fixture(scope="module")
def record():
    return drawn_shapes("test", 1, tasks={"text_to_image": 1}, seed=3)[0]


def pixels_of(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def question(image):
    content = [{"type": "image", "image": image}, {"type": "text", "text": "what color is the shape?"}]
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("task", ["image-text-to-text", "any-to-any"])
def test_text_tasks_answer_questions_about_images(task, record):
    ask = pipeline(task, model=TINY_CHECKPOINT)
    chat = question(record["images"][0])
    settings = {"generate_kwargs": {"do_sample": False, "max_new_tokens": 8}, "return_full_text": False}
    (result,) = ask(text=chat, **settings)
    assert result["generated_text"].strip() == record["drawing"]["color"]
    results = ask(text=[chat] * 3, batch_size=2, **settings)
    assert [answer["generated_text"] for (answer,) in results] == [result["generated_text"]] * 3


def test_any_to_any_generates_an_image():
    (result,) = pipeline("any-to-any", model=TINY_CHECKPOINT)(
        text=[{"role": "user", "content": [{"type": "text", "text": CIRCLE}]}],
        generation_mode="image",
        generate_kwargs={"do_sample": False},
    )
    (reading,) = read_drawing(pixels_of(result["generated_image"])[None])
    assert (reading.color, reading.shape) == ("blue", "circle")


def test_any_to_any_accepts_one_config_for_text_and_images(record):
    task = pipeline("any-to-any", model=TINY_CHECKPOINT)
    chat = [{"role": "user", "content": [{"type": "text", "text": CIRCLE}]}]
    config = GenerationConfig(do_sample=False, max_new_tokens=8, top_k=20)
    settings = {"generation_mode": "image", "generate_kwargs": {"generation_config": config}}
    (result,) = task(text=chat, **settings)
    (expected,) = task(text=chat, generation_mode="image", generate_kwargs={"do_sample": False})
    assert np.array_equal(np.array(result["generated_image"]), np.array(expected["generated_image"]))
    (answer,) = task(text=question(record["images"][0]), generate_kwargs={"generation_config": config})
    assert isinstance(answer["generated_text"], (str, list))


def test_zero_shot_classification_finds_colour_and_shape(record):
    classify = pipeline("zero-shot-image-classification", model=f"{TINY_CHECKPOINT}/tower")
    right = f"{record['drawing']['color']} {record['drawing']['shape']}"
    others = [f"{color} {record['drawing']['shape']}" for color in ("red", "green", "blue", "yellow")]
    labels = list(dict.fromkeys([*others, right]))
    results = classify(record["images"][0], candidate_labels=labels, hypothesis_template="a {}")
    assert results[0]["label"] == right
