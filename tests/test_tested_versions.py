"""The range of tested versions of transformers."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from vilau_hf.tested_versions import NEWEST_TRANSFORMERS, OLDEST_TRANSFORMERS, is_tested_transformers


IMPORT_WITH_VERSION = """
import importlib.metadata, sys

found, installed = sys.argv[1], importlib.metadata.version
importlib.metadata.version = lambda name: found if name == "transformers" else installed(name)
import vilau_hf
from vilau_hf import cli
"""


@pytest.mark.parametrize(
    ("version", "inside"),
    [
        ("4.57.1", False),
        ("5.20", False),
        ("5.20.1", False),
        ("5.20.2", True),
        ("5.20.10", True),
        ("5.23.0", True),
        ("5.24.0.dev0", True),
        ("5.24.7", True),
        ("5.25.0.dev0", False),
        ("5.25.0rc1", False),
        ("6.0.0", False),
        ("6.21.0", False),
    ],
)
def test_range_contains_all_patches_of_its_last_minor_version(version, inside):
    assert is_tested_transformers(version) == inside


def test_setup_requires_the_oldest_tested_version():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    required = setup["options"]["install_requires"].split()
    (transformers,) = [line for line in required if line.startswith("transformers")]
    assert f"transformers>={OLDEST_TRANSFORMERS}" in transformers.split(",")


@pytest.mark.parametrize("version", ["5.19.0", "5.25.1"])
def test_import_warns_once_about_an_untested_version(version):
    run = subprocess.run([sys.executable, "-c", IMPORT_WITH_VERSION, version], capture_output=True, text=True)
    assert run.returncode == 0
    warning, *rest = run.stderr.splitlines()
    # the warning names the line of the script that imports the package, its sixth
    assert warning.startswith("<string>:6: UserWarning: vilau_hf was tested with transformers 5.20.2 to 5.24.x")
    assert f"found {version}" in warning and f'pip install "transformers=={NEWEST_TRANSFORMERS}.*"' in warning
    assert not [line for line in rest if "Warning" in line]


def test_import_is_silent_about_a_tested_version():
    run = subprocess.run([sys.executable, "-c", IMPORT_WITH_VERSION, "5.23.0"], capture_output=True, text=True)
    assert run.returncode == 0 and run.stderr == ""
