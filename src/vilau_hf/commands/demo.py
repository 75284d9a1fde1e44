"""`vilau demo`."""

import argparse
import time
from pathlib import Path

from .. import TINY_CHECKPOINT


HELP = "generate images and videos, reconstruct images and answer questions with a model of drawn shapes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.add_argument("--out", type=Path, default=Path("vilau_demo"), help="output folder (default: %(default)s)")
    parser.add_argument(
        "--model", default=TINY_CHECKPOINT, help="folder or Hub id of the model (default: the shipped checkpoint)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed for captions, questions and sampling (default: %(default)s)"
    )
    parser.add_argument(
        "--visual-decoding",
        choices=("sequential", "parallel"),
        help="whether one position or several are decoded in each pass of the language model, with the same images "
        "(default: setting of the model)",
    )


def run(args: argparse.Namespace) -> None:
    """Runs the demo and prints its scores."""
    from .. import VilaUForConditionalGeneration, VilaUProcessor
    from ..drawn.demo import run_demo

    started = time.time()
    model = VilaUForConditionalGeneration.from_pretrained(args.model).eval()
    if args.visual_decoding is not None:
        model.generation_config.visual_decoding = args.visual_decoding
    processor = VilaUProcessor.from_pretrained(args.model)
    scores = run_demo(model, processor, args.out, args.seed)
    print(f"\nWritten to {args.out.resolve()} in {time.time() - started:.0f} s; scores of the drawing oracle:")
    for name, file in (
        ("pictures", "pictures.png"),
        ("videos", "*.gif"),
        ("reconstructions", "reconstructions.png"),
        ("answers", "answers.md"),
    ):
        print(f"  {file:<20} {scores[name]}")
