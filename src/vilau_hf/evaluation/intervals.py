"""Scores with 95 % intervals: shares, means, and ratios of paired values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch


CONFIDENCE = 0.95
# Resamples of a bootstrap. With 2,000 the ends of an interval move by about a hundredth of its width between seeds.
RESAMPLES = 2000
# 97.5 % quantiles of Student's t distribution by degrees of freedom, one less than the number of runs.
T_QUANTILES = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
}


@dataclass(frozen=True)
class Score:
    """
    Holds a value with its 95 % interval.

    Args:
        value (`float`): the score.
        low (`float`): lower end of the interval.
        high (`float`): upper end of the interval.
        count (`int`): samples that it is computed from.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}], n = {self.count}"


def share(hits: Sequence[bool]) -> Score:
    """
    Computes the share of hits with the interval of Wilson (1927), which stays inside [0, 1] for few samples, too.

    Args:
        hits (`Sequence[bool]` of length N): whether each sample is a hit; at least one.

    Raises:
        ValueError: if `hits` is empty.
    """
    _check_samples("hits", hits)
    count = len(hits)
    value = sum(hits) / count
    deviation = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    shrink = 1 + deviation**2 / count
    center = (value + deviation**2 / (2 * count)) / shrink
    half = deviation * math.sqrt(value * (1 - value) / count + deviation**2 / (4 * count**2)) / shrink
    return Score(value, max(0.0, center - half), min(1.0, center + half), count)


def mean(values: Sequence[float], seed: int = 0) -> Score:
    """
    Computes the mean with the percentile interval of a bootstrap (Efron, 1979).

    Args:
        values (`Sequence[float]` of length N): one value for each sample; at least one.
        seed (`int`, *optional*, defaults to 0): seed of the resamples.

    Raises:
        ValueError: if `values` is empty.
    """
    return ratio(values, [1.0] * len(values), seed)


def ratio(values: Sequence[float], references: Sequence[float], seed: int = 0) -> Score:
    """
    Computes the ratio of two means over the same samples, with the percentile interval of a paired bootstrap.

    Args:
        values (`Sequence[float]` of length N): numerators; at least one.
        references (`Sequence[float]` of length N): denominators of the same samples.
        seed (`int`, *optional*, defaults to 0): seed of the resamples.

    Returns:
        The ratio; NaN if the references are all 0. Resamples whose references are all 0 are left out.

    Raises:
        ValueError: if the lengths differ or both are 0.
    """
    _check_samples("values", values)
    if len(values) != len(references):
        raise ValueError(
            f"`values` and `references` must have the same length, got {len(values)} and {len(references)}."
        )
    columns = torch.tensor([[float(value) for value in values], [float(value) for value in references]]).double()
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(values), (RESAMPLES, len(values)), generator=generator)
    tops, bottoms = columns[:, rows].mean(-1)
    ratios = (tops / bottoms)[bottoms != 0]
    top, bottom = columns.mean(-1).tolist()
    if not bottom:
        return Score(math.nan, math.nan, math.nan, len(values))
    tail = (1 - CONFIDENCE) / 2
    low, high = ratios.quantile(torch.tensor([tail, 1 - tail]).double()).tolist()
    return Score(top / bottom, low, high, len(values))


def across_runs(values: Sequence[float]) -> Score:
    """
    Computes the mean over a few runs, such as seeds of a training, with the interval of Student's t distribution.

    The interval tells where the mean of many runs would be. It is wide for two or three runs, and does not stay
    inside of [0, 1].

    Args:
        values (`Sequence[float]` of length N): the score of each run, at most ten.

    Returns:
        The mean with its interval, whose ends are NaN for one run.

    Raises:
        ValueError: if there is no value, or more than ten.
    """
    _check_samples("values", values)
    count = len(values)
    if count > len(T_QUANTILES) + 1:
        raise ValueError(f"`values` must have at most {len(T_QUANTILES) + 1} entries, got {count}. Use `mean`.")
    value = math.fsum(values) / count
    if count == 1:
        return Score(value, math.nan, math.nan, 1)
    variance = math.fsum((each - value) ** 2 for each in values) / (count - 1)
    half = T_QUANTILES[count - 1] * math.sqrt(variance / count)
    return Score(value, value - half, value + half, count)


def _check_samples(name: str, samples: Sequence[float]) -> None:
    if not samples:
        raise ValueError(f"`{name}` must contain at least one sample, got none.")


__all__ = ["Score", "across_runs", "mean", "ratio", "share"]
