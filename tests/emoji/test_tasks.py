import random

import numpy as np
import pytest

from vilau_hf.data.records import validate_record
from vilau_hf.emoji.dataset import BACKGROUNDS, load_emoji
from vilau_hf.emoji.packages import STYLES
from vilau_hf.emoji.tasks import (
    NUM_MOVED,
    QUESTIONS,
    TASKS,
    EmojiTasks,
    load_clips,
    media_id,
    media_records,
    moved_background,
    moved_name,
    restyle_instruction,
)


@pytest.fixture(scope="module")
def emoji(records_folder):
    return load_emoji(records_folder, 16)


@pytest.fixture(scope="module")
def clips(records_folder):
    return load_clips(records_folder, 16, num_frames=4)


@pytest.fixture(scope="module")
def codes(emoji, clips):
    """Gives each image and clip codes of its number, so that a record shows which ones it has."""
    ids = [media_id(item, background) for item in [*emoji, *clips] for background in BACKGROUNDS]
    ids += [media_id(item, moved_name(number)) for item in emoji for number in range(NUM_MOVED)]
    frames = {name: 4 if name.startswith("animated/") else 1 for name in ids}
    return {name: np.full((frames[name], 2, 2), number) for number, name in enumerate(ids)}


@pytest.fixture(scope="module")
def ids(codes):
    return list(codes)


def samples(emoji, clips, codes, task, count=60):
    return list(map(EmojiTasks(emoji, clips, codes, count, tasks={task: 1.0}).__getitem__, range(count)))


def texts(record, turn=0):
    return [item["text"] for item in record["messages"][turn]["content"] if item["type"] == "text"]


def media_of(record, ids):
    """Returns style, key and background of each image and clip of a record."""
    return [tuple(ids[codes[0, 0, 0]].split("/")) for codes in record["codes"]]


@pytest.mark.parametrize(
    ("task", "numbers", "answer"),
    [
        ("draw", {1}, "image"),
        ("answer", {1}, "text"),
        ("edit", {2}, "image"),
        ("row", {4}, "image"),
        ("animate", {1}, "video"),
        ("watch", {1}, "text"),
    ],
)
def test_records_of_every_task_are_valid(emoji, clips, codes, task, numbers, answer):
    records = samples(emoji, clips, codes, task)
    for record in records:
        validate_record(record)
        assert [item["type"] for item in record["messages"][1]["content"]] == [answer]
        assert record["id"].startswith(task)
    assert {len(record["codes"]) for record in records} == numbers
    assert {len(one) for record in records for one in record["codes"]} == (
        {4} if task in ("animate", "watch") else {1}
    )


def test_tasks_have_their_shares(emoji, clips, codes):
    dataset = EmojiTasks(emoji, clips, codes, 1000)
    names = [dataset[index]["id"].split()[0] for index in range(1000)]
    for task, share in TASKS.items():
        assert abs(names.count(task) / 1000 - share / sum(TASKS.values())) < 0.05, task


def test_grouped_records_are_the_same_and_have_the_number_of_their_images(emoji, clips, codes):
    records = EmojiTasks(emoji, clips, codes, 200)
    grouped = records.grouped()
    assert grouped[:] == {name: [records[index][name] for index in range(200)] for name in ("id", "messages", "codes")}
    lengths = grouped.with_format(None)["length"]
    assert list(lengths) == [sum(len(codes) for codes in records[index]["codes"]) for index in range(200)]
    assert len(set(lengths)) == 3


def test_record_is_fixed_by_seed_and_index(emoji, clips, codes):
    def messages(**kwargs):
        dataset = EmojiTasks(emoji, clips, codes, 30, **kwargs)
        return [dataset[index]["messages"] for index in range(30)]

    assert messages(seed=3) == messages(seed=3) != messages(seed=4)


def test_drawing_shows_what_the_text_says(emoji, clips, codes, ids):
    names = {one.concept.key: one.concept for one in emoji}
    for record in samples(emoji, clips, codes, "draw"):
        ((style, key, background),) = media_of(record, ids)
        (text,) = texts(record)
        assert text.startswith(names[key].name) or text.split(",")[0].split()[0] in names[key].keywords
        assert ("background" in text) == (background != "white") and background in text or background == "white"
        assert "style" not in text or f", {style} style" in text


def test_edit_changes_either_style_or_background(emoji, clips, codes, ids):
    restyled = 0
    moved = 0
    images = {(one.style, one.concept.key): one for one in emoji}
    records = samples(emoji, clips, codes, "edit", 100)
    for record in records:
        (before, after), (text,) = media_of(record, ids), texts(record)
        assert before[1] == after[1]
        if before[0] != after[0]:
            restyled += 1
            moved += before[2] not in BACKGROUNDS
            background = before[2]
            if background not in BACKGROUNDS:
                background = moved_background(images[before[:2]], background)
            assert background == after[2] and text == restyle_instruction(after[0])
        else:
            assert before[2] != after[2] and text == f"put it on a {after[2]} background"
    assert 25 < restyled < 75  # 75 % of the images that exist in another style
    assert 0.4 * restyled < moved < restyled


