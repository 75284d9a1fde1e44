"""Metrics: picture quality, use of the codebook, exact match."""

import math
from pathlib import Path

import torch

from .codebook_metrics import codebook_perplexity as codebook_perplexity
from .codebook_metrics import codebook_usage as codebook_usage


# folder of the metrics that `evaluate.load` takes: codebook, drawn_shapes, vqa_accuracy
EVALUATE_METRICS = Path(__file__).parent / "evaluate_metrics"


def psnr(prediction: torch.Tensor, target: torch.Tensor, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB: `10 log10(data_range^2 / MSE)`, the MSE over all elements."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"`prediction` and `target` must have one shape, got {tuple(prediction.shape)}, {tuple(target.shape)}."
        )
    error = (prediction.float() - target.float()).square().mean()
    return psnr_of_error(error.item(), data_range)


def psnr_of_error(mean_squared_error: float, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error; infinite where there is none."""
    return 10 * math.log10(data_range**2 / mean_squared_error) if mean_squared_error else math.inf


def exact_match(predictions: list[str], references: list[str]) -> float:
    """Share of predictions equal to their reference, surrounding space aside."""
    if len(predictions) != len(references):
        raise ValueError(
            f"`predictions` and `references` must have one length, got {len(predictions)} and {len(references)}."
        )
    if not references:
        raise ValueError("`references` must hold at least one text, got none.")
    return sum(a.strip() == b.strip() for a, b in zip(predictions, references, strict=True)) / len(references)
