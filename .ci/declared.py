"""Reads the requirements of the package and of its extras from setup.cfg."""

import configparser
from pathlib import Path

from packaging.requirements import Requirement


ROOT = Path(__file__).parents[1]


def declared(extras: list[str] | None = None) -> list[Requirement]:
    """Returns the requirements of the package and of `extras` (default: all extras)."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    options = setup["options.extras_require"]
    lines = [setup["options"]["install_requires"], *(options[name] for name in extras or options)]
    return [Requirement(line) for line in "\n".join(lines).split("\n") if line.strip()]
