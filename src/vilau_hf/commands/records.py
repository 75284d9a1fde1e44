"""`vilau records`."""

import argparse
import inspect
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..choices import EMOJI_FORMAT, RECORD_FORMATS


HELP = "convert a published dataset to records for training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.add_argument(
        "format",
        choices=[*RECORD_FORMATS, EMOJI_FORMAT, "pickle"],
        metavar="format",
        help=f"format of the dataset: {', '.join([*RECORD_FORMATS, EMOJI_FORMAT])}",
    )
    # One list for sources and `out`. With two arguments, argparse of Python 3.11 cannot leave the sources out.
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="path",
        help="sources: files, file patterns or folders, or the Hub id of a dataset. Last: the folder for the parquet "
        "files, which must be new or empty. The emoji need no source, npm fetches their packages; tarballs or folders "
        "of the packages are accepted as sources",
    )
    parser.add_argument(
        "--target",
        choices=["media", "text"],
        help="what the model learns to generate from captioned data: the images and videos, or the text",
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
    """Parses `name=value` into name and value. The value is read as YAML: `true` is a bool, `3` an int."""
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError(f"must be name=value, got {text!r}")
    import yaml  # here, since `--help` must not import a library

    try:
        return name, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid YAML: {' '.join(str(error).split())}") from error


def run(args: argparse.Namespace) -> None:
    """Converts the dataset and prints how many records were converted or skipped."""
    *sources, folder = args.paths
    options = dict(args.option)
    if args.target is not None:
        options["target"] = args.target
    if args.format == EMOJI_FORMAT:
        files = _write_emoji(sources, Path(folder), args.records_per_file, options)
    elif sources:
        files = _convert(sources, args.format, Path(folder), args.records_per_file, options)
    else:
        raise ValueError(f"The format {args.format!r} needs two paths or more: sources, and the folder for the files.")
    print(f"{len(files)} files in {Path(folder).resolve()}")


def _convert(
    sources: list[str], format: str, folder: Path, records_per_file: int, options: dict[str, Any]
) -> list[str]:
    """Converts sources of a published format, and returns the names of the files."""
    from ..data.converters import ConversionReport, convert_records, write_records

    report = ConversionReport()
    try:
        return write_records(convert_records(sources, format, report=report, **options), folder, records_per_file)
    finally:  # also after an error, so that the rows that were skipped before it are known
        if report.num_records or report.skipped:
            print(report)


def _write_emoji(sources: list[str], folder: Path, records_per_file: int, options: dict[str, Any]) -> list[str]:
    """Makes records of the emoji, prints how many there are of each style, and returns the names of the files."""
    from ..data.converters import write_records
    from ..emoji.records import emoji_features, emoji_records
    from ..files import is_new_or_empty

    signature = inspect.signature(emoji_records)
    try:
        signature.bind(sources, **options)
    except TypeError as error:
        raise ValueError(f"Options of the format {EMOJI_FORMAT!r} are size, with_clips and cache: {error}.") from error
    # `write_records` says the same, but only after npm has fetched 760 MB.
    if not is_new_or_empty(folder):
        raise ValueError(f"`folder` must be new or empty, got {str(folder)!r}.")
    styles: Counter[str] = Counter()

    def count(records: Iterable[dict]) -> Iterator[dict]:
        for record in records:
            styles[record["style"]] += 1
            yield record

    files = write_records(count(emoji_records(sources, **options)), folder, records_per_file, emoji_features())
    print(f"{styles.total()} records: {', '.join(f'{number} {style}' for style, number in styles.items())}")
    return files
