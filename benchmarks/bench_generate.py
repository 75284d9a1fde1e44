"""Times image generation beside the original algorithm (C3), and the overhead of the decoding loop (C10).

    python benchmarks/bench_generate.py

It takes about four minutes on one CPU core. Times are CPU times of one thread: the variants run in turn, and the
median counts. Images have fewer positions than those of the published models, but each position does the same work.
"""

import statistics
import time

import torch
from baseline import draw
from bench_depth import CountOperations, times
from figures import argument_parser, save_results

from vilau_hf import VilaUConfig, VilaUForConditionalGeneration
from vilau_hf.modeling.compat_modeling_vilau import cache_arguments
from vilau_hf.modeling.generation_branches_vilau import VilaUSpanCache
from vilau_hf.modeling.generation_depth_vilau import CodeInputs, DepthDecoder
from vilau_hf.modeling.generation_sampling_vilau import CodeSampler, Guidance, SamplingSettings


# code depth, rows of both branches of guidance, side of the grid of visual tokens, goal
SHAPES = ((4, 2, 6, 1.5), (16, 2, 4, 1.8), (4, 16, 4, 1.45), (16, 16, 3, 1.9))
PROMPT = 4
UNCONDITIONAL = 2
SCALE = 3.0
REPEATS = 3
OVERHEAD_GOAL = 0.15
START = 32000


def build(body: tuple[int, int], depth: tuple[int, int], code_depth: int, codes: int, code_dim: int, grid: int):
    """Builds a model with random weights. `body` and `depth` are a width and a number of layers."""
    torch.manual_seed(0)
    vision = {
        "encoder_config": {
            "hidden_size": code_dim,
            "intermediate_size": code_dim,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16 * grid,
            "patch_size": 16,
        },
        "codebook_size": codes,
        "code_depth": code_depth,
        "block_out_channels": [32, 32, 32, 32, 32],
    }
    depth_transformer = {
        "hidden_size": depth[0],
        "num_hidden_layers": depth[1],
        "num_attention_heads": depth[0] // 64,
        "intermediate_size": 4 * depth[0],
        "backbone_hidden_size": body[0],
        "code_dim": code_dim,
        "codebook_size": codes,
        "code_depth": code_depth,
    }
    language_model = {
        "model_type": "llama",
        "vocab_size": 32004,
        "hidden_size": body[0],
        "intermediate_size": 8 * body[0] // 3,
        "num_hidden_layers": body[1],
        "num_attention_heads": body[0] // 64,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
    }
    config = VilaUConfig(vision_config=vision, depth_config=depth_transformer, text_config=language_model)
    return VilaUForConditionalGeneration(config).eval()


class Notes:
    """A streamer that records the result of `look` after each position."""

    def __init__(self, look):
        self.look = look
        self.seen = []

    def put(self, ids):
        pass

    def put_visual(self, codes):
        self.seen.append(self.look())

    def end(self):
        pass


def measure_images(code_depth: int, rows: int, grid: int, goal: float) -> dict:
    model = build((768, 12), (256, 6), code_depth, 16384, 256, grid)
    images = rows // 2
    positions = grid**2
    ids = torch.randint(3, START, (images, PROMPT))
    ids[:, -1] = START
    unconditional = torch.cat([torch.zeros(1, PROMPT - UNCONDITIONAL).long(), ids[:1, -UNCONDITIONAL:]], 1)
    both = torch.cat([ids, unconditional.expand(images, -1)])
    mask = (both != 0).long()

    def ours(**kwargs):
        return model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            negative_prompt_ids=ids[:1, -UNCONDITIONAL:],
            generation_mode="image",
            guidance_scale=SCALE,
            **kwargs,
        )

    def original(**kwargs):
        return draw(model, both, mask, positions, SCALE, **kwargs)

    greedy = ours(do_sample=False).flatten(1, 2)
    if not torch.equal(greedy, original(pick=lambda logits: logits.argmax(-1))):
        raise ValueError("the codes of the two algorithms differ")
    found = times({"ours": ours, "original": original}, REPEATS)
    codes = images * positions * code_depth
    with CountOperations() as counter:
        notes = Notes(lambda: (counter.count, counter.reads))
        ours(streamer=notes)
    with CountOperations() as of_two:
        draw(model, both, mask, 2, SCALE)
    with CountOperations() as of_one:
        draw(model, both, mask, 1, SCALE)
    return {
        "depth": code_depth,
        "rows": rows,
        "positions": positions,
        "codes_per_s": round(1e3 * codes / found["ours"], 1),
        "original_codes_per_s": round(1e3 * codes / found["original"], 1),
        "times_original": round(found["original"] / found["ours"], 2),
        "goal": goal,
        "operations": notes.seen[2][0] - notes.seen[1][0],
        "host_reads": notes.seen[-1][1] - notes.seen[0][1],
        "original_operations": of_two.count - of_one.count,
        "original_host_reads": of_two.reads - of_one.reads,
    }


