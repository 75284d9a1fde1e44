"""Metrics, sheets of pictures, zero-shot classification: measures of a model, whatever it was trained on."""

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
from .sheets import beside, contact_sheet, enlarge, save_gif, to_pil, to_uint8


# `vqa_accuracy.py` stays out: its function has its name and would hide it. `zero_shot.py` needs the collators.
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
    "save_gif",
    "to_pil",
    "to_uint8",
    "usage_of_counts",
]
