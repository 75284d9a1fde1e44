"""Measures memory and time of `code_loss`, compared with computing all logits at once (C8).

    python benchmarks/bench_loss.py

It takes about five minutes on one CPU core. Times are CPU times of one thread: the variants run in turn, and the
median counts. Memory is what the allocator of torch hands out, with gradients and without weights and inputs. "head"
is the last linear layer with its cross-entropy. "depth transformer" has two layers before it. With gradient
checkpointing, the backward pass of each chunk computes these again, and needs less memory.
"""

import torch
from allocations import peak_bytes
from bench_depth import times
from figures import argument_parser, save_results

from vilau_hf import VilaUDepthConfig, VilaUDepthTransformer, VilaUForConditionalGeneration
from vilau_hf.modeling.losses_vilau import code_loss, linear_cross_entropy


WIDTH = 1024
CODES = 16384
DEPTH = 4
VISUAL_TOKENS = 1024
MAX_LOGITS = VilaUForConditionalGeneration.max_code_logits


class Codebook(torch.nn.Embedding):
    """The method of a quantizer that the loss calls."""

    def code_embeddings(self, codes):
        return self(codes)


def measure(part: str, variants: dict, parameters: list) -> dict:
    """Measures peak memory and time of a loss and its gradients, after a check that all variants agree."""
    gradients = {}
    memory = {}

    def forget():
        for parameter in parameters:
            parameter.grad = None

    def step(loss_of):
        forget()
        loss_of().backward()

    for name, loss_of in variants.items():
        step(loss_of)
        gradients[name] = [parameter.grad.clone() for parameter in parameters]
        forget()
        memory[name] = peak_bytes(lambda loss_of=loss_of: step(loss_of))
    for ours, expected in zip(gradients["ours"], gradients["materialised"], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
    found = times({name: lambda loss_of=loss_of: step(loss_of) for name, loss_of in variants.items()}, repeats=3)
    return {
        "part": part,
        **{f"{name}_ms": round(value) for name, value in found.items()},
        **{f"{name}_mib": round(value / 2**20) for name, value in memory.items()},
        "times_less_memory": round(memory["materialised"] / memory["ours"], 2),
        "time_ratio": round(found["ours"] / found["materialised"], 2),
    }


def head() -> dict:
    states = torch.randn(DEPTH * VISUAL_TOKENS, WIDTH, requires_grad=True)
    linear = torch.nn.Linear(WIDTH, CODES)
    codes = torch.randint(CODES, (DEPTH * VISUAL_TOKENS,))

    def ours():
        return linear_cross_entropy(states.split(MAX_LOGITS // CODES), linear.weight, linear.bias, codes)

    def materialised():
        return torch.nn.functional.cross_entropy(linear(states).float(), codes, reduction="sum")

    return measure("head", {"ours": ours, "materialised": materialised}, [states, linear.weight, linear.bias])


def depth_transformer(checkpointing: bool) -> dict:
    config = VilaUDepthConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=WIDTH // 64,
        intermediate_size=4 * WIDTH,
        backbone_hidden_size=WIDTH,
        code_dim=256,
        codebook_size=CODES,
        code_depth=DEPTH,
    )
    transformer = VilaUDepthTransformer(config).train()
    transformer.gradient_checkpointing = checkpointing
    codebook = Codebook(CODES, 256).requires_grad_(False)
    hidden = torch.randn(VISUAL_TOKENS, WIDTH, requires_grad=True)
    codes = torch.randint(CODES, (VISUAL_TOKENS, DEPTH))
    variants = {
        "ours": lambda: code_loss(transformer, codebook, hidden, codes, MAX_LOGITS)[0],
        "materialised": lambda: code_loss(transformer, codebook, hidden, codes, 2**62)[0],
    }
    part = "depth transformer" + ", gradient checkpointing" * checkpointing
    return measure(part, variants, [hidden, *transformer.parameters()])


def main():
    folder = argument_parser(__doc__).parse_args().out
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = [head(), depth_transformer(False), depth_transformer(True)]
    for result in results:
        print(result, flush=True)
    save_results(
        "loss",
        folder,
        codes=DEPTH * VISUAL_TOKENS,
        width=WIDTH,
        codebook_size=CODES,
        dtype="float32",
        max_code_logits=MAX_LOGITS,
        results=results,
    )


if __name__ == "__main__":
    main()
