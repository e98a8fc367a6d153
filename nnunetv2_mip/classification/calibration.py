"""From scores to probabilities and decisions: Platt's sigmoid and a threshold for the F1.

Both are fitted on scores of cases that the scoring head was not trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from nnunetv2_mip.errors import MipError


@dataclass(frozen=True)
class Platt:
    """probability = sigmoid(slope · score + offset); the slope is never negative."""

    slope: float
    offset: float

    def log_odds(self, scores: np.ndarray | float) -> np.ndarray:
        return self.slope * np.asarray(scores, np.float64) + self.offset

    def __call__(self, scores: np.ndarray | float) -> np.ndarray:
        return expit(self.log_odds(scores))


@dataclass(frozen=True)
class Calibration:
    """What turns scores into probabilities and decisions.

    Attributes:
        platt: score → probability at the share of cases with lesions that it was fitted on.
        threshold: of the probability, best expected F1 with as many cases with lesions as without.
        threshold_natural: best expected F1 at the share it was fitted on.
    """

    platt: Platt
    threshold: float
    threshold_natural: float


def calibrate(scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fit all three on scores (N,) of cases that what gave them was not trained on; NaN: unknown.

    Raises:
        MipError: one class alone.
    """
    known = ~np.isnan(scores)
    scores, truth = scores[known], np.asarray(labels, bool)[known]
    platt = fit_platt(scores, truth)
    probabilities = platt(scores)
    return Calibration(
        platt,
        best_threshold(probabilities, truth),
        best_threshold(probabilities, truth, balanced=False),
    )


def fit_platt(scores: Sequence[float], labels: Sequence[bool]) -> Platt:
    """Platt's sigmoid with his smoothed targets (Platt 1999).

    Args:
        scores: (N,) log odds or any score that rises with suspicion.
        labels: (N,).

    Raises:
        MipError: one class alone.
    """
    scores, truth = np.asarray(scores, np.float64), np.asarray(labels, bool)
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        raise MipError("a calibration needs cases with lesions and without")
    target = np.where(truth, (positive + 1) / (positive + 2), 1 / (negative + 2))
    spread = max(float(scores.std()), 1e-6)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = x[0] * scores / spread + x[1]
        slip = expit(z) - target
        value = np.logaddexp(0, z).sum() - (target * z).sum()
        return float(value), np.array([(slip * scores).sum() / spread, slip.sum()])

    start = np.array([1.0, np.log(positive / negative)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    return Platt(float(found.x[0] / spread), float(found.x[1]))


def mean_log_odds(platts: Sequence[Platt], scores: Sequence[np.ndarray | float]) -> np.ndarray:
    """Several ways to score the same cases, each with its sigmoid: the mean of their log odds."""
    return np.mean([platt.log_odds(values) for platt, values in zip(platts, scores)], axis=0)


def best_threshold(
    probabilities: Sequence[float], labels: Sequence[bool], balanced: bool = True
) -> float:
    """The threshold (positive: at or above it) of the highest F1 that is to be expected.

    Expected where the probabilities are right: the threshold that happened to be best on some
    hundred labels is far less certain. It comes out near half of that F1 (Lipton et al., arXiv
    1402.1892); midway between two cases.

    Args:
        probabilities: (N,), calibrated.
        labels: (N,), for the numbers of both classes alone.
        balanced: as if there were as many cases without lesions as with; else as they are.

    Raises:
        MipError: one class alone.
    """
    values, truth = np.asarray(probabilities, np.float64), np.asarray(labels, bool)
    if truth.all() or not truth.any():
        raise MipError("a threshold needs cases with lesions and without")
    healthy = truth.sum() / (~truth).sum() if balanced else 1.0
    values = np.sort(values)[::-1]
    hits = np.cumsum(values)
    called = np.cumsum(values + healthy * (1 - values))
    f1 = 2 * hits / np.maximum(called + values.sum(), 1e-12)
    # A threshold lies between two different values.
    ends = np.append(values[1:] < values[:-1], True)
    best = int(np.argmax(np.where(ends, f1, -1)))
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return float((values[best] + below) / 2)
