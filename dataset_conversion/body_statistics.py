"""Mean and spread of the body's levels over a training set: the constants of its normalisation."""

import numpy as np
from numba import njit

from nnunetv2_mip.conventions import BODY_LEVEL


class BodyStatistics:
    """Running mean and spread of the body's levels over a training set.

    Sums are integers, so that the result does not depend on the order of the cases.
    """

    def __init__(self, count: int = 0, total: int = 0, squares: int = 0):
        self.count, self.total, self.squares = int(count), int(total), int(squares)

    @classmethod
    def of_levels(cls, levels: np.ndarray) -> "BodyStatistics":
        histogram = count_levels(levels.reshape(-1))
        values = np.arange(len(histogram))
        body = values > BODY_LEVEL
        return cls(
            histogram[body].sum(),
            (histogram * values)[body].sum(),
            (histogram * values * values)[body].sum(),
        )

    def __add__(self, other: "BodyStatistics") -> "BodyStatistics":
        return BodyStatistics(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    @property
    def std(self) -> float:
        if not self.count:
            return 1.0
        return max(1.0, (self.squares / self.count - self.mean**2) ** 0.5)

    def to_list(self) -> list[int]:
        return [self.count, self.total, self.squares]


@njit(cache=True)
def count_levels(levels):
    """Histogram of the 256 levels, int64 (numpy would copy all levels to 8-byte integers)."""
    counts = np.zeros(256, np.int64)
    for level in levels:
        counts[level] += 1
    return counts
