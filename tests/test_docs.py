"""The pages of docs run, block by block, as a reader would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .run_pages import python_blocks


ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_blocks_of_the_training_page_run(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    page = (ROOT / "docs" / "training.md").read_text()
    blocks = re.findall(r"```(python|bash)\n(.*?)```", page, flags=re.DOTALL)
    assert {kind for kind, _ in blocks} == {"python", "bash"}
    python, printed = "", []
    for kind, block in blocks:
        if kind == "python" and "import PeftModel" not in block:
            python, command = block, [sys.executable, "-c", block]
        elif kind == "python":  # it needs the functions of the block before
            command = [sys.executable, "-c", re.sub(r"\ntuned = .*", "\n", python, flags=re.DOTALL) + block]
        else:
            command = ["bash", "-euc", block]
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{block}\n{result.stderr[-3000:]}"
        printed.append(result.stdout)
    printed = "".join(printed)
    assert "800 records, 0 rows skipped" in printed and "Complete: " in printed
    right = int(re.search(r"right answers about new images: (\d+)%", printed)[1])
    assert right >= 85
    for name in ("tuned", "merged", "mixed", "pretrained", "tower", "two", "resumed"):
        assert (tmp_path / name / "model.safetensors").is_file(), name


DOCS = ROOT / "docs"
# Each group runs in one process, because the imports take longer than most pages.
GROUPS = {
    "generation": [
        *("index.md", "guides/generate.md"),
        *(f"guides/{name}.md" for name in ("edit", "animate", "ask", "interleave", "draw")),
    ],
    "the rest": [
        *(f"guides/{name}.md" for name in ("convert", "quantize", "push", "serve", "fine_tune")),
        *("guides/train_a_tower.md", "guides/evaluate.md", "memory.md"),
    ],
}


@pytest.mark.parametrize("pages", GROUPS.values(), ids=GROUPS)
def test_python_blocks_of_the_pages_run(pages, tmp_path):
    command = [sys.executable, ROOT / "tests" / "run_pages.py", *(DOCS / page for page in pages)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout[-1000:]}\n{result.stderr[-3000:]}"
    assert result.stdout.count(" ran in ") == len(pages)


def test_every_page_with_python_is_run():
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md") if python_blocks(page.read_text())}
    pages = {page for page in pages if not page.startswith("notebooks/")}  # they come from scripts that run
    assert pages == {"training.md", *(page for group in GROUPS.values() for page in group)}


@pytest.mark.slow
@pytest.mark.parametrize("page", ["train_a_tower.md", "push.md"])
def test_commands_of_the_guides_run(page, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    blocks = re.findall(r"```bash\n(.*?)```", (DOCS / "guides" / page).read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        subprocess.run(["bash", "-euc", block], cwd=tmp_path, env=env, check=True)


def test_all_commands_of_the_guides_run_somewhere():
    pages = {page.name for page in (DOCS / "guides").glob("*.md") if "```bash" in page.read_text()}
    # the commands of the second page train for hours; `tests/emoji` runs them with a thousandth of the steps
    assert pages == {"train_a_tower.md", "train_a_picture_model.md", "push.md"}


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.name)
def test_links_of_the_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http|#)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_files_and_names_of_the_architecture_page_exist():
    page, package = (ROOT / "docs" / "architecture.md").read_text(), ROOT / "src" / "vilau_hf"
    code = "\n".join(path.read_text() for path in [*package.rglob("*.py"), *(ROOT / "tests").glob("*.py")])
    for name in re.findall(r"`([A-Za-z_./]+)`", page):
        if name.endswith((".py", "/")):
            places = [ROOT / name, package / name, package / "modeling" / name]
            assert any(place.exists() for place in places), name
        elif re.fullmatch(r"[A-Za-z_.]*[A-Z][a-z]\w+|\w+_\w+", name):
            assert name.split(".")[-1] in code, name
