import json

import pytest
from PIL import Image

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.drawn.shapes import animate, draw, drawings
from vilau_hf.evaluation.media_files import save_video
from vilau_hf.evaluation.sheets import to_pil
from vilau_hf.evaluation.task import TaskOptions
from vilau_hf.integrations.lmms_tasks.functions import describe_task, images, load_task, messages, score


def document(name: str, index: int = 1) -> dict:
    """Returns a row of the data of a task."""
    description = describe_task(name, TINY_CHECKPOINT, TaskOptions(samples=4))
    conversation = load_task(description).conversation(index)
    return {
        "task": description,
        "index": index,
        "messages": json.dumps(conversation.messages),
        "images": conversation.images,
        "answer": conversation.reference,
    }


def test_messages_have_their_images(shapes):
    row = {
        "messages": json.dumps(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "so"}, {"type": "image"}]}]
        ),
        "images": shapes[:2],
    }
    (message,) = messages(row)
    assert [part.get("url") for part in message["content"]] == [shapes[0], None, shapes[1]]
    assert images(row) == shapes[:2]


def test_scores_answers():
    row = document("shapes-questions")
    assert score(row, [row["answer"]]) == {"right": 1.0}
    assert score(row, ["no such word"]) == {"right": 0.0}


def test_scores_images_by_the_oracle(tmp_path):
    row = document("shapes-text-to-image")
    for name, drawing in (("right", row["answer"]), ("wrong", drawings("train")[0])):
        to_pil(draw([drawing])[0]).save(tmp_path / f"{name}.png")
    right = score(row, [json.dumps({"text": "", "images": [str(tmp_path / "right.png")]})])
    wrong = score(row, [str(tmp_path / "wrong.png")])
    assert set(right.values()) == {1.0}
    assert wrong["all"] == 0.0
    with pytest.raises(ValueError, match="the response has no image"):
        score(row, ['{"text": "a cross", "images": []}'])


def test_leaves_out_metrics_of_other_documents(tmp_path):
    row = document("shapes-edits", 0)
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    assert score(row, [str(tmp_path / "black.png")]) == {"right": 0.0, "recolor": 0.0}


def test_scores_videos_by_the_oracle(tmp_path):
    row = document("shapes-text-to-video")
    frames = animate([row["answer"]])[0]
    save_video([to_pil(frame) for frame in frames], tmp_path / "video.mp4", ".mp4")
    assert score(row, [str(tmp_path / "video.mp4")])["direction"] == 1.0


def test_rejects_tasks_without_conversations():
    with pytest.raises(ValueError, match="samples of task 'shapes-zero-shot' are no conversations"):
        load_task(describe_task("shapes-zero-shot", TINY_CHECKPOINT, TaskOptions()))
