"""The architecture page: short, offline, and with one meaning for each symbol."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .test_layout import COMPAT_FILES


DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "architecture.md").read_text()
DIAGRAM = (DOCS / "images" / "architecture.svg").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
SVG = "{http://www.w3.org/2000/svg}"


def symbols():
    """Returns the symbols of the legend, in order."""
    rows = re.findall(r"^\| (`.+?`) \|", SECTIONS["Symbols"], flags=re.MULTILINE)
    return [symbol for row in rows for symbol in re.findall(r"`(\w+)`", row)]


def test_a_symbol_has_one_meaning():
    assert len(symbols()) > 15 and len(set(symbols())) == len(symbols())


@pytest.mark.parametrize("text", [PAGE, DIAGRAM], ids=["page", "diagram"])
def test_shapes_use_the_symbols_of_the_legend(text):
    shapes = (
        re.findall(r"\(((?:\w+, )+\w+)\)", text) if text is DIAGRAM else re.findall(r"`\((\w+(?:, \w+)+)\)`", text)
    )
    names = {name for shape in shapes for name in shape.split(", ")}
    assert len(names) > 8 and names <= {*symbols(), "vocab", "3"}


@pytest.mark.parametrize("title", ["An image in a prompt", "An image in training", "An image in generation"])
def test_the_path_of_an_image_is_at_most_40_lines(title):
    assert 10 < len(SECTIONS[title].strip().splitlines()) <= 40


def test_the_diagram_is_readable_without_network_and_without_sight():
    root = ElementTree.fromstring(DIAGRAM)
    assert root.tag == f"{SVG}svg" and root.get("role") == "img"
    assert root.find(f"{SVG}title").text and root.find(f"{SVG}desc").text in PAGE
    assert re.findall(r"https?://[^\"]+", DIAGRAM) == ["http://www.w3.org/2000/svg"]
    assert "prefers-color-scheme: dark" in DIAGRAM


def test_the_files_for_internals_of_libraries_are_linked():
    links = re.findall(r"\]\(\.\./src/vilau_hf/(\S+)\)", SECTIONS["Internals of libraries"])
    assert sorted(links) == sorted(file for file in COMPAT_FILES.values() if file is not None)
