"""Compares the memory that `vilau_hf.memory` computes with allocated memory, at small scale, and fills the page.

    python benchmarks/bench_memory.py

It takes about five minutes on one CPU core. It writes `results/memory.json`, and the tables of `docs/memory.md` for
the small scale and for the published sizes.
"""

import contextlib
import gc
import json
import platform
import re
from pathlib import Path

import torch
from allocations import peak_bytes

from vilau_hf import VilaUConfig, VilaUForConditionalGeneration
from vilau_hf.compat import enable_activation_checkpointing
from vilau_hf.loading import load_config
from vilau_hf.memory import MemoryEstimate, estimate_generation_memory, estimate_training_memory


PAGE = Path(__file__).parents[1] / "docs" / "memory.md"
RESULTS = Path(__file__).parent / "results" / "memory.json"
BATCHES = (1, 4, 16, 64)
SPECIAL = (("image", "start"), ("image", "end"), ("video", "start"), ("video", "end"))
LANGUAGE_LAYERS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
DEPTH_LAYERS = r".*depth_transformer.*\.(qkv|proj|fc1|fc2)"


def small_config(visual_tokens_side: int = 8) -> VilaUConfig:
    """Returns a configuration whose tensors need most of the memory, and that a CPU trains in a second."""
    encoder = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}
    return VilaUConfig(
        vision_config={
            "encoder_config": {**encoder, "image_size": 8 * visual_tokens_side, "patch_size": 8},
            "codebook_size": 1024,
            "latent_channels": 8,
            "block_out_channels": [16, 16, 32, 32],
            "layers_per_block": 1,
            "norm_num_groups": 4,
        },
        depth_config={
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "backbone_hidden_size": 192,
            "code_dim": 64,
            "codebook_size": 1024,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 500,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": 1024,
        },
        **{f"{kind}_{role}_token_id": 400 + index for index, (kind, role) in enumerate(SPECIAL)},
        image_token_id=404,
        video_token_id=405,
    )


def videos(rows: int, frames: int) -> dict:
    """Returns a batch of videos as answers, in which all positions except the first are targets."""
    ids = torch.tensor([[1, 402] + [405] * 64 * frames + [403, 2]] * rows)
    return {"input_ids": ids, "labels": ids, "pixel_values_videos": torch.rand(rows, frames, 3, 64, 64) * 2 - 1}


def states() -> tuple[int, int]:
    """Returns the computed and the measured bytes of weights, gradients and states of AdamW."""
    computed = estimate_training_memory(small_config(), length=68, text_targets=4, bf16=False)
    model = VilaUForConditionalGeneration(small_config()).train()
    optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)
    model(**videos(1, 1)).loss.backward()
    optimizer.step()
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    tensors += [value for state in optimizer.state.values() for value in state.values()]
    return sum(line.size for line in computed.held), sum(tensor.nbytes for tensor in tensors)


def activations(checkpointing: bool, bf16: bool, chunks: int) -> tuple[int, int]:
    """Returns the computed and the measured bytes of activations of a training step, with existing gradients."""
    limit = VilaUForConditionalGeneration.max_code_logits
    VilaUForConditionalGeneration.max_code_logits = 2**21 // chunks
    try:
        batch = videos(2, 4)
        rows, length = batch["input_ids"].shape
        computed = estimate_training_memory(
            small_config(),
            rows=rows,
            length=length,
            text_targets=8,
            activation_checkpointing=checkpointing,
            bf16=bf16,
        )
        model = VilaUForConditionalGeneration(small_config()).train()
        if checkpointing:
            enable_activation_checkpointing(model)

        def step():
            with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
                loss = model(**batch).loss
            loss.backward()

        step()
        gc.collect()
        return max(line.size for line in computed.phases), peak_bytes(step)
    finally:
        VilaUForConditionalGeneration.max_code_logits = limit


def generation(mode: str, guidance: bool, dtype: torch.dtype) -> dict[str, tuple[int, int]]:
    """Returns computed and measured bytes for generating and for decoding eight images, or videos of two frames."""
    model = VilaUForConditionalGeneration(small_config(4)).eval().to(dtype)
    settings = {"generation_mode": mode, "guidance_scale": 3.0 if guidance else 1.0}
    if mode == "video":
        settings["num_frames"] = 2
    drawn = []
    prompts = torch.randint(3, 300, (8, 60))

    def draw():
        drawn.append(model.generate(input_ids=prompts, **settings))

    def decode():
        (model.decode_image_tokens if mode == "image" else model.decode_video_tokens)(drawn[0])

    draw()
    gc.collect()
    computed = estimate_generation_memory(small_config(4), 8, mode, 2, guidance, prompt_length=61, dtype=dtype)
    prompt, last, pixels = (line.size for line in computed.phases)
    return {"drawing": (max(prompt, last), peak_bytes(draw)), "decoding": (pixels, peak_bytes(decode))}


