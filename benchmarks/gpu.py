"""Measures generation at the published sizes on one GPU (G1 to G7, G10 and G11), and the original algorithm.

    python benchmarks/gpu.py

It takes less than ten minutes on an H200, prints a table and writes `results/gpu_<device>.json`. The models have the
published sizes and random weights in bfloat16. Limits follow from the bandwidth and the matrix rate of the device,
which are measured first. A row says if it is extrapolated from fewer positions or not compiled. `--tiny` runs all
sections at small sizes, also on a CPU, where it leaves out what needs CUDA.
"""

import argparse
import gc
import json
import platform
import sys
import time
import traceback
from pathlib import Path

import torch
import transformers
from baseline import draw, sample
from bench_generate import build
from gpu_tools import Clock, Costs, measure_ceilings, print_profile, profile, watch

from vilau_hf import VilaUForConditionalGeneration
from vilau_hf.loading import load_published_config
from vilau_hf.modeling import generation_spans_vilau
from vilau_hf.modeling.generation_branches_vilau import BranchPrompt, GuidanceBranches, VilaUSpanCache
from vilau_hf.modeling.generation_depth_vilau import CodeInputs, DepthDecoder
from vilau_hf.modeling.generation_positions_vilau import PositionDecoder
from vilau_hf.modeling.generation_sampling_vilau import CodeSampler, Guidance, SamplingSettings
from vilau_hf.modeling.generation_spans_vilau import ParallelSpanDecoder


PROMPT = 40
UNCONDITIONAL = 24
SCALE = 3.0
FRAMES = 8
QUESTION = 64
# Goals for the ratio of each row. G1, G2, G3, G5: time divided by the limit. G10: memory divided by weights and cache.
# In these, less is better. G4 and G7: share of the limit. "G4 original" and G6: time of the original divided by ours.
GOALS = {"G1": 1.4, "G2": 1.5, "G3": 1.25, "G4": 0.6, "G4 original": 3.0, "G5": 1.4, "G7": 0.6, "G10": 1.08}
# G11: time of a pass divided by that of a pass of one position, in parallel decoding.
GOALS |= {"G6 256": 2.0, "G6 384": 2.3, "G11 16": 1.15}
WINDOWS = (1, 4, 8, 16, 32)
MORE_IS_BETTER = ("G4", "G4 original", "G6", "G7")
LEGEND = """The number after the unit. G1, G2, G3, G5: time divided by the limit that follows from these rates. G4, G7:
share of the limit. G6, G4 original: time of the original divided by ours. G10: memory divided by weights and cache.
G11: time of a pass over a window divided by that of one position: the positions it must accept to be worth it."""


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tiny", action="store_true", help="small models and batches, on the CPU where there is no GPU"
    )
    parser.add_argument("--models", nargs="+", choices=("256", "384"), default=["256", "384"])
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave out `compile_generation`")
    parser.add_argument(
        "--seconds",
        type=float,
        default=570,
        help="time limit; a section that would exceed it is left out (default: 570)",
    )
    parser.add_argument("--out", type=Path, help="JSON file (default: results/gpu_<device>.json; none with --tiny)")
    return parser.parse_args()


