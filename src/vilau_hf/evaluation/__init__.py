"""Evaluation of a model: metrics, zero-shot classification and sheets of images, for any training data.

How this package is organised:

- `metrics.py` holds functions of tensors and texts that need no model, such as PSNR and use of the codebook.
- A benchmark gets one module named after it. Such a module computes the scores of that benchmark from predictions and
  references, as `vqa_accuracy.py` does for VQA.
- `intervals.py` gives a score its 95 % interval.
- `model_outputs.py` lets a model draw or answer for many conversations, in batches.
- `alignment.py` compares images and texts inside of a language model.
- `zero_shot.py` classifies images with a vision tower and its text encoder.
- `sheets.py` shows results to people: contact sheets and animations.

Nothing here imports `training` or `drawn`. So `evaluate_metrics/`, which `evaluate.load` reads, imports this package
without a trainer. The scores of drawn shapes are in `drawn/scores.py`, those
of emoji in `emoji/scores.py`.
"""

from .metrics import (
    EVALUATE_METRICS,
    codebook_perplexity,
    codebook_usage,
    exact_match,
    perplexity_of_counts,
    psnr,
    psnr_of_error,
    usage_of_counts,
)
from .sheets import beside, contact_sheet, enlarge, save_animation, to_pil, to_uint8


# `vqa_accuracy` is not exported, because the function would hide the module of the same name. `embed_classes` is not
# exported, because `zero_shot.py` imports the collators and `model_outputs.py` the models, which a metric
# does not need.
__all__ = [
    "EVALUATE_METRICS",
    "beside",
    "codebook_perplexity",
    "codebook_usage",
    "contact_sheet",
    "enlarge",
    "exact_match",
    "perplexity_of_counts",
    "psnr",
    "psnr_of_error",
    "save_animation",
    "to_pil",
    "to_uint8",
    "usage_of_counts",
]
