"""Tools of `gpu.py`: ceilings of the device, clocks, callbacks inside a span, and limits of a model."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch.autograd import DeviceType


SORTING = ("topk", "sort", "radix", "cumsum", "scan", "argmax", "uniform", "multinomial", "softmax")
# Substrings of the names of kernels and operations. The order matters: the first kind that matches counts.
KERNELS = (
    ("fused by the compiler", ("triton",)),
    ("sampling", SORTING),
    ("attention", ("flash", "fmha", "attention")),
    ("products", ("gemm", "gemv", "nvjet", "cutlass", "cublas", "splitk", "aten::mm", "addmm", "bmm", "linear")),
    ("copies", ("memcpy", "memset", "copy", "cat")),
)


@dataclass
class Ceilings:
    """The highest rates of the device: bytes per second, and bfloat16 floating-point operations per second."""

    bytes_per_s: float
    operations_per_s: float

    def seconds(self, num_bytes: float, operations: float) -> float:
        return max(num_bytes / self.bytes_per_s, operations / self.operations_per_s)


@dataclass
class Costs:
    """The work of one visual position of a model, by the formulas of a plain transformer."""

    body: int  # parameters that each position reads
    depth: int  # parameters that each depth reads
    head_sizes: int  # width of the keys of all layers together
    code_depth: int

    @classmethod
    def of(cls, model):
        def count(*modules):
            return sum(parameter.numel() for module in modules for parameter in module.parameters())

        text = model.config.text_config
        transformer = model.depth_transformer
        width = text.num_hidden_layers * text.num_key_value_heads * text.head_dim
        return cls(
            count(model.model.language_model.layers),
            count(transformer.layers, transformer.code_head),
            width,
            model.config.depth_config.code_depth,
        )

    def cache_bytes(self, rows: int, positions: int) -> int:
        return 4 * self.head_sizes * rows * positions  # keys and values, two bytes each

    def body_seconds(self, ceilings: Ceilings, rows: int, context: float) -> float:
        read = 2 * self.body + self.cache_bytes(rows, context)
        return ceilings.seconds(read, rows * (2 * self.body + 4 * self.head_sizes * context))

    def depth_seconds(self, ceilings: Ceilings, rows: int) -> float:
        return self.code_depth * ceilings.seconds(2 * self.depth, 2 * self.depth * rows)


class Clock:
    """Measures seconds on `device`. It waits for the device before each reading of the time."""

    def __init__(self, device: torch.device):
        self.device = device

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def now(self) -> float:
        self.wait()
        return time.perf_counter()

    def median(self, run, repeats: int) -> float:
        found = []
        for _ in range(repeats):
            begin = self.now()
            run()
            found.append(self.now() - begin)
        return statistics.median(found)

    def replayed(self, run, repeats: int = 50) -> float:
        """Measures `run` as a replayed CUDA graph, in which nothing waits for the host; on the CPU, as a call."""
        if self.device.type != "cuda":
            return self.median(run, 3)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        graph.replay()
        return self.median(lambda: [graph.replay() for _ in range(repeats)], 3) / repeats


def measure_ceilings(clock: Clock, tiny: bool) -> Ceilings:
    """Measures a copy of 4 GB and a matrix product of random numbers, because a GPU is faster with zeros."""
    size, side, device = (2**16, 64, clock.device) if tiny else (2**31, 8192, clock.device)
    source = torch.ones(size, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    left, right = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    copying, multiplying = (
        clock.median(lambda run=run: [run() for _ in range(10)], 3) / 10
        for run in (lambda: target.copy_(source), lambda: torch.mm(left, right))
    )
    return Ceilings(4 * size / copying, 2 * side**3 / multiplying)


class Enough(Exception):
    """Raised by a streamer to end a span early."""


class Watch:
    """A streamer that calls `at[position]` after that many positions, and ends the span after the last of them."""

    def __init__(self, at: dict):
        self.at = at
        self.position = 0

    def put(self, ids):
        pass

    def put_visual(self, codes):
        self.position += 1
        if self.position in self.at:
            self.at[self.position]()
        if self.position == max(self.at):
            raise Enough

    def end(self):
        pass


def watch(generate, at: dict):
    """Generates up to the last position in `at`."""
    try:
        generate(streamer=Watch(at))
    except Enough:
        pass


def profile(generate, clock: Clock, first: int, last: int) -> dict:
    """Profiles the visual positions from `first` to `last`, in microseconds per position."""
    cuda = clock.device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * cuda
    profiler = torch.profiler.profile(activities=activities)
    marks = []

    def start():
        clock.wait()
        profiler.start()
        marks.append(clock.now())

    def stop():
        marks.append(clock.now())
        profiler.stop()

    watch(generate, {first: start, last: stop})
    wanted = DeviceType.CUDA if cuda else DeviceType.CPU
    positions = last - first
    rows = [
        (
            event.key,
            (event.self_device_time_total if cuda else event.self_cpu_time_total) / positions,
            event.count / positions,
        )
        for event in profiler.key_averages()
        if event.device_type == wanted and not event.is_user_annotation
    ]
    rows.sort(key=lambda row: -row[1])
    shares = {}
    for name, microseconds, _ in rows:
        kind = next(
            (kind for kind, words in KERNELS if any(word in name.lower() for word in words)), "element by element"
        )
        shares[kind] = shares.get(kind, 0.0) + microseconds
    return {
        "wall_us": round(1e6 * (marks[1] - marks[0]) / positions, 1),
        "busy_us": round(sum(row[1] for row in rows), 1),
        "kernels": round(sum(row[2] for row in rows), 1),
        "shares_us": {kind: round(value, 1) for kind, value in sorted(shares.items(), key=lambda item: -item[1])},
        "top": [(name[:70], round(microseconds, 1), round(count, 2)) for name, microseconds, count in rows[:12]],
    }


def print_profile(title: str, found: dict):
    print(
        f"\n{title}: {found['wall_us']:.0f} us a position, device busy {found['busy_us']:.0f} us, "
        f"{found['kernels']:.0f} kernels"
    )
    for kind, value in found["shares_us"].items():
        print(f"  {kind:24} {value:10.1f} us")
    for name, value, count in found["top"]:
        print(f"    {value:10.1f} us {count:8.1f} x  {name}")
