"""The `vilau` command."""

import argparse
import time
from pathlib import Path

from transformers.utils import logging

from . import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor, __version__
from .demo import run_demo


def demo(args: argparse.Namespace):
    started = time.time()
    model = VilaUForConditionalGeneration.from_pretrained(args.model).eval()
    processor = VilaUProcessor.from_pretrained(args.model)
    scores = run_demo(model, processor, args.out, args.seed)
    print(f"\nWritten to {args.out.resolve()} in {time.time() - started:.0f} s; judged by the drawing oracle:")
    for name, file in (
        ("pictures", "pictures.png"),
        ("videos", "*.gif"),
        ("reconstructions", "reconstructions.png"),
        ("answers", "answers.md"),
    ):
        print(f"  {file:<20} {scores[name]}")


def add_demo(subparsers):
    parser = subparsers.add_parser("demo", help="draw, animate, reconstruct and answer with a model of drawn shapes")
    parser.add_argument("--out", type=Path, default=Path("vilau_demo"), help="folder (default: %(default)s)")
    parser.add_argument("--model", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
    parser.add_argument("--seed", type=int, default=0, help="of captions and samples (default: %(default)s)")
    parser.set_defaults(run=demo)


def main(argv: list[str] | None = None):
    """Entry point; `argv` as `sys.argv[1:]`."""
    parser = argparse.ArgumentParser(prog="vilau", description="VILA-U for Hugging Face")
    parser.add_argument("--version", action="version", version=__version__)
    add_demo(parser.add_subparsers(required=True, metavar="command"))
    args = parser.parse_args(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    args.run(args)
