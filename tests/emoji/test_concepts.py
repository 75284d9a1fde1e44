from pathlib import Path

import pytest

from vilau_hf.emoji.concepts import concept_key, read_concepts
from vilau_hf.emoji.packages import KEYWORDS, NAMES, find_packages


@pytest.fixture(scope="module")
def concepts(packages):
    return read_concepts(find_packages([NAMES, KEYWORDS], [packages], Path("no-cache")))


@pytest.mark.parametrize(
    ("code_points", "key"),
    [("2764-fe0f", "2764"), ("1F408-200D-2B1B", "1f408-200d-2b1b"), ("0023-FE0F-20E3", "23-20e3"), ("fe0f", "")],
)
def test_keys_are_lower_case_without_fe0f_and_leading_zeros(code_points, key):
    assert concept_key(code_points) == key


def test_concepts_have_name_group_and_keywords(concepts):
    assert len(concepts) == 60
    heart = concepts["2764"]  # its character has FE0F in the package of names, and in that of keywords
    assert (heart.key, heart.name, heart.group) == ("2764", "red heart", "Smileys & Emotion")
    assert "love" in heart.keywords
    assert all(concept.key == key and concept.name == concept.name.lower() for key, concept in concepts.items())
    assert len({concept.name for concept in concepts.values()}) == 60


def test_concept_without_keywords_has_none(packages, tmp_path):
    files = find_packages([NAMES, KEYWORDS], [packages], tmp_path)

    class NoKeywords:
        def read_json(self, name):
            return ({"emojis": {}},)

    concepts = read_concepts({**files, KEYWORDS.name: NoKeywords()})
    assert len(concepts) == 60 and {concept.keywords for concept in concepts.values()} == {()}
