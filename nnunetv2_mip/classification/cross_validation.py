"""Cross-validation of classifiers: fits on training folds, judged on the fold left out."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.classification.calibration import calibrate, mean_log_odds
from nnunetv2_mip.classification.head_fitting import PENALTY, Study, fit_head, join


@dataclass(frozen=True)
class Judged:
    """Out-of-fold results of all studies, in their order.

    Attributes:
        probabilities: (N,).
        decisions, decisions_natural: (N,) bool, at either threshold of the fold.
    """

    probabilities: np.ndarray
    decisions: np.ndarray
    decisions_natural: np.ndarray


# Takes the positions of training studies; returns what scores any position: probability, threshold
# and natural threshold.
Fit = Callable[[Sequence[int], int], tuple[Callable[[Sequence[int]], np.ndarray], float, float]]


def cross_validate(
    studies: Sequence[Study],
    folds: Mapping[str, int],
    fit: Fit,
    only: Collection[int] | None = None,
) -> Judged:
    """Judge every study by what was fitted without its fold.

    Args:
        studies: N studies.
        folds: case → fold.
        fit: see `Fit`; the second argument is the number of the fold left out.
        only: folds to judge; the studies of the others keep NaN, and are learned from.

    Raises:
        MipError: as `fit`.
    """
    number = np.array([folds[study.case] for study in studies])
    probabilities = np.full(len(studies), np.nan)
    decisions = np.zeros((2, len(studies)), bool)
    for fold in sorted(set(number.tolist()) if only is None else set(only)):
        judged = np.flatnonzero(number == fold)
        score, *thresholds = fit(np.flatnonzero(number != fold), fold)
        probabilities[judged] = score(judged)
        for row, threshold in zip(decisions, thresholds):
            row[judged] = probabilities[judged] >= threshold
    return Judged(probabilities, *decisions)


def frozen_fit(
    bags_of_fold: Callable[[int], Sequence[np.ndarray]],
    studies: Sequence[Study],
    columns: np.ndarray,
    penalty: float = PENALTY,
    bands: int | None = None,
) -> Fit:
    """A `Fit` on frozen features.

    Args:
        bags_of_fold: fold → features of all studies by the network that never saw that fold.
        studies, columns, penalty, bands: as of `fit_head`.
    """

    def fit(training: Sequence[int], fold: int):
        bags = bags_of_fold(fold)
        fitted = fit_head(
            [bags[i] for i in training], [studies[i] for i in training], columns, penalty, bands
        )

        def score(positions: Sequence[int]) -> np.ndarray:
            return calibration.platt([fitted.head.score(bags[i][0])[0] for i in positions])

        calibration = fitted.calibration
        return score, calibration.threshold, calibration.threshold_natural

    return fit


def scored_fit(scores: np.ndarray, studies: Sequence[Study]) -> Fit:
    """A `Fit` that only calibrates: scores (N,) by what was trained without each study's fold."""
    labels = np.array([study.has_lesion for study in studies])

    def fit(training: Sequence[int], fold: int):
        calibration = calibrate(scores[training], labels[training])

        def score(positions: Sequence[int]) -> np.ndarray:
            return calibration.platt(scores[positions])

        return score, calibration.threshold, calibration.threshold_natural

    return fit


def joined_fit(
    bags: Sequence[np.ndarray],
    scores: np.ndarray,
    studies: Sequence[Study],
    columns: np.ndarray,
    penalty: float = PENALTY,
) -> Fit:
    """A `Fit` of a head on frozen features, joined with scores as of `scored_fit`."""
    labels = np.array([study.has_lesion for study in studies])

    def fit(training: Sequence[int], fold: int):
        fitted = fit_head(
            [bags[i] for i in training], [studies[i] for i in training], columns, penalty
        )
        joined = join([fitted.out_of_fold, scores[training]], labels[training])

        def score(positions: Sequence[int]) -> np.ndarray:
            heads = np.array([fitted.head.score(bags[i][0])[0] for i in positions])
            together = mean_log_odds(joined.parts, [heads, scores[positions]])
            return joined.calibration.platt(together)

        return score, joined.calibration.threshold, joined.calibration.threshold_natural

    return fit
