"""Measures training at the published sizes on one GPU: use of the matrix units (G8) and memory of activations (G9).

    python benchmarks/gpu_training.py

The models have the published sizes and random weights in bfloat16. They train on packs of 8,192 visual positions,
given as codes, and recompute layers in the backward pass. Training is in full (AdamW with bfloat16 averages) and, if
peft is installed, with adapters. The script prints a line for each and writes `results/gpu_training_<device>.json`.
`--tiny` runs it at small sizes, also on a CPU, where it does not measure memory.
"""

import argparse
import gc
import importlib.util
import json
import platform
import sys
from pathlib import Path

import torch
from gpu import make_model
from gpu_tools import Clock, Costs, measure_ceilings

from vilau_hf.compat import enable_activation_checkpointing
from vilau_hf.training.build_model import lora_config
from vilau_hf.training.recipe_language_model import LoraArguments


POSITIONS = 8192
ROWS = 2
REPEATS = 3
GOALS = {"G8": 0.4, "G9": 12.0}  # share of the matrix rate of the device; GiB


def flops_per_position(costs: Costs, length: int, is_full: bool) -> float:
    """
    Returns the floating-point operations of one step per position, without recomputation.

    A parameter needs two operations in the forward pass and two for the gradient of its input. A trained parameter
    needs two more. A position attends to half of the row on average.
    """
    body = 2 * costs.body
    attention = 2 * costs.head_sizes * length
    depth = costs.code_depth * 2 * costs.depth
    return (3 if is_full else 2) * body + 3 * (attention + depth)


def make_batch(model, rows: int, positions: int, device) -> dict[str, torch.Tensor]:
    """Returns rows that consist of images, in which each visual token is a target."""
    vision = model.config.vision_config
    config = model.config
    image = [
        config.image_start_token_id,
        *[config.image_token_id] * vision.num_visual_tokens,
        config.image_end_token_id,
    ]
    images = max(1, positions // rows // len(image))
    ids = torch.tensor(image * images, device=device).expand(rows, -1)
    shape = (rows * images, vision.num_visual_tokens, vision.code_depth)
    return {"input_ids": ids, "labels": ids, "codes": torch.randint(vision.codebook_size, shape, device=device)}


def measure(name: str, kind: str, clock: Clock, ceilings, tiny: bool) -> list[dict]:
    """Measures one model and returns rows for G8 and, on CUDA, G9. Gradients of an earlier micro-batch exist."""
    model = make_model(name, clock.device, tiny).train()
    costs = Costs.of(model)
    is_cuda = clock.device.type == "cuda"
    batch = make_batch(model, ROWS, 512 if tiny else POSITIONS, clock.device)
    if kind == "LoRA":
        from peft import get_peft_model

        model = get_peft_model(model, lora_config(LoraArguments(lora_r=16)))
        model.enable_input_require_grads()
    enable_activation_checkpointing(model)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-5)

    def step():
        with torch.autocast(clock.device.type, torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()

    step()
    held = 0
    if is_cuda:
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    seconds = clock.median(step, REPEATS)
    positions = batch["input_ids"].numel()
    length = batch["input_ids"].shape[1]
    flops = positions * flops_per_position(costs, length, kind == "full") / seconds
    what = {"model": name, "kind": kind, "positions": positions}
    share = flops / ceilings.operations_per_s
    rows = [
        {"metric": "G8", **what, "positions_per_s": positions / seconds, "tflop_per_s": flops / 1e12, "value": share}
    ]
    if is_cuda:
        beyond = (torch.cuda.max_memory_allocated() - held) / 2**30
        rows.append({"metric": "G9", **what, "states_gib": held / 2**30, "value": beyond})
    for row in rows:
        row["goal"] = None if tiny or kind == "LoRA" else GOALS[row["metric"]]
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small models, on the CPU where there is no GPU")
    parser.add_argument("--out", type=Path, help="JSON file (default: results/gpu_training_<device>.json)")
    arguments = parser.parse_args()
    is_cuda = torch.cuda.is_available()
    if not (is_cuda or arguments.tiny):
        sys.exit("this benchmark needs a CUDA device; `--tiny` runs it without one")
    clock = Clock(torch.device("cuda" if is_cuda else "cpu"))
    ceilings = measure_ceilings(clock, arguments.tiny)
    rows = []
    kinds = ["full", "LoRA"] if importlib.util.find_spec("peft") else ["full"]
    for name in ("256", "384"):
        for kind in kinds:
            rows += measure(name, kind, clock, ceilings, arguments.tiny)
            gc.collect()
            if is_cuda:
                torch.cuda.empty_cache()
    device = torch.cuda.get_device_name(clock.device) if is_cuda else platform.machine()
    file = "".join(letter if letter.isalnum() else "_" for letter in device)
    out = arguments.out
    if out is None and not arguments.tiny:
        out = Path(__file__).parent / "results" / f"gpu_training_{file}.json"
    if out is not None:
        rate = round(ceilings.operations_per_s / 1e12, 2)
        line = {"benchmark": "gpu_training", "device": device, "tflop_per_s": rate, "torch": torch.__version__}
        out.write_text(json.dumps({**line, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
