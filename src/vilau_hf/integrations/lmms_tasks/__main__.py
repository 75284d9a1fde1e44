"""Writes the folder for `--include_path` of lmms-eval: `python -m vilau_hf.integrations.lmms_tasks OUT`."""

import argparse
from pathlib import Path

from .writing import write_lmms_tasks


def main() -> None:
    """Writes the tasks and prints their names."""
    parser = argparse.ArgumentParser(prog="python -m vilau_hf.integrations.lmms_tasks", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for `--include_path`, new or empty")
    parser.add_argument("--samples", type=int, default=200, help="documents of each task (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=32, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the documents (default: %(default)s)")
    args = parser.parse_args()
    print(*write_lmms_tasks(args.out, args.samples, args.image_size, args.seed), sep="\n")


if __name__ == "__main__":
    main()
