"""Runs the short benchmarks and compares their figures with the committed ones.

    python benchmarks/short.py

Figures are ratios of times in one process, counts, and shares. So they can be compared between machines of one kind. A
figure that is worse than the committed one by more than the tolerance is marked, and the exit status is then 1.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import RESULTS, Figure, argument_parser, figures_of


FOLDER = Path(__file__).parent
# together about ten minutes on one CPU core
SHORT = (
    ["bench_depth.py"],
    ["bench_loss.py"],
    ["bench_processor.py"],
    ["bench_import.py"],
    ["bench_parallel.py", "--captions", "16", "--only-goals"],
)


def how_much_worse(figure: Figure, value: float, committed: float) -> float:
    """Returns by which factor a figure is worse than the committed one; below 1 if it is better."""
    worse, better = (value, committed) if figure.at_most else (committed, value)
    if worse == better:
        return 1.0
    return worse / better if better else float("inf")


def compare(folder: Path, tolerance: float) -> int:
    """Prints the figures of the results in `folder` beside the committed ones, and returns how many are worse."""
    count = 0
    print(f"{'figure':56} {'now':>8} {'before':>8} {'worse by':>8}   goal")
    for file in sorted(folder.glob("*.json")):
        committed = {figure.key: value for figure, value in figures_of(json.loads((RESULTS / file.name).read_text()))}
        for figure, value in figures_of(json.loads(file.read_text())):
            factor = how_much_worse(figure, value, committed[figure.key])
            is_worse = factor > tolerance
            count += is_worse
            verdict = f"{figure.goal_text}, {'met' if figure.is_met(value) else 'MISSED'}{'  WORSE' * is_worse}"
            print(f"{figure.key:56} {value:8.4g} {committed[figure.key]:8.4g} {factor:8.2f}   {verdict}")
    return count


def main() -> None:
    parser = argument_parser(__doc__)
    parser.set_defaults(out=None)
    parser.add_argument(
        "--tolerance", type=float, default=1.15, help="factor by which a figure may be worse (default: %(default)s)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for script, *options in SHORT:
            print(f"\n{script}", flush=True)
            subprocess.run([sys.executable, FOLDER / script, *options, "--out", folder], check=True)
        print()
        count = compare(folder, args.tolerance)
    if count:
        sys.exit(f"{count} figures are worse than the committed ones by more than {args.tolerance:g} times.")


if __name__ == "__main__":
    main()
