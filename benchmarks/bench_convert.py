"""Measures time and peak memory of converting a synthetic release of more than 4 GB, and checks each tensor.

    python benchmarks/bench_convert.py [--folder DIR]

The weights are random bfloat16 numbers in the original layout, with a SigLIP-Large model and a language model in
shards of 1 GB. Each tensor of the output is compared with those of the release by the hash of its bytes.
"""

import argparse
import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import vilau_hf
from vilau_hf.original.release import SIGLIP_CONFIGS


GOLDEN = Path(__file__).parents[1] / "tests/fixtures/golden/tiny-256/checkpoint"
WIDTH = 2560
MLP = 6912
LAYERS = 16
ROWS = 404
CODES = 16384
DEPTH_WIDTH = 1024
DEPTH_LAYERS = 6

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--folder", type=Path, help="working folder (default: a temporary folder, removed at the end)")
args = parser.parse_args()
generator = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randint(0, 2**14, shape, dtype=torch.int16, generator=generator).view(torch.bfloat16)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def write_language_model(folder):
    shards = [{"model.embed_tokens.weight": random(ROWS, WIDTH), "lm_head.weight": random(ROWS, WIDTH)}]
    shards[0]["model.norm.weight"] = random(WIDTH)
    for layer in range(LAYERS):
        if layer % 6 == 0 and layer:
            shards.append({})
        name = f"model.layers.{layer}"
        for projection in ("q", "k", "v", "o"):
            shards[-1][f"{name}.self_attn.{projection}_proj.weight"] = random(WIDTH, WIDTH)
        for projection in ("gate", "up"):
            shards[-1][f"{name}.mlp.{projection}_proj.weight"] = random(MLP, WIDTH)
        shards[-1][f"{name}.mlp.down_proj.weight"] = random(WIDTH, MLP)
        shards[-1][f"{name}.input_layernorm.weight"] = random(WIDTH)
        shards[-1][f"{name}.post_attention_layernorm.weight"] = random(WIDTH)
    weight_map = {}
    for index, shard in enumerate(shards, 1):
        file = f"model-{index:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return max(file.stat().st_size for file in folder.glob("*.safetensors"))


def write_tower(folder):
    """Writes the tower of the small recording with the widths of SigLIP-Large and of a wide depth transformer."""
    vision, text = SIGLIP_CONFIGS["siglip-large-patch16-256"].values()
    widths = {"vision_model": vision, "text_model": text}
    weights = {}
    with safe_open(GOLDEN / "vision_tower/model.safetensors", framework="pt") as small:
        for key in small.keys():  # noqa: SIM118 - not a dict
            shape = list(small.get_slice(key).get_shape())
            layer = re.search(r"(vision_model|text_model)\.encoder\.layers\.(\d+)\.", key)
            tower = re.search(r"siglip_model\.(vision_model|text_model)", key)
            if key.startswith("rqvaesiglip.decoder."):
                weights[key] = random(*shape)
            elif tower:
                sizes = widths[tower[1]]
                old = {"vision_model": (64, 96, 192), "text_model": (32, 48, 96)}[tower[1]]
                new = (sizes["hidden_size"], sizes["intermediate_size"], 3 * sizes["hidden_size"])
                shape = [dict(zip(old, new, strict=True)).get(side, side) for side in shape]
                if key.endswith("position_embedding.weight"):
                    shape[0] = 256 if tower[1] == "vision_model" else 64
                if key.endswith("token_embedding.weight"):
                    shape[0] = 32000
                if key.endswith("patch_embedding.weight"):
                    shape = [1024, 3, 16, 16]
                if layer is None:
                    weights[key] = random(*shape)
                elif layer[2] == "0":
                    for index in range(sizes["num_hidden_layers"]):
                        weights[key.replace("layers.0.", f"layers.{index}.")] = random(*shape)
            elif key.startswith("rqvaesiglip.post_quant_conv.weight"):
                weights[key] = random(24, 1024, 1, 1)
            elif "codebooks" in key:
                weights[key] = random(*[{129: CODES + 1, 128: CODES, 64: 1024}[side] for side in shape])
            elif key.startswith("rqtransformer."):
                new = {64: DEPTH_WIDTH, 256: 4 * DEPTH_WIDTH, 96: WIDTH, 128: CODES}
                shape = [new.get(side, side) for side in shape]
                if ".blocks." not in key:
                    weights[key] = random(*shape)
                elif ".blocks.0." in key:
                    for index in range(DEPTH_LAYERS):
                        weights[key.replace("blocks.0.", f"blocks.{index}.")] = random(*shape)
            else:
                weights[key] = random(*shape)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return (folder / "model.safetensors").stat().st_size


