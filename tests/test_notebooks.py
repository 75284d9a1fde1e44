"""The notebooks run from top to bottom, and become pages with images."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import build_notebooks
import pytest


FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))
# Packages of the extra `docs` that make a page of a notebook.
BUILDERS = ("jupytext", "nbclient", "nbconvert", "ipykernel")
# A line that each notebook prints.
PRINTED = {
    "draw_and_look_inside": "The image of seed 12 has the same codes alone and in a batch of four.",
    "fine_tune_on_your_images": "step 150: visual_loss",
    "original_release": "the drawn image has the same codes: True",
    "train_your_own_picture_model": "step 800: visual_loss",
}


def test_each_notebook_is_tested():
    assert [path.stem for path in NOTEBOOKS] == sorted(PRINTED) == build_notebooks.names()


@pytest.mark.slow
def test_a_notebook_runs_as_a_script(tmp_path):
    name = "draw_and_look_inside"
    command = [sys.executable, str(FOLDER / f"{name}.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert PRINTED[name] in run.stdout


# The pages stay in docs/notebooks/built, so that `make docs` after the slow tests does not run the notebooks again.
@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTED)
def test_notebooks_become_pages(name, monkeypatch):
    for module in BUILDERS:
        pytest.importorskip(module)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    page = build_notebooks.build(name, force=True).read_text()
    assert PRINTED[name] in page
    assert not re.search(r"(equal|same .*): False", page)
    for image in re.findall(r"!\[.*\]\((.*)\)", page):
        assert (build_notebooks.BUILT / image).is_file(), image
    if name == "fine_tune_on_your_images":
        losses = [float(loss) for loss in re.findall(r"^ +step +\d+: visual_loss ([\d.]+)$", page, flags=re.MULTILINE)]
        assert losses == sorted(losses, reverse=True) and losses[-1] < 0.6 * losses[0]


def test_each_notebook_has_a_page_in_the_navigation():
    navigation = (FOLDER.parents[1] / "mkdocs.yml").read_text()
    assert re.findall(r"notebooks/built/(\w+)\.md", navigation) == build_notebooks.names()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_in_the_percent_format(path):
    text = path.read_text()
    header, _, cells = text.partition("# ---\n\n")
    assert "format_name: percent" in header and "display_name" in header
    assert cells.startswith("# %% [markdown]\n# # ")
    assert all(line in ("# %%", "# %% [markdown]") for line in cells.splitlines() if line.startswith("# %%"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_import_public_names_only(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "vilau_hf":
            public = importlib.import_module(node.module).__all__
            assert {alias.name for alias in node.names} <= set(public), ast.unparse(node)


def test_logs_are_dropped_and_prints_are_joined():
    def stream(name, text):
        return SimpleNamespace(text=text, get=lambda key: name)

    image = SimpleNamespace(get=lambda key: None)
    outputs = [stream("stdout", "a"), stream("stderr", "log"), stream("stdout", "b"), image, stream("stdout", "c")]
    cell = SimpleNamespace(cell_type="code", outputs=outputs, get=lambda key, default: outputs)
    notebook = build_notebooks.tidy(SimpleNamespace(cells=[cell]))
    assert [getattr(output, "text", "image") for output in notebook.cells[0].outputs] == ["ab", "image", "c"]


SMALL = """\
# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Small

# %%
from pathlib import Path

from PIL import Image


Path("left.txt").write_text("a file of the notebook")
print("printed")
Image.new("RGB", (4, 4), "red")
"""


@pytest.mark.slow
def test_a_page_is_built_once_for_each_version_of_a_notebook(tmp_path, monkeypatch):
    for module in BUILDERS:
        pytest.importorskip(module)
    monkeypatch.setattr(build_notebooks, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(build_notebooks, "BUILT", tmp_path / "built")
    (tmp_path / "small.py").write_text(SMALL)
    page = build_notebooks.build("small")
    text = page.read_text()
    assert text.strip().startswith("# Small") and "    printed" in text
    (image,) = (tmp_path / "built" / "small_files").iterdir()
    assert f"](small_files/{image.name})" in text and image.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.rglob("left.txt"))
    page.write_text("kept")
    assert build_notebooks.build("small").read_text() == "kept"
    (tmp_path / "small.py").write_text(SMALL.replace('"printed"', '"changed"'))
    assert "changed" in build_notebooks.build("small").read_text()
    (tmp_path / "small.py").write_text(SMALL.replace("Path(", "Missing("))
    with pytest.raises(Exception, match="Missing"):
        build_notebooks.build("small")
