"""`vilau records`."""

import argparse
from pathlib import Path

from ..choices import RECORD_FORMATS


HELP = "turn a published dataset into records to train on"


def add_arguments(parser: argparse.ArgumentParser):
    parser.add_argument(
        "format",
        choices=[*RECORD_FORMATS, "pickle"],
        metavar="format",
        help=f"format of the dataset: {', '.join(RECORD_FORMATS)}",
    )
    parser.add_argument("source", nargs="+", help="files, patterns, folders, or the id of a dataset on the Hub")
    parser.add_argument("out", type=Path, help="folder of parquet files, new or empty")
    parser.add_argument(
        "--target",
        choices=["media", "text"],
        help="what a model learns from captions: to generate the media or to write the text",
    )
    parser.add_argument(
        "--option",
        type=named_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the format, as in media_folder=images; can be repeated",
    )
    parser.add_argument(
        "--records-per-file", type=int, default=10_000, help="records in one parquet file (default: %(default)s)"
    )


def named_value(text: str) -> tuple[str, object]:
    """Reads `name=value`, the value as in YAML."""
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError(f"must be name=value, got {text!r}")
    import yaml

    return name, yaml.safe_load(value)


def run(args: argparse.Namespace):
    from ..data.converters import ConversionReport, convert_records, write_records

    report, options = ConversionReport(), dict(args.option)
    if args.target is not None:
        options["target"] = args.target
    try:
        files = write_records(
            convert_records(args.source, args.format, report=report, **options), args.out, args.records_per_file
        )
    finally:
        if report.num_records or report.skipped:
            print(report)
    print(f"{len(files)} files in {args.out.resolve()}")
