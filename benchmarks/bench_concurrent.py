"""Compares concurrent calls of compiled generation with calls in turn: codes, time and number of compilations.

    python benchmarks/bench_concurrent.py

Calls of several threads get different workspaces, each with its cache and graphs (`PositionGraphs.checkout`). The
alternative is a lock around the whole call, which is the same as calls in turn. It takes under three minutes on two
cores, most of it for compilation, and writes `results/concurrent.json`. Compare the two times of one run only: other
processes slow both.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import torch
from figures import argument_parser, save_results

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration


def main():
    parser = argument_parser(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="number of concurrent calls (default: %(default)s)")
    parser.add_argument(
        "--calls", type=int, default=4, help="number of images of a measurement (default: %(default)s)"
    )
    parser.add_argument("--backend", default="aot_eager", help="backend of torch.compile (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()
    model.compile_generation(backend=arguments.backend)

    def draw(seed):
        return model.generate(torch.tensor([[1, 40 + seed % 7]]), generation_mode="image", seed=seed)

    def run(threads):
        begin = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            codes = list(pool.map(draw, range(arguments.calls)))
        return codes, time.perf_counter() - begin

    run(arguments.threads)  # compiles
    expected, in_turn = run(1)
    found, concurrent = run(arguments.threads)
    equal = sum(torch.equal(first, second) for first, second in zip(expected, found, strict=True))
    workspaces = model.position_graphs.num_idle
    print(f"{arguments.calls} images, {arguments.threads} threads: {equal} equal those of calls in turn")
    print(f"in turn (or with a lock) {in_turn:.2f} s, concurrent {concurrent:.2f} s; {workspaces} workspaces")
    save_results(
        "concurrent",
        arguments.out,
        backend=arguments.backend,
        threads=arguments.threads,
        calls=arguments.calls,
        equal=equal,
        seconds_in_turn=round(in_turn, 2),
        seconds_concurrent=round(concurrent, 2),
        speedup=round(in_turn / concurrent, 2),
        workspaces=workspaces,
    )


if __name__ == "__main__":
    main()
