"""How a codebook is used."""

import torch


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


__all__ = ["codebook_perplexity", "codebook_usage", "perplexity_of_counts", "usage_of_counts"]
