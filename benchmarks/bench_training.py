"""Profiles a training step of stage 2, and compares its time with that of its matrix products alone.

    python benchmarks/bench_training.py

It takes about two minutes on one CPU core. A step is forward pass, backward pass and AdamW, with bfloat16 autocast.
The products are those that the step runs, with the same shapes, dtypes and strides, on random numbers. Times are CPU
times of one thread: both run in turn, and the median counts. Weights are random. Each row has 24 text tokens, the
markers and an image of 64 positions, of which the model learns all codes.
"""

from collections import Counter

import torch
from bench_depth import times
from figures import argument_parser, save_results
from torch.utils._python_dispatch import TorchDispatchMode

from vilau_hf import VilaUConfig, VilaUForConditionalGeneration


# language model and depth transformer as width and layers, rows of a batch
MODELS = {
    "7 M parameters": ((256, 6), (192, 3), 32),
    "85 M parameters": ((768, 12), (384, 4), 8),
}
TEXT = 24
POSITIONS = 64
VOCABULARY = 3072
REPEATS = 5
# Substrings of the names of operations. The order matters: the first kind that matches counts.
KINDS = (
    ("optimizer", ("_foreach", "_fused", "lerp", "addcdiv", "addcmul")),
    ("products", ("mm", "linear", "matmul")),
    ("casts and copies", ("_to_copy", "copy_", "clone", "cat", "empty", "fill_", "zero_")),
    ("normalisation", ("norm", "rsqrt", "pow", "mean")),
    ("softmax and loss", ("softmax", "exp", "log", "nll", "gather", "scatter", "amax")),
    ("embeddings and indexing", ("index", "embedding", "nonzero", "sort")),
)


class Products(TorchDispatchMode):
    """Records the matrix products that reach the back end, with the shapes, strides and dtypes of their arguments."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("mm", "addmm", "addmm_", "bmm", "baddbmm"):
            tensors = [each for each in args if isinstance(each, torch.Tensor)]
            layout = tuple((tuple(each.shape), each.stride(), each.dtype) for each in tensors[-2:])
            self.found[layout] += 1
        return function(*args, **(kwargs or {}))


def make_model(body: tuple[int, int], depth: tuple[int, int]) -> VilaUForConditionalGeneration:
    torch.manual_seed(0)
    vision = {
        "encoder_config": {
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
        },
        "codebook_size": 1024,
        "code_depth": 4,
        "block_out_channels": [32, 32, 32, 32],
    }
    depth_transformer = {
        "hidden_size": depth[0],
        "num_hidden_layers": depth[1],
        "num_attention_heads": depth[0] // 64,
        "intermediate_size": 4 * depth[0],
        "backbone_hidden_size": body[0],
        "code_dim": 64,
        "codebook_size": 1024,
        "code_depth": 4,
    }
    language_model = {
        "model_type": "llama",
        "vocab_size": VOCABULARY + 8,
        "hidden_size": body[0],
        "intermediate_size": 5 * body[0] // 2,
        "num_hidden_layers": body[1],
        "num_attention_heads": body[0] // 64,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
    markers = {
        f"{kind}_{name}_id": VOCABULARY + 3 * row + column
        for row, kind in enumerate(("image", "video"))
        for column, name in enumerate(("start_token", "end_token", "token"))
    }
    config = VilaUConfig(vision_config=vision, depth_config=depth_transformer, text_config=language_model, **markers)
    model = VilaUForConditionalGeneration(config).train()
    # on a CPU, plain products are faster than the fused kernel of torch at this length
    model.set_attn_implementation("eager")
    return model


def make_batch(model: VilaUForConditionalGeneration, rows: int) -> dict[str, torch.Tensor]:
    config = model.config
    text = torch.randint(3, VOCABULARY, (rows, TEXT))
    image = [config.image_start_token_id, *[config.image_token_id] * POSITIONS, config.image_end_token_id]
    ids = torch.cat([text, torch.tensor([image]).expand(rows, -1)], 1)
    codes = torch.randint(config.vision_config.codebook_size, (rows, POSITIONS, config.vision_config.code_depth))
    return {"input_ids": ids, "labels": ids, "codes": codes}


def profile(step) -> dict[str, float]:
    """Returns the share of the CPU time of a step for each kind of operation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    totals = Counter()
    for event in profiler.key_averages():
        name = event.key.removeprefix("aten::").lower()
        kind = next((kind for kind, words in KINDS if any(word in name for word in words)), "element by element")
        totals[kind] += event.self_cpu_time_total
    total = sum(totals.values())
    return {kind: round(value / total, 3) for kind, value in totals.most_common()}


def measure(name: str, body: tuple[int, int], depth: tuple[int, int], rows: int) -> dict:
    model = make_model(body, depth)
    batch = make_batch(model, rows)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    with Products() as products:
        step()
    operands = [
        (
            count,
            [
                torch.randn(_extent(shape, stride)).to(dtype).as_strided(shape, stride)
                for shape, stride, dtype in layout
            ],
        )
        for layout, count in products.found.items()
    ]

    def multiply():
        for count, (left, right) in operands:
            for _ in range(count):
                torch.matmul(left, right)

    found = times({"step": step, "products": torch.no_grad()(multiply)}, REPEATS)
    operations = sum(2 * count * left.numel() * right.shape[-1] for count, (left, right) in operands)
    return {
        "model": name,
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        "rows": rows,
        "positions": batch["input_ids"].shape[1],
        "step_ms": round(found["step"]),
        "products_ms": round(found["products"]),
        "over_products": round(found["step"] / found["products"], 2),
        "rows_per_s": round(1e3 * rows / found["step"], 1),
        "gflop_per_s": round(operations / found["step"] / 1e6, 1),
        "shares": profile(step),
    }


def _extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Returns the number of elements from the first to the last one of a tensor in memory."""
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def main():
    parser = argument_parser(__doc__)
    parser.add_argument("--tiny", action="store_true", help="small models, as a test")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for name, sizes in MODELS.items():
        results.append(measure(name, *(((64, 1), (64, 1), 2) if args.tiny else sizes)))
        print(results[-1], flush=True)
    save_results("training", args.out, dtype="bfloat16 autocast", results=results)


if __name__ == "__main__":
    main()
