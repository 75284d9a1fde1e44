import pytest
import torch

from vilau_hf.training import drawn_shapes
from vilau_hf.training.drawn_shapes import COLORS, SHAPES, animate, draw, drawings, motions


def test_there_are_720_captions_and_576_motion_captions():
    assert len({drawing.caption for split in ("train", "test") for drawing in drawings(split)}) == 720
    assert len({motion.caption for split in ("train", "test") for motion in motions(split)}) == 576


@pytest.mark.parametrize(("items", "last", "held_out"), [(drawings, "place", 12), (motions, "direction", 10)])
def test_test_split_holds_whole_combinations_that_training_lacks(items, last, held_out):
    seen = {(item.color, item.shape, getattr(item, last)) for item in items("train")}
    unseen = {(item.color, item.shape, getattr(item, last)) for item in items("test")}
    assert len(unseen) == held_out and not seen & unseen
    for color in COLORS:
        for shape in SHAPES:
            assert len({entry for entry in seen if entry[:2] == (color, shape)}) >= len({e[2] for e in seen}) - 1
    assert {entry[1] for entry in unseen} == set(SHAPES)
    assert {entry[2] for entry in unseen} == {entry[2] for entry in seen}


def test_records_depend_on_seed_and_index_alone():
    def records(indices, **kwargs):
        dataset = drawn_shapes("train", num_samples=40, **{"seed": 3, **kwargs})
        return [dataset[index] for index in indices]

    forwards, backwards = records(range(40)), records(reversed(range(40)))
    for one, other in zip(forwards, reversed(backwards), strict=True):
        assert one == other
    assert drawn_shapes("train", num_samples=40, seed=3)[:]["caption"] == [record["caption"] for record in forwards]
    assert [r["caption"] for r in records(range(40), seed=4)] != [r["caption"] for r in forwards]


def test_changing_a_record_leaves_the_dataset_alone():
    dataset = drawn_shapes("train", num_samples=10)
    caption, record = dataset[0]["caption"], dataset[0]
    record["drawing"]["color"] = "pink"
    assert dataset[0]["caption"] == caption and dataset[0]["drawing"]["color"] in COLORS


def test_tasks_follow_the_message_schema():
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


def test_shares_of_tasks_and_short_captions_are_kept():
    dataset = drawn_shapes("train", num_samples=4000, tasks={"text_to_image": 3, "image_to_text": 1})
    names = dataset.with_format(None)["task"]
    assert 0.72 < sum(name == "text_to_image" for name in names) / 4000 < 0.78
    pictures = drawn_shapes("train", num_samples=200, tasks={"text_to_image": 1}, short_captions=0.5)[:]
    assert 60 < sum(len(caption.split()) == 3 for caption in pictures["caption"]) < 140


def test_pictures_have_the_exact_colors_and_videos_move():
    target = next(d for d in drawings("train") if (d.size, d.place, d.background) == ("large", "center", "black"))
    picture = draw([target], image_size=48)[0]
    assert tuple(picture[:, 24, 24].tolist()) == COLORS[target.color]
    assert tuple(picture[:, 0, 0].tolist()) == (10, 10, 10)
    motion = next(m for m in motions("train") if m.direction == "left" and m.background == "black")
    video = animate([motion], num_frames=4)[0].float()
    columns = torch.arange(32.0)
    centers = [((frame - 10).abs().sum((0, 1)) * columns).sum() / (frame - 10).abs().sum() for frame in video]
    assert all(later < earlier - 1 for earlier, later in zip(centers, centers[1:], strict=False))


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
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        drawn_shapes(**arguments)
