"""Fitting heads: members on inner folds, calibration on their out-of-fold scores, cross-validation.

Whatever is chosen (feature scaling, sigmoid, threshold) is chosen on the training part of a fold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.classification.calibration import (
    Calibration,
    Platt,
    calibrate,
    mean_log_odds,
)
from nnunetv2_mip.classification.folds import dealt_folds
from nnunetv2_mip.classification.head import Head, fit_member
from nnunetv2_mip.errors import MipError

INNER_FOLDS = 5
INNER_SEED = 1
PENALTY = 0.001


@dataclass(frozen=True)
class Study:
    """One study of a training set.

    Attributes:
        case, patient: names.
        has_lesion: the truth.
    """

    case: str
    patient: str
    has_lesion: bool


@dataclass(frozen=True)
class FittedHead:
    """A head with what turns its score into a decision.

    Attributes:
        head: scores studies.
        calibration: fitted on `out_of_fold`.
        out_of_fold: (N,) scores of the training studies, each by a head that did not see it.
    """

    head: Head
    calibration: Calibration
    out_of_fold: np.ndarray


@dataclass(frozen=True)
class Joined:
    """Several ways to score a study as one: the mean of their calibrated log odds, calibrated.

    Attributes:
        parts: the sigmoid of each.
        calibration: of the mean.
    """

    parts: tuple[Platt, ...]
    calibration: Calibration


def fit_head(
    bags: Sequence[np.ndarray],
    studies: Sequence[Study],
    columns: np.ndarray,
    penalty: float = PENALTY,
    bands: int | None = None,
) -> FittedHead:
    """Fit a head on all studies given.

    Args:
        bags: of every study (B, V, F), by `FeatureExtractor.features`.
        studies: in the same order.
        columns: of the features to use.
        penalty: of `head.fit_member`.
        bands: vertical crops to fit on, the whole body first; None for all.

    Raises:
        MipError: one class alone, or fewer than two patients of either.
    """
    check_studies(studies)
    labels = np.array([study.has_lesion for study in studies])
    chosen = [bag[:bands, :, columns] for bag in bags]
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


def join(scores: Sequence[np.ndarray], labels: Sequence[bool]) -> Joined:
    """Join ways to score studies.

    Args:
        scores: of each way (N,), of studies that it was not trained on; NaN where unknown.
        labels: (N,).

    Raises:
        MipError: one class alone among the studies that all ways know.
    """
    truth = np.asarray(labels, bool)
    parts = tuple(calibrate(values, truth).platt for values in scores)
    return Joined(parts, calibrate(mean_log_odds(parts, scores), truth))


def check_studies(studies: Sequence[Study]) -> None:
    """Raise MipError where there is nothing to learn from: a class with fewer than two patients."""
    if not studies:
        raise MipError("no study to learn from: the data set is empty")
    sick = {study.patient for study in studies if study.has_lesion}
    healthy = {study.patient for study in studies} - sick
    remedy = "a classifier needs at least two patients of either kind in every part it learns from"
    if len(healthy) < 2:
        raise MipError(
            f"{len(healthy)} patients without lesions: {remedy}; add lesion-free studies"
        )
    if len(sick) < 2:
        raise MipError(f"{len(sick)} patients with lesions: {remedy}; add studies with lesions")


def inner_folds(studies: Sequence[Study]) -> np.ndarray:
    """(N,) int, patients kept apart; as many folds as the rarer kind of patient allows."""
    sick = {study.patient for study in studies if study.has_lesion}
    rarest = min(len(sick), len({study.patient for study in studies} - sick))
    folds = dealt_folds(
        {study.case: study.patient for study in studies},
        {study.case: study.has_lesion for study in studies},
        n_folds=max(2, min(INNER_FOLDS, rarest)),
        seed=INNER_SEED,
    )
    return np.array([folds[study.case] for study in studies])
