"""The example that measures which emoji look alike, on 60 of them."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image


SCRIPT = Path(__file__).parents[2] / "examples" / "emoji" / "near_duplicates.py"


@pytest.fixture
def measure(records_folder, tmp_path, monkeypatch, capsys):
    def run(*options):
        arguments = ["--records", str(records_folder), "--out", str(tmp_path), *options]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        names = runpy.run_path(str(SCRIPT))
        return names, capsys.readouterr().out

    return run


def test_families_of_the_table_are_found(measure):
    names, printed = measure()
    assert ["locked", "unlocked"] in names["found"] and ["heart suit", "red heart"] in names["found"]
    assert "0 of them are not in one family of the table" in printed


def test_families_that_the_table_lacks_are_printed(measure):
    _, printed = measure("--threshold", "0.2")
    lacking = [line for line in printed.splitlines() if line.startswith("  ") and "bear" in line]
    assert lacking and lacking[0].startswith("  * ")  # bear is held out in one style, frog in none


def test_sheet_and_list_show_the_closest_pairs_first(measure, tmp_path):
    measure("--pairs", "6")
    rows = json.loads((tmp_path / "closest.json").read_text())
    assert len(rows) == 44  # all held-out images, also the one whose concept has no two other styles
    distances = [row["distance"] for row in rows]
    assert distances == sorted(distances) and 0 < distances[0] < 0.2
    assert {"broken heart", "red heart"} in [{row["held_out"], row["training"]} for row in rows]
    assert Image.open(tmp_path / "closest.png").size == (1000, 220)
