"""The tasks "text-to-image" and "text-to-video" of transformers' `pipeline` on the shipped checkpoint."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from vilau_hf import TINY_CHECKPOINT, VilaUTextToImagePipeline
from vilau_hf.drawn.oracle import read_drawing


CROSS = "a small red cross at the bottom on a white background"
CIRCLE = "a large blue circle in the center on a black background"


@pytest.fixture(scope="module")
def draw():
    return pipeline("text-to-image")


def pixels_of(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_default_model_generates_the_image_of_a_prompt(draw):
    assert type(draw) is VilaUTextToImagePipeline
    (result,) = draw(CROSS, seed=0)
    (reading,) = read_drawing(pixels_of(result["generated_image"])[None])
    assert (reading.color, reading.shape, reading.background) == ("red", "cross", "white")


def test_seed_generator_and_chat_give_the_same_image(draw):
    chat = [{"role": "user", "content": CROSS}]
    images = [
        draw(CROSS, seed=4),
        draw(CROSS, generator=torch.Generator().manual_seed(4)),
        draw(chat, seed=4),
    ]
    first, *others = (np.array(result[0]["generated_image"]) for result in images)
    assert all(np.array_equal(first, other) for other in others)
    with pytest.raises(ValueError, match="`seed` and `generator`"):
        draw(CROSS, seed=4, generator=torch.Generator())
    with pytest.raises(ValueError, match="`prompt` must be a string or a chat, got int"):
        draw(3)
    with pytest.raises(ValueError, match=r"`seed` must be an integer, got \[0, 1\]"):
        draw(CROSS, seed=[0, 1])


def test_images_of_a_seed_do_not_depend_on_the_other_prompts_of_a_batch(draw):
    def drawn(prompt, **settings):
        results = draw(prompt, **settings)
        return np.array([np.array(result["generated_image"]) for result in results], dtype=int)

    alone = {prompt: np.concatenate([drawn(prompt, seed=seed) for seed in (3, 4)]) for prompt in (CROSS, CIRCLE)}
    assert abs(alone[CROSS][0] - alone[CROSS][1]).max() > 20
    for batch_size in (1, 2):
        results = draw(list(alone), seed=3, num_images_per_prompt=2, batch_size=batch_size)
        for expected, row in zip(alone.values(), results, strict=True):
            found = np.array([np.array(result["generated_image"]) for result in row], dtype=int)
            assert abs(found - expected).max() <= 1  # pixels are rounded


@pytest.mark.parametrize("batch_size", [1, 2])
def test_generates_images_of_lists_and_iterators_in_batches(draw, batch_size):
    prompts = [CROSS, CIRCLE, CROSS]
    results = draw(prompts, batch_size=batch_size, num_images_per_prompt=2, do_sample=False)
    streamed = list(draw((prompt for prompt in prompts), batch_size=batch_size, do_sample=False))
    assert [len(result) for result in results] == [2, 2, 2] and len(streamed) == 3
    for result, one in zip(results, streamed, strict=True):
        assert np.array_equal(np.array(result[0]["generated_image"]), np.array(one[0]["generated_image"]))
    assert not np.array_equal(np.array(results[0][0]["generated_image"]), np.array(results[1][0]["generated_image"]))


def test_passes_settings_to_generate(draw):
    plain, guided, against = (
        np.array(draw(CROSS, do_sample=False, **settings)[0]["generated_image"])
        for settings in (
            {"guidance_scale": 1.0},
            {"guidance_scale": 6.0},
            {"guidance_scale": 3.0, "negative_prompt": CROSS},
        )
    )
    assert not np.array_equal(plain, guided) and np.array_equal(plain, against)


def test_loads_a_saved_pipeline(draw, tmp_path):
    draw.save_pretrained(tmp_path)
    again = pipeline("text-to-image", model=str(tmp_path), dtype=torch.float32, device="cpu")
    assert np.array_equal(*(np.array(p(CROSS, seed=0)[0]["generated_image"]) for p in (draw, again)))


def test_text_to_video_returns_frames():
    animate = pipeline("text-to-video", model=TINY_CHECKPOINT)
    (result,) = animate("a large blue circle moving left on a gray background", num_frames=3, seed=0)
    assert len(result["generated_video"]) == 3 and isinstance(result["generated_video"][0], Image.Image)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "x", torch.ones(2)])
def test_rejects_other_batch_sizes(draw, value):
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1"):
        draw([CROSS], batch_size=value)


def test_rejects_an_empty_list_of_prompts(draw):
    with pytest.raises(ValueError, match="`prompt` must have at least one prompt"):
        draw([])
