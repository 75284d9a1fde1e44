import random

import pytest
import torch

from vilau_hf.drawn import drawn_shapes
from vilau_hf.drawn.oracle import read_drawing
from vilau_hf.drawn.shapes import HELD_OUT_DRAWINGS, Drawing
from vilau_hf.drawn.stories import EDITS, edit_images, make_edit, make_story, read_event, story_images


def held_out(drawing):
    return (drawing.color, drawing.shape, drawing.place) in HELD_OUT_DRAWINGS


def shows(pixels, drawing):
    reading = read_drawing(pixels[None])[0]
    return all(getattr(reading, name) == value for name, value in vars(drawing).items())


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", EDITS)
def test_edits_change_only_what_the_instruction_names(kind, split):
    choice = random.Random(0)
    for seed in range(20):
        edit = make_edit(kind, split, choice)
        assert held_out(edit.after) == (split == "test")
        before, after = edit_images(edit, 32, seed)
        assert shows(after, edit.after)
        if kind == "add":
            assert before.flatten(1).unique(dim=1).shape[1] == 1 and edit.instruction in f"add {edit.after.caption}"
            continue
        assert shows(before, edit.before) and not held_out(edit.before)
        changed = {name for name, value in vars(edit.after).items() if value != getattr(edit.before, name)}
        assert changed == {"recolor": {"color"}, "move": {"place"}}[kind]
        assert edit.instruction.endswith(getattr(edit.after, *changed))


def test_images_and_sentences_of_a_story_agree():
    choice = random.Random(1)
    for seed in range(20):
        story = make_story("train", choice)
        assert Drawing.from_caption(story.sentences[0]) == story.drawings[0]
        assert read_event(story.drawings[0], story.sentences[1]) == story.drawings[1]
        assert story.drawings[0].short_caption in story.request
        assert all(map(shows, story_images(story, 32, seed), story.drawings))
    assert read_event(story.drawings[0], "it sleeps") is None


def test_records_follow_the_message_schema():
    layouts = {
        "edit": (["image", "text"], ["image"], 2, 0),
        "story": (["text"], ["text", "image", "text", "image"], 2, 0),
        "continue_video": (["text"], ["video"], 0, 1),
    }
    for task, (user, assistant, images, videos) in layouts.items():
        dataset = drawn_shapes("test", 6, tasks={task: 1})
        for record in dataset:
            kinds = [[item["type"] for item in message["content"]] for message in record["messages"]]
            assert kinds == [user, assistant]
            assert (len(record["images"]), len(record["videos"])) == (images, videos)
            assert held_out(Drawing(**record["drawing"])) if task != "continue_video" else True
        assert dataset[2] == drawn_shapes("test", 6, tasks={task: 1})[2]


def test_rejects_unknown_splits():
    with pytest.raises(ValueError, match='`split` must be "train" or "test"'):
        make_edit("move", "validation", random.Random(0))


def test_images_of_an_edit_depend_only_on_the_seed():
    assert torch.equal(*(edit_images(make_edit("move", "train", random.Random(3)), 32, 5) for _ in range(2)))
