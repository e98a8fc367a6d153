"""Cross-validation of classifiers: fitted on the training folds, applied to the fold left out."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.classification.calibration import (
    Calibration,
    calibrate,
    calibrate_jointly,
    mean_log_odds,
)
from nnunetv2_mip.classification.head_fitting import PENALTY, fit_head
from nnunetv2_mip.classification.study_labels import StudyLabel

# Places of studies in their list.
Positions = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold results of N studies, in their order.

    Attributes:
        probabilities: (N,).
        decisions: (N,) bool, by the threshold of the fold for a balanced ratio of classes.
        decisions_natural: (N,) bool, by the threshold for the ratio of the training part.
    """

    probabilities: np.ndarray
    decisions: np.ndarray
    decisions_natural: np.ndarray


@dataclass(frozen=True)
class FoldModel:
    """Classifier fitted without one fold.

    Attributes:
        probabilities: positions of studies → their calibrated probabilities.
        calibration: fitted on the training part.
    """

    probabilities: Callable[[Positions], np.ndarray]
    calibration: Calibration


# (positions of the training studies, number of the fold left out) → the fitted model.
Fit = Callable[[Positions, int], FoldModel]


def cross_validate(
    studies: Sequence[StudyLabel],
    folds: Mapping[str, int],
    fit: Fit,
    only: Collection[int] | None = None,
) -> OutOfFold:
    """Results of every study by the model that was fitted without its fold.

    Args:
        studies: N studies.
        folds: case → fold.
        fit: see `Fit`.
        only: folds to leave out in turn; the studies of the others keep NaN and are always trained
            on. None for all folds.

    Raises:
        MipError: as `fit`.
    """
    number = np.array([folds[study.case] for study in studies])
    probabilities = np.full(len(studies), np.nan)
    decisions = np.zeros((2, len(studies)), bool)
    for fold in sorted(set(number.tolist()) if only is None else set(only)):
        left_out = np.flatnonzero(number == fold)
        model = fit(np.flatnonzero(number != fold), fold)
        probabilities[left_out] = model.probabilities(left_out)
        thresholds = (model.calibration.threshold, model.calibration.threshold_natural)
        for row, threshold in zip(decisions, thresholds):
            row[left_out] = probabilities[left_out] >= threshold
    return OutOfFold(probabilities, *decisions)


def frozen_fit(
    bags_of_fold: Callable[[int], Sequence[np.ndarray]],
    studies: Sequence[StudyLabel],
    columns: np.ndarray,
    penalty: float = PENALTY,
) -> Fit:
    """`Fit` of a head on frozen features.

    Args:
        bags_of_fold: fold → features of all studies by the network trained without that fold.
        studies, columns, penalty: as of `fit_head`.
    """

    def fit(training: Positions, fold: int) -> FoldModel:
        bags = bags_of_fold(fold)
        fitted = fit_head(
            [bags[i] for i in training], [studies[i] for i in training], columns, penalty
        )
        calibration = fitted.calibration

        def probabilities(positions: Positions) -> np.ndarray:
            return calibration.platt([fitted.head.score(bags[i][0])[0] for i in positions])

        return FoldModel(probabilities, calibration)

    return fit


def scored_fit(scores: np.ndarray, studies: Sequence[StudyLabel]) -> Fit:
    """`Fit` that only calibrates scores (N,), by networks trained without the fold of the study."""
    labels = np.array([study.has_lesion for study in studies])

    def fit(training: Positions, fold: int) -> FoldModel:
        calibration = calibrate(scores[training], labels[training])

        def probabilities(positions: Positions) -> np.ndarray:
            return calibration.platt(scores[positions])

        return FoldModel(probabilities, calibration)

    return fit


def joined_fit(
    bags: Sequence[np.ndarray],
    scores: np.ndarray,
    studies: Sequence[StudyLabel],
    columns: np.ndarray,
    penalty: float = PENALTY,
) -> Fit:
    """`Fit` of a head on frozen features, averaged with the scores of `scored_fit`."""
    labels = np.array([study.has_lesion for study in studies])

    def fit(training: Positions, fold: int) -> FoldModel:
        fitted = fit_head(
            [bags[i] for i in training], [studies[i] for i in training], columns, penalty
        )
        joined = calibrate_jointly([fitted.out_of_fold, scores[training]], labels[training])

        def probabilities(positions: Positions) -> np.ndarray:
            heads = np.array([fitted.head.score(bags[i][0])[0] for i in positions])
            together = mean_log_odds(joined.parts, [heads, scores[positions]])
            return joined.calibration.platt(together)

        return FoldModel(probabilities, joined.calibration)

    return fit
