"""Scores of a binary classification, with bootstrap intervals over patients.

A case is positive where it shows a lesion. Undefined scores are NaN: the AUROC of one class, the
precision where no decision is positive.

The definitions are scikit-learn's, which the tests compare them with. They are not called because
an interval takes thousands of draws: with scikit-learn a draw takes more than ten times as long,
and its AUROC and Brier score round differently in the last bit.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from nnunetv2_mip.evaluation.bootstrap import percentile_interval, resample

DRAWS = 2000
CALIBRATION_BINS = 10


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve, by the Mann-Whitney statistic.

    The share of pairs of a positive and a negative case in which the positive one has the higher
    score; ties count half. NaN with one class alone.
    """
    positive = np.asarray(labels, bool)
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return math.nan
    ranks = rankdata(np.asarray(scores, np.float64))
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def binary_scores(
    labels: ArrayLike, probabilities: ArrayLike, decisions: ArrayLike
) -> dict[str, float]:
    """Scores of a set of cases.

    Args:
        labels: (N,) whether a case shows a lesion.
        probabilities: (N,) in [0, 1].
        decisions: (N,) whether the classifier decides for a lesion.

    Returns:
        auroc, accuracy, precision, recall, specificity, f1, brier (mean squared error of the
        probability).
    """
    truth, positive = np.asarray(labels, bool), np.asarray(decisions, bool)
    values = np.asarray(probabilities, np.float64)
    true_positives = int((truth & positive).sum())
    false_negatives = int((truth & ~positive).sum())
    false_positives = int((~truth & positive).sum())
    true_negatives = len(truth) - true_positives - false_negatives - false_positives
    return {
        "auroc": auroc(truth, values),
        "accuracy": _ratio(true_positives + true_negatives, len(truth)),
        "precision": _ratio(true_positives, true_positives + false_positives),
        "recall": _ratio(true_positives, true_positives + false_negatives),
        "specificity": _ratio(true_negatives, true_negatives + false_positives),
        "f1": _ratio(2 * true_positives, 2 * true_positives + false_negatives + false_positives),
        "brier": float(((values - truth) ** 2).mean()) if len(truth) else math.nan,
    }


def calibration_error(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Expected calibration error over ten bins of equal width.

    Mean over the cases of the gap between a bin's share of positives and its mean probability.
    """
    truth = np.asarray(labels, np.float64)
    values = np.asarray(probabilities, np.float64)
    bins = np.minimum((values * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [
        abs(truth[bins == number].sum() - values[bins == number].sum())
        for number in np.unique(bins)
    ]
    return float(sum(gaps) / len(truth))


def scores_with_intervals(
    labels: ArrayLike,
    probabilities: ArrayLike,
    decisions: ArrayLike,
    patients: Sequence[str],
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """`binary_scores` with percentile bootstrap intervals over patients.

    Patients with and without lesions are two strata, so that every draw has both classes. A
    patient is drawn with all of its cases.

    Returns:
        score → {"value", "low", "high"}; low and high are NaN where a class has fewer than two
        patients.
    """
    truth, positive = np.asarray(labels, bool), np.asarray(decisions, bool)
    values = np.asarray(probabilities, float)
    names, number = np.unique(np.asarray(patients), return_inverse=True)
    cases_of = [np.flatnonzero(number == k) for k in range(len(names))]
    with_lesions = np.array([truth[cases].any() for cases in cases_of], bool)
    strata = [np.flatnonzero(with_lesions), np.flatnonzero(~with_lesions)]
    generator = np.random.default_rng(seed)
    samples = []
    if min(map(len, strata)) >= 2:
        for _ in range(draws):
            drawn = np.concatenate([cases_of[k] for k in resample(strata, generator)])
            samples.append(binary_scores(truth[drawn], values[drawn], positive[drawn]))
    return with_intervals(binary_scores(truth, values, positive), samples)


def with_intervals(
    values: Mapping[str, float], samples: Sequence[Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Score → {"value", "low", "high"}, the interval from bootstrap samples of all scores.

    The interval is NaN with fewer than two samples.
    """
    found = {}
    for name, value in values.items():
        low, high = percentile_interval([sample[name] for sample in samples])
        found[name] = {"value": value, "low": low, "high": high}
    return found


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
