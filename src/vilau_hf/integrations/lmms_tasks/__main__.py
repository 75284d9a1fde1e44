"""Writes the folder for `--include_path` of lmms-eval: `python -m vilau_hf.integrations.lmms_tasks OUT`."""

import argparse
from pathlib import Path

from ... import TINY_CHECKPOINT
from ...evaluation.task import TaskOptions
from .writing import DEFAULT_TASKS, write_lmms_tasks


def main() -> None:
    """Writes tasks, and prints their names and the mode of the adapter that each needs."""
    parser = argparse.ArgumentParser(prog="python -m vilau_hf.integrations.lmms_tasks", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for `--include_path`, new or empty")
    parser.add_argument(
        "tasks",
        nargs="*",
        default=list(DEFAULT_TASKS),
        help="tasks of `vilau evaluate` (default: those of shapes, which need no data)",
    )
    parser.add_argument(
        "--model",
        default=TINY_CHECKPOINT,
        help="folder or Hub id of the model, whose image size and number of frames the tasks have "
        "(default: the shipped checkpoint)",
    )
    parser.add_argument("--samples", type=int, help="documents of each task (default: the number of the task)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the documents (default: %(default)s)")
    parser.add_argument("--judge", help="folder of the emoji judge")
    parser.add_argument("--records", help="folder of emoji records")
    args = parser.parse_args()
    options = TaskOptions(samples=args.samples, seed=args.seed, judge=args.judge, records=args.records)
    for name, mode in write_lmms_tasks(args.out, args.tasks, args.model, options).items():
        print(f"{name}: {mode}")


if __name__ == "__main__":
    main()
