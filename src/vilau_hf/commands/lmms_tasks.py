"""`vilau lmms-tasks`."""

import argparse
from pathlib import Path

from .. import TINY_CHECKPOINT


HELP = "write evaluation tasks as tasks of lmms-eval, for its option --include_path"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.epilog = (
        'Then: vilau evaluate lmms:NAME --model MODEL --out DIR --lmms-args "--include_path OUT". Each task names its '
        "mode, so tasks that draw need no further setting."
    )
    parser.add_argument("out", type=Path, help="folder for the tasks, new or empty")
    parser.add_argument(
        "tasks",
        nargs="*",
        help="tasks of vilau evaluate whose samples are conversations (default: those of shapes, which need no data)",
    )
    parser.add_argument(
        "--model",
        default=TINY_CHECKPOINT,
        help="folder or Hub id of the model, whose image size and number of frames the tasks have "
        "(default: the shipped checkpoint)",
    )
    parser.add_argument("--samples", type=int, help="number of documents of each task (default: all of the task)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the documents (default: %(default)s)")
    parser.add_argument("--judge", help="folder of the emoji judge")
    parser.add_argument("--records", help="folder of emoji records")


def run(args: argparse.Namespace) -> None:
    """Writes the tasks, and prints the name and the mode of each."""
    from ..evaluation.task import TaskOptions
    from ..integrations.lmms_tasks import DEFAULT_TASKS, write_lmms_tasks

    options = TaskOptions(samples=args.samples, seed=args.seed, judge=args.judge, records=args.records)
    for name, mode in write_lmms_tasks(args.out, args.tasks or DEFAULT_TASKS, args.model, options).items():
        print(f"{name}: {mode}")
