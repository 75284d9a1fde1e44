"""`vilau convert`."""

import argparse
from pathlib import Path


HELP = "convert the original VILA-U release to a Hugging Face checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.add_argument("source", help="folder or Hub id of the release, for example mit-han-lab/vila-u-7b-256")
    parser.add_argument("out", type=Path, help="folder for the checkpoint, which must be new or empty")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="dtype of the weights (default: the dtype of the release)",
    )
    parser.add_argument(
        "--tower-out",
        type=Path,
        metavar="DIR",
        help="folder for the vision tower with its text encoder (default: the tower is not saved separately)",
    )
    parser.add_argument(
        "--siglip-config",
        type=Path,
        metavar="FILE",
        help="config.json of the SigLIP model (default: the config of the published model of this size)",
    )
    parser.add_argument("--push-to-hub", metavar="REPO_ID", help="Hub repository to which the checkpoint is uploaded")


def run(args: argparse.Namespace) -> None:
    """Converts the release, and uploads the checkpoint if asked to."""
    import torch

    from .. import convert_original_checkpoint

    convert_original_checkpoint(
        args.source,
        args.out,
        dtype=None if args.dtype is None else getattr(torch, args.dtype),
        tower_out=args.tower_out,
        siglip_config=args.siglip_config,
        push_to_hub=args.push_to_hub,
    )
    print(f"Written to {args.out.resolve()}")
    if args.tower_out is not None:
        print(f"The vision tower with its text encoder is in {args.tower_out.resolve()}")
    if args.push_to_hub is not None:
        print(f"Uploaded to {args.push_to_hub}")
