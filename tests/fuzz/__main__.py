"""
Tries the public functions with generated arguments.

`python -m tests.fuzz --cases 20000` prints a table, and a line for each case that ends in an unclear error, a hang or
a silently wrong result. The exit code is 1 if there is any.
"""

import argparse
import sys

from .classification import Outcome
from .runner import ENTRY_POINTS, FAILURES, run_entry_point, shares, table


def main() -> None:
    """Runs the cases that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="number of cases of all entry points together")
    parser.add_argument("--entry-point", choices=ENTRY_POINTS, help="one entry point, which then gets all cases")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cases (default: 0)")
    parser.add_argument("--only", type=int, help="number of the only case that is run")
    args = parser.parse_args()
    wanted = shares(args.cases) if args.entry_point is None else [(args.entry_point, args.cases)]
    counts = {}
    for name, cases in wanted:

        def report(number: int, outcome: Outcome, name: str = name, cases: int = cases) -> None:
            if outcome.kind in FAILURES or args.only is not None:
                command = f"--entry-point {name} --cases {cases} --seed {args.seed} --only {number}"
                reason = f"{outcome.reason} [{outcome.place}]" if outcome.place else outcome.reason
                print(f"{name}: {outcome.kind}: {reason}: {outcome.case[:400]} (python -m tests.fuzz {command})")
                sys.stdout.flush()

        counts[name] = run_entry_point(name, cases, args.seed, args.only, report)
    print(f"\n{table(counts)}")
    sys.exit(any(each[kind] for each in counts.values() for kind in FAILURES))


if __name__ == "__main__":
    main()
