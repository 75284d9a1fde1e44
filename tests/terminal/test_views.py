"""Views of answers: a terminal, a file, and JSON."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from vilau_hf.terminal.answer_streamer import Medium
from vilau_hf.terminal.views import ConsoleView, ContentView


IMAGE = Image.new("RGB", (8, 8), "red")
CODES = torch.zeros(1, 4, 3, dtype=torch.long)


def show_answer(view):
    """Shows a text, an image of four positions, and a text."""
    view.show_text("a red ")
    view.show_text("[square]")
    for position in range(1, 5):
        view.show_progress(position, 4, IMAGE if position % 2 == 0 else None)
    view.show_medium(Medium("image", [IMAGE], CODES))
    view.show_text("it turns blue")
    view.close()


def save(medium):
    return Path(f"{medium.kind}.png")


def printed(display, **options):
    console = Console(file=io.StringIO(), width=60, **options)
    view = ConsoleView(console, display, save)
    show_answer(view)
    return console.file.getvalue()


def test_prints_texts_and_names_of_files_where_no_image_can_be_shown():
    assert printed("none") == "a red [square]\nimage.png\nit turns blue\n"


def test_shows_previews_and_rates_in_a_terminal():
    text = printed("blocks", force_terminal=True, color_system="truecolor")
    assert "1 of 4 positions" in text and "positions/s" in text and text.count("▀") > 2 * 8
    assert text.index("a red ") < text.index("4 of 4 positions") < text.index("image.png") < text.index("it turns")
    assert "▀" not in printed("none", force_terminal=True)


def test_shows_the_frames_of_a_video_side_by_side():
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system="truecolor")
    ConsoleView(console, "blocks", save).show_medium(Medium("video", [IMAGE, IMAGE], CODES))
    lines = console.file.getvalue().splitlines()
    assert [line.count("▀") for line in lines] == [32] * 8 + [0]


@pytest.mark.parametrize("closes_twice", [False, True])
def test_an_interrupted_answer_leaves_no_bar(closes_twice):
    console = Console(file=io.StringIO(), width=60, force_terminal=True)
    view = ConsoleView(console, "none", save)
    view.show_progress(1, 4, None)
    view.close()
    if closes_twice:
        view.close()
    assert view.live is None and "\x1b[?25h" in console.file.getvalue()  # the cursor is shown again


def test_keeps_content_parts_for_scripts():
    view = ContentView(save)
    show_answer(view)
    assert view.content == [
        {"type": "text", "text": "a red [square]"},
        {"type": "image", "path": "image.png"},
        {"type": "text", "text": "it turns blue"},
    ]
