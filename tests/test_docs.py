"""The pages of docs run, block by block, as a reader would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


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


def test_links_of_the_pages_lead_somewhere():
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_and_names_of_the_architecture_page_exist():
    page, package = (ROOT / "docs" / "architecture.md").read_text(), ROOT / "src" / "vilau_hf"
    code = "\n".join(path.read_text() for path in [*package.rglob("*.py"), *(ROOT / "tests").glob("*.py")])
    for name in re.findall(r"`([A-Za-z_./]+)`", page):
        if name.endswith((".py", "/")):
            places = [ROOT / name, package / name, package / "modeling" / name]
            assert any(place.exists() for place in places), name
        elif re.fullmatch(r"[A-Za-z_.]*[A-Z][a-z]\w+|\w+_\w+", name):
            assert name.split(".")[-1] in code, name
