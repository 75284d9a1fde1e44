"""The `vilau` command."""

import argparse
import contextlib
import time
from pathlib import Path

import torch
import yaml
from datasets import load_dataset
from transformers.utils import logging

from . import (
    TINY_CHECKPOINT,
    VilaUForConditionalGeneration,
    VilaUProcessor,
    __version__,
    convert_original_checkpoint,
)
from .demo import run_demo
from .hub import push_repository, write_repository
from .memory import STRATEGIES, estimate_generation_memory, estimate_training_memory, load_config
from .modeling.parts_vilau import PARTS
from .serving import serve_model
from .training import MediaLoader, check_recipe, drawn_shapes, encode_dataset, read_recipe, run_training
from .training.code_cache import launched_processes, load_vision_tower
from .training.converters import FORMATS, ConversionReport, convert_records, write_records
from .training.recipe import LoraArguments


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


def convert(args: argparse.Namespace):
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


def add_convert(subparsers):
    parser = subparsers.add_parser("convert", help="turn the original VILA-U release into a Hugging Face checkpoint")
    parser.add_argument("source", help="folder of the release, or its Hub id (mit-han-lab/vila-u-7b-256)")
    parser.add_argument("out", type=Path, help="folder of the checkpoint, new or empty")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="of the weights (default: as is)")
    parser.add_argument("--tower-out", type=Path, help="folder for the vision tower with its text encoder")
    parser.add_argument("--siglip-config", type=Path, help="config.json of a SigLIP that is not one of the published")
    parser.add_argument("--push-to-hub", metavar="ID", help="repository to upload the checkpoint to")
    parser.set_defaults(run=convert)


def push(args: argparse.Namespace):
    if args.dry_run is not None:
        write_repository(args.source, args.dry_run, args.with_code, args.card)
        print(f"What would be uploaded to {args.repo_id} is in {args.dry_run.resolve()}")
        return
    print(f"Uploaded: {push_repository(args.source, args.repo_id, args.with_code, args.card, args.private)}")


