"""Metrics: picture quality, use of the codebook, exact match."""

import math
from pathlib import Path

import torch


# folder of the metrics that `evaluate.load` takes: codebook, drawn_shapes, vqa_accuracy
EVALUATE_METRICS = Path(__file__).parents[1] / "evaluate_metrics"


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


def _check_codes(codes: torch.Tensor, codebook_size: int):
    if codes.numel() == 0 or codes.min() < 0 or codes.max() >= codebook_size:
        given = f"{codes.min()} to {codes.max()}" if codes.numel() else "none"
        raise ValueError(f"`codes` must hold integers from 0 to {codebook_size - 1}, got {given}.")


def usage_of_counts(counts: torch.Tensor) -> torch.Tensor:
    """Share of the codes that occur, `(...)`, for counts `(..., K)`."""
    return (counts > 0).float().mean(-1)


def perplexity_of_counts(counts: torch.Tensor) -> torch.Tensor:
    """`exp` of the entropy of the codes' frequencies, `(...)`, for counts `(..., K)`."""
    share = counts.float() / counts.sum(-1, keepdim=True)
    return torch.special.entr(share).sum(-1).exp()


def codebook_usage(codes: torch.Tensor, codebook_size: int) -> float:
    """Share of the `codebook_size` codes that occur in `codes`, integers of any shape."""
    _check_codes(codes, codebook_size)
    return usage_of_counts(torch.bincount(codes.flatten(), minlength=codebook_size)).item()


def codebook_perplexity(codes: torch.Tensor, codebook_size: int) -> float:
    """`exp` of the entropy of the codes' frequencies: 1 if one code is used, `codebook_size` if all are used alike."""
    _check_codes(codes, codebook_size)
    return perplexity_of_counts(torch.bincount(codes.flatten(), minlength=codebook_size)).item()


__all__ = [
    "EVALUATE_METRICS",
    "codebook_perplexity",
    "codebook_usage",
    "exact_match",
    "perplexity_of_counts",
    "psnr",
    "psnr_of_error",
    "usage_of_counts",
]
