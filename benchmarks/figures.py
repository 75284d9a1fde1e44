"""Goals of the CPU benchmarks: where each figure stands in the results, and what it should reach.

A benchmark calls `save_results`, which writes its JSON file and prints its figures with their goals. `short.py`
compares figures with the committed ones. To write the table of the committed figures into `docs/performance.md`:

    python benchmarks/figures.py
"""

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers


RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN = "<!-- figures -->\n"
END = "<!-- end -->"

METRICS = {
    "C1": "time of depth decoding, divided by that of its matrix products",
    "C2": "depth decoding, times faster than the original",
    "C3": "an image, times faster than the original",
    "C4": "quantizer in float32, times faster than the original",
    "C5": "quantizer with bfloat16 candidates: times faster, and share of the codes of double precision",
    "C6": "moving averages of the codebook, times faster than the original",
    "C7": "sampler, times faster than the original",
    "C8": "loss over codes, compared with all logits at once: times less memory, relative time",
    "C9": "operations of a position, and reads by the host",
    "C10": "milliseconds of a position in addition to the work of the model",
    "C11": "image processor, times faster than that of transformers with equal pixels",
    "passes": "passes of the language model in parallel decoding, divided by the steps of sequential decoding",
    "codes": "results of parallel decoding in float32 that differ from those of sequential decoding",
    "training": "time of a training step of stage 2, divided by that of its matrix products",
    "import": "time to import a class, divided by that of the libraries alone",
    "command": "seconds until the slowest answer of `vilau`",
}


@dataclass(frozen=True)
class Figure:
    """
    One figure of a benchmark.

    Args:
        metric: key of `METRICS`.
        case: what distinguishes it from the other figures of the metric; empty if there is none.
        benchmark: stem of the results file.
        read: finds the value in the results.
        goal: value to reach.
        at_most: whether less is better. Otherwise more is.
    """

    metric: str
    case: str
    benchmark: str
    read: Callable[[dict], float]
    goal: float
    at_most: bool = False

    @property
    def key(self) -> str:
        return f"{self.metric} {self.case}".strip()

    @property
    def goal_text(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.goal:g}"

    def is_met(self, value: float) -> bool:
        return value <= self.goal if self.at_most else value >= self.goal


def of_case(field: str, **case) -> Callable[[dict], float]:
    """Returns a function that reads `field` of the row of `results` that has the values of `case`."""

    def read(line: dict) -> float:
        rows = line.get("results") or line["rows"]
        found = [row for row in rows if all(row.get(name) == value for name, value in case.items())]
        if len(found) != 1:
            raise ValueError(f"{len(found)} rows of {line['benchmark']!r} have {case}, not one.")
        return found[0][field]

    return read


def depth_figures():
    """Yields the figures of `bench_depth.py`."""
    for depth, rows, speedup, operations in (
        (4, 2, 1.65, 360),
        (4, 32, 1.55, 360),
        (16, 2, 2.25, 1464),
        (16, 32, 3.2, 1464),
    ):
        case = {"depth": depth, "rows": rows}
        name = f"D {depth}, {rows} rows"
        yield Figure("C1", name, "depth", of_case("over_products", **case), 1.2, at_most=True)
        yield Figure("C2", name, "depth", of_case("times_original", **case), speedup)
        yield Figure("C9", f"operations, {name}", "depth", of_case("operations", **case), operations, at_most=True)
        yield Figure("C9", f"reads, {name}", "depth", of_case("host_reads", **case), 0, at_most=True)


