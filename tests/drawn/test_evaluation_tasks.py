import pytest
import torch

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.drawn.evaluation_tasks import (
    ShapesCaptionChoice,
    ShapesCaptions,
    ShapesContinuation,
    ShapesEdits,
    ShapesQuestions,
    ShapesReconstruction,
    ShapesStories,
    ShapesTextToImage,
    ShapesTextToVideo,
    ShapesZeroShot,
)
from vilau_hf.drawn.scores import ATTRIBUTES
from vilau_hf.drawn.shapes import animate, draw
from vilau_hf.drawn.stories import EDITS, edit_images
from vilau_hf.evaluation.evaluated_model import EvaluatedModel
from vilau_hf.evaluation.task import TaskOptions


@pytest.fixture(scope="module")
def model():
    return EvaluatedModel(TINY_CHECKPOINT)


def images_of(result):
    return {name: image.tobytes() for name, image in result.media.items() if not isinstance(image, list)}


@pytest.mark.parametrize(
    "task_class", [ShapesTextToImage, ShapesEdits, pytest.param(ShapesStories, marks=pytest.mark.slow)]
)
def test_batch_size_and_neighbours_do_not_change_samples(model, task_class):
    task = task_class(model, TaskOptions(samples=6, seed=3))
    together = task.run([1, 5])
    alone = [task.run([index])[0] for index in (1, 5)]
    for one, other in zip(together, alone, strict=True):
        assert one.metrics == other.metrics and one.texts == other.texts
        assert images_of(one) == images_of(other)


def test_seeds_follow_the_index_of_a_sample(model):
    # sample 4 of seed 0 is drawn with the seed of sample 3 of seed 1
    first = ShapesTextToImage(model, TaskOptions(samples=6, seed=0))
    second = ShapesTextToImage(model, TaskOptions(samples=6, seed=1))
    second.conversation = lambda index: first.conversation(index + 1)
    assert images_of(first.run([4])[0]) == images_of(second.run([3])[0])


def test_true_images_and_videos_are_right(model):
    for task_class, render in ((ShapesTextToImage, draw), (ShapesTextToVideo, animate), (ShapesContinuation, animate)):
        task = task_class(model, TaskOptions(samples=6))
        conversations = [task.conversation(index) for index in range(6)]
        rows = task.score(conversations, render([each.reference for each in conversations]))
        assert all(row["all"] for row in rows)
    task = ShapesEdits(model, TaskOptions(samples=6))
    conversations = [task.conversation(index) for index in range(6)]
    edits = [each.reference for each in conversations]
    true = torch.stack([edit_images(edit, 32, index)[1] for index, edit in enumerate(edits)])
    rows = task.score(conversations, true)
    assert [edit.kind for edit in edits] == [*EDITS, *EDITS]
    assert all(row["right"] and row[edit.kind] for row, edit in zip(rows, edits, strict=True))
    before = torch.stack([edit_images(edit, 32, index)[0] for index, edit in enumerate(edits)])
    assert not any(row["right"] for row in task.score(conversations, before))


def test_a_continuation_begins_with_the_given_frames(model):
    task = ShapesContinuation(model, TaskOptions(samples=3))
    result = task.run([2])[0]
    assert list(result.media) == ["given-0", "given-1", "generated"]
    given = torch.frombuffer(bytearray(result.media["given-1"].tobytes()), dtype=torch.uint8).float()
    frame = torch.frombuffer(bytearray(result.media["generated"][1].tobytes()), dtype=torch.uint8).float()
    # the given frames pass through the codes of the tower
    assert (given - frame).abs().mean() < 10


def test_answers_are_compared_word_by_word(model):
    task = ShapesQuestions(model, TaskOptions(samples=10))
    results = task.run(range(10))
    assert sum(result.metrics["right"] for result in results) >= 8
    conversation = task.conversation(0)
    assert task.score([conversation], ["mauve"]) == [{"right": False}]


def test_a_description_is_read_attribute_by_attribute(model):
    task = ShapesCaptions(model, TaskOptions(samples=4))
    conversation = task.conversation(1)
    (right,) = task.score([conversation], [conversation.reference])
    assert right == {**dict.fromkeys(ATTRIBUTES, True), "all": True}
    other = "purple" if "purple" not in conversation.reference else "red"
    color = next(
        word
        for word in conversation.reference.split()
        if word in ("red", "green", "blue", "yellow", "purple", "orange")
    )
    (wrong,) = task.score([conversation], [conversation.reference.replace(color, other)])
    assert not wrong["color"] and not wrong["all"] and wrong["shape"] and wrong["background"]


def test_wrong_captions_differ_in_one_attribute(model):
    task = ShapesCaptionChoice(model, TaskOptions(samples=10))
    for index in range(10):
        target, other, name = task.pair(index)
        assert [each for each in ATTRIBUTES if getattr(target, each) != getattr(other, each)] == [name]
    results = task.run(range(10))
    assert sum(result.metrics["right"] for result in results) >= 8
    assert results[3].metrics["place"] is not None and results[3].metrics["color"] is None


def test_towers_are_scored_by_pixels_the_oracle_and_the_classes(model):
    results = ShapesReconstruction(model, TaskOptions(samples=4)).run(range(4))
    assert all(result.metrics["psnr"] > 25 and result.metrics["color_and_shape"] for result in results)
    results = ShapesZeroShot(model, TaskOptions(samples=4)).run(range(4))
    assert sum(result.metrics["top_1"] for result in results) >= 3
