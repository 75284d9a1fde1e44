"""`vilau encode`."""

import argparse
import dataclasses
import json
from pathlib import Path

from .. import TINY_CHECKPOINT


HELP = "encode the images and videos of a dataset as codes, so that training needs no vision tower"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.epilog = (
        "On several GPUs: accelerate launch -m vilau_hf.cli encode DATASET OUT. After an interruption, the same "
        "command continues the run."
    )
    parser.add_argument(
        "dataset", help="folder or Hub id of records (see vilau records --help), or drawn_shapes for the toy dataset"
    )
    parser.add_argument(
        "out", type=Path, help="folder for the encoded records: new, empty, or from an interrupted run"
    )
    parser.add_argument(
        "--model",
        default=TINY_CHECKPOINT,
        help="folder or Hub id of the model or vision tower (default: the shipped checkpoint)",
    )
    parser.add_argument("--processor", help="folder or Hub id of the processor (default: the processor of the model)")
    parser.add_argument("--split", default="train", help="split of the dataset (default: %(default)s)")
    parser.add_argument(
        "--num-records",
        type=int,
        help="number of records to encode, counted from the first (default: all; 1000 for drawn_shapes)",
    )
    parser.add_argument(
        "--on-bad-media",
        choices=["error", "skip"],
        default="error",
        help="what to do if an image or video cannot be read: end the run, or skip the record (default: %(default)s)",
    )
    parser.add_argument(
        "--on-short-video",
        choices=["repeat", "error"],
        default="repeat",
        help="what to do if a video has fewer frames than are sampled: repeat and count, or error "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="number of images in a batch (default: %(default)s)"
    )
    parser.add_argument(
        "--shard-size", type=int, default=5000, help="number of records in one file (default: %(default)s)"
    )
    parser.add_argument(
        "--num-workers", type=int, default=0, help="number of processes that open images (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each process instead of text")


def run(args: argparse.Namespace) -> None:
    """Encodes the dataset in each launched process and prints a report."""
    from transformers.utils import logging

    from .. import VilaUProcessor
    from ..data import MediaLoader, encode_dataset
    from ..data.build import load_records
    from ..data.code_cache import launched_processes
    from ..drawn import drawn_shapes
    from ..loading import load_vision_tower

    logging.enable_progress_bar()
    state = launched_processes()
    processor = VilaUProcessor.from_pretrained(args.processor or args.model)
    if args.dataset == "drawn_shapes":
        dataset = drawn_shapes(args.split, args.num_records or 1000)
    else:
        dataset = load_records(args.dataset, args.split)
        dataset = dataset.take(args.num_records or len(dataset))
        dataset = dataset.with_transform(MediaLoader(processor, args.on_bad_media, on_short_video=args.on_short_video))
    tower = load_vision_tower(args.model).to(state.device)
    report = encode_dataset(
        dataset, args.out, tower, processor, args.batch_size, args.shard_size, num_workers=args.num_workers
    )
    if args.json:
        process = {"out": str(args.out), "process": state.process_index, "num_processes": state.num_processes}
        print(json.dumps({**process, **dataclasses.asdict(report)}, ensure_ascii=False))
        return
    print(
        f"process {state.process_index + 1} of {state.num_processes}: {report.num_images} images and frames of "
        f"{report.num_records} records, {report.images_per_second:.0f} images/s, {report.bytes_per_image:.0f} bytes "
        f"an image with its text, {report.num_skipped} records skipped, "
        f"frames repeated in {report.num_repeated_videos} short videos"
    )
    if report.is_complete:
        print(f"Complete: {args.out.resolve()}")
