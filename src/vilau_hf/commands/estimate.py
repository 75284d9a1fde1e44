"""`vilau estimate`."""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from ..choices import STRATEGIES, SUB_MODELS


if TYPE_CHECKING:
    from peft import LoraConfig


HELP = "estimate the memory of training and generation without running them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the verb."""
    parser.add_argument(
        "config", help="name of a published model (vilau-7b-256, vilau-7b-384), or folder or Hub id of a checkpoint"
    )
    parser.add_argument("--float32", action="store_true", help="compute in float32 instead of bfloat16")
    parser.add_argument("--json", action="store_true", help="print one JSON object, in bytes, instead of tables")
    training = parser.add_argument_group("training")
    training.add_argument("--gpus", type=int, default=1, help="number of devices (default: %(default)s)")
    training.add_argument(
        "--strategy", choices=STRATEGIES, default="ddp", help="strategy of distributed training (default: %(default)s)"
    )
    training.add_argument(
        "--rows", type=int, default=1, help="number of rows in the micro-batch of a device (default: %(default)s)"
    )
    training.add_argument(
        "--length", type=int, default=8192, help="number of positions in a row (default: %(default)s)"
    )
    training.add_argument(
        "--text-targets",
        type=int,
        default=0,
        help="number of text labels in a micro-batch; all other positions are visual tokens (default: %(default)s)",
    )
    training.add_argument(
        "--packed", action="store_true", help="pack several samples into a row, which uses sdpa attention with a mask"
    )
    training.add_argument(
        "--no-activation-checkpointing", action="store_true", help="keep all activations for the backward pass"
    )
    training.add_argument(
        "--freeze",
        nargs="*",
        default=(),
        choices=sorted(SUB_MODELS),
        metavar="NAME",
        help=f"sub-models that are not trained: {', '.join(sorted(SUB_MODELS))}",
    )
    training.add_argument("--lora-rank", type=int, help="rank of the LoRA adapters (default: full training)")
    training.add_argument(
        "--lora-targets",
        metavar="REGEX",
        help="regular expression for the modules that get an adapter (default: lora_target_modules of a recipe)",
    )
    training.add_argument(
        "--lora-modules-to-save",
        nargs="*",
        metavar="MODULE",
        help="modules that are trained completely, without adapters (default: lora_trained_modules of a recipe)",
    )
    generation = parser.add_argument_group("generation")
    generation.add_argument(
        "--mode", choices=["image", "video"], default="image", help="output of generation (default: %(default)s)"
    )
    generation.add_argument(
        "--num-frames", type=int, default=8, help="number of frames of a video (default: %(default)s)"
    )
    generation.add_argument("--batch-size", type=int, default=1, help="number of prompts (default: %(default)s)")
    generation.add_argument(
        "--prompt-length", type=int, default=64, help="number of tokens of a prompt (default: %(default)s)"
    )
    generation.add_argument(
        "--no-guidance", action="store_true", help="generate without classifier-free guidance, which doubles the batch"
    )
    generation.add_argument(
        "--int8", action="store_true", help="store the weights of the language model's layers in 8 bits"
    )


def run(args: argparse.Namespace) -> None:
    """Prints the estimates for training and generation."""
    import torch

    from ..loading import load_config
    from ..memory import estimate_generation_memory, estimate_training_memory

    config = load_config(args.config)
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
        lora_config=None if args.lora_rank is None else lora_config(args),
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
    if args.json:
        estimates = {"training": training, "generation": generation}
        content = {name: {**dataclasses.asdict(each), "peak": each.peak} for name, each in estimates.items()}
        print(json.dumps({"config": args.config, **content}, ensure_ascii=False))
        return
    print(f"{args.config}, bytes of one device\n\n{training}\n\n{generation}")


def lora_config(args: argparse.Namespace) -> "LoraConfig":
    """Returns the LoRA config of the arguments, with the defaults of a recipe."""
    from peft import LoraConfig

    from ..training.recipe_language_model import LoraArguments

    lora = LoraArguments()
    if args.lora_targets is not None:
        lora.lora_target_modules = args.lora_targets
    if args.lora_modules_to_save is not None:
        lora.lora_trained_modules = args.lora_modules_to_save
    return LoraConfig(
        r=args.lora_rank, target_modules=lora.lora_target_modules, modules_to_save=lora.lora_trained_modules
    )
