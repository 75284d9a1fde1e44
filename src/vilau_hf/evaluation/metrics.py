"""Metrics that need no model: quality of images, use of the codebook, exact match of texts."""

import math
from pathlib import Path

import torch


# folder of the metrics that `evaluate.load` reads: codebook, drawn_shapes and vqa_accuracy
EVALUATE_METRICS = Path(__file__).parents[1] / "evaluate_metrics"


def psnr(prediction: torch.Tensor, target: torch.Tensor, data_range: float) -> float:
    """
    Computes the peak signal-to-noise ratio `10 log10(data_range^2 / MSE)`.

    Args:
        prediction (`torch.Tensor`): values of any shape.
        target (`torch.Tensor`): values of the same shape.
        data_range (`float`): largest value minus smallest value that can occur, for example 255 for uint8.

    Returns:
        The ratio in dB over all elements; infinite if the tensors are equal.

    Raises:
        ValueError: if the shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"`prediction` and `target` must have the same shape, got {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}."
        )
    # float32, since the squared difference of two uint8 tensors overflows
    error = (prediction.float() - target.float()).square().mean()
    return psnr_of_error(error.item(), data_range)


def psnr_of_error(mean_squared_error: float, data_range: float) -> float:
    """Computes the peak signal-to-noise ratio in dB from a mean squared error; infinite for an error of 0."""
    return 10 * math.log10(data_range**2 / mean_squared_error) if mean_squared_error else math.inf


def exact_match(predictions: list[str], references: list[str]) -> float:
    """
    Computes the share of predictions that equal their reference, without spaces at the ends.

    Args:
        predictions (`list[str]` of length N): predicted texts.
        references (`list[str]` of length N): expected texts.

    Raises:
        ValueError: if the lengths differ or both are 0.
    """
    if len(predictions) != len(references):
        raise ValueError(
            f"`predictions` and `references` must have the same length, got {len(predictions)} and {len(references)}."
        )
    if not references:
        raise ValueError("`references` must contain at least one text, got none.")
    return sum(a.strip() == b.strip() for a, b in zip(predictions, references, strict=True)) / len(references)


def _check_codes(codes: torch.Tensor, codebook_size: int) -> None:
    codes = codes.long()  # in a small dtype the codebook size would wrap
    if codes.numel() == 0 or codes.min() < 0 or codes.max() >= codebook_size:
        given = f"{codes.min()} to {codes.max()}" if codes.numel() else "none"
        raise ValueError(f"`codes` must contain integers from 0 to {codebook_size - 1}, got {given}.")


def usage_of_counts(counts: torch.Tensor) -> torch.Tensor:
    """Computes the share of codes that occur, `(...)`, from their counts `(..., K)`."""
    return (counts > 0).float().mean(-1)


def perplexity_of_counts(counts: torch.Tensor) -> torch.Tensor:
    """Computes `exp` of the entropy of the code frequencies, `(...)`, from their counts `(..., K)`."""
    share = counts.float() / counts.sum(-1, keepdim=True)
    return torch.special.entr(share).sum(-1).exp()


def codebook_usage(codes: torch.Tensor, codebook_size: int) -> float:
    """Computes the share of the `codebook_size` codes that occur in `codes`, integers of any shape."""
    _check_codes(codes, codebook_size)
    return usage_of_counts(torch.bincount(codes.flatten(), minlength=codebook_size)).item()


def codebook_perplexity(codes: torch.Tensor, codebook_size: int) -> float:
    """Computes `exp` of the entropy of the code frequencies: 1 for one code, `codebook_size` for uniform use."""
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
