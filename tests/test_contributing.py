"""CONTRIBUTING.md is true: its examples are followed in a copy of the package, and its files exist."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from .readability import docstrings_without_verb, long_sentences, packed_assignments


ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
BLOCK = re.compile(r'^```(python|diff) title="([^"]+)"\n(.*?)^```$', flags=re.MULTILINE | re.DOTALL)


def sections():
    """Returns the text of each section "How to add ..." by its title."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    return {title: text for title, text in zip(parts[1::2], parts[2::2], strict=True) if "How to add" in title}


def apply_edit(text: str, edit: str, file: str) -> str:
    """Returns `text` after a block of lines that begin with a space (kept), a minus (removed) or a plus (added)."""
    lines = edit.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    assert text.count(old) == 1, f"CONTRIBUTING.md: an edit of {file} no longer applies; these lines are gone:\n{old}"
    return text.replace(old, new)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """Returns the folder of a copy of the package, in which every example of the page has been followed."""
    root = tmp_path_factory.mktemp("contribution")
    package = root / "src" / "vilau_hf"
    shutil.copytree(
        ROOT / "src" / "vilau_hf", package, ignore=shutil.ignore_patterns("checkpoints", "__pycache__", "*.egg-info")
    )
    (package / "checkpoints").symlink_to(ROOT / "src" / "vilau_hf" / "checkpoints")
    for kind, file, content in BLOCK.findall(PAGE):
        path = root / file
        if kind == "python":
            assert not path.exists(), f"{file} exists already: choose another example"
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        else:
            path.write_text(apply_edit(path.read_text(), content, file))
    return root


def run(extended, *arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(extended / "src"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_the_page_has_an_example_of_each_kind():
    edits = {title: len(BLOCK.findall(text)) for title, text in sections().items()}
    assert edits == {
        "How to add a data format": 2,
        "How to add a sampling setting": 3,
        "How to add a benchmark": 2,
        "How to add a CLI verb": 3,
    }


def test_a_data_format_of_the_page_converts_a_file(extended, tmp_path):
    rows = [
        {"instruction": "Add.", "input": "2 + 2", "output": "4"},
        {"instruction": "Name a colour.", "input": "", "output": "Red."},
        {"instruction": "Say nothing.", "input": "", "output": ""},
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    printed = run(extended, "-m", "vilau_hf.cli", "records", "alpaca", "alpaca.json", "out", cwd=tmp_path)
    assert "2 records, 1 rows skipped" in printed and "field 'output' is empty" in printed
    script = "from datasets import load_dataset; print(load_dataset('out', split='train')[0]['messages'])"
    messages = ast.literal_eval(run(extended, "-c", script, cwd=tmp_path))
    assert [message["content"][0]["text"] for message in messages] == ["Add.\n2 + 2", "4"]


SAMPLE = """
import torch
from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration

model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()

def draw(**settings):
    return model.generate(torch.tensor([[1, 20, 21]]), generation_mode="image", seed=0, guidance_scale=1.0, **settings)

plain, likeliest = draw(), draw(do_sample=False)
print(torch.equal(draw(visual_epsilon=0.0), plain))
print(torch.equal(draw(visual_epsilon=0.999), likeliest), torch.equal(plain, likeliest))
print(torch.equal(draw(visual_epsilon=[0.999, 0.999, 0.999, 0.999]), likeliest))
model.generation_config.visual_epsilon = 0.999
print(torch.equal(draw(), likeliest))
try:
    draw(visual_epsilon=1.5)
except ValueError as error:
    print(error)
"""


def test_a_sampling_setting_of_the_page_acts_in_generate(extended, tmp_path):
    lines = run(extended, "-c", SAMPLE, cwd=tmp_path).splitlines()
    assert lines == ["True", "True False", "True", "True", "`visual_epsilon` must be in [0, 1), got 1.5."]


def test_a_benchmark_of_the_page_gives_a_number(extended, tmp_path):
    pytest.importorskip("evaluate")
    script = (
        "import evaluate; from vilau_hf.evaluation import EVALUATE_METRICS; "
        "metric = evaluate.load(f'{EVALUATE_METRICS}/chartqa'); "
        "print(metric.compute(predictions=['104', 'Yes', '9', '0'], references=['100', 'yes', '10', '0']))"
    )
    assert ast.literal_eval(run(extended, "-c", script, cwd=tmp_path)) == {"relaxed_accuracy": 0.75}


def test_a_verb_of_the_page_is_listed_and_runs(extended, tmp_path):
    listed = run(extended, "-m", "vilau_hf.cli", "--help", cwd=tmp_path)
    assert re.search(r"^ +codes +print the codes of an image", listed, flags=re.MULTILINE)
    Image.new("RGB", (32, 32), "white").save(tmp_path / "white.png")
    codes = run(extended, "-m", "vilau_hf.cli", "codes", "white.png", cwd=tmp_path).splitlines()
    assert len(codes) == 64 and all(re.fullmatch(r"\d+ \d+ \d+ \d+", line) for line in codes)


def test_the_examples_follow_the_rules_of_the_page(extended):
    files = [file for kind, file, _ in BLOCK.findall(PAGE) if kind == "python"]
    for file in files:
        source = (extended / file).read_text()
        assert not packed_assignments(ast.parse(source)), file
        assert not docstrings_without_verb(ast.parse(source)), file
        assert not long_sentences(source), file
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--config", str(ROOT / "pyproject.toml"), *files]
        result = subprocess.run(ruff, cwd=extended, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


def test_the_docstring_of_the_page_is_in_the_code():
    file, block = re.search(r"^```python\n# from (\S+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL).groups()
    assert block in (ROOT / file).read_text()


def test_folders_and_links_of_the_page_exist():
    table = PAGE.partition("## Where things go")[2].partition("\n## ")[0]
    for name in re.findall(r"`(\w+/)`", table):
        assert (ROOT / name).is_dir() or (ROOT / "src" / "vilau_hf" / name).is_dir(), name
    for page in ("CONTRIBUTING.md", "SECURITY.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text()):
            assert (ROOT / target).exists(), f"{page}: {target}"


def test_make_targets_of_the_page_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", PAGE)) <= targets


def test_files_of_the_quick_selection_exist():
    selection = re.search(r"--dist loadfile (.+)$", PAGE, flags=re.MULTILINE)[1].split()
    assert len(selection) > 5 and all((ROOT / name).exists() for name in selection)


def test_pre_commit_uses_the_locked_ruff():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    locked = re.search(r"^ruff==(\S+)$", (ROOT / "requirements" / "lock.txt").read_text(), flags=re.MULTILINE)[1]
    assert [repository["rev"] for repository in config["repos"]] == [f"v{locked}"]


def test_the_citation_has_the_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    version = re.search(r'__version__ = "(.+)"', (ROOT / "src" / "vilau_hf" / "version.py").read_text())[1]
    assert citation["cff-version"] == "1.2.0" and citation["version"] == version
    for entry in (citation, *citation["references"]):
        assert entry["title"] and entry["authors"] and entry["type"]
    assert "2409.04429" in citation["references"][0]["url"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_forms_have_what_github_needs(path):
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert form["name"] and form["description"]
    assert len({field["id"] for field in form["body"]}) == len(form["body"])
    for field in form["body"]:
        assert field["type"] in ("textarea", "input", "dropdown", "checkboxes") and field["attributes"]["label"]
