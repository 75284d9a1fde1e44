"""A few hundred generated cases of each entry point; `make fuzz CASES=20000` runs more."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from .runner import ENTRY_POINTS, FAILURES, run_entry_point, shares, table


CASES = 40


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_generated_cases_are_fine_or_clearly_refused(name):
    failures = []

    def report(number, outcome):
        if outcome.kind in FAILURES:
            failures.append(f"{number}: {outcome}: {outcome.case}")

    counts = run_entry_point(name, CASES, report=report)
    assert not failures, "\n".join(failures)
    assert counts.total() >= CASES // 2 and counts["fine"]


def test_a_case_is_found_again_by_its_number():
    found = []
    run_entry_point("images", 10, report=lambda number, outcome: found.append(outcome.case))
    again = []
    run_entry_point("images", 10, only=7, report=lambda number, outcome: again.append(outcome.case))
    assert again == [found[7]]


def test_shares_and_table():
    counts = dict(shares(1000))
    assert counts.keys() == ENTRY_POINTS.keys() and abs(sum(counts.values()) - 1000) < 10
    lines = table({"images": Counter(fine=2, clear=1), "texts": Counter(hang=1)}).splitlines()
    assert lines[0].startswith("| entry point | cases | fine |") and lines[-1] == "| all | 4 | 2 | 1 | 0 | 1 | 0 |"


@pytest.mark.slow
def test_command_prints_the_table_and_exits_with_0():
    command = [sys.executable, "-m", "tests.fuzz", "--cases", "20", "--entry-point", "texts"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\| texts.* \| 20 \|", done.stdout, flags=re.MULTILINE)
