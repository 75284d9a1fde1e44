import random

import numpy as np
import pytest
from datasets import Dataset

from vilau_hf.emoji.dataset import (
    BACKGROUNDS,
    CaptionedEmoji,
    caption,
    caption_texts,
    compose,
    concept_names,
    load_emoji,
    load_emoji_records,
)
from vilau_hf.emoji.packages import STYLES
from vilau_hf.emoji.split import split_of


@pytest.fixture(scope="module")
def splits(records_folder):
    return {split: load_emoji(records_folder, 16, split) for split in ("train", "pairs", "concepts")}


def labels(emoji):
    return {(one.concept.name, one.style) for one in emoji}


def test_splits_have_no_image_in_common_and_leave_out_pairs_that_cannot_be_tested(splits):
    assert {split: len(emoji) for split, emoji in splits.items()} == {"train": 94, "pairs": 20, "concepts": 23}
    union = set().union(*map(labels, splits.values()))
    # 1 of the 138 images is held out, but its concept has no two other styles to learn from
    assert len(union) == 137
    assert ("baby chick", "noto") not in union


def test_held_out_pairs_are_learned_in_two_other_styles(splits):
    train = labels(splits["train"])
    assert splits["pairs"]
    for one in splits["pairs"]:
        split = split_of(one.concept)
        assert one.style in split.styles
        assert sum((one.concept.name, style) in train for style in STYLES) >= 2
        assert not any((one.concept.name, style) in train for style in split.styles)


def test_held_out_concepts_are_never_seen(splits):
    seen = {one.concept.name for split in ("train", "pairs") for one in splits[split]}
    unseen = {one.concept.name for one in splits["concepts"]}
    assert {"broken heart", "spoon", "chair"} <= unseen and not seen & unseen


def test_unknown_split_is_refused(records_folder):
    with pytest.raises(ValueError, match="`split` must be one of train, pairs, concepts, got 'test'"):
        load_emoji(records_folder, 16, "test")


@pytest.mark.parametrize("load", [concept_names, lambda folder: load_emoji(folder, 16), load_emoji_records])
def test_rejects_folders_without_records_of_emoji(tmp_path, load):
    with pytest.raises(ValueError, match="none' is no folder. `vilau records emoji FOLDER` writes"):
        load(tmp_path / "none")
    (tmp_path / "records").mkdir()
    Dataset.from_list([{"name": "cat", "images": []}]).to_parquet(tmp_path / "records" / "train.parquet")
    with pytest.raises(ValueError, match="records' has no records of emoji: the columns concept, group, keywords"):
        load(tmp_path / "records")


def test_images_have_the_asked_size(splits):
    assert {one.rgba.shape for one in splits["train"]} == {(16, 16, 4)}
    assert splits["train"][0].on("red").size == (16, 16)


def test_names_of_concepts_are_sorted_and_hold_the_held_out_ones(records_folder):
    names = concept_names(records_folder)
    assert len(names) == 60 and names == sorted(set(names)) and "broken heart" in names


def test_background_shows_where_the_image_is_transparent():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [200, 0, 0, 51]]], np.uint8)
    on_blue = compose(rgba, "blue")
    assert on_blue[0, 0].tolist() == [10, 20, 30]
    assert tuple(on_blue[0, 1]) == BACKGROUNDS["blue"]
    expected = 0.2 * np.array([200, 0, 0]) + 0.8 * np.array(BACKGROUNDS["blue"])
    assert np.abs(on_blue[0, 2] - expected).max() <= 0.5


def test_caption_names_every_background_but_white_if_asked(splits):
    concept = splits["train"][0].concept
    choice = random.Random(0)
    for background in BACKGROUNDS:
        captions = [caption(concept, "flat", background, choice, always_background=True) for _ in range(20)]
        assert all(text.endswith(f", on a {background} background") for text in captions) == (background != "white")
        assert any("background" in text for text in captions) == (background != "white")


def test_captions_often_name_style_and_background(splits):
    concept = splits["train"][0].concept
    choice = random.Random(0)
    captions = [caption(concept, "flat", "red", choice) for _ in range(1000)]
    assert 0.45 < sum(", flat style" in text for text in captions) / 1000 < 0.55
    assert 0.65 < sum("on a red background" in text for text in captions) / 1000 < 0.75
    assert 0.7 < sum(text.startswith(concept.name) for text in captions) / 1000 < 0.95


def test_sample_is_fixed_by_seed_and_index(splits):
    first = CaptionedEmoji(splits["train"], num_samples=50, seed=1)
    again = CaptionedEmoji(splits["train"], num_samples=10, seed=1)
    other = CaptionedEmoji(splits["train"], num_samples=10, seed=2)
    assert len(first) == 50
    assert [first[index] for index in range(10)] == [again[index] for index in range(10)]
    assert [first[index]["caption"] for index in range(10)] != [other[index]["caption"] for index in range(10)]
    assert len({first[index]["caption"] for index in range(50)}) > 30


def test_share_of_moved_images_is_as_given(splits):
    def images(share_moved):
        dataset = CaptionedEmoji(splits["train"], 200, share_moved=share_moved)
        return [np.array(dataset[index]["images"][0]) for index in range(200)]

    originals = {one.on(background).tobytes() for one in splits["train"] for background in BACKGROUNDS}
    counts = [sum(image.tobytes() not in originals for image in images(share)) for share in (0.0, 0.5, 1.0)]
    assert counts[0] == 0 and 70 < counts[1] < 130 and counts[2] > 195


def test_background_of_a_sample_is_the_one_of_its_caption(splits):
    samples = [CaptionedEmoji(splits["train"], 300, share_moved=0)[index] for index in range(300)]
    named = [sample for sample in samples if "background" in sample["caption"]]
    assert len(named) > 50
    for sample in named:
        background = sample["caption"].rpartition(", on a ")[2].removesuffix(" background")
        corner = sample["images"][0].getpixel((0, 0))
        assert np.abs(np.array(corner) - BACKGROUNDS[background]).max() <= 12, sample["caption"]


def test_texts_hold_every_word_of_the_captions(splits):
    def words(texts):
        return {word.strip(",") for text in texts for word in text.split()}

    captions = [CaptionedEmoji(splits["train"], 400)[index]["caption"] for index in range(400)]
    assert words(captions) <= words(caption_texts(splits["train"]))
