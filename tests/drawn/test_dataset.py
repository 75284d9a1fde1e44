import pytest

from vilau_hf.drawn import drawn_shapes
from vilau_hf.drawn.shapes import COLORS


def test_records_depend_only_on_seed_and_index():
    def records(indices, **kwargs):
        dataset = drawn_shapes("train", num_samples=40, **{"seed": 3, **kwargs})
        return [dataset[index] for index in indices]

    forwards = records(range(40))
    backwards = records(reversed(range(40)))
    for one, other in zip(forwards, reversed(backwards), strict=True):
        assert one == other
    assert drawn_shapes("train", num_samples=40, seed=3)[:]["caption"] == [record["caption"] for record in forwards]
    assert [r["caption"] for r in records(range(40), seed=4)] != [r["caption"] for r in forwards]


def test_changing_a_record_does_not_change_the_dataset():
    dataset = drawn_shapes("train", num_samples=10)
    caption = dataset[0]["caption"]
    record = dataset[0]
    record["drawing"]["color"] = "pink"
    assert dataset[0]["caption"] == caption and dataset[0]["drawing"]["color"] in COLORS


def test_records_of_each_task_follow_the_message_schema():
    for record in drawn_shapes("test", num_samples=60, num_frames=3):
        user, assistant = record["messages"]
        kinds = [item["type"] for item in user["content"]], [item["type"] for item in assistant["content"]]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert (
            kinds
            == {
                "text_to_image": (["text"], ["image"]),
                "image_to_text": (["image", "text"], ["text"]),
                "text_to_video": (["text"], ["video"]),
                "video_to_text": (["video", "text"], ["text"]),
            }[record["task"]]
        )
        assert len(record["images"]) == ("image" in record["task"])
        assert [len(video) for video in record["videos"]] == [3] * ("video" in record["task"])


def test_tasks_and_short_captions_have_the_given_shares():
    dataset = drawn_shapes("train", num_samples=4000, tasks={"text_to_image": 3, "image_to_text": 1})
    names = dataset.with_format(None)["task"]
    assert 0.72 < sum(name == "text_to_image" for name in names) / 4000 < 0.78
    records = drawn_shapes("train", num_samples=200, tasks={"text_to_image": 1}, short_captions=0.5)[:]
    assert 60 < sum(len(caption.split()) == 3 for caption in records["caption"]) < 140


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "valid"}, '`split` must be "train" or "test", got \'valid\''),
        ({"num_samples": 0}, "`num_samples` must be at least 1, got 0"),
        ({"image_size": 4}, "`image_size` must be at least 8, got 4"),
        ({"short_captions": 1.5}, "`short_captions` must be a share between 0 and 1, got 1.5"),
        ({"num_frames": 0}, "`num_frames` must be at least 1, got 0"),
        ({"tasks": {"text_to_audio": 1}}, "`tasks` must give positive shares of text_to_image, .*text_to_audio"),
    ],
)
def test_rejects_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        drawn_shapes(**arguments)
