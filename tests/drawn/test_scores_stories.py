import random

import pytest

from vilau_hf.drawn.oracle import read_drawing
from vilau_hf.drawn.scores_stories import is_shown, read_story
from vilau_hf.drawn.shapes import draw, drawings
from vilau_hf.drawn.stories import make_story, story_images
from vilau_hf.evaluation.sheets import to_pil


@pytest.fixture
def story():
    return make_story("train", random.Random(2))


@pytest.fixture
def items(story):
    """Returns the content items of a story as the dataset would contain them."""
    found = []
    for sentence, pixels in zip(story.sentences, story_images(story, 32, seed=0), strict=True):
        found += [{"type": "text", "text": sentence}, {"type": "image", "image": to_pil(pixels)}]
    return found


def test_a_true_story_passes_all_checks(story, items):
    assert read_story(items, story.request) == {"form": True, "request": True, "first": True, "second": True}


def test_a_story_of_another_shape_fails_only_the_check_of_the_request(items):
    checks = read_story(items, "tell a story of a pink horse")
    assert checks == {"form": True, "request": False, "first": True, "second": True}


def test_swapped_images_fail_the_checks_of_the_images(story, items):
    items[1], items[3] = items[3], items[1]
    checks = read_story(items, story.request)
    assert checks["form"] and not checks["first"] and not checks["second"]


@pytest.mark.parametrize("change", ["unfinished", "unknown event", "no image"])
def test_a_story_of_another_form_fails_all_checks(story, items, change):
    if change == "unfinished":
        items = items[:3]
    elif change == "unknown event":
        items[2]["text"] = "it sleeps"
    else:
        items[3]["image"] = None
    assert not any(read_story(items, story.request).values())


def test_is_shown_compares_all_five_attributes():
    drawing, other = drawings("train")[:2]  # they differ in the background
    reading = read_drawing(draw([drawing]))[0]
    assert is_shown(reading, drawing) and not is_shown(reading, other)