def write_configs(source):
    def tower(config):
        quantizer, depth = config["rqvaesiglip"], config["rqtransformer"]
        quantizer.update(pretrained_model="google/siglip-large-patch16-256", n_embed=CODES, embed_dim=1024)
        depth.update(embed_dim=DEPTH_WIDTH, input_embed_dim_1=1024, input_embed_dim_2=WIDTH, vocab_size=CODES)
        depth["head"] = {"n_layer": DEPTH_LAYERS, "block": {"n_head": 16}}

    def language(config):
        config.update(hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=LAYERS)
        config.update(num_attention_heads=20, num_key_value_heads=20, torch_dtype="bfloat16")

    edit(source / "vision_tower/config.json", tower)
    edit(source / "llm/config.json", language)
    (source / "vision_tower/preprocessor_config.json").unlink()
    projector = {"layers.0.weight": random(WIDTH, 1024), "layers.0.bias": random(WIDTH)}
    projector.update({"layers.2.weight": random(WIDTH, WIDTH), "layers.2.bias": random(WIDTH)})
    save_file(projector, source / "mm_projector/model.safetensors", metadata={"format": "pt"})


def digests(folder, change=lambda key, tensor: tensor):
    """Counts the hashes of the tensors in the weight files under `folder`, with one tensor in memory at a time."""
    found = Counter()
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                tensor = change(key, file.get_tensor(key))
                if tensor is not None:
                    found[hashlib.sha1(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()] += 1
    return found


def as_converted(key, tensor):
    if "codebooks" in key:
        return tensor[:CODES].float()
    return tensor


folder = args.folder or Path(tempfile.mkdtemp())
folder.mkdir(parents=True, exist_ok=True)
source = folder / "release"
out = folder / "out"
tower_out = folder / "tower"
shutil.copytree(GOLDEN, source)
(source / "llm/model.safetensors").unlink()
write_configs(source)
largest = max(write_language_model(source / "llm"), write_tower(source / "vision_tower"))
total = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())

script = """
import sys
from vilau_hf.cli import main
main(["convert", *sys.argv[1:]])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
command = [sys.executable, "-c", script, source, out, "--tower-out", tower_out]
started = time.perf_counter()
printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
seconds = time.perf_counter() - started
peak = int(re.search(r"VmHWM:\s+(\d+) kB", printed)[1]) * 1024

expected = digests(source, as_converted)
arrived = digests(out, lambda key, tensor: None if key.endswith("initialized") else tensor)
arrived_tower = digests(tower_out, lambda key, tensor: None if key.endswith("initialized") else tensor)
result = {
    "benchmark": "convert",
    "release_gb": round(total / 1e9, 2),
    "largest_shard_gb": round(largest / 1e9, 2),
    "seconds": round(seconds, 1),
    "peak_rss_gb": round(peak / 1e9, 2),
    "peak_below_largest_shard_plus_1_gb": peak < largest + 1e9,
    "every_tensor_equal": not (arrived - expected) and not (arrived_tower - expected),
    "every_tensor_arrived": set(expected) == set(arrived) | set(arrived_tower),
    "vilau_hf": vilau_hf.__version__,
    "torch": torch.__version__,
    "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
}
print(json.dumps(result))
if args.folder is None:
    shutil.rmtree(folder)
