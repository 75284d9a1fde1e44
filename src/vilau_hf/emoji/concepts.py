"""Concepts that the emoji show: their code points, names, groups and keywords."""

from dataclasses import dataclass

from .packages import KEYWORDS, NAMES, PackageFiles


# Code point that asks for an emoji rather than a text character. Packages differ in where they write it.
VARIATION_SELECTOR = "fe0f"


@dataclass(frozen=True)
class Concept:
    """
    Names what an emoji shows, in whatever style.

    Args:
        key (`str`): code points in hexadecimal, joined by `-`, without FE0F.
        name (`str`): name in English, as in "cat face".
        group (`str`): group of Unicode, as in "Animals & Nature".
        keywords (`tuple[str, ...]`): further words for it, most important first; may be empty.
    """

    key: str
    name: str
    group: str
    keywords: tuple[str, ...]


def concept_key(code_points: str) -> str:
    """Returns the key of code points such as "2600-fe0f": lower case, without FE0F and without leading zeros."""
    points = code_points.lower().split("-")
    return "-".join(f"{int(point, 16):x}" for point in points if point != VARIATION_SELECTOR)


def read_concepts(packages: dict[str, PackageFiles]) -> dict[str, Concept]:
    """
    Reads all concepts without skin tones.

    Args:
        packages (`dict[str, PackageFiles]`): with the packages of names and keywords.

    Returns:
        Concepts by key, in the order of the package of names.
    """
    (names,) = packages[NAMES.name].read_json("data-by-emoji.json")
    (data,) = packages[KEYWORDS.name].read_json("sets/15/native.json")
    keywords = {concept_key(entry["skins"][0]["unified"]): entry["keywords"] for entry in data["emojis"].values()}
    concepts = {}
    for characters, entry in names.items():
        key = concept_key("-".join(f"{ord(character):x}" for character in characters))
        concepts[key] = Concept(key, entry["name"].lower(), entry["group"], tuple(keywords.get(key, ())))
    return concepts


__all__ = ["Concept", "concept_key", "read_concepts"]
