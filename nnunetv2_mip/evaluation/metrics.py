"""Dice of two masks, and the policy for empty ones.

Masks are arrays in which anything non-zero is foreground.
"""

import math
from enum import Enum

import numpy as np

from nnunetv2_mip.lesions.components import LESION_CONNECTIVITY


class EmptyTruth(Enum):
    """Policy for the score of a prediction whose truth has no lesion (a control).

    UNDEFINED is the policy of this package: the score is NaN, also when the prediction is empty
    too. A mean leaves NaN out, so a control neither helps nor hurts the mean Dice; what it shows
    is false positives (volume, pixels, lesion precision). Undefined are Dice, HD95, false negative
    volume, lesion recall and lesion F1.

    AGREEMENT is that of the DM-i-AI server: 1 for an empty prediction, 0 for any other.

    An empty prediction of a truth with lesions needs no policy: Dice, recall and F1 are 0, the
    false positive volume is 0, the false negative volume is the whole truth. Lesion precision is
    NaN, because nothing was predicted, and so is HD95.
    """

    UNDEFINED = "undefined"
    AGREEMENT = "agreement"


def dice(
    prediction: np.ndarray, truth: np.ndarray, empty_truth: EmptyTruth = EmptyTruth.UNDEFINED
) -> float:
    """Foreground Dice, 2·|P∩T| / (|P| + |T|).

    Args:
        prediction: mask of any shape.
        truth: mask of the same shape.
        empty_truth: the score where `truth` is empty, see the policy.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, truth = as_masks(prediction, truth)
    true, predicted = int(np.count_nonzero(truth)), int(np.count_nonzero(prediction))
    if not true:
        return math.nan if empty_truth is EmptyTruth.UNDEFINED else float(not predicted)
    return 2 * int(np.count_nonzero(prediction & truth)) / (true + predicted)


def as_masks(
    prediction: np.ndarray, truth: np.ndarray, dimensions: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth as boolean arrays.

    Raises:
        ValueError: the shapes differ, or are not of so many `dimensions` (None: any).
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    if dimensions is not None and truth.ndim != dimensions:
        raise ValueError(f"masks of {dimensions} dimensions are needed, not {truth.ndim}")
    return _as_bool(prediction), _as_bool(truth)


def _as_bool(mask: np.ndarray) -> np.ndarray:
    return mask if mask.dtype == bool else np.not_equal(mask, 0)


def crop_to_foreground(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks in the bounding box of all foreground, of size 0 where there is none.

    Args:
        prediction, truth: masks of two or three axes.

    Raises:
        ValueError: masks of other than two or three axes.
    """
    if truth.ndim not in LESION_CONNECTIVITY:
        raise ValueError(f"masks of 2 or 3 dimensions are needed, not {truth.ndim}")
    for axis in range(truth.ndim):
        others = tuple(other for other in range(truth.ndim) if other != axis)
        occupied = np.flatnonzero(prediction.any(axis=others) | truth.any(axis=others))
        extent = slice(occupied[0], occupied[-1] + 1) if len(occupied) else slice(0, 0)
        box = (slice(None),) * axis + (extent,)
        prediction, truth = prediction[box], truth[box]
    return prediction, truth
