"""Time to import the package beside importing the library classes it is made of, each in a fresh process.

python benchmarks/bench_import.py
"""

import json
import platform
import statistics
import subprocess
import sys

import torch
import transformers


VARIANTS = {
    "libraries": "from transformers import LlamaForCausalLM; from diffusers.models.autoencoders.vae import Decoder",
    "vilau_hf": "import vilau_hf",
}
RUNS = 7


def seconds(code: str) -> float:
    """CPU time of the import in a process of its own."""
    script = f"import time; start = time.process_time(); {code}; print(time.process_time() - start)"
    return float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)


for code in VARIANTS.values():  # fills the file caches
    seconds(code)
times = {name: [] for name in VARIANTS}
for _ in range(RUNS):
    for name, code in VARIANTS.items():
        times[name].append(seconds(code))
median = {name: statistics.median(values) for name, values in times.items()}
for name, value in median.items():
    print(f"{name:10} {value:.2f} s")
result = {
    "benchmark": "import",
    "median_cpu_s": median,
    "ratio": median["vilau_hf"] / median["libraries"],
    "goal": 1.5,
    "python": platform.python_version(),
    "torch": torch.__version__,
    "transformers": transformers.__version__,
}
print(json.dumps(result))
