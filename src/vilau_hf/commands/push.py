"""`vilau push`."""

import argparse
from pathlib import Path

from .. import TINY_CHECKPOINT


HELP = "upload a checkpoint to the Hub with its processor, pipeline index and model card"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.add_argument("repo_id", help="id of the Hub repository, for example me/vila-u")
    parser.add_argument(
        "--source",
        default=TINY_CHECKPOINT,
        help="folder or Hub id of the checkpoint (default: the shipped checkpoint)",
    )
    parser.add_argument(
        "--with-code", action="store_true", help="upload the code as well, for users without this package"
    )
    parser.add_argument(
        "--card", type=Path, metavar="FILE", help="file of the model card (default: README.md of the source)"
    )
    parser.add_argument(
        "--private", action="store_true", default=None, help="make the repository private if it is new"
    )
    parser.add_argument(
        "--dry-run", type=Path, metavar="DIR", help="save the repository to the folder DIR and upload nothing"
    )


def run(args: argparse.Namespace) -> None:
    """Uploads the repository, or saves it to a folder with `--dry-run`."""
    from ..hub import push_repository, write_repository

    if args.dry_run is not None:
        write_repository(args.source, args.dry_run, args.with_code, args.card)
        print(f"Saved the content of {args.repo_id} to {args.dry_run.resolve()}. Nothing was uploaded.")
        return
    print(f"Uploaded: {push_repository(args.source, args.repo_id, args.with_code, args.card, args.private)}")