@torch.no_grad()
def plain_loop(model, ids: torch.Tensor, do_sample: bool = True):
    """Yields the codes `(rows, D)` of each position, with direct calls of the sub-models."""
    config = model.config.text_config
    positions = model.config.vision_config.num_visual_tokens
    sampling = CodeSampler(SamplingSettings(do_sample), code_depth=model.config.vision_config.code_depth)
    guidance = Guidance(SCALE).expand(prompts=1, rows=1, num_positions=positions, device=ids.device)
    decoder = DepthDecoder(model, sampling, guidance, CodeInputs(model))
    cache = VilaUSpanCache(config.num_hidden_layers, ids.shape[1] + positions)
    embeds = model.get_input_embeddings()(ids)
    places = torch.arange(ids.shape[1] + positions)[None]
    begin = 0
    for position in range(positions):
        end = begin + embeds.shape[1]
        hidden = model.model.language_model(
            inputs_embeds=embeds.repeat(2, 1, 1),
            position_ids=places[:, begin:end],
            **cache_arguments(cache, None),
            use_cache=True,
        ).last_hidden_state[:, -1]
        codes = decoder.decode(hidden, position).codes
        yield codes
        embeds = model.model.embed_codes(codes)[:, None]
        begin = end


class TakingTurns(Notes):
    """A streamer that runs one position of the plain loop after each one of `generate` and records both times."""

    def __init__(self, loop):
        super().__init__(time.thread_time)
        self.loop = loop
        self.begin = time.thread_time()
        self.times = []

    def put_visual(self, codes):
        middle = time.thread_time()
        next(self.loop)
        end = time.thread_time()
        self.times.append((1e3 * (middle - self.begin), 1e3 * (end - middle)))
        self.begin = time.thread_time()


def measure_overhead() -> dict:
    """Measures the milliseconds of a position in `generate` and in a plain loop over the same sub-models."""
    model = build((64, 1), (64, 1), 4, 64, 64, 8)
    ids = torch.tensor([[5, 6, START]])

    def generate(**kwargs):
        codes = model.generate(ids, negative_prompt_ids=ids, generation_mode="image", guidance_scale=SCALE, **kwargs)
        return codes.flatten(1, 2)

    if not torch.equal(generate(do_sample=False), torch.stack([*plain_loop(model, ids, False)], 1)):
        raise ValueError("the codes of the two loops differ")
    positions = []
    calls = []
    for _ in range(15):
        turns = TakingTurns(plain_loop(model, ids))
        generate(streamer=turns)
        calls.append(turns.times[0])
        positions += turns.times[1:]
    return {
        "generate_ms_per_position": round(statistics.median(ours for ours, _ in positions), 3),
        "plain_loop_ms_per_position": round(statistics.median(plain for _, plain in positions), 3),
        "overhead_ms_per_position": round(statistics.median(ours - plain for ours, plain in positions), 3),
        "goal": OVERHEAD_GOAL,
        "overhead_ms_per_call": round(statistics.median(ours - plain for ours, plain in calls), 2),
    }


def main():
    folder = argument_parser(__doc__).parse_args().out
    torch.set_num_threads(1)
    overhead = measure_overhead()
    print(
        f"overhead of generate: {overhead['overhead_ms_per_position']:.3f} ms a position (goal {OVERHEAD_GOAL}), "
        f"{overhead['overhead_ms_per_call']:.1f} ms a call",
        flush=True,
    )
    print("depth  rows  codes/s  original  ratio  goal  operations of a position, original  host reads", flush=True)
    results = []
    for shape in SHAPES:
        results.append(measure_images(*shape))
        row = results[-1]
        print(
            f"{row['depth']:5} {row['rows']:5} {row['codes_per_s']:8.1f} {row['original_codes_per_s']:9.1f} "
            f"{row['times_original']:6.2f} {row['goal']:5} {row['operations']:24} {row['original_operations']:9} "
            f"{row['host_reads']:11}",
            flush=True,
        )
    save_results(
        "generate",
        folder,
        body="768x12",
        depth_transformer="256x6",
        codebook_size=16384,
        results=results,
        overhead=overhead,
    )


if __name__ == "__main__":
    main()
