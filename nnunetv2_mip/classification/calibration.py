"""Calibration of scores: Platt's sigmoid and a decision threshold for the F1.

Both are fitted on scores of cases that the scorer was not trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit

from nnunetv2_mip.errors import MipError


@dataclass(frozen=True)
class Platt:
    """Sigmoid of Platt: probability = sigmoid(slope · score + offset), the slope not negative."""

    slope: float
    offset: float

    def log_odds(self, scores: ArrayLike) -> np.ndarray:
        """Calibrated log odds of scores, of the same shape."""
        return self.slope * np.asarray(scores, np.float64) + self.offset

    def __call__(self, scores: ArrayLike) -> np.ndarray:
        """Calibrated probabilities of scores, of the same shape."""
        return expit(self.log_odds(scores))


@dataclass(frozen=True)
class Calibration:
    """Sigmoid and decision thresholds of a scorer.

    Attributes:
        platt: score → probability, at the share of cases with lesions that it was fitted on.
        threshold: of the probability, with the highest expected F1 where there are as many cases
            with lesions as without.
        threshold_natural: with the highest expected F1 at the share it was fitted on.
    """

    platt: Platt
    threshold: float
    threshold_natural: float


@dataclass(frozen=True)
class JoinedCalibration:
    """Calibration of the mean of several scorers' calibrated log odds.

    Attributes:
        parts: the sigmoid of each scorer.
        calibration: of the mean.
    """

    parts: tuple[Platt, ...]
    calibration: Calibration


def calibrate(scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Calibration fitted on out-of-fold scores.

    Args:
        scores: (N,), of cases that the scorer was not trained on; NaN where unknown.
        labels: (N,) whether a case shows a lesion.

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


def calibrate_jointly(scores: Sequence[np.ndarray], labels: ArrayLike) -> JoinedCalibration:
    """Calibration of several scorers as one.

    Args:
        scores: of each scorer (N,), of studies that it was not trained on; NaN where unknown.
        labels: (N,).

    Raises:
        MipError: one class alone among the studies that all scorers have scored.
    """
    truth = np.asarray(labels, bool)
    parts = tuple(calibrate(values, truth).platt for values in scores)
    return JoinedCalibration(parts, calibrate(mean_log_odds(parts, scores), truth))


def fit_platt(scores: ArrayLike, labels: ArrayLike) -> Platt:
    """Sigmoid fitted with Platt's smoothed targets (Platt 1999).

    Args:
        scores: (N,) log odds, or any score that is higher for cases with lesions.
        labels: (N,).

    Raises:
        MipError: one class alone.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(labels, bool)
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        raise MipError("a calibration needs cases with lesions and without")
    target = np.where(truth, (positive + 1) / (positive + 2), 1 / (negative + 2))
    spread = max(float(values.std()), 1e-6)

    def loss_and_slope(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = x[0] * values / spread + x[1]
        residual = expit(z) - target
        loss = np.logaddexp(0, z).sum() - (target * z).sum()
        return float(loss), np.array([(residual * values).sum() / spread, residual.sum()])

    start = np.array([1.0, np.log(positive / negative)])
    found = minimize(
        loss_and_slope,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None), (None, None)],
    )
    return Platt(float(found.x[0] / spread), float(found.x[1]))


def mean_log_odds(platts: Sequence[Platt], scores: Sequence[np.ndarray | float]) -> np.ndarray:
    """Mean of the calibrated log odds that several scorers give the same cases."""
    return np.mean([platt.log_odds(values) for platt, values in zip(platts, scores)], axis=0)


def best_threshold(probabilities: ArrayLike, labels: ArrayLike, balanced: bool = True) -> float:
    """Threshold with the highest expected F1; positive are cases at or above it.

    The expectation is over the calibrated probabilities, because the threshold that is best on some
    hundred labels is far less certain. The result is near half of the expected F1 (Lipton et al.,
    arXiv 1402.1892) and lies midway between two cases.

    Args:
        probabilities: (N,), calibrated.
        labels: (N,), of which only the numbers of both classes count.
        balanced: expect as many cases without lesions as with; else the ratio of `labels`.

    Raises:
        MipError: one class alone.
    """
    values, truth = np.asarray(probabilities, np.float64), np.asarray(labels, bool)
    if truth.all() or not truth.any():
        raise MipError("a threshold needs cases with lesions and without")
    control_weight = truth.sum() / (~truth).sum() if balanced else 1.0
    values = np.sort(values)[::-1]
    true_positives = np.cumsum(values)
    positives = np.cumsum(values + control_weight * (1 - values))
    f1 = 2 * true_positives / np.maximum(positives + values.sum(), 1e-12)
    # A threshold lies between two different values.
    last_of_value = np.append(values[1:] < values[:-1], True)
    best = int(np.argmax(np.where(last_of_value, f1, -1)))
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return float((values[best] + below) / 2)
