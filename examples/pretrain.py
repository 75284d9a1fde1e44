"""Pretrains a model with a trained vision tower and a language model, by a recipe.

python examples/pretrain.py examples/recipes/tiny_pretrain.yaml

trains on drawn shapes, in a minute on a CPU. A recipe is a YAML file of arguments. Flags after it override them, as in
`--max_steps 20` or `--dataset mixture.yaml`. `--dry_run` checks the recipe and its data instead of training.
The command `vilau train RECIPE` does the same. On several GPUs: `accelerate launch examples/pretrain.py RECIPE`.
"""

import sys

from vilau_hf.cli import main


main(["train", *(sys.argv[1:] or ["--help"])])
