"""Compares parallel with sequential decoding: passes of the language model, accepted positions and time.

    python benchmarks/bench_parallel.py [--captions 200]

Both kinds run in turn in one process on one thread, and times are CPU times. The shipped checkpoint draws images and
videos of four frames from captions of drawn shapes. Models with random weights, which accept few drafts, show what a
pass costs at larger sizes. Results that differ from those of sequential decoding are counted. They differ where two
codes nearly tie, which is rare in float32. The tests compare in float64.
"""

import random
import time

import torch
from baseline import draw
from bench_generate import build
from figures import argument_parser, save_results

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.drawn.shapes import drawings, motions
from vilau_hf.modeling import generation_spans_vilau
from vilau_hf.modeling.generation_spans_vilau import ParallelSpanDecoder


# mode, window (None: chosen by itself), prompts in a batch
GOALS = [("image", None, 1), ("video", None, 1)]
DRAWN = [
    *[("image", window, 1) for window in (4, 8, 16, 32, 64)],
    *[("image", window, rows) for rows in (4, 16) for window in (None, 4, 8)],
    *[("video", window, 1) for window in (8, 16, 32, 64)],
]
# first drafts: mode, window, and how many positions before the codes are that they repeat
DRAFTS = [("image", 16, 1), ("image", 16, 8), ("video", 64, 1), ("video", 64, 8), ("video", 64, 64)]
# code depth, prompts in a batch, window, side of the grid of visual tokens
RANDOM = [(4, 1, 8, 6), (16, 1, 8, 4), (4, 4, 4, 4), (4, 16, 4, 4)]


class Passes:
    """Counts calls of the language model and the positions in them, in all rows of all branches."""

    def __init__(self, model):
        self.passes = 0
        self.tokens = 0
        model.model.language_model.register_forward_hook(self.count, with_kwargs=True)

    def count(self, module, args, kwargs, output):
        rows, positions = output.last_hidden_state.shape[:2]
        self.passes += 1
        self.tokens += rows * positions

    def take(self):
        """Returns the counts since the last call, without the prompt."""
        found = (self.passes - 1, self.tokens)
        self.passes = self.tokens = 0
        return found


def run(model, inputs, passes, **settings):
    """Returns the codes, seconds of CPU time, and counts of one call."""
    begin = time.process_time()
    codes = model.generate(**inputs, **settings)
    return codes, time.process_time() - begin, passes.take()


def compare(model, batches, passes, parallel, **settings):
    """Returns mean figures over `batches`, dictionaries of inputs with seeds."""
    totals = dict.fromkeys(("steps", "passes", "sequential_s", "parallel_s", "tokens_ratio", "different"), 0.0)
    for batch in batches:
        expected, seconds, (steps, tokens) = run(model, batch, passes, **settings)
        found, parallel_seconds, (num_passes, parallel_tokens) = run(model, batch, passes, **settings, **parallel)
        totals["steps"] += steps
        totals["passes"] += num_passes
        totals["sequential_s"] += seconds
        totals["parallel_s"] += parallel_seconds
        totals["tokens_ratio"] += parallel_tokens / tokens
        totals["different"] += int((found != expected).flatten(1).any(1).sum())
    count = len(batches)
    figures = {name: round(value / count, 3) for name, value in totals.items() if name != "different"}
    return {
        **figures,
        "passes_ratio": round((totals["passes"] + count) / (totals["steps"] + count), 3),
        "times_faster": round(totals["sequential_s"] / totals["parallel_s"], 2),
        "different": int(totals["different"]),
    }


def drawn_batches(processor, mode, rows, captions):
    """Returns batches of prompts of drawn shapes, each with seeds."""
    choice = random.Random(0)
    targets = [choice.choice(drawings("test") if mode == "image" else motions("test")) for _ in range(captions)]
    batches = []
    for begin in range(0, captions - rows + 1, rows):
        chats = [[{"role": "user", "content": each.caption}] for each in targets[begin : begin + rows]]
        inputs = processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        batches.append({**inputs, "seed": [begin + row for row in range(rows)]})
    return batches


