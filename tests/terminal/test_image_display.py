"""The way in which images are shown follows the terminal and the user."""

import io

import pytest
from PIL import Image
from rich.console import Console

from vilau_hf.terminal.image_display import choose_display, show_images


def console(**options):
    return Console(file=io.StringIO(), width=options.pop("width", 80), **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"force_terminal": True, "color_system": "truecolor"}, "blocks"),
        ({"force_terminal": True, "color_system": "256"}, "blocks"),
        ({"force_terminal": True, "color_system": "standard"}, "none"),
        ({"force_terminal": True, "color_system": "truecolor", "no_color": True}, "none"),
        ({"color_system": "truecolor"}, "none"),
    ],
)
def test_chooses_what_the_terminal_can(options, expected):
    assert choose_display(console(**options)) == expected


def test_follows_no_color_of_the_environment(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert choose_display(console(force_terminal=True, color_system="truecolor")) == "none"


@pytest.mark.parametrize("asked", ["sixel", "blocks", "none"])
def test_follows_the_user(asked):
    assert choose_display(console(), asked) == asked


def shown(display, count=3, **options):
    terminal = console(force_terminal=True, color_system="truecolor", **options)
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")[:count]]
    show_images(terminal, images, display, ["one", "two", "three"][:count], columns=8)
    return terminal.file.getvalue()


def test_blocks_stand_side_by_side_with_their_captions():
    lines = shown("blocks").splitlines()
    assert len(lines) == 1 + 4 and "one" in lines[0] and "three" in lines[0]
    assert all(line.count("▀") == 24 for line in lines[1:])


def test_a_narrow_terminal_has_several_rows():
    lines = shown("blocks", width=20).splitlines()
    assert [line.count("▀") for line in lines] == [0, 16, 16, 16, 16, 0, 8, 8, 8, 8]


def test_sixel_shows_one_graphic_for_a_row():
    text = shown("sixel")
    assert text.count("\x1bPq") == 1 and "one  two  three" in text


def test_none_shows_nothing():
    assert shown("none") == ""


@pytest.mark.parametrize("display", ["blocks", "sixel"])
def test_leaves_gaps(display):
    terminal = console(force_terminal=True, color_system="truecolor")
    show_images(terminal, [None, Image.new("RGB", (8, 8), "red")], display, columns=8)
    assert terminal.file.getvalue()
