import json

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.drawn.shapes import draw, drawings
from vilau_hf.evaluation import question_tasks
from vilau_hf.evaluation.evaluated_model import EvaluatedModel
from vilau_hf.evaluation.media_files import save_video
from vilau_hf.evaluation.question_tasks import Question, VisualQuestions, read_questions
from vilau_hf.evaluation.sheets import to_pil
from vilau_hf.evaluation.task import TaskOptions


@pytest.fixture(scope="module")
def model():
    return EvaluatedModel(TINY_CHECKPOINT)


def write(path, *entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


@pytest.fixture
def questions(tmp_path):
    target = next(one for one in drawings("train") if (one.color, one.shape) == ("red", "cross"))
    to_pil(draw([target])[0]).save(tmp_path / "cross.png")
    people = ["red"] * 2 + ["crimson"] * 8
    return write(
        tmp_path / "questions.jsonl",
        {"image": "cross.png", "question": "what color is the shape?", "answers": people},
        {"image": "cross.png", "question": "what shape is it?", "answer": "Cross."},
    )


def test_accuracy_is_that_of_the_vqa_challenge(model, questions):
    task = VisualQuestions(model, TaskOptions(data=str(questions)))
    task.check()
    first, second = task.run([0, 1])
    assert first.texts["answer"] == "red" and second.texts["answer"] == "cross"
    # Two of ten people agree. Leaving one out in turn, 1/3 or 2/3 is counted: (2 * 1/3 + 8 * 2/3) / 10
    assert first.metrics == {"vqa_accuracy": pytest.approx(0.6), "any_match": True}
    assert second.metrics == {"vqa_accuracy": 1.0, "any_match": True}


def test_answers_questions_about_videos_of_any_length(model, tmp_path):
    target = next(one for one in drawings("train") if (one.color, one.shape) == ("red", "cross"))
    image = to_pil(draw([target])[0])
    image.save(tmp_path / "cross.png")
    for name, count in (("short", 2), ("long", 12)):
        save_video([image] * count, tmp_path / f"{name}.mp4", ".mp4")
    asked = {"question": "what color is the shape?", "answer": "red"}
    files = [{"video": "short.mp4"}, {"video": "long.mp4"}, {"image": "cross.png"}]
    data = write(tmp_path / "questions.jsonl", *({**file, **asked} for file in files))
    task = VisualQuestions(model, TaskOptions(data=str(data)))
    task.check()
    assert task.conversation(1).videos == [tmp_path / "long.mp4"]
    together = [result.texts["answer"] for result in task.run(range(3))]
    # All frames are equal, so the frames that are sampled are, too.
    assert together[0] == together[1]
    assert together[2] == "red"
    assert together == [task.run([index])[0].texts["answer"] for index in range(3)]


def test_the_instruction_follows_each_question_in_a_new_line(model, questions):
    task = VisualQuestions(model, TaskOptions(data=str(questions), instruction="Answer in one word."))
    assert task.conversation(1).prompt == "what shape is it?\nAnswer in one word."


def test_reads_rows_of_a_dataset_with_answers_as_vqav2_has_them(model, monkeypatch):
    row = {"image": Image.new("RGB", (8, 8)), "question": "what?", "answers": [{"answer": "a", "answer_id": 1}]}
    monkeypatch.setattr(question_tasks, "load_dataset", lambda source, split: Dataset.from_list([row] * 3))
    task = VisualQuestions(model, TaskOptions(data="someone/vqa", samples=2))
    assert len(task) == 2 and task.conversation(1).reference == ["a"]
    monkeypatch.setattr(question_tasks, "load_dataset", lambda source, split: Dataset.from_list([{"text": "a"}]))
    with pytest.raises(ValueError, match="row 0 of someone/vqa: expected `image`, `question`.*, got text"):
        VisualQuestions(model, TaskOptions(data="someone/vqa")).check()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("not JSON", "line 2: not valid JSON"),
        ({"question": "what?", "answer": "a"}, "line 2: expected an object with `image` or `video`"),
        ({"image": "cross.png", "video": "a.mp4", "question": "what?"}, "line 2: expected an object with `image` or"),
        ({"video": "none.mp4", "question": "what?", "answer": "a"}, r"line 2: the video .*none\.mp4 does not exist"),
        ({"image": "none.png", "question": "what?", "answer": "a"}, r"line 2: the image .*none\.png does not exist"),
        ({"image": "cross.png", "question": "what?"}, "line 2: expected .*`answers`.*, got image, question"),
        ({"image": "cross.png", "question": "what?", "answers": []}, "line 2: expected .*`answers`"),
        ({"image": "cross.png", "question": 3, "answer": "a"}, "line 2: expected .*`question`"),
    ],
)
def test_rejects_a_bad_line_with_file_line_and_reason(questions, entry, message):
    first = questions.read_text().splitlines()[0]
    questions.write_text(first + "\n" + (entry if isinstance(entry, str) else json.dumps(entry)) + "\n")
    with pytest.raises(ValueError, match=rf"questions\.jsonl, {message}"):
        read_questions(questions)


def test_text_is_decoded_greedily(model, questions):
    task = VisualQuestions(model, TaskOptions(data=str(questions), generation={"do_sample": True}))
    with pytest.raises(ValueError, match="task 'vqa' decodes text greedily"):
        task.check()


def test_images_of_rows_have_the_levels_of_their_values():
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    opened = Question("what?", ["a"], Image.fromarray(levels.astype(np.uint16) * 257)).open()
    assert np.array_equal(np.asarray(opened), np.repeat(levels[..., None], 3, -1))
