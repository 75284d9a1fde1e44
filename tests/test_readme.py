"""Every Python block of the README and the model card runs, in order, as a reader would run it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .run_pages import python_blocks


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["README.md", "model_card.md"])
def test_python_blocks_run(name, tmp_path):
    blocks = python_blocks((ROOT / name).read_text())
    assert blocks
    subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, check=True)
    if name == "README.md":
        assert (tmp_path / "image.png").stat().st_size > 0


def test_make_targets_of_the_first_screen_exist():
    targets = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_number_of_the_score_table_is_in_the_training_log():
    scores = json.loads((ROOT / "src/vilau_hf/checkpoints/tiny/training_log.json").read_text())["scores"]
    card = (ROOT / "model_card.md").read_text()
    rows = re.findall(r"^\| .* \| `(\w+)` \| ([\d.]+)( %| dB) \|", card, flags=re.MULTILINE)
    assert len(rows) == 13
    for key, value, unit in rows:
        assert float(value) == pytest.approx(scores[key] * (100 if unit == " %" else 1), abs=0.051), key


def test_readme_is_one_screen_and_names_the_command_to_install():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    assert "`pip install .`" in text and text.count("```python") >= 5
