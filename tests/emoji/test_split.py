import hashlib
from collections import Counter
from pathlib import Path

import pytest

from vilau_hf.emoji.concepts import Concept, read_concepts
from vilau_hf.emoji.packages import KEYWORDS, NAMES, STYLES, find_packages
from vilau_hf.emoji.split import FAMILIES, LARGEST_HELD_OUT_FAMILY, STYLE_UNITS, family_of, is_taught, split_of


# The split must never change: scores of models that were trained with it could not be compared any more.
HELD_OUT_CONCEPTS = [
    "broken heart", "brown heart", "chair", "flower playing cards", "page with curl", "pig nose", "sailboat", "spoon",
]  # fmt: skip
HELD_OUT_STYLES = {
    "noto": ["baby chick", "bear", "jar", "pill", "tent"],
    "twemoji": [
        "alien", "black bird", "boxing glove", "cloud", "club suit", "envelope", "grimacing face", "heart suit",
        "locked", "pear", "red heart", "spade suit", "unlocked",
    ],
    "flat": ["bowl with spoon", "canoe", "flag in hole", "magnet", "rainbow", "two hearts"],
    "3d": ["bowl with spoon", "canoe", "flag in hole", "magnet", "rainbow", "two hearts"],
}  # fmt: skip


def named(name, group="Objects"):
    return Concept("0", name, group, ())


@pytest.fixture(scope="module")
def concepts(packages):
    found = read_concepts(find_packages([NAMES, KEYWORDS], [packages], Path("no-cache")))
    return sorted(found.values(), key=lambda concept: concept.name)


def test_split_of_60_concepts_is_as_it_was_written_down(concepts):
    splits = {concept.name: split_of(concept) for concept in concepts}
    assert [name for name, split in splits.items() if split.is_concept] == HELD_OUT_CONCEPTS
    for style, names in HELD_OUT_STYLES.items():
        assert [n for n, split in splits.items() if style in split.styles and not split.is_concept] == names
    assert [n for n, s in splits.items() if s.is_clip and not s.is_concept and "3d" not in s.styles] == ["skull"]


def test_split_of_all_families_is_as_it_was_written_down():
    lines = [f"{name}: {split_of(named(name))}" for family in FAMILIES for name in family]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest[:16] == "01a69074c48997a6"


def test_family_is_on_one_side_of_the_split():
    for family in FAMILIES:
        assert len({split_of(named(name)) for name in family}) == 1, family
        assert {family_of(name) for name in family} == {family[0]}


def test_no_concept_is_in_two_families():
    names = [name for family in FAMILIES for name in family]
    assert len(names) == len(set(names))


def test_large_families_stay_in_training():
    large = [family for family in FAMILIES if len(family) > LARGEST_HELD_OUT_FAMILY]
    assert len(large) > 5
    for family in large:
        split = split_of(named(family[0]))
        assert not split.is_concept and not split.styles and not split.is_clip


def test_styles_are_held_out_in_units():
    splits = [split_of(named(f"thing {number}")) for number in range(4000)]
    assert set(STYLE_UNITS) == {split.styles for split in splits if split.styles and not split.is_concept}
    assert sorted(style for unit in STYLE_UNITS for style in unit) == sorted(STYLES)
    counts = Counter("concept" if split.is_concept else bool(split.styles) for split in splits)
    assert abs(counts["concept"] / 4000 - 0.04) < 0.01
    assert abs(counts[True] / (4000 - counts["concept"]) - 0.25) < 0.03


def test_held_out_images_hold_out_the_clip_that_shows_them():
    for number in range(1000):
        split = split_of(named(f"thing {number}"))
        assert split.is_clip or not (split.is_concept or "3d" in split.styles)


@pytest.mark.parametrize(
    ("name", "group", "expected"),
    [
        ("cat", "Animals & Nature", True),
        ("one o’clock", "Travel & Places", False),
        ("one-thirty", "Travel & Places", False),
        ("flag: france", "Flags", False),
        ("man", "People & Body", False),
    ],
)
def test_taught_concepts(name, group, expected):
    assert is_taught(named(name, group)) == expected
