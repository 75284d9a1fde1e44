"""The versions pinned in requirements/ fit the ranges in setup.cfg and can be installed on any machine."""

import re
import tomllib
from pathlib import Path

import pytest
from declared import declared
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


ROOT = Path(__file__).parents[1]
SHARED = {"torch", "torchvision"}  # the same release in all environments
EXTRAS = re.search(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[1].split(",")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def lines(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


def pinned(name, python):
    """Returns the pinned versions for a Python version on Linux, by package name."""
    environment = {
        **default_environment(),
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    pins = {}
    for requirement in map(Requirement, lines(name)):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", requirement
            assert canonicalize_name(requirement.name) not in pins, requirement
            pins[canonicalize_name(requirement.name)] = Version(specifier.version)
    return pins


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", ["lock", "lowest"])
def test_every_dependency_is_pinned_within_its_range(name, python):
    pins = pinned(name, python)
    for requirement in declared(EXTRAS):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_build_requirements_are_locked():
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirement in [*map(Requirement, required), Requirement("build")]:
        for python in PYTHONS:
            assert pinned("lock", python)[requirement.name] in requirement.specifier, requirement


def test_lowest_pins_are_the_lower_bounds():
    pins = pinned("lowest", "3.11")
    for requirement in declared(EXTRAS):
        bounds = [Version(bound.version) for bound in requirement.specifier if bound.operator == ">="]
        if bounds and requirement.name not in SHARED:
            assert pins[canonicalize_name(requirement.name)] == max(bounds), requirement


def test_every_environment_has_the_same_torch():
    torch = dict(line.split("==") for line in lines("torch"))
    assert torch.keys() == SHARED
    for name in ("lock", "lowest"):
        assert {key: str(value) for key, value in pinned(name, "3.11").items() if key in SHARED} == torch


@pytest.mark.parametrize("name", ["lock", "lowest", "torch"])
def test_pins_contain_no_path_and_no_registry(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert not re.search(r"://|^\s*-|(^|\s)/|\s@\s|\.whl", text, flags=re.MULTILINE)
    assert all("[" not in line for line in lines(name))  # pip allows no extras in constraints


def test_the_table_of_the_installation_page_shows_the_pins():
    text = (ROOT / "docs" / "installation.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\d+\.[\d.]+) \| (\d+\.[\d.]+) \|$", text, flags=re.MULTILINE)
    assert len(rows) == 8
    for name, lowest, locked in rows:
        assert pinned("lowest", "3.11")[name] == Version(lowest) and pinned("lock", "3.11")[name] == Version(locked)
