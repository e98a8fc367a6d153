"""Confidence intervals by the percentile bootstrap: the only place that draws samples of samples.

What is drawn with replacement are independent units: patients with all of their cases, or cases.
"""

import math
from collections.abc import Sequence

import numpy as np

DRAWS = 10_000
# Share of the draws below a 95 % interval. Not 0.025 to the last bit: written reports rest on it.
TAIL = (1 - 0.95) / 2


def resample(strata: Sequence[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """One bootstrap draw: of every stratum as many units as it has, with replacement.

    Args:
        strata: units of each, along the first axis.
        generator: advances by one draw a stratum.

    Returns:
        the drawn units of all strata, one stratum after the other.
    """
    return np.concatenate(
        [units[generator.integers(0, len(units), len(units))] for units in strata]
    )


def percentile_interval(samples: Sequence[float], tail: float = TAIL) -> tuple[float, float]:
    """Interval (low, high) between two quantiles of a statistic's draws.

    Args:
        samples: the statistic of every draw; NaN is left out.
        tail: share of the draws below the interval, and above it.

    Returns:
        (low, high), both NaN with fewer than two samples.
    """
    kept = np.asarray(samples, np.float64)
    kept = kept[~np.isnan(kept)]
    if len(kept) < 2:
        return math.nan, math.nan
    low, high = np.quantile(kept, [tail, 1 - tail])
    return float(low), float(high)


def interval_over_groups(
    groups: Sequence[Sequence[float]], seed: int = 0, tail: float = 0.025
) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over all values, groups drawn as a whole.

    Args:
        groups: the values of every patient.
        seed: the same seed gives the same interval.
        tail: of `percentile_interval`.

    Returns:
        (low, high), both NaN with fewer than two groups.
    """
    if len(groups) < 2:
        return math.nan, math.nan
    sums = np.array([sum(group) for group in groups])
    sizes = np.array([len(group) for group in groups])
    generator = np.random.default_rng(seed)
    means = []
    # Draw by draw: a table of all draws of a thousand groups would take 80 MB.
    for _ in range(DRAWS):
        drawn = generator.integers(0, len(groups), len(groups))
        means.append(sums.take(drawn).sum() / sizes.take(drawn).sum())
    return percentile_interval(means, tail)


def interval_over_cases(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over cases.

    Args:
        values: one score a case; NaN is left out.
        seed: the same seed gives the same interval.

    Returns:
        (low, high), both NaN with fewer than two scores.
    """
    return interval_over_groups([[value] for value in values if not math.isnan(value)], seed, TAIL)
