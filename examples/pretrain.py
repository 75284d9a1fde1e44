"""Pretrains a model of a trained vision tower and a language model, by a recipe.

python examples/pretrain.py examples/recipes/tiny_pretrain.yaml

does so on drawn shapes, in a minute on a CPU. A recipe is a YAML file of arguments; any of them can be given behind
it, as in `--max_steps 20` or `--dataset mixture.yaml`, and with `--dry_run` its data are checked, nothing is trained.
The same as `vilau train RECIPE`. On several GPUs: `accelerate launch examples/pretrain.py RECIPE`.
"""

import sys

from vilau_hf.cli import main


main(["train", *(sys.argv[1:] or ["--help"])])
