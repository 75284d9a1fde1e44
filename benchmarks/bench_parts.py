"""Times the quantizer (C4, C5), its moving averages (C6) and the sampler (C7) beside the original algorithm.

    python benchmarks/bench_parts.py

It takes about five minutes on one CPU core and 3 GB of memory. Times are CPU times of one thread. The variants run in
turn, and the lowest median of three runs counts, because other programs on the machine can only add time.
"""

from types import SimpleNamespace

import torch
from baseline import moving_average, quantize, sample
from bench_depth import times
from figures import argument_parser, save_results

from vilau_hf import VilaUResidualQuantizer
from vilau_hf.modeling.generation_sampling_vilau import CodeSampler, SamplingSettings


CODES = 16384


def quantizer(dim: int, depth: int, search: str = "exact") -> VilaUResidualQuantizer:
    config = SimpleNamespace(
        codebook_size=CODES,
        code_depth=depth,
        hidden_size=dim,
        shared_codebook=True,
        codebook_decay=0.99,
        codebook_epsilon=1e-5,
        restart_unused_codes=True,
    )
    made = VilaUResidualQuantizer(config).eval()
    made.search = search
    return made


def best_of_three(variants: dict, against: dict[str, str], repeats: int) -> dict[str, dict]:
    """Measures each key of `against` and its value, the original variant: the best milliseconds and their ratio."""
    runs = [times(variants, repeats) for _ in range(3)]
    best = {name: min(run[name] for run in runs) for name in variants}
    return {
        name: {"ours": best[name], "original": best[other], "times_original": best[other] / best[name]}
        for name, other in against.items()
    }


def measure_quantizer(vectors: int, dim: int, depth: int) -> list[dict]:
    directions = torch.nn.functional.normalize(torch.randn(CODES, dim), dim=-1)
    weight = directions * torch.empty(CODES, 1).uniform_(0.1, 1)
    features = weight[torch.randint(CODES, (depth, vectors))].sum(0) + 0.03 * torch.randn(vectors, dim)
    low_features = features.bfloat16()
    low_weight = weight.bfloat16()
    variants = {
        "original": lambda: quantize(features, weight, depth),
        "original in bfloat16": lambda: quantize(low_features, low_weight, depth),
    }
    for search in ("exact", "gram", "bfloat16"):
        ours = quantizer(dim, depth, search)
        ours.codebook.weight.copy_(weight)
        variants[search] = lambda ours=ours: ours.encode(features[None])[0]
    expected = quantize(features.double(), weight.double(), depth)
    same = {name: (run() == expected).float().mean().item() for name, run in variants.items()}
    against = {"exact": "original", "gram": "original", "bfloat16": "original in bfloat16"}
    return [
        {
            "part": "quantizer",
            "search": search,
            "vectors": vectors,
            "dim": dim,
            "depth": depth,
            "same_codes": same[search],
            "same_codes_original": same[against[search]],
            **found,
        }
        for search, found in best_of_three(variants, against, repeats=5).items()
    ]


def measure_average(dim: int, all_dead: bool) -> list[dict]:
    """Measures an EMA step of 8192 vectors, in which either no code or each code restarts."""
    ours = quantizer(dim, 1).train()
    torch.nn.init.normal_(ours.codebook.weight, std=dim**-0.5)
    vectors = torch.randn(8192, dim)
    codes = torch.randint(CODES, (8192,))
    size = torch.ones(CODES)
    total = torch.randn(CODES, dim)
    begin = 0.0 if all_dead else 1e6

    def step_of_ours():
        ours.cluster_size.fill_(begin)
        ours._update(codes[None], vectors[None])

    def step_of_original():
        moving_average(size.fill_(begin), total, vectors, codes, restart=all_dead)

    found = best_of_three({"ours": step_of_ours, "original": step_of_original}, {"ours": "original"}, repeats=3)
    return [{"part": "moving average", "vectors": 8192, "dim": dim, "all_dead": all_dead, **found["ours"]}]


def measure_sampler(rows: int) -> list[dict]:
    logits = torch.randn(rows, CODES) * 2
    ours = CodeSampler(SamplingSettings(), code_depth=1)

    def draw():
        return ours.sample(logits, 0, [], ours.draw_noise(*logits.shape, logits.device))

    found = best_of_three({"ours": draw, "original": lambda: sample(logits)}, {"ours": "original"}, repeats=41)
    return [{"part": "sampler", "rows": rows, **found["ours"]}]


@torch.no_grad()
def main():
    folder = argument_parser(__doc__).parse_args().out
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = []
    for measure, *sizes in (
        (measure_quantizer, 256, 1024, 4),
        (measure_quantizer, 243, 1152, 16),
        (measure_average, 1024, False),
        (measure_average, 1024, True),
        (measure_sampler, 1),
        (measure_sampler, 32),
    ):
        for result in measure(*sizes):
            results.append(
                {name: round(value, 3) if isinstance(value, float) else value for name, value in result.items()}
            )
            print(results[-1], flush=True)
    save_results("parts", folder, codebook_size=CODES, results=results)


if __name__ == "__main__":
    main()
