"""How much of a codebook is in use, for `evaluate.load`."""

import datasets
import evaluate
import torch

from vilau_hf.evaluation.metrics import codebook_perplexity, codebook_usage


_DESCRIPTION = """
Use of a codebook by the codes of images: the share of codes that occur, and the perplexity, which is as many codes as
would occur if all of them were equally frequent.
"""

_INPUTS = """
Args:
    predictions: codes of each image, integers in [0, codebook_size), as a list `(L * D)`, `(L, D)` or `(h, w, D)`.
    codebook_size (`int`): number K of codes.
Returns:
    usage: share of the codes in [0, 1].
    perplexity: between 1 and K.
"""


class Codebook(evaluate.Metric):
    def _info(self):
        flat = datasets.List(datasets.Value("int64"))
        layouts = (flat, datasets.List(flat), datasets.List(datasets.List(flat)))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[datasets.Features({"predictions": layout}) for layout in layouts],
        )

    def _compute(self, predictions, codebook_size):
        codes = torch.cat([torch.as_tensor(image).flatten() for image in predictions])
        return {
            "usage": codebook_usage(codes, codebook_size),
            "perplexity": codebook_perplexity(codes, codebook_size),
        }
