"""Times depth decoding beside its matrix products (C1) and the original algorithm (C2), and counts operations (C9).

    python benchmarks/bench_depth.py

It takes about three minutes on one CPU core. Times are CPU times of one thread: the variants run in turn, and the
median counts.
"""

import statistics
import time
from types import SimpleNamespace

import torch
from baseline import decode_depths
from figures import argument_parser, save_results
from torch.utils._python_dispatch import TorchDispatchMode

from vilau_hf import VilaUDepthConfig, VilaUDepthTransformer, VilaUResidualQuantizer
from vilau_hf.modeling.generation_depth_vilau import CodeInputs, DepthDecoder
from vilau_hf.modeling.generation_sampling_vilau import CodeSampler, Guidance, SamplingSettings


WIDTH = 1024
LAYERS = 6
CODES = 16384
CODE_DIM = 256
HIDDEN = 1024
REPEATS = 7
VIEWS = (
    "view",
    "permute",
    "unsafe_view",
    "alias",
    "unsqueeze",
    "squeeze",
    "slice",
    "select",
    "t.",
    "transpose",
    "expand",
    "split",
    "unbind",
    "detach",
)


class CountOperations(TorchDispatchMode):
    """Counts the operations that reach the back end of the device, without views, and the reads by the host."""

    def __init__(self):
        super().__init__()
        self.count = self.reads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function).removeprefix("aten.").removeprefix("_")
        self.reads += name.startswith(("local_scalar", "is_nonzero"))
        self.count += not name.startswith(VIEWS)
        return function(*args, **(kwargs or {}))


def build(depth: int):
    torch.manual_seed(0)
    config = VilaUDepthConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // 64,
        intermediate_size=4 * WIDTH,
        backbone_hidden_size=HIDDEN,
        code_dim=CODE_DIM,
        codebook_size=CODES,
        code_depth=depth,
    )
    transformer = VilaUDepthTransformer(config).eval()
    sizes = SimpleNamespace(codebook_size=CODES, code_depth=depth, hidden_size=CODE_DIM, shared_codebook=True)
    quantizer = VilaUResidualQuantizer(sizes).eval()
    model = SimpleNamespace(
        depth_transformer=transformer, model=SimpleNamespace(vision_tower=SimpleNamespace(quantizer=quantizer))
    )
    sampling = CodeSampler(SamplingSettings(), code_depth=depth)
    guidance = Guidance(3.0).expand(prompts=1, rows=1, num_positions=1, device=torch.device("cpu"))
    return transformer, quantizer, DepthDecoder(model, sampling, guidance, CodeInputs(model))


def products_alone(transformer, rows: int, depth: int):
    """Returns a function with only the necessary matrix products: 2 * rows in the layers, rows in the head."""
    inputs = torch.randn(2 * rows, WIDTH)
    wide = torch.randn(2 * rows, 4 * WIDTH)

    def run():
        torch.nn.functional.linear(inputs, transformer.in_proj_hidden.weight)
        for _ in range(depth):
            for layer in transformer.layers:
                attention = layer.self_attn
                for linear in (attention.qkv, attention.proj, layer.fc1):
                    torch.nn.functional.linear(inputs, linear.weight)
                torch.nn.functional.linear(wide, layer.fc2.weight)
            torch.nn.functional.linear(inputs[:rows], transformer.code_head.weight)

    return run


def times(variants: dict, repeats: int = REPEATS) -> dict[str, float]:
    """Returns the median CPU milliseconds of each variant. The variants run in turn, after a warm-up."""
    found = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, run in variants.items():
            begin = time.thread_time()
            run()
            if repeat:
                found[name].append(1e3 * (time.thread_time() - begin))
    return {name: statistics.median(values) for name, values in found.items()}


def measure(depth: int, rows: int) -> dict:
    transformer, quantizer, decoder = build(depth)
    hidden = torch.randn(rows, HIDDEN)
    assert_equal(transformer, quantizer, decoder, hidden)

    def ours():
        decoder.decode(hidden, 0)

    def original():
        decode_depths(transformer, quantizer.codebook, hidden, 3.0)

    found = times({"ours": ours, "products": products_alone(transformer, rows // 2, depth), "original": original})
    with CountOperations() as of_ours:
        ours()
    with CountOperations() as of_original:
        original()
    return {
        "depth": depth,
        "rows": rows,
        **{f"{name}_ms": round(value, 1) for name, value in found.items()},
        "over_products": round(found["ours"] / found["products"], 2),
        "times_original": round(found["original"] / found["ours"], 2),
        "operations": of_ours.count,
        "host_reads": of_ours.reads,
        "original_operations": of_original.count,
        "original_host_reads": of_original.reads,
    }


@torch.no_grad()
def main():
    folder = argument_parser(__doc__).parse_args().out
    torch.set_num_threads(1)
    results = []
    for depth in (4, 16):
        for rows in (2, 32):
            results.append(measure(depth, rows))
            print(results[-1], flush=True)
    save_results("depth", folder, width=WIDTH, layers=LAYERS, codebook_size=CODES, results=results)


def assert_equal(transformer, quantizer, decoder, hidden):
    """Checks that both algorithms choose the same codes without sampling."""
    decoder.sampler.do_sample = False
    expected = decode_depths(transformer, quantizer.codebook, hidden, 3.0, pick=lambda logits: logits.argmax(-1))
    if not torch.equal(decoder.decode(hidden, 0).codes, expected):
        raise ValueError("the codes of the two algorithms differ")
    decoder.sampler.do_sample = True


if __name__ == "__main__":
    main()