class Measurement:
    """The sections of the benchmark for one model; each adds rows to the table."""

    def __init__(self, name: str, model, ceilings, clock: Clock, tiny: bool):
        self.name = name
        self.model = model
        self.ceilings = ceilings
        self.clock = clock
        self.tiny = tiny
        self.costs = Costs.of(model)
        self.device = clock.device
        self.is_cuda = clock.device.type == "cuda"
        vision = model.config.vision_config
        self.positions = vision.num_visual_tokens
        self.depth = vision.code_depth
        self.rows = []
        self.profiles = {}
        self.original_seconds = None
        self.replayed = "CUDA graph without compiler" if self.is_cuda else "not compiled"

    def add(self, metric: str, what: str, value: float, unit: str, ratio: float | None = None, note=""):
        """Adds a row to the table. Goals hold for the published sizes only."""
        goal = None if self.tiny else GOALS.get(metric, GOALS.get(f"{metric} {self.name}"))
        is_met = None if goal is None else bool(ratio >= goal if metric in MORE_IS_BETTER else ratio <= goal)
        value = float(f"{value:.4g}")
        ratio = None if ratio is None else float(f"{ratio:.4g}")
        row = {"metric": metric, "model": self.name, "what": what, "value": value, "unit": unit, "ratio": ratio}
        self.rows.append({**row, "goal": goal, "met": is_met, "note": note})
        print_row(self.rows[-1])

    def prompts(self, images: int, length: int = PROMPT) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        vocabulary = self.model.config.image_start_token_id
        ids = torch.randint(3, vocabulary, (images, length), generator=generator)
        negative = torch.randint(3, vocabulary, (1, length - PROMPT + UNCONDITIONAL), generator=generator)
        return ids.to(self.device), negative.to(self.device)

    def generate(self, images: int = 1, length: int = PROMPT, **kwargs):
        ids, negative = self.prompts(images, length)
        kwargs.setdefault("generation_mode", "image")
        return self.model.generate(ids, negative_prompt_ids=negative, guidance_scale=SCALE, **kwargs)

    def limit(self, images: int, positions: int) -> float:
        """Returns the lower limit in seconds: each position must read weights and cache, or do the operations."""
        body = self.costs.body_seconds(self.ceilings, 2 * images, PROMPT + positions / 2)
        return positions * (body + self.costs.depth_seconds(self.ceilings, 2 * images))

    def original(self, images: int, positions: int, measured: int) -> float:
        """Returns the seconds of the original algorithm, extrapolated from `measured` positions in the middle."""
        length = PROMPT + positions // 2 - measured // 2
        ids = self.prompts(2 * images, length)[0]
        ticks = []

        def pick(logits):
            ticks.append(time.perf_counter())
            return sample(logits)

        draw(self.model, ids, torch.ones_like(ids), measured + 1, SCALE, pick)  # it waits for the device at each code
        return positions * (ticks[self.depth * measured] - ticks[0]) / measured

    def image(self, mode: str):
        """Measures one image, decoded position by position (G1, G6 and G10)."""
        if mode == "compiled":
            self.generate()
        else:
            watch(self.generate, {4: int})
        seconds = self.timed(1, mode)
        limit = self.limit(1, self.positions)
        self.add("G1", "one image", seconds, "s", seconds / limit, f"{mode}; limit {limit:.3g} s")
        if self.original_seconds is None:
            self.original(1, self.positions, 2)
            self.original_seconds = self.original(1, self.positions, 16)
        ratio = self.original_seconds / seconds
        note = f"{mode}; original {self.original_seconds:.3g} s, extrapolated from 16 positions"
        self.add("G6", "times faster than the original", ratio, "x", ratio, note)

    def timed(self, images: int, mode: str) -> float:
        """Returns the seconds for a batch, and adds its peak memory divided by weights and cache (G10)."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = self.clock.median(lambda: self.generate(images), 1)
        if self.is_cuda:
            peak = torch.cuda.max_memory_allocated()
            weights = self.weights()
            expected = weights + self.costs.cache_bytes(2 * images, PROMPT + self.positions)
            note = f"{mode}; weights {weights / 2**30:.2f} GiB, with the cache {expected / 2**30:.2f} GiB"
            self.add("G10", f"peak memory, batch {images}", peak / 2**30, "GiB", peak / expected, note)
        return seconds

    def weights(self) -> int:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @torch.no_grad()
    def depths(self):
        """Measures the depths of one position (G2)."""
        sampling = CodeSampler(SamplingSettings(), code_depth=self.depth)
        guidance = Guidance(SCALE).expand(prompts=1, rows=1, num_positions=1, device=self.device)
        decoder = DepthDecoder(self.model, sampling, guidance, CodeInputs(self.model))
        hidden = torch.randn(2, self.model.config.text_config.hidden_size, dtype=self.model.dtype, device=self.device)
        noise = decoder.draw_noise(1, self.device)
        seconds = self.clock.replayed(lambda: decoder.compute(hidden, noise, guidance.at(0)))
        limit = self.costs.depth_seconds(self.ceilings, 2)
        note = f"{self.replayed}; limit {1e3 * limit:.3g} ms"
        self.add("G2", "depths of a position", 1e3 * seconds, "ms", seconds / limit, note)

    @torch.no_grad()
    def step(self):
        """Measures a step of the language model in the middle of an image (G3)."""
        context = PROMPT + self.positions // 2
        ids = self.prompts(1, context)[0]
        prompts = [BranchPrompt(ids, torch.ones_like(ids)) for _ in range(2)]
        cache = VilaUSpanCache(self.model.config.text_config.num_hidden_layers, context + 16)
        branches = GuidanceBranches(self.model.model, prompts, 16, cache)
        embeds = branches.read_prompts()[:1]
        seconds = self.clock.replayed(lambda: branches.step(embeds))
        limit = self.costs.body_seconds(self.ceilings, 2, context)
        note = f"{self.replayed}; limit {1e3 * limit:.3g} ms"
        self.add("G3", "step of the language model", 1e3 * seconds, "ms", seconds / limit, note)

    @torch.no_grad()
    def windows(self):
        """Measures a pass of parallel decoding in the middle of an image, for several windows (G11)."""
        context = PROMPT + self.positions // 2
        ids = self.prompts(1, context)[0]
        prompts = [BranchPrompt(ids, torch.ones_like(ids)) for _ in range(2)]
        cache = VilaUSpanCache(self.model.config.text_config.num_hidden_layers, context + max(WINDOWS))
        branches = GuidanceBranches(self.model.model, prompts, max(WINDOWS), cache)
        branches.read_prompts()
        sampler = CodeSampler(SamplingSettings(), code_depth=self.depth)
        guidance = Guidance(SCALE).expand(prompts=1, rows=1, num_positions=self.positions, device=self.device)
        depth_decoder = DepthDecoder(self.model, sampler, guidance, CodeInputs(self.model))
        decoder = PositionDecoder(self.model, branches, depth_decoder, is_parallel=True)
        codebook_size = self.model.config.vision_config.codebook_size
        single = 0.0
        for width in WINDOWS:
            offsets = torch.arange(width, device=self.device)[None]
            codes = torch.randint(codebook_size, (1, width, self.depth), device=self.device)
            noise = depth_decoder.draw_noise(width, self.device)
            seconds = self.clock.replayed(
                lambda codes=codes, offsets=offsets, width=width, noise=noise: decoder.decode_window(
                    codes, offsets, width, noise, offsets.clamp(max=self.positions - 1)
                )
            )
            single = single or seconds
            ratio = seconds / single
            self.add(f"G11 {width}", f"pass of {width} positions", 1e3 * seconds, "ms", ratio, self.replayed)

    def parallel(self, mode: str):
        """Measures one image, decoded in parallel. Random weights accept few drafts, so it has no goal."""
        settings = {"visual_decoding": "parallel", "parallel_window": 16}
        if mode == "compiled":
            self.generate(**settings)
        passes = []

        class Counted(ParallelSpanDecoder):
            def _decode_window(self):
                passes.append(1)
                super()._decode_window()

        generation_spans_vilau.ParallelSpanDecoder = Counted
        try:
            seconds = self.clock.median(lambda: self.generate(seed=0, **settings), 1)
        finally:
            generation_spans_vilau.ParallelSpanDecoder = ParallelSpanDecoder
        accepted = (self.positions - 1) / len(passes)
        note = f"{mode}; random weights, window 16, {accepted:.3g} positions accepted in a pass"
        self.add("parallel", "one image in parallel", seconds, "s", note=note)

    def batch(self, images: int):
        """Measures a large batch (G4 and G10). The batch is halved until the memory suffices."""
        memory = torch.cuda.get_device_properties(self.device).total_memory if self.is_cuda else float("inf")
        while 1.15 * (self.weights() + self.costs.cache_bytes(2 * images, PROMPT + self.positions)) > memory:
            images //= 2
        seconds = self.timed(images, "not compiled")
        share = self.limit(images, self.positions) / seconds
        note = f"not compiled; limit {images / seconds / share:.3g} images/s"
        self.add("G4", f"batch of {images}", images / seconds, "images/s", share, note)
        gc.collect()
        original = self.original(images, self.positions, 4)
        note = f"original {images / original:.3g} images/s, extrapolated from 4 positions"
        self.add("G4 original", "times faster than the original", original / seconds, "x", original / seconds, note)

    def video(self, mode: str):
        """Measures a video of eight frames (G5); if not compiled, from 64 positions in the middle of the context."""
        positions = FRAMES * self.positions
        limit = self.limit(1, positions)
        note = mode
        if mode == "compiled":
            self.generate(generation_mode="video", num_frames=FRAMES)
            seconds = self.clock.median(lambda: self.generate(generation_mode="video", num_frames=FRAMES), 1)
        else:
            measured = min(64, self.positions - 2)
            marks = []
            marking = {position: lambda: marks.append(self.clock.now()) for position in (2, 2 + measured)}
            watch(lambda **kwargs: self.generate(length=PROMPT + positions // 2 - measured // 2, **kwargs), marking)
            seconds = positions * (marks[1] - marks[0]) / measured
            note += f", extrapolated from {measured} positions"
        note += (
            f"; limit {limit:.3g} s; original {self.original(1, positions, 16):.3g} s, extrapolated from 16 positions"
        )
        self.add("G5", f"video of {FRAMES} frames", seconds, "s", seconds / limit, note)

    @torch.no_grad()
    def prefill(self, batch: int):
        """Measures the prefill of an image and 64 tokens of text, from pixels and from codes (G7)."""
        config = self.model.config
        vision = self.model.config.vision_config
        text = self.prompts(batch, QUESTION)[0]
        ids = torch.cat([text.new_full((batch, self.positions), config.image_token_id), text], 1)
        pixels = torch.rand(batch, 3, vision.image_size, vision.image_size, device=self.device) * 2 - 1
        codes = torch.randint(vision.codebook_size, (batch, self.positions, self.depth), device=self.device)
        operations = ids.numel() * (2 * self.costs.body + 2 * self.costs.head_sizes * ids.shape[1])
        limit = operations / self.ceilings.operations_per_s
        for what, inputs in (("codes", {"codes": codes}), ("pixels", {"pixel_values": pixels})):

            def run(inputs=inputs):
                self.model(input_ids=ids, logits_to_keep=1, use_cache=True, **inputs)

            run()
            seconds = self.clock.median(run, 3)
            note = f"limit {ids.numel() / limit:.3g} tokens/s"
            note += "; time includes the tower in float32, the limit does not" * (what == "pixels")
            self.add("G7", f"prefill of {batch} from {what}", ids.numel() / seconds, "tokens/s", limit / seconds, note)

    def waits(self, mode: str):
        """Raises an error if an operation inside a visual span waits for the device."""
        if not self.is_cuda:
            return
        try:
            watch(self.generate, {1: lambda: torch.cuda.set_sync_debug_mode("error"), 17: int})
        finally:
            torch.cuda.set_sync_debug_mode("default")
        self.add("sync", "waits inside a span", 0, "", note=f"{mode}; sync debug mode 'error' raised nothing")

    def trace(self, mode: str):
        first = min(8, self.positions - 3)
        self.profiles[mode] = profile(self.generate, self.clock, first, min(first + 4, self.positions - 1))
        print_profile(f"{self.name}, {mode}", self.profiles[mode])


def make_model(name: str, device: torch.device, tiny: bool):
    """Builds a published model with random weights in the dtypes of a checkpoint: float32 encoder and quantizer."""
    torch.manual_seed(0)
    if tiny:
        return build((64, 2), (64, 2), {"256": 2, "384": 3}[name], 1024, 64, 3).to(device, torch.bfloat16)
    with device:
        model = VilaUForConditionalGeneration._from_config(
            load_published_config(f"vilau-7b-{name}"), dtype=torch.bfloat16
        )
    model.model.vision_tower.image_encoder.float()
    model.model.vision_tower.quantizer.float()
    return model.eval()


class Report:
    """Runs sections while there is time and records failures. The file is written again after each section."""

    def __init__(self, arguments, clock: Clock):
        self.arguments = arguments
        self.begin = time.perf_counter()
        self.clock = clock
        self.measurements = []
        self.failed = []
        self.left_out = []
        is_cuda = clock.device.type == "cuda"
        self.device_name = torch.cuda.get_device_name(clock.device) if is_cuda else platform.machine()
        self.ceilings = measure_ceilings(clock, arguments.tiny)

    def passed(self) -> float:
        return time.perf_counter() - self.begin

    def run(self, name: str, expected: float, section, *args) -> float:
        """Runs a section and returns its seconds; 0 if it failed, or if fewer than `expected` seconds are left."""
        begin = self.passed()
        left = self.arguments.seconds - self.passed()
        if left < expected:
            print(f"{name}: left out, {left:.0f} s are left and it needs about {expected:.0f}", flush=True)
            self.left_out.append(name)
            return 0.0
        failed = len(self.failed)
        try:
            section(*args)
        except RuntimeError:  # errors of CUDA such as out of memory; the other sections still run
            traceback.print_exc()
            self.failed.append({"section": name, "error": traceback.format_exc(limit=3)})
        self.write()
        gc.collect()
        if self.clock.device.type == "cuda":
            torch.cuda.empty_cache()
        return self.passed() - begin if len(self.failed) == failed else 0.0

    def write(self):
        line = {
            "benchmark": "gpu",
            "device": self.device_name,
            "gb_per_s": round(self.ceilings.bytes_per_s / 1e9, 1),
            "tflop_per_s": round(self.ceilings.operations_per_s / 1e12, 2),
            "rows": [row for measurement in self.measurements for row in measurement.rows],
            "profiles": {measurement.name: measurement.profiles for measurement in self.measurements},
            "failed": self.failed,
            "left_out": self.left_out,
            "seconds": round(self.passed()),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        out = self.arguments.out
        if out is None and not self.arguments.tiny:
            name = "".join(letter if letter.isalnum() else "_" for letter in self.device_name)
            out = Path(__file__).parent / "results" / f"gpu_{name}.json"
        if out is not None:
            out.write_text(json.dumps(line) + "\n")


def print_row(row: dict):
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.4g}"
    verdict = "" if row["met"] is None else f"goal {row['goal']:4} {'met' if row['met'] else 'MISSED'}"
    print(
        f"{row['metric']:12} {row['model']:4} {row['what']:31} {row['value']:8.4g} {row['unit']:9} {ratio:>7} "
        f"{verdict:16} {row['note']}",
        flush=True,
    )


def measure(name: str, report: Report, expected: float) -> float:
    """
    Runs all sections of a model without a compiler, and then the image with a compiler.

    Returns:
        The seconds of the compiled image, which should be about `expected`.
    """
    tiny = report.arguments.tiny
    measurement = Measurement(name, make_model(name, report.clock.device, tiny), report.ceilings, report.clock, tiny)
    report.measurements.append(measurement)
    report.run(f"{name} image", 30, measurement.image, "not compiled")
    report.run(f"{name} depths", 10, measurement.depths)
    report.run(f"{name} step", 10, measurement.step)
    report.run(f"{name} windows", 20, measurement.windows)
    report.run(f"{name} parallel image", 30, measurement.parallel, "not compiled")
    report.run(f"{name} waits", 10, measurement.waits, "not compiled")
    report.run(f"{name} profile", 10, measurement.trace, "not compiled")
    report.run(f"{name} prefill", 20, measurement.prefill, 2 if tiny else 32)
    report.run(f"{name} batch", 60, measurement.batch, 2 if tiny else {"256": 256, "384": 64}[name])
    if name == "256":
        report.run(f"{name} video", 20, measurement.video, "not compiled")
    if not report.arguments.compile:
        return 0.0
    compile_generation(measurement)
    taken = report.run(f"{name} compiled image", expected, measurement.image, "compiled")
    if taken:
        report.run(f"{name} compiled waits", 5, measurement.waits, "compiled")
        report.run(f"{name} compiled profile", 10, measurement.trace, "compiled")
        # a second graph, for windows of 16 positions
        report.run(f"{name} compiled parallel image", 1.2 * expected, measurement.parallel, "compiled")
    return taken


def compile_generation(measurement: Measurement):
    # Without CUDA there is no graph to replay. The eager backend only checks that the model can be traced.
    measurement.model.compile_generation(**({} if measurement.is_cuda else {"backend": "eager"}))


def main():
    arguments = parse_arguments()
    if not (torch.cuda.is_available() or arguments.tiny):
        sys.exit("this benchmark needs a CUDA device; `--tiny` runs its sections without one")
    report = Report(arguments, Clock(torch.device("cuda" if torch.cuda.is_available() else "cpu")))
    ceilings = report.ceilings
    rates = f"{ceilings.bytes_per_s / 1e9:.3g} GB/s, {ceilings.operations_per_s / 1e12:.3g} TFLOP/s in bfloat16"
    print(f"{report.device_name}: {rates}\n{LEGEND}", flush=True)
    taken = {}
    expected = {"256": 120.0, "384": 240.0}
    for name in arguments.models:
        if taken.get("256"):
            expected["384"] = 2.5 * taken["256"]  # 128 layers in one graph against 56
        taken[name] = measure(name, report, 0 if arguments.tiny else expected[name])
        report.measurements[-1].model = None  # frees its memory for the next model
        torch._dynamo.reset()
        gc.collect()
    if taken.get("256"):
        video = report.measurements[arguments.models.index("256")]
        video.model = make_model("256", report.clock.device, arguments.tiny)
        compile_generation(video)
        report.run("256 compiled video", 1.2 * taken["256"] + 30 * (not arguments.tiny), video.video, "compiled")
    print("\nAll rows")
    for measurement in report.measurements:
        for row in measurement.rows:
            print_row(row)
    print(f"{report.passed():.0f} s; left out: {', '.join(report.left_out) or 'nothing'}")
    if report.failed:
        sys.exit("failed: " + ", ".join(entry["section"] for entry in report.failed))


if __name__ == "__main__":
    main()
