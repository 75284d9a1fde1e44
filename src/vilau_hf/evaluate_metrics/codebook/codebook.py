"""Usage of a codebook, as a metric for `evaluate.load`."""

import datasets
import evaluate
import torch

from vilau_hf.evaluation.metrics import codebook_perplexity, codebook_usage


_DESCRIPTION = """
Usage of a codebook by the codes of images: the share of codes that occur, and the perplexity. A perplexity of n means
that the codes are distributed as evenly as n equally frequent codes.
"""

_INPUTS = """
Args:
    predictions: codes of each image, integers in [0, codebook_size), of shape `(L * D)`, `(L, D)` or `(h, w, D)`.
    codebook_size (`int`): number K of codes.
Returns:
    usage: share of the codes that occur, in [0, 1].
    perplexity: exponential of the entropy of the codes, from 1 to K.
"""


class Codebook(evaluate.Metric):
    """Metric with the usage and the perplexity of a codebook."""

    # Abstract in the base class: describes the metric and the types of its inputs. The documentation of `evaluate`
    # asks for this method and for `_compute`.
    def _info(self) -> evaluate.MetricInfo:
        flat = datasets.List(datasets.Value("int64"))
        layouts = (flat, datasets.List(flat), datasets.List(datasets.List(flat)))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[datasets.Features({"predictions": layout}) for layout in layouts],
        )

    def _compute(self, predictions: list, codebook_size: int) -> dict[str, float]:
        codes = torch.cat([torch.as_tensor(image).flatten() for image in predictions])
        return {
            "usage": codebook_usage(codes, codebook_size),
            "perplexity": codebook_perplexity(codes, codebook_size),
        }
