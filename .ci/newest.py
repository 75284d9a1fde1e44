"""
Tests the newest releases of the libraries, including those that setup.cfg does not allow yet.

    python .ci/newest.py names EXTRAS   prints the libraries to install, without the ranges of setup.cfg
    python .ci/newest.py check EXTRAS   runs the fast tests and the demo, and prints versions and failures

A failure inside the ranges is a failure of the package, because pip installs these versions for users. If a library is
newer than its range, users do not get it yet. The failure is then reported, and the check passes. If every installed
version is the one of requirements/lock.txt, `make test` tests them, and the tests are not run a second time.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib.metadata import distributions, version
from pathlib import Path

from declared import ROOT, declared
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


LOCK = ROOT / "requirements" / "lock.txt"
# What a new environment has before anything is installed in it, and the package itself.
NOT_LOCKED = ("pip", "setuptools", "wheel", "vilau-hf")


def newer_than_locked(installed: dict[str, str], lock: str) -> list[str]:
    """
    Returns the installed packages that differ from the lock, in words.

    Args:
        installed (`dict[str, str]`): versions by normalised name.
        lock (`str`): text of requirements/lock.txt.
    """
    lines = [line for line in lock.splitlines() if line and not line.lstrip().startswith("#")]
    requirements = [Requirement(line) for line in lines]
    locked = {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    }
    return sorted(
        f"{name} {given} (locked: {locked.get(name, 'none')})"
        for name, given in installed.items()
        if name not in NOT_LOCKED and given.partition("+")[0] != locked.get(name)
    )


def names(requirements: list[Requirement]) -> list[str]:
    """Returns the packages to install, without torch and torchvision, which the environment already has."""
    wanted = {}
    for requirement in requirements:
        wanted.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    for name in ("torch", "torchvision"):
        wanted.pop(name, None)
    return [name + (f"[{','.join(sorted(extras))}]" if extras else "") for name, extras in sorted(wanted.items())]


def outside(requirements: list[Requirement], versions: dict[str, str]) -> list[str]:
    """Returns the libraries whose version is outside of the declared range."""
    return sorted(
        f"{requirement.name} {versions[requirement.name]} (declared: {requirement.specifier})"
        for requirement in requirements
        if not requirement.specifier.contains(versions[requirement.name], prereleases=True)
    )


def failures(report: Path) -> list[str]:
    """Returns the names of the failed tests in a JUnit report of pytest."""
    if not report.is_file():
        return ["pytest wrote no report"]
    cases = ElementTree.parse(report).iter("testcase")
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return [f"{case.get('classname')}.{case.get('name')}" for case in failed]


def summary(versions: dict[str, str], beyond: list[str], failed: list[str]) -> tuple[str, int]:
    """Returns the text to print at the end and the exit status."""
    lines = ["Newest versions: " + ", ".join(f"{name} {given}" for name, given in sorted(versions.items()))]
    lines += [f"Outside the range of setup.cfg: {line}" for line in beyond] or [
        "All are inside the ranges of setup.cfg."
    ]
    lines += [f"Failed: {name}" for name in failed] or ["Nothing failed."]
    if failed and beyond:
        lines.append("Reported only, because pip does not install these versions for users yet.")
    return "\n".join(lines), int(bool(failed) and not beyond)


def check(requirements: list[Requirement]) -> int:
    installed = {canonicalize_name(each.metadata["Name"]): each.version for each in distributions()}
    newer = newer_than_locked(installed, LOCK.read_text())
    if not newer:
        print("Newest versions: those of requirements/lock.txt, which `make test` tests. Nothing is tested again.")
        return 0
    print(f"Not in requirements/lock.txt: {', '.join(newer)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        tests = [sys.executable, "-m", "pytest", "--numprocesses", "auto", "--dist", "loadfile"]
        run = subprocess.run(
            [*tests, f"--junitxml={report}"], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
        )
        failed = failures(report) if run.returncode else []
    if run.returncode and not failed:
        failed = [f"pytest ended with {run.returncode}"]
    if subprocess.run([sys.executable, ROOT / ".ci" / "check_demo.py"], check=False).returncode:
        failed.append("vilau demo")
    versions = {requirement.name: version(requirement.name) for requirement in requirements}
    text, status = summary(versions, outside(requirements, versions), failed)
    print(text)
    return status


def main():
    task, extras = sys.argv[1:]
    requirements = declared(extras.split(","))
    if task == "names":
        print(*names(requirements))
    else:
        sys.exit(check(requirements))


if __name__ == "__main__":
    main()
