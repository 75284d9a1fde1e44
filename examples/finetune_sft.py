"""Fine-tunes a model by a recipe: all of it, some of its parts, or adapters (LoRA, QLoRA).

python examples/finetune_sft.py examples/recipes/tiny_sft.yaml

goes on training the shipped model on drawn shapes, in a minute on a CPU; with `--dataset FOLDER` on records of one's
own (see docs/training.md), with `--lora_r 16` by adapters, with `--tune_language_model false` only projector and depth
transformer. The same as `vilau train RECIPE`. On several GPUs: `accelerate launch examples/finetune_sft.py RECIPE`.
"""

import sys

from vilau_hf.cli import main


main(["train", *(sys.argv[1:] or ["--help"])])
