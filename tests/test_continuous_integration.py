"""The scripts of .ci and the workflows: the targets that they call exist, and the scripts find real errors."""

import re
import subprocess
import sys
from pathlib import Path

import check_demo
import link_torch
import newest
import pytest
import yaml
from packaging.requirements import Requirement


ROOT = Path(__file__).parents[1]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
REQUIREMENTS = [Requirement(line) for line in ("torch>=2.11", "transformers>=5.20.2,<6", "transformers[serving]")]


def steps():
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            matrix = job.get("strategy", {}).get("matrix", {})
            for step in job["steps"]:
                yield step, matrix


def test_workflows_call_targets_that_exist():
    called = set()
    for step, matrix in steps():
        if "run" in step:
            target = re.fullmatch(r"make (\S+|\$\{\{.*\}\})( NEWER=.*)?", step["run"].strip(), flags=re.DOTALL)[1]
            called.update(matrix["target"] if "matrix.target" in target else [target])
    assert called == {"test", "test-slow", "lint", "docs", "wheel", "test-lowest", "test-newest", "test-lmms"}
    assert called <= TARGETS


def test_workflows_pin_their_actions():
    actions = [step["uses"] for step, _ in steps() if "uses" in step]
    assert actions and all(re.fullmatch(r"[\w/-]+@v\d+\.\d+\.\d+", action) for action in actions)


def test_local_run_has_the_legs_of_the_workflow():
    legs = re.findall(r"^leg (\w+) (.*)$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
    assert [name for name, _ in legs] == ["locked", "lowest", "newest"]
    assert {target for _, targets in legs for target in targets.split()} <= TARGETS


def test_newest_installs_without_ranges_and_without_torch():
    assert newest.names(REQUIREMENTS) == ["transformers[serving]"]


@pytest.mark.parametrize(
    ("version", "failed", "status"),
    [
        ("5.24.0", [], 0),
        ("5.24.0", ["tests.test_cli.test_help"], 1),
        ("6.0.0", ["tests.test_cli.test_help"], 0),
        ("6.0.0.dev0", ["tests.test_cli.test_help"], 0),
        ("6.0.0", [], 0),
    ],
)
def test_newest_fails_only_inside_the_declared_ranges(version, failed, status):
    versions = {"torch": "2.14.1", "transformers": version}
    beyond = newest.outside(REQUIREMENTS, versions)
    assert beyond == ([] if version == "5.24.0" else [f"transformers {version} (declared: <6,>=5.20.2)"])
    text, actual = newest.summary(versions, beyond, failed)
    assert actual == status
    assert f"transformers {version}" in text and all(f"Failed: {name}" in text for name in failed)


LOCK = """\
# made by uv
torch==2.14.1
    # via vilau-hf (setup.cfg)
appnope==1.0.0 ; sys_platform == 'nowhere'
ruff==0.12.1 ; python_full_version >= '3.11'
"""


@pytest.mark.parametrize(
    ("installed", "newer"),
    [
        ({"torch": "2.14.1+cu130", "ruff": "0.12.1", "pip": "26.0", "vilau-hf": "0.1.0"}, []),
        ({"torch": "2.14.1", "ruff": "0.12.2"}, ["ruff 0.12.2 (locked: 0.12.1)"]),
        ({"torch": "2.14.1", "appnope": "1.0.0"}, ["appnope 1.0.0 (locked: none)"]),
    ],
)
def test_newest_versions_that_are_locked_need_no_second_test(installed, newer):
    assert newest.newer_than_locked(installed, LOCK) == newer


def test_newest_names_the_failed_tests(tmp_path):
    (tmp_path / "test_some.py").write_text("def test_right(): pass\ndef test_wrong(): assert False\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=report.xml"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 1
    assert newest.failures(tmp_path / "report.xml") == ["test_some.test_wrong"]
    assert newest.failures(tmp_path / "none.xml") == ["pytest wrote no report"]


DEMO = """
  pictures.png         12 of 12 have the right colour and shape
  *.gif                4 of 4 move in the right direction
  reconstructions.png  8 of 8 keep colour and shape; PSNR 34.4 dB
  answers.md           20 of 20 answers are exactly right
"""


def test_low_scores_of_the_demo_are_found():
    assert not check_demo.too_low(DEMO)
    (problem,) = check_demo.too_low(DEMO.replace("20 of 20", "10 of 20"))
    assert problem.startswith("answers.md")
    assert len(check_demo.too_low("")) == 5


def test_only_torch_and_its_libraries_are_linked(tmp_path):
    for name in ("torch", "nvidia_cublas", "numpy"):
        folder = tmp_path / "a" / f"{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
        (tmp_path / "a" / f"{name}.py").write_text(name)
        files = (f"{name}.py", f"{folder.name}/METADATA", f"{folder.name}/RECORD", "../../../bin/run")
        (folder / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for _ in range(2):  # a second call replaces the files
        assert link_torch.link(tmp_path / "a", tmp_path / "b") == ["nvidia-cublas 1.0", "torch 1.0"]
    assert (tmp_path / "b" / "torch.py").samefile(tmp_path / "a" / "torch.py")
    assert not (tmp_path / "b" / "numpy.py").exists()