def test_row_asks_for_the_concept_and_style_that_complete_it(emoji, clips, codes, ids):
    names = {one.concept.key: one.concept.name for one in emoji}
    for record in samples(emoji, clips, codes, "row"):
        media = media_of(record, ids)
        assert texts(record) == [f"{names[key]}, {style} style" for style, key, _ in media]
        (given, shown, _), (wanted, same, _), (given_again, asked, _), (last, same_asked, _) = media
        assert (given, wanted) == (given_again, last) and given != wanted
        assert shown == same != asked == same_asked
        assert len({background for _, _, background in media}) == 1


def test_video_task_names_or_continues_the_clip(emoji, clips, codes):
    prompts = [texts(record)[0] for record in samples(emoji, clips, codes, "animate", 100)]
    assert 5 < prompts.count("continue the video") < 40
    assert any("frog" in prompt for prompt in prompts)
    for record in samples(emoji, clips, codes, "watch", 5):
        assert (texts(record), texts(record, 1)) == (["what is this?"], ["frog"])


@pytest.mark.parametrize("kind", QUESTIONS)
def test_answers_are_true(emoji, clips, codes, kind):
    dataset = EmojiTasks(emoji, clips, codes, 1)
    choice = random.Random(0)
    answers = set()
    for one in emoji:
        question, answer = dataset.question(one, "red", kind, choice)
        answers.add(answer)
        if kind == "is_it":
            assert (question == f"is it {one.concept.name}?") == (answer == "yes")
        else:
            truth = {
                "name": one.concept.name,
                "describe": f"{one.concept.name}, {one.style} style, on a red background",
                "style": one.style,
                "group": one.concept.group.lower(),
            }
            assert answer == truth[kind]
    if kind == "is_it":
        assert answers == {"yes", "no"}
    if kind == "style":
        assert answers == set(STYLES)


def test_hard_negatives_are_neighbors_and_of_the_same_group_if_there_is_one(emoji, clips, codes):
    dataset = EmojiTasks(emoji, clips, codes, 1)
    choice = random.Random(0)
    in_group = 0
    for position, concept in enumerate(dataset.concepts):
        near = dataset.concepts[max(0, position - 8) : position + 9]
        neighbors = {other.key for other in near if other.group == concept.group} - {concept.key}
        chosen = {dataset.near_concept(concept, choice).key for _ in range(5)}
        assert concept.key not in chosen
        if neighbors:
            in_group += 1
            assert chosen <= neighbors
    assert in_group > len(dataset.concepts) / 2


def test_clips_are_split_and_have_frames_at_equal_distances(records_folder, clips):
    assert [clip.concept.name for clip in clips] == ["frog"]
    (held_out,) = load_clips(records_folder, 16, num_frames=3, held_out=True)
    assert held_out.concept.name == "rainbow" and held_out.rgba.shape == (3, 16, 16, 4)
    assert clips[0].rgba.shape == (4, 16, 16, 4) and np.ptp(clips[0].rgba.astype(int), axis=0).max() > 50
    (all_frames,) = load_clips(records_folder, 16, num_frames=12)
    assert (all_frames.rgba[::3] == clips[0].rgba).all()
    assert [frame.size for frame in clips[0].on("blue")] == [(16, 16)] * 4


def test_questions_are_about_moved_images_too(emoji, clips, codes, ids):
    images = {(one.style, one.concept.key): one for one in emoji}
    moved = 0
    for record in samples(emoji, clips, codes, "answer", 200):
        ((style, key, variant),) = media_of(record, ids)
        moved += variant not in BACKGROUNDS
        if texts(record) == ["describe the image"]:
            background = variant if variant in BACKGROUNDS else moved_background(images[style, key], variant)
            assert texts(record, 1)[0].endswith(f"on a {background} background")
    assert 110 < moved < 170


def test_media_records_hold_every_image_and_clip_on_every_background_and_moved_images(emoji, clips, codes):
    dataset = media_records(emoji[:3], clips)
    records = [dataset[index] for index in range(len(dataset))]
    assert len(records) == 4 * len(BACKGROUNDS) + 3 * NUM_MOVED
    assert len({record["id"] for record in records}) == len(records) and {r["id"] for r in records} <= set(codes)
    for record in records:
        validate_record(record)
    variants = [record["images"][0].tobytes() for record in records if "/moved-" in record["id"]]
    assert len(set(variants)) == 3 * NUM_MOVED
    again = media_records(emoji[:3], clips)[len(records) - 1]
    assert again["images"][0].tobytes() == variants[-1]
    records = records[: -3 * NUM_MOVED]
    first, second = records[0]["images"][0], records[1]["images"][0]
    assert first.getpixel((0, 0)) == (255, 255, 255) and second.getpixel((0, 0)) == BACKGROUNDS["black"]
    assert len(records[-1]["videos"][0]) == 4 and not records[-1]["images"]
