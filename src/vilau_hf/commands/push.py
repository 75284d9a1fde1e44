"""`vilau push`."""

import argparse
from pathlib import Path

from .. import TINY_CHECKPOINT


HELP = "upload a checkpoint to the Hub: weights, processor, pipeline index, model card"


def add_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("repo_id", help="repository to upload to, as in me/vila-u")
    parser.add_argument(
        "--source", default=TINY_CHECKPOINT, help="folder or Hub id of a checkpoint (default: the shipped checkpoint)"
    )
    parser.add_argument("--with-code", action="store_true", help="add the code, for use without this package")
    parser.add_argument("--card", type=Path, help="file of the model card (default: README.md of the source)")
    parser.add_argument(
        "--private", action="store_true", default=None, help="make the repository private, if it is new"
    )
    parser.add_argument("--dry-run", type=Path, metavar="DIR", help="write the repository to DIR and upload nothing")


def run(args: argparse.Namespace):
    from ..hub import push_repository, write_repository

    if args.dry_run is not None:
        write_repository(args.source, args.dry_run, args.with_code, args.card)
        print(f"What would be uploaded to {args.repo_id} is in {args.dry_run.resolve()}")
        return
    print(f"Uploaded: {push_repository(args.source, args.repo_id, args.with_code, args.card, args.private)}")
