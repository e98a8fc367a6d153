"""Scores of a binary classification at one to one, with the sizes of the cases matched.

Where the classes differ in size (the height of the images), a classifier can score well by the
size alone. Among pairs of equal size it cannot.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from nnunetv2_mip.classification.metrics import binary_scores, with_intervals
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.bootstrap import resample

# Random matchings.
MATCHINGS = 200


def matched_pairs(
    labels: ArrayLike, sizes: ArrayLike, width: float, generator: np.random.Generator
) -> np.ndarray:
    """Random pairs of a positive and a negative case of the same size bin.

    Args:
        labels: (N,).
        sizes: (N,), for instance image heights.
        width: of a bin; bins begin at 0.
        generator: of the random choice.

    Returns:
        (P, 2) int: positions of a positive case and of its negative partner. No case is in two
        pairs. Cases of a bin that are more than those of the other class are left out.
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
    labels: ArrayLike,
    probabilities: ArrayLike,
    decisions: ArrayLike,
    sizes: ArrayLike,
    width: float,
    matchings: int = MATCHINGS,
    draws_each: int = 10,
    seed: int = 0,
) -> dict:
    """Scores on pairs of cases of the same size: means over random matchings.

    The interval covers the matchings and the pairs: of every matching, `draws_each` bootstrap
    draws of its pairs.

    Returns:
        {"pairs": mean number of pairs, "left_out": positives without a partner (mean),
        "scores": score → {"value", "low", "high"}}.

    Raises:
        MipError: no positive case has a partner.
    """
    truth, positive = np.asarray(labels, bool), np.asarray(decisions, bool)
    of_cases = np.asarray(probabilities, float)
    generator = np.random.default_rng(seed)
    values: list[Mapping[str, float]] = []
    samples: list[Mapping[str, float]] = []
    counts = []

    def score(pairs: np.ndarray) -> dict[str, float]:
        chosen = pairs.reshape(-1)
        return binary_scores(truth[chosen], of_cases[chosen], positive[chosen])

    for _ in range(matchings):
        pairs = matched_pairs(truth, sizes, width, generator)
        if not len(pairs):
            raise MipError("no case with lesions has a partner of its size without; wider bins")
        counts.append(len(pairs))
        values.append(score(pairs))
        samples += [score(resample([pairs], generator)) for _ in range(draws_each)]
    means = {name: float(np.nanmean([value[name] for value in values])) for name in values[0]}
    return {
        "pairs": float(np.mean(counts)),
        "left_out": float(truth.sum() - np.mean(counts)),
        "scores": with_intervals(means, samples),
    }