def measure_drawn(captions, dtype, cases):
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT, dtype=dtype).eval()
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    passes = Passes(model)
    results = []
    for mode, window, rows in cases:
        number = max(rows, captions if mode == "image" else captions // 4)
        parallel = {"visual_decoding": "parallel", "parallel_window": window}
        batches = drawn_batches(processor, mode, rows, number)
        found = compare(model, batches, passes, parallel, generation_mode=mode)
        row = {"model": "drawn", "dtype": str(dtype).split(".")[1], "mode": mode, "rows": rows, "window": window}
        results.append({**row, "captions": len(batches) * rows, **found})
        print(results[-1], flush=True)
    return results


def measure_drafts(captions, cases=DRAFTS):
    """Compares first drafts: the codes before, those of the row above, and those of the frame before."""
    results = []
    for mode, window, distance in cases:

        class OtherDrafts(ParallelSpanDecoder):
            def __init__(self, *args):
                super().__init__(*args)
                self.draft_distance = distance  # noqa: B023 - used within this turn of the loop

        generation_spans_vilau.ParallelSpanDecoder = OtherDrafts
        found = measure_drawn(captions, torch.float32, [(mode, window, 1)])
        generation_spans_vilau.ParallelSpanDecoder = ParallelSpanDecoder
        results += [{**row, "draft_distance": distance} for row in found]
    return results


def measure_random(cases=RANDOM, body=(768, 12), depth=(256, 6), codes=16384, code_dim=256):
    results = []
    for code_depth, rows, window, grid in cases:
        model = build(body, depth, code_depth, codes, code_dim, grid)
        passes = Passes(model)
        ids = torch.randint(3, 32000, (rows, 4))
        batches = [
            {"input_ids": ids, "attention_mask": torch.ones_like(ids), "negative_prompt_ids": ids[:1], "seed": 0}
        ]
        parallel = {"visual_decoding": "parallel", "parallel_window": window}
        found = compare(model, batches, passes, parallel, generation_mode="image", guidance_scale=3.0)
        # what a pass costs, in steps of sequential decoding: the positions that it must accept to be worth it
        cost = found["parallel_s"] / found["passes"] / (found["sequential_s"] / found["steps"])
        row = {"model": f"random {body[0]}x{body[1]}", "code_depth": code_depth, "rows": rows, "window": window}
        results.append({**row, **found, "break_even": round(cost, 2)})
        print(results[-1], flush=True)
    return results


def measure_original(captions):
    """Compares one image of the shipped checkpoint, decoded in parallel, with the original algorithm (C3)."""
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT, dtype=torch.float32).eval()
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    settings = model.generation_config
    negative = torch.tensor([settings.unconditional_prompt_ids])
    scale = settings.visual_guidance_scale
    positions = model.config.vision_config.num_visual_tokens
    start = model.config.image_start_token_id
    seconds = {"original": 0.0, "sequential": 0.0, "parallel": 0.0}
    for batch in drawn_batches(processor, "image", 1, captions):
        ids, empty = (torch.nn.functional.pad(each, (0, 1), value=start) for each in (batch["input_ids"], negative))
        empty = torch.nn.functional.pad(empty, (ids.shape[1] - empty.shape[1], 0))
        mask = torch.cat([torch.ones_like(ids), (empty != 0).long()])
        begin = time.process_time()
        draw(model, torch.cat([ids, empty]), mask, positions, scale)
        seconds["original"] += time.process_time() - begin
        for decoding in ("sequential", "parallel"):
            begin = time.process_time()
            model.generate(**batch, generation_mode="image", visual_decoding=decoding)
            seconds[decoding] += time.process_time() - begin
    result = {f"{name}_s": round(value / captions, 3) for name, value in seconds.items()}
    result["times_original"] = round(seconds["original"] / seconds["parallel"], 2)
    print(result, flush=True)
    return result


def main():
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--captions",
        type=int,
        default=200,
        help="captions of images for the figures with a goal; a quarter as many of videos, a fifth for other rows",
    )
    parser.add_argument("--quick", action="store_true", help="few captions and small models, as a test")
    parser.add_argument("--only-goals", action="store_true", help="measure only the figures that have a goal")
    args = parser.parse_args()
    torch.set_num_threads(1)
    original = measure_original(1 if args.quick else min(args.captions, 40))
    if args.quick:
        results = measure_drawn(1, torch.float32, GOALS)
        results += measure_random([(4, 2, 4, 3)], (64, 1), (64, 1), 64, 64)
    elif args.only_goals:
        results = measure_drawn(args.captions, torch.float32, GOALS)
    else:
        few = args.captions // 5
        results = measure_drawn(args.captions, torch.float32, GOALS)
        results += measure_drawn(few, torch.float32, DRAWN)
        results += measure_drawn(few, torch.bfloat16, [("image", 16, 1), ("video", 16, 1)])
        results += measure_drafts(max(few // 10, 4))
        results += measure_random()
    wrong = sum(row["different"] for row in results if row.get("dtype") != "bfloat16")
    save_results("parallel", args.out, original=original, rows=results, different_float32=wrong)


if __name__ == "__main__":
    main()
