"""`vilau convert`."""

import argparse
from pathlib import Path


HELP = "turn the original VILA-U release into a Hugging Face checkpoint"


def add_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("source", help="folder of the release, or its Hub id (mit-han-lab/vila-u-7b-256)")
    parser.add_argument("out", type=Path, help="folder of the checkpoint, new or empty")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="dtype of the weights (default: the dtype of the release)",
    )
    parser.add_argument(
        "--tower-out", type=Path, help="folder for the vision tower with its text encoder (default: not written)"
    )
    parser.add_argument(
        "--siglip-config", type=Path, help="config.json of the SigLIP model, if it is not one of the published models"
    )
    parser.add_argument("--push-to-hub", metavar="ID", help="repository to upload the checkpoint to")


def run(args: argparse.Namespace):
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