FIGURES = [
    *depth_figures(),
    Figure("C3", "D 4, 2 rows", "generate", of_case("times_original", depth=4, rows=2), 1.5),
    Figure("C3", "D 16, 2 rows", "generate", of_case("times_original", depth=16, rows=2), 1.8),
    Figure("C3", "D 4, 16 rows", "generate", of_case("times_original", depth=4, rows=16), 1.45),
    Figure("C3", "D 16, 16 rows", "generate", of_case("times_original", depth=16, rows=16), 1.9),
    Figure("C3", "shipped model in parallel", "parallel", lambda line: line["original"]["times_original"], 2.0),
    Figure("C4", "D 4", "parts", of_case("times_original", search="exact", depth=4), 1.35),
    Figure("C4", "D 16", "parts", of_case("times_original", search="exact", depth=16), 1.35),
    Figure("C4", "D 4, Gram matrix", "parts", of_case("times_original", search="gram", depth=4), 3.0),
    Figure("C4", "D 16, Gram matrix", "parts", of_case("times_original", search="gram", depth=16), 5.0),
    Figure("C5", "D 4", "parts", of_case("times_original", search="bfloat16", depth=4), 1.8),
    Figure("C5", "D 16", "parts", of_case("times_original", search="bfloat16", depth=16), 1.8),
    Figure("C5", "codes of float64, D 4", "parts", of_case("same_codes", search="bfloat16", depth=4), 0.999),
    Figure("C5", "codes of float64, D 16", "parts", of_case("same_codes", search="bfloat16", depth=16), 0.999),
    Figure("C6", "all codes in use", "parts", of_case("times_original", part="moving average", all_dead=False), 40),
    Figure("C6", "no code in use", "parts", of_case("times_original", part="moving average", all_dead=True), 15),
    Figure("C7", "1 row", "parts", of_case("times_original", part="sampler", rows=1), 4),
    Figure("C7", "32 rows", "parts", of_case("times_original", part="sampler", rows=32), 5.5),
    Figure("C8", "head, memory", "loss", of_case("times_less_memory", part="head"), 3),
    Figure("C8", "head, time", "loss", of_case("time_ratio", part="head"), 1.1, at_most=True),
    Figure(
        "C8", "depth transformer, time", "loss", of_case("time_ratio", part="depth transformer"), 1.1, at_most=True
    ),
    Figure(
        "C8",
        "depth transformer with gradient checkpointing, memory",
        "loss",
        of_case("times_less_memory", part="depth transformer, gradient checkpointing"),
        3,
    ),
    Figure(
        "C10",
        "",
        "generate",
        lambda line: line["overhead"]["overhead_ms_per_position"],
        0.15,
        at_most=True,
    ),
    *(
        Figure("C11", size, "processor", of_case("pil_times_library", size=size), 1.3)
        for size in ("640x480", "1024x768", "2048x1536")
    ),
    *(
        Figure("passes", name, "parallel", of_case("passes_ratio", rows=1, window=None, **case), goal, at_most=True)
        for name, case, goal in (
            ("images", {"model": "drawn", "mode": "image", "dtype": "float32"}, 0.33),
            ("videos", {"model": "drawn", "mode": "video", "dtype": "float32"}, 0.2),
        )
    ),
    *(
        Figure("training", model, "training", of_case("over_products", model=model), 2.5, at_most=True)
        for model in ("7 M parameters", "85 M parameters")
    ),
    Figure("codes", "", "parallel", lambda line: line["different_float32"], 0, at_most=True),
    Figure("import", "", "import", lambda line: line["ratio"], 1.1, at_most=True),
    Figure(
        "command",
        "",
        "import",
        lambda line: max(value for name, value in line["median_cpu_s"].items() if name.startswith("vilau")),
        0.5,
        at_most=True,
    ),
]


def figures_of(line: dict) -> list[tuple[Figure, float]]:
    """Returns the figures of a benchmark with their values in its results."""
    return [(figure, figure.read(line)) for figure in FIGURES if figure.benchmark == line["benchmark"]]


def print_figures(line: dict) -> None:
    """Prints the figures of a benchmark with their goals."""
    for figure, value in figures_of(line):
        verdict = "met" if figure.is_met(value) else "MISSED"
        print(f"{figure.key:56} {value:8.4g}   goal {figure.goal_text:8} {verdict}", flush=True)


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the argument that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)"
    )
    return parser


def cpu_name() -> str:
    """Returns the name of the CPU with the fastest kinds of products that it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {name.strip(): value.strip() for name, value in fields.items()}
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "avx512f") if unit in found.get("flags", "").split()]
    return f"{found.get('model name', platform.machine())}{', ' + units[0] if units else ''}"


def save_results(benchmark: str, folder: Path, **fields) -> None:
    """Writes `<benchmark>.json` with the versions and the CPU, and prints the figures with their goals."""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "machine": cpu_name()}
    line = {"benchmark": benchmark, **fields, **versions}
    (folder / f"{benchmark}.json").write_text(json.dumps(line) + "\n")
    print_figures(line)


def committed_figures() -> list[tuple[Figure, float]]:
    """Returns all figures with their values in the committed results."""
    lines = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in {each.benchmark for each in FIGURES}}
    return [(figure, figure.read(lines[figure.benchmark])) for figure in FIGURES]


def table() -> str:
    """Returns the table of the committed figures in Markdown; figures that miss their goal are bold."""
    rows = ["| | what | case | goal | found | script |", "|---|---|---|---|---|---|"]
    figures = committed_figures()
    for metric, what in METRICS.items():
        of_metric = [(figure, value) for figure, value in figures if figure.metric == metric]
        for row, (figure, value) in enumerate(of_metric):
            found = f"{value:.4g}" if figure.is_met(value) else f"**{value:.4g}**"
            script = f"`bench_{figure.benchmark}.py`"
            first = [metric if metric[1:].isdigit() else "", what] if row == 0 else ["", ""]
            rows.append(f"| {' | '.join([*first, figure.case, figure.goal_text, found, script])} |")
    return "\n".join(rows)


def page_with_table() -> str:
    """Returns the page on speed with the table of the committed figures."""
    before, rest = PAGE.read_text().split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page_with_table())
    print(table())
