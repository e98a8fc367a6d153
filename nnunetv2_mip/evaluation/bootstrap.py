"""Confidence intervals by resampling patients with replacement (percentile bootstrap)."""

import math

import numpy as np

DRAWS = 10_000


def interval_over_groups(groups: list[list[float]], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over all values, groups drawn as a whole.

    Args:
        groups: the values of every patient.
        seed: the same seed gives the same interval.

    Returns:
        (low, high), both NaN with fewer than two groups.
    """
    if len(groups) < 2:
        return math.nan, math.nan
    sums = np.array([sum(group) for group in groups])
    sizes = np.array([len(group) for group in groups])
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(DRAWS):
        drawn = generator.integers(0, len(groups), len(groups))
        means.append(sums[drawn].sum() / sizes[drawn].sum())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_interval(
    values: list[float], seed: int = 0, draws: int = 10_000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over cases; the same seed gives the same interval.

    Args:
        values: one score a case; NaN is left out.

    Returns:
        (low, high), both NaN with fewer than two scores.
    """
    scores = np.asarray(values, np.float64)
    scores = scores[~np.isnan(scores)]
    if len(scores) < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    # Draw by draw: a table of all draws of a thousand cases would take 80 MB.
    means = [scores[generator.integers(0, len(scores), len(scores))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