def add_push(subparsers):
    parser = subparsers.add_parser("push", help="upload a checkpoint to the Hub: weights, processor, index, card")
    parser.add_argument("repo_id", help="repository, as in me/vila-u")
    parser.add_argument("--source", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
    parser.add_argument("--with-code", action="store_true", help="add the code, for use without this package")
    parser.add_argument("--card", type=Path, help="model card (default: README.md of the source)")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--dry-run", type=Path, metavar="DIR", help="write the repository into DIR, upload nothing")
    parser.set_defaults(run=push)


def serve(args: argparse.Namespace):
    logging.set_verbosity_warning()
    with contextlib.suppress(KeyboardInterrupt):  # how one ends it
        serve_model(args.model, host=args.host, port=args.port, device=args.device, dtype=args.dtype)


def add_serve(subparsers):
    parser = subparsers.add_parser("serve", help="answer chats about images over HTTP, for OpenAI's clients")
    parser.add_argument("--model", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
    parser.add_argument("--host", default="localhost", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="for example cpu, cuda:0 (default: %(default)s)")
    parser.add_argument("--dtype", default="auto", help="of the weights (default: as saved)")
    parser.set_defaults(run=serve)


def encode(args: argparse.Namespace):
    logging.enable_progress_bar()
    state = launched_processes()
    processor = VilaUProcessor.from_pretrained(args.processor or args.model)
    if args.dataset == "drawn_shapes":
        dataset = drawn_shapes(args.split, args.num_records or 1000)
    else:
        dataset = load_dataset(args.dataset, split=args.split)
        dataset = dataset.take(args.num_records or len(dataset))
        dataset = dataset.with_transform(MediaLoader(processor, args.on_bad_media))
    tower = load_vision_tower(args.model).to(state.device)
    report = encode_dataset(
        dataset, args.out, tower, processor, args.batch_size, args.shard_size, num_workers=args.num_workers
    )
    print(
        f"process {state.process_index + 1} of {state.num_processes}: {report.num_images} images and frames of "
        f"{report.num_records} records, {report.images_per_second:.0f} images/s, {report.bytes_per_image:.0f} bytes "
        f"an image with its text, {report.num_skipped} records skipped"
    )
    if report.is_complete:
        print(f"Complete: {args.out.resolve()}")


def add_encode(subparsers):
    parser = subparsers.add_parser(
        "encode",
        help="encode the images and videos of a dataset once, to train from their codes",
        epilog="On several GPUs: accelerate launch -m vilau_hf.cli encode DATASET OUT. Run again after an "
        "interruption, it goes on.",
    )
    parser.add_argument("dataset", help="folder of records (see vilau records), Hub id of such, or drawn_shapes")
    parser.add_argument("out", type=Path, help="folder of the encoded records, new or of an interrupted run")
    parser.add_argument("--model", default=TINY_CHECKPOINT, help="folder or Hub id (default: the shipped checkpoint)")
    parser.add_argument("--processor", help="folder or Hub id, where the model has none (default: the model's)")
    parser.add_argument("--split", default="train", help="of the dataset (default: %(default)s)")
    parser.add_argument("--num-records", type=int, help="the first so many (default: all; 1000 drawn shapes)")
    parser.add_argument(
        "--on-bad-media",
        choices=["error", "skip"],
        default="error",
        help="stop at media that cannot be opened, or leave such records out (default: %(default)s)",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="images encoded at once (default: %(default)s)")
    parser.add_argument("--shard-size", type=int, default=5000, help="records of a file (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=0, help="processes that read images (default: %(default)s)")
    parser.set_defaults(run=encode)


def records(args: argparse.Namespace):
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


def named_value(text: str) -> tuple[str, object]:
    """`name=value`, the value as in YAML."""
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError(f"must be name=value, got {text!r}")
    return name, yaml.safe_load(value)


def add_records(subparsers):
    parser = subparsers.add_parser("records", help="turn a published dataset into records to train on")
    parser.add_argument("format", choices=[*FORMATS, "pickle"], metavar="format", help=", ".join(FORMATS))
    parser.add_argument("source", nargs="+", help="files, patterns, folders, or the id of a dataset of the Hub")
    parser.add_argument("out", type=Path, help="folder of parquet files, new or empty")
    parser.add_argument(
        "--target", choices=["media", "text"], help="of captions: learn to draw them (media) or to write them (text)"
    )
    parser.add_argument(
        "--option",
        type=named_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the format, as in media_folder=images; can be repeated",
    )
    parser.add_argument("--records-per-file", type=int, default=10_000, help="(default: %(default)s)")
    parser.set_defaults(run=records)


def train(args: argparse.Namespace):
    recipe = read_recipe(args.recipe, args.overrides)
    if recipe.run.dry_run:
        print(check_recipe(recipe))
        return
    trainer = run_training(recipe)
    if trainer.is_world_process_zero():
        print(f"Written to {Path(recipe.training.output_dir).resolve()}")


def add_train(subparsers):
    parser = subparsers.add_parser(
        "train",
        help="train a model by a recipe: pretraining, fine-tuning, LoRA",
        epilog="On several GPUs: accelerate launch -m vilau_hf.cli train RECIPE. Recipes: examples/recipes.",
    )
    parser.add_argument("recipe", type=Path, help="YAML file of arguments")
    parser.add_argument(
        "overrides", nargs=argparse.REMAINDER, help="arguments in place of the recipe's, as in --max_steps 100"
    )
    parser.set_defaults(run=train)


def estimate(args: argparse.Namespace):
    config = load_config(args.config)
    lora_config = None
    if args.lora_rank is not None:
        from peft import LoraConfig

        lora_config = LoraConfig(
            r=args.lora_rank, target_modules=args.lora_targets, modules_to_save=args.lora_modules_to_save
        )
    training = estimate_training_memory(
        config,
        gpus=args.gpus,
        strategy=args.strategy,
        rows=args.rows,
        length=args.length,
        text_targets=args.text_targets,
        packed=args.packed,
        activation_checkpointing=not args.no_activation_checkpointing,
        bf16=not args.float32,
        frozen_parts=tuple(args.freeze),
        lora_config=lora_config,
    )
    generation = estimate_generation_memory(
        config,
        batch_size=args.batch_size,
        generation_mode=args.mode,
        num_frames=args.num_frames,
        guidance=not args.no_guidance,
        prompt_length=args.prompt_length,
        dtype=torch.float32 if args.float32 else torch.bfloat16,
        int8=args.int8,
    )
    print(f"{args.config}, bytes of one device\n\n{training}\n\n{generation}")


def add_estimate(subparsers):
    parser = subparsers.add_parser("estimate", help="memory that training and generation need, without running them")
    parser.add_argument("config", help="recipe (vilau-7b-256, vilau-7b-384), or folder or Hub id of a checkpoint")
    parser.add_argument("--float32", action="store_true", help="float32 everywhere (default: bfloat16)")
    training = parser.add_argument_group("training")
    training.add_argument("--gpus", type=int, default=1, help="devices (default: %(default)s)")
    training.add_argument("--strategy", choices=STRATEGIES, default="ddp", help="(default: %(default)s)")
    training.add_argument("--rows", type=int, default=1, help="of a device's micro-batch (default: %(default)s)")
    training.add_argument("--length", type=int, default=8192, help="positions of a row (default: %(default)s)")
    training.add_argument(
        "--text-targets", type=int, default=0, help="text labels of a micro-batch; the rest are visual tokens"
    )
    training.add_argument("--packed", action="store_true", help="rows hold several samples, attention is sdpa")
    training.add_argument("--no-activation-checkpointing", action="store_true", help="keep all activations")
    training.add_argument("--freeze", nargs="*", default=(), choices=sorted(PARTS), metavar="PART", help="not trained")
    training.add_argument("--lora-rank", type=int, help="train adapters of this rank")
    lora = LoraArguments()
    training.add_argument("--lora-targets", default=lora.lora_target_modules, help="(default: %(default)s)")
    training.add_argument(
        "--lora-modules-to-save",
        nargs="*",
        default=lora.lora_trained_modules,
        help="trained in full beside adapters (default: %(default)s)",
    )
    generation = parser.add_argument_group("generation")
    generation.add_argument("--mode", choices=["image", "video"], default="image", help="(default: %(default)s)")
    generation.add_argument("--num-frames", type=int, default=8, help="of a video (default: %(default)s)")
    generation.add_argument("--batch-size", type=int, default=1, help="prompts (default: %(default)s)")
    generation.add_argument("--prompt-length", type=int, default=64, help="tokens (default: %(default)s)")
    generation.add_argument("--no-guidance", action="store_true", help="without an unconditional stream")
    generation.add_argument("--int8", action="store_true", help="8-bit weights in the language model's layers")
    parser.set_defaults(run=estimate)


def main(argv: list[str] | None = None):
    """Entry point; `argv` as `sys.argv[1:]`."""
    parser = argparse.ArgumentParser(prog="vilau", description="VILA-U for Hugging Face")
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(required=True, metavar="command")
    add_demo(subparsers)
    add_convert(subparsers)
    add_push(subparsers)
    add_serve(subparsers)
    add_encode(subparsers)
    add_records(subparsers)
    add_train(subparsers)
    add_estimate(subparsers)
    args = parser.parse_args(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        args.run(args)
    except (ValueError, ImportError, OSError) as error:
        parser.exit(1, f"vilau: {error}\n")
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # its threads would abort a process that ends with them


if __name__ == "__main__":
    main()
