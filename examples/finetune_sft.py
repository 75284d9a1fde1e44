"""Fine-tunes a model by a recipe: all weights, some sub-models, or adapters (LoRA, QLoRA).

python examples/finetune_sft.py examples/recipes/tiny_sft.yaml

trains the shipped model on drawn shapes, in a minute on a CPU. `--dataset FOLDER` trains on other records (see
docs/training.md), `--lora_r 16` trains adapters, and `--tune_language_model false` trains only the projector and the
depth transformer. The command `vilau train RECIPE` does the same. On several GPUs:
`accelerate launch examples/finetune_sft.py RECIPE`.
"""

import sys

from vilau_hf.cli import main


main(["train", *(sys.argv[1:] or ["--help"])])