def measure() -> list[dict]:
    """Returns the computed and measured bytes of all comparisons at small scale."""
    found = {"weights, gradients, AdamW's averages": states()}
    for checkpointing, bf16, chunks in ((False, False, 1), (True, False, 1), (True, False, 16), (True, True, 16)):
        what = "recomputed layers" if checkpointing else "all activations kept"
        what += ", bfloat16 autocast" if bf16 else ", float32"
        what += ", all code logits at once" if chunks == 1 else f", code logits in {chunks} chunks"
        found[f"training step: {what}"] = activations(checkpointing, bf16, chunks)
    for mode, guidance, dtype in (("image", True, torch.float32), ("video", False, torch.bfloat16)):
        what = f"{mode}s, {'guided' if guidance else 'no guidance'}, {str(dtype).removeprefix('torch.')}"
        for phase, sizes in generation(mode, guidance, dtype).items():
            found[f"{phase} 8 {what}"] = sizes
    return [{"what": what, "computed": sizes[0], "measured": sizes[1]} for what, sizes in found.items()]


def measured_table(results: list[dict]) -> str:
    rows = [
        f"| {each['what']} | {each['computed'] / 2**20:.2f} | {each['measured'] / 2**20:.2f} | "
        f"{each['computed'] / each['measured']:.3f} |"
        for each in results
    ]
    return "\n".join(["| | computed, MiB | measured, MiB | ratio |", "|---|---|---|---|", *rows])


def gib(size: int) -> str:
    return f"{size / 2**30:.1f}"


def generation_table() -> str:
    rows = []
    for published, mode, what in (
        ("vilau-7b-256", "image", "256 px image"),
        ("vilau-7b-384", "image", "384 px image"),
        ("vilau-7b-256", "video", "256 px video, 8 frames"),
    ):
        config = load_config(published)
        for int8 in (False, True):
            cells = []
            for batch in BATCHES:
                estimate = estimate_generation_memory(config, batch, mode, int8=int8)
                kept = estimate.size("weights") + estimate.size("keys and values of the language model")
                cells.append(f"{gib(estimate.peak)} ({estimate.peak / kept:.2f})")
            rows.append(f"| {what} | {'int8' if int8 else 'bfloat16'} | {' | '.join(cells)} |")
    head = f"| | language model | {' | '.join(f'batch {batch}' for batch in BATCHES)} |"
    return "\n".join([head, "|---|---|" + "---|" * len(BATCHES), *rows])


def training_rows() -> list[tuple[str, str, dict]]:
    from peft import LoraConfig

    def adapters(targets, saved):
        return {"lora_config": LoraConfig(r=16, target_modules=targets, modules_to_save=saved)}

    rows = []
    for published in ("vilau-7b-256", "vilau-7b-384"):
        for strategy, name in (("zero2", "ZeRO-2"), ("zero3", "ZeRO-3"), ("fsdp", "FSDP2")):
            rows.append((published, f"all but the tower, 8 GPUs, {name}", {"gpus": 8, "strategy": strategy}))
        both = f"({LANGUAGE_LAYERS})|({DEPTH_LAYERS})"
        saved = ["multi_modal_projector", "depth_transformer"]
        rows.append((published, "LoRA 16, depth transformer in full, 1 GPU", adapters(LANGUAGE_LAYERS, saved)))
        rows.append((published, "LoRA 16, depth transformer too, 1 GPU", adapters(both, saved[:1])))
    return rows


def training_table() -> str:
    rows = []
    for published, what, settings in training_rows():
        estimate: MemoryEstimate = estimate_training_memory(
            load_config(published), length=8192, packed=True, **settings
        )
        held = sum(line.size for line in estimate.held)
        cells = [gib(held), gib(estimate.peak - held), gib(estimate.peak)]
        rows.append(f"| {published.removeprefix('vilau-7b-')} px | {what} | {' | '.join(cells)} |")
    head = "| | | weights, gradients, AdamW, buffers | activations | peak |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def section(name: str) -> re.Pattern:
    """Returns a pattern that matches the table called `name` in the page."""
    return re.compile(rf"(<!-- {name} -->\n)(.*?)(<!-- end -->)", flags=re.DOTALL)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = measure()
    line = {
        "benchmark": "memory",
        "results": results,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    RESULTS.write_text(json.dumps(line) + "\n")
    print(json.dumps(line))
    page = PAGE.read_text()
    tables = {"measured": measured_table(results), "generation": generation_table(), "training": training_table()}
    for name, table in tables.items():
        page = section(name).sub(lambda found, table=table: f"{found[1]}{table}\n{found[3]}", page)
        print(table)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
