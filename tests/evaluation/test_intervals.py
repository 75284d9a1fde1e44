import math
import random

import pytest

from vilau_hf.evaluation.intervals import T_QUANTILES, across_runs, mean, ratio, share


def test_share_has_the_interval_of_wilson():
    # Table 1 of Newcombe (1998), method 3: 81 of 263, and 0 of 20
    score = share([True] * 81 + [False] * 182)
    assert score.value == 81 / 263 and score.count == 263
    assert (round(score.low, 4), round(score.high, 4)) == (0.2553, 0.3662)
    none = share([False] * 20)
    assert (none.value, round(none.low, 4), round(none.high, 4)) == (0, 0, 0.1611)


def test_interval_of_a_mean_covers_the_true_mean_in_95_of_100_cases():
    choice = random.Random(0)
    scores = [mean([choice.gauss(3, 2) for _ in range(60)], seed=trial) for trial in range(200)]
    covered = sum(score.low <= 3 <= score.high for score in scores)
    # 200 cases at 95 % have a standard deviation of 3.1; a bootstrap of 60 samples is slightly too narrow
    assert 178 <= covered <= 199
    assert all(score.low < score.value < score.high for score in scores)


def test_width_of_the_interval_of_a_mean_is_that_of_a_normal_distribution():
    choice = random.Random(1)
    values = [choice.gauss(0, 1) for _ in range(400)]
    score = mean(values)
    spread = math.sqrt(sum((value - score.value) ** 2 for value in values) / len(values))
    assert score.high - score.low == pytest.approx(2 * 1.96 * spread / math.sqrt(len(values)), rel=0.06)


def test_ratio_uses_that_samples_are_paired():
    references = [float(number % 2) for number in range(100)]
    assert ratio(references, references).low == ratio(references, references).high == 1
    halves = ratio([value / 2 for value in references], references)
    assert halves.value == halves.low == halves.high == 0.5
    assert math.isnan(ratio([1.0, 0.0], [0.0, 0.0]).value)


def test_same_seed_gives_the_same_interval():
    values = [number**1.5 for number in range(37)]
    assert mean(values, seed=3) == mean(values, seed=3) != mean(values, seed=4)


@pytest.mark.parametrize("function", [share, mean, across_runs])
def test_rejects_no_samples(function):
    with pytest.raises(ValueError, match="at least one sample, got none"):
        function([])


def test_rejects_lists_of_different_lengths():
    with pytest.raises(ValueError, match="same length, got 1 and 2"):
        ratio([1.0], [1.0, 2.0])


def test_interval_across_runs_covers_the_true_mean_in_95_of_100_cases():
    choice = random.Random(0)
    scores = [across_runs([choice.gauss(3, 2) for _ in range(3)]) for _ in range(1000)]
    covered = sum(score.low <= 3 <= score.high for score in scores)
    # 1000 cases at 95 % have a standard deviation of 6.9
    assert 930 <= covered <= 970


def test_interval_across_runs_is_that_of_students_t():
    # By hand: mean 2, standard deviation 1, and a half width of 4.303 / sqrt(3).
    score = across_runs([1.0, 2.0, 3.0])
    assert (score.value, score.count) == (2.0, 3)
    assert score.high - 2 == pytest.approx(4.303 / 3**0.5)
    assert 2 - score.low == pytest.approx(4.303 / 3**0.5)


def test_one_run_has_no_interval():
    score = across_runs([0.5])
    assert score.value == 0.5
    assert math.isnan(score.low) and math.isnan(score.high)


def test_rejects_more_runs_than_the_table_has():
    with pytest.raises(ValueError, match="`values` must have at most 10 entries, got 11"):
        across_runs([0.0] * (len(T_QUANTILES) + 2))
