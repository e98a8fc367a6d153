"""Fitting of a head: one member for every inner fold, calibrated on the out-of-fold scores.

Feature scaling, sigmoid and threshold are all fitted on the training part of an outer fold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.classification.calibration import Calibration, calibrate
from nnunetv2_mip.classification.folds import inner_folds
from nnunetv2_mip.classification.head import Head, fit_member
from nnunetv2_mip.classification.study_labels import StudyLabel, require_both_classes

PENALTY = 0.001


@dataclass(frozen=True)
class FittedHead:
    """A head and the calibration of its score.

    Attributes:
        head: one member for every inner fold.
        calibration: fitted on `out_of_fold`.
        out_of_fold: (N,) scores of the training studies, each by the member not fitted on it.
    """

    head: Head
    calibration: Calibration
    out_of_fold: np.ndarray


def fit_head(
    bags: Sequence[np.ndarray],
    studies: Sequence[StudyLabel],
    columns: np.ndarray,
    penalty: float = PENALTY,
) -> FittedHead:
    """Head fitted on all studies given.

    Args:
        bags: of every study (B, V, F), by `FeatureExtractor.features`.
        studies: in the same order.
        columns: of the features to use.
        penalty: of `head.fit_member`.

    Raises:
        MipError: one class alone, or fewer than two patients of either.
    """
    require_both_classes(studies)
    labels = np.array([study.has_lesion for study in studies])
    chosen = [bag[:, :, columns] for bag in bags]
    folds = inner_folds(studies)
    scores = np.full(len(studies), np.nan)
    members = []
    for fold in sorted(set(folds)):
        inside = np.flatnonzero(folds != fold)
        outside = np.flatnonzero(folds == fold)
        member = fit_member([chosen[i] for i in inside], labels[inside], penalty, seed=int(fold))
        members.append(member)
        for i in outside:
            scores[i] = member.score(chosen[i][0])[0]
    return FittedHead(Head(tuple(members), np.asarray(columns)), calibrate(scores, labels), scores)
