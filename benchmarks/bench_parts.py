"""Quantizer (C4), its moving averages (C6) and the sampler (C7) against the original's way of doing them.

    python benchmarks/bench_parts.py

takes about two minutes on one CPU core: CPU time of one thread, variants in turn, medians.
"""

import json
import platform
from pathlib import Path
from types import SimpleNamespace

import torch
from baseline import moving_average, quantize, sample
from bench_depth import times

from vilau_hf import VilaUResidualQuantizer
from vilau_hf.modeling.visual_sampling_vilau import CodeSampling


CODES = 16384


def quantizer(dim: int, depth: int, restart: bool = False) -> VilaUResidualQuantizer:
    config = SimpleNamespace(
        codebook_size=CODES,
        code_depth=depth,
        hidden_size=dim,
        shared_codebook=True,
        codebook_decay=0.99,
        codebook_epsilon=1e-5,
        restart_unused_codes=restart,
    )
    made = VilaUResidualQuantizer(config)
    torch.nn.init.normal_(made.codebook.weight, std=dim**-0.5)
    return made


def measure_quantizer(vectors: int, dim: int, depth: int) -> dict:
    ours = quantizer(dim, depth).eval()
    features = ours.codebook.weight[torch.randint(CODES, (depth, vectors))].sum(0) + 0.1 * torch.randn(vectors, dim)
    weight = ours.codebook.weight.detach()
    same = (ours.encode(features[None])[0] == quantize(features, weight, depth)).float().mean().item()
    found = times(
        {"ours": lambda: ours.encode(features[None]), "original": lambda: quantize(features, weight, depth)}, repeats=5
    )
    return {"part": "quantizer", "vectors": vectors, "dim": dim, "depth": depth, "same_codes": same, **found}


def measure_average(dim: int) -> dict:
    ours = quantizer(dim, 1).train()
    ours.cluster_size.fill_(1.0)
    vectors, codes = torch.randn(8192, dim), torch.randint(CODES, (8192,))
    size, total = torch.ones(CODES), torch.randn(CODES, dim)
    found = times(
        {
            "ours": lambda: ours._update(codes, vectors),
            "original": lambda: moving_average(size, total, vectors, codes),
        },
        repeats=3,
    )
    return {"part": "moving average", "vectors": 8192, "dim": dim, **found}


def measure_sampler(rows: int) -> dict:
    logits = torch.randn(rows, CODES) * 2
    ours = CodeSampling(True, 1.0, 900, 0.96, 0.0, code_depth=1)

    def draw():
        return ours.pick(logits, 0, [], ours.draw_noise(*logits.shape, logits.device))

    found = times({"ours": draw, "original": lambda: sample(logits)}, repeats=41)
    return {"part": "sampler", "rows": rows, **found}


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = []
    for result in (
        measure_quantizer(256, 1024, 4),
        measure_quantizer(243, 1152, 16),
        measure_average(1024),
        measure_sampler(1),
        measure_sampler(32),
    ):
        result["times_original"] = round(result["original"] / result["ours"], 2)
        results.append(
            {name: round(value, 3) if isinstance(value, float) else value for name, value in result.items()}
        )
        print(results[-1], flush=True)
    line = {
        "benchmark": "parts",
        "codebook_size": CODES,
        "results": results,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    (Path(__file__).parent / "results" / "parts.json").write_text(json.dumps(line) + "\n")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
