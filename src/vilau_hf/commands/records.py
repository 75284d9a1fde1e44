"""`vilau records`."""

import argparse
from pathlib import Path

from ..choices import RECORD_FORMATS


HELP = "convert a published dataset to records for training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.add_argument(
        "format",
        choices=[*RECORD_FORMATS, "pickle"],
        metavar="format",
        help=f"format of the dataset: {', '.join(RECORD_FORMATS)}",
    )
    parser.add_argument("source", nargs="+", help="files, file patterns or folders, or the Hub id of a dataset")
    parser.add_argument("out", type=Path, help="folder for the parquet files, which must be new or empty")
    parser.add_argument(
        "--target",
        choices=["media", "text"],
        help="target of training with captions: the images and videos, or the text",
    )
    parser.add_argument(
        "--option",
        type=named_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the format, for example media_folder=images; can be repeated",
    )
    parser.add_argument(
        "--records-per-file",
        type=int,
        default=10_000,
        help="number of records in one parquet file (default: %(default)s)",
    )


def named_value(text: str) -> tuple[str, object]:
    """Parses `name=value`. The value is read as YAML, so that `true` and `3` have their types."""
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError(f"must be name=value, got {text!r}")
    import yaml  # here, since `--help` must not import a library

    return name, yaml.safe_load(value)


def run(args: argparse.Namespace) -> None:
    """Converts the dataset and prints how many records were converted or skipped."""
    from ..data.converters import ConversionReport, convert_records, write_records

    report = ConversionReport()
    options = dict(args.option)
    if args.target is not None:
        options["target"] = args.target
    try:
        files = write_records(
            convert_records(args.source, args.format, report=report, **options), args.out, args.records_per_file
        )
    finally:  # also after an error, so that the rows that were skipped before it are known
        if report.num_records or report.skipped:
            print(report)
    print(f"{len(files)} files in {args.out.resolve()}")
