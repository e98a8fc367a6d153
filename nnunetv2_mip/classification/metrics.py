"""How well probabilities tell studies with lesions from those without.

Intervals are over patients; with sizes matched, over pairs of cases.

A case is positive where it shows a lesion. Undefined scores are NaN: the AUROC of one class, the
precision where nothing was called positive.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from nnunetv2_mip.errors import MipError

DRAWS = 2000
LEVEL = 0.95
CALIBRATION_BINS = 10
# Of `matched_scores`: random matchings.
MATCHINGS = 200


def auroc(labels: Sequence[bool], scores: Sequence[float]) -> float:
    """Area under the ROC curve: the chance that a positive case scores above a negative one.

    Ties count half (Mann-Whitney). NaN with one class alone.
    """
    positive = np.asarray(labels, bool)
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return math.nan
    ranks = rankdata(np.asarray(scores, np.float64))
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def binary_scores(
    labels: Sequence[bool], probabilities: Sequence[float], decisions: Sequence[bool]
) -> dict[str, float]:
    """All scores of a set of cases.

    Args:
        labels: (N,) whether a case shows a lesion.
        probabilities: (N,) in [0, 1].
        decisions: (N,) what is called positive.

    Returns:
        auroc, accuracy, precision, recall, specificity, f1, brier (mean squared error of the
        probability).
    """
    truth, said = np.asarray(labels, bool), np.asarray(decisions, bool)
    probabilities = np.asarray(probabilities, np.float64)
    hits = int((truth & said).sum())
    misses, alarms = int((truth & ~said).sum()), int((~truth & said).sum())
    quiet = len(truth) - hits - misses - alarms
    return {
        "auroc": auroc(truth, probabilities),
        "accuracy": _ratio(hits + quiet, len(truth)),
        "precision": _ratio(hits, hits + alarms),
        "recall": _ratio(hits, hits + misses),
        "specificity": _ratio(quiet, quiet + alarms),
        "f1": _ratio(2 * hits, 2 * hits + misses + alarms),
        "brier": float(((probabilities - truth) ** 2).mean()) if len(truth) else math.nan,
    }


def calibration_error(labels: Sequence[bool], probabilities: Sequence[float]) -> float:
    """Expected calibration error: ten bins of equal width, mean gap weighted by cases."""
    truth = np.asarray(labels, np.float64)
    probabilities = np.asarray(probabilities, np.float64)
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [
        abs(truth[bins == number].sum() - probabilities[bins == number].sum())
        for number in np.unique(bins)
    ]
    return float(sum(gaps) / len(truth))


def scores_with_intervals(
    labels: Sequence[bool],
    probabilities: Sequence[float],
    decisions: Sequence[bool],
    patients: Sequence[str],
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """`binary_scores` with percentile bootstrap intervals over patients.

    Patients with and without lesions are drawn apart, each as many as there are, so that every
    draw has both classes. A patient's cases come and go together.

    Returns:
        score → {"value", "low", "high"}; low and high are NaN where a class has fewer than two
        patients.
    """
    truth, said = np.asarray(labels, bool), np.asarray(decisions, bool)
    probabilities, patients = np.asarray(probabilities, float), np.asarray(patients)
    value = binary_scores(truth, probabilities, said)

    def drawn(chosen: np.ndarray) -> dict[str, float]:
        return binary_scores(truth[chosen], probabilities[chosen], said[chosen])

    samples = _draws(truth, patients, drawn, draws, seed)
    return {name: _summary(value[name], [sample[name] for sample in samples]) for name in value}


def _draws(
    truth: np.ndarray,
    patients: np.ndarray,
    score: Callable[[np.ndarray], dict[str, float]],
    draws: int,
    seed: int,
) -> list[dict[str, float]]:
    names, number = np.unique(patients, return_inverse=True)
    members = [np.flatnonzero(number == k) for k in range(len(names))]
    sick = np.array([truth[cases].any() for cases in members], bool)
    groups = [np.flatnonzero(sick), np.flatnonzero(~sick)]
    if min(map(len, groups)) < 2:
        return []
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        chosen = np.concatenate([generator.choice(group, len(group)) for group in groups])
        found.append(score(np.concatenate([members[k] for k in chosen])))
    return found


def _summary(value: float, samples: Sequence[float]) -> dict[str, float]:
    kept = np.asarray([sample for sample in samples if not math.isnan(sample)])
    low = high = math.nan
    if len(kept) > 1:
        low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"value": value, "low": float(low), "high": float(high)}


def matched_pairs(
    labels: Sequence[bool], sizes: Sequence[float], width: float, generator: np.random.Generator
) -> np.ndarray:
    """Pair every positive case with a negative one of the same size bin, at random.

    Args:
        labels: (N,).
        sizes: (N,), image heights say.
        width: of a bin; bins begin at 0.
        generator: of the random choice.

    Returns:
        (P, 2) int: positions of a positive case and its partner. No case is in two pairs; where a
        bin has too few of either class, some of it stay out.
    """
    if not width > 0:
        raise MipError(f"bins of {width}: a width above 0 is needed")
    truth = np.asarray(labels, bool)
    bins = np.floor(np.asarray(sizes, float) / width).astype(int)
    pairs = []
    for number in np.unique(bins):
        positive = generator.permutation(np.flatnonzero(truth & (bins == number)))
        negative = generator.permutation(np.flatnonzero(~truth & (bins == number)))
        count = min(len(positive), len(negative))
        pairs.append(np.stack([positive[:count], negative[:count]], axis=1))
    return np.concatenate(pairs) if pairs else np.empty((0, 2), int)


def matched_scores(
    labels: Sequence[bool],
    probabilities: Sequence[float],
    decisions: Sequence[bool],
    sizes: Sequence[float],
    width: float,
    matchings: int = MATCHINGS,
    draws_each: int = 10,
    seed: int = 0,
) -> dict:
    """Scores at one to one with sizes matched: means over random matchings.

    The interval is over both: of every matching, `draws_each` bootstrap draws of its pairs.

    Returns:
        {"pairs": mean number of pairs, "left_out": positives without a partner (mean),
        "scores": score → {"value", "low", "high"}}.

    Raises:
        MipError: no positive case has a partner.
    """
    truth, said = np.asarray(labels, bool), np.asarray(decisions, bool)
    probabilities = np.asarray(probabilities, float)
    generator = np.random.default_rng(seed)
    values: list[Mapping[str, float]] = []
    samples: list[Mapping[str, float]] = []
    counts = []

    def score(pairs: np.ndarray) -> dict[str, float]:
        chosen = pairs.reshape(-1)
        return binary_scores(truth[chosen], probabilities[chosen], said[chosen])

    for _ in range(matchings):
        pairs = matched_pairs(truth, sizes, width, generator)
        if not len(pairs):
            raise MipError("no case with lesions has a partner of its size without; wider bins")
        counts.append(len(pairs))
        values.append(score(pairs))
        samples += [
            score(pairs[generator.integers(0, len(pairs), len(pairs))]) for _ in range(draws_each)
        ]
    return {
        "pairs": float(np.mean(counts)),
        "left_out": float(truth.sum() - np.mean(counts)),
        "scores": {
            name: _summary(
                float(np.nanmean([value[name] for value in values])),
                [sample[name] for sample in samples],
            )
            for name in values[0]
        },
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
