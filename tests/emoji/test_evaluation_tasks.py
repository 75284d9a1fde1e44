"""Tasks of emoji with the shipped samples, a model of shapes, and a judge that has learned nothing."""

import pytest
import torch

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.emoji.dataset import concept_names
from vilau_hf.emoji.demo import SAMPLES
from vilau_hf.emoji.evaluation_tasks import (
    EmojiCaptions,
    EmojiClips,
    EmojiEdits,
    EmojiQuestions,
    EmojiReconstruction,
    EmojiRows,
    EmojiTextToImage,
    EmojiYesNo,
    EmojiZeroShot,
)
from vilau_hf.emoji.judge import EmojiJudge
from vilau_hf.emoji.nearest import as_pixels
from vilau_hf.evaluation.evaluated_model import EvaluatedModel
from vilau_hf.evaluation.run_tasks import run_tasks
from vilau_hf.evaluation.task import StoredResult, TaskOptions


@pytest.fixture(scope="module")
def model():
    return EvaluatedModel(TINY_CHECKPOINT)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    torch.manual_seed(0)
    EmojiJudge(concept_names(SAMPLES), image_size=32).save(folder)
    return str(folder)


def test_drawings_are_compared_with_the_judge_on_real_images(model, judge, tmp_path):
    task = EmojiTextToImage(model, TaskOptions(samples=4, judge=judge))
    task.check()
    conversations = [task.conversation(index) for index in range(4)]
    assert conversations[0].prompt == f"{task.held_out[0].concept.name}, {task.held_out[0].style} style"
    # real images in place of drawings reach the ceiling
    task._outputs = lambda indices, conversations: as_pixels([each.reference for each in conversations], "white")
    scores = run_tasks([task], tmp_path)["tasks"]["emoji-text-to-image"]["scores"]
    for name in ("top_1", "top_5", "style"):
        assert scores[name] == scores[f"{name}_real"]
        assert scores[f"{name}_ratio"]["value"] == (1.0 if scores[name]["value"] else None)


def test_edits_and_rows_show_images_of_training_only(model, judge):
    held_out = {(one.concept.key, one.style) for one in EmojiEdits(model, TaskOptions(judge=judge)).held_out}
    for task_class, count in ((EmojiEdits, 1), (EmojiRows, 3)):
        task = task_class(model, TaskOptions(samples=3, judge=judge))
        for index in range(3):
            conversation = task.conversation(index)
            assert len(conversation.images) == count
            assert (conversation.reference.concept.key, conversation.reference.style) in held_out
            given = task.other_style(conversation.reference)
            assert (given.concept.key, given.style) not in held_out
            assert conversation.images[-1].tobytes() == given.on("white").tobytes()
    row = EmojiRows(model, TaskOptions(samples=3, judge=judge)).run([1])[0]
    assert list(row.media) == ["given-0", "given-1", "given-2", "generated"] and "top_1_real" in row.metrics


def test_questions_are_those_of_the_training_tasks(model):
    task = EmojiQuestions(model, TaskOptions(samples=6))
    conversations = [task.conversation(index) for index in range(6)]
    assert [each.prompt for each in conversations[:3]] == [
        "what is this?",
        "which style is it?",
        "which group does it belong to?",
    ]
    expected = [each.reference for each in conversations]
    assert all(row["right"] for row in task.score(conversations, expected))
    assert task.conversation(4) == task.conversation(4)


def test_a_description_is_read_by_name_style_and_background(model):
    task = EmojiCaptions(model, TaskOptions(samples=2))
    conversation = task.conversation(0)
    (row,) = task.score([conversation], [conversation.reference])
    assert row == {"name": True, "style": True, "background": True, "all": True}
    (row,) = task.score([conversation], [conversation.reference.replace("white", "red")])
    assert row == {"name": True, "style": True, "background": False, "all": False}


def test_yes_to_everything_has_full_recall_and_the_precision_of_chance(model):
    task = EmojiYesNo(model, TaskOptions(samples=8))
    conversations = [task.conversation(index) for index in range(8)]
    rows = task.score(conversations, ["yes"] * 8)
    scores = task.summarize([StoredResult(index, row, {}, {}, 0.0) for index, row in enumerate(rows)])
    share = sum(each.reference == "yes" for each in conversations) / 8
    assert 0 < share < 1 and scores["says_yes"].value == 1 and scores["recall"].value == 1
    assert scores["right"].value == scores["precision"].value == share
    assert scores["f1"] == pytest.approx(2 * share / (1 + share))


def test_towers_are_scored_by_pixels_and_names(model):
    task = EmojiReconstruction(model, TaskOptions(samples=2))
    assert task.run([0])[0].metrics["psnr"] > 5
    task = EmojiZeroShot(model, TaskOptions(samples=2))
    task.check()
    assert task.run([0, 1])[1].texts["chosen"] in concept_names(SAMPLES)


def test_rejects_records_without_clips_and_a_missing_judge(model, judge):
    with pytest.raises(ValueError, match="has no held-out clips, which the task 'emoji-clips' needs"):
        EmojiClips(model, TaskOptions(judge=judge)).check()
    with pytest.raises(ValueError, match="task 'emoji-edits' needs `--judge`, got none"):
        EmojiEdits(model).check()
    with pytest.raises(ValueError, match="500 samples are needed, but .* has"):
        EmojiEdits(model, TaskOptions(judge=judge, samples=500)).check()
