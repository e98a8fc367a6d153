"""Threshold and smallest component for the highest mean per-image Dice, from predictions of images
that the network has not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.lesions.components import remove_small_components

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(2, 19))
SMALLEST_PX = (0, 5, 10, 20, 40)
GROUPS = 5


@dataclass(frozen=True)
class Calibration:
    """What was chosen, and what it is worth.

    Attributes:
        threshold, min_component_px: for `InferenceConfig`.
        dice: mean per-image Dice of the choice on the images it was made on.
        dice_default: the same at a threshold of 0.5 with nothing dropped.
        dice_cross_fitted: the mean when each fifth of the patients is judged by the choice of the
            other four: what the choice is worth on others.
        images, patients: how many.
    """

    threshold: float
    min_component_px: int
    dice: float
    dice_default: float
    dice_cross_fitted: float
    images: int
    patients: int


def calibrate(
    probabilities: Sequence[np.ndarray], truths: Sequence[np.ndarray], patients: Sequence[str]
) -> Calibration:
    """Choose from out-of-fold predictions.

    Args:
        probabilities: (H, W) each, of networks that did not see the image's patient.
        truths: (H, W) each, 1 is lesion; images without lesion have no Dice and are left out.
        patients: of each image; images of a patient stay together.

    Raises:
        MipError: fewer than two patients with lesions.
    """
    scores, groups, kept = _scores_by_group(probabilities, truths, patients)
    threshold, size = _best(scores)
    judged = []
    for group in sorted(set(groups)):
        others = _best(scores[groups != group])
        judged.append(scores[groups == group][:, others[0], others[1]])
    return Calibration(
        threshold=THRESHOLDS[threshold],
        min_component_px=SMALLEST_PX[size],
        dice=float(scores[:, threshold, size].mean()),
        dice_default=float(scores[:, THRESHOLDS.index(0.5), SMALLEST_PX.index(0)].mean()),
        dice_cross_fitted=float(np.concatenate(judged).mean()),
        images=len(kept),
        patients=len(set(kept)),
    )


def cross_fitted_choices(
    probabilities: Sequence[np.ndarray], truths: Sequence[np.ndarray], patients: Sequence[str]
) -> list[tuple[float, int]]:
    """Threshold and smallest component for every image, chosen on the other groups of patients.

    Args and raises: as `calibrate`. Images without lesion get a choice too: patients without any
    lesion are shared out among the groups in the order of their names.
    """
    scores, groups, kept = _scores_by_group(probabilities, truths, patients)
    group_of = dict(zip(kept, groups.tolist()))
    without = sorted(set(patients) - set(group_of))
    there = sorted(set(groups.tolist()))
    group_of |= {name: there[number % len(there)] for number, name in enumerate(without)}
    best = {group: _best(scores[groups != group]) for group in there}
    choices = [best[group_of[patient]] for patient in patients]
    return [(THRESHOLDS[threshold], SMALLEST_PX[size]) for threshold, size in choices]


def _scores_by_group(probabilities, truths, patients) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Dice (images, thresholds, sizes), groups (images,) and patients of images with lesions."""
    kept = [
        (probability, np.asarray(truth) == 1, patient)
        for probability, truth, patient in zip(probabilities, truths, patients)
        if (np.asarray(truth) == 1).any()
    ]
    names = sorted({patient for *_, patient in kept})
    if len(names) < 2:
        raise MipError("calibration needs predictions of at least two patients with lesions")
    scores = np.array([_scores(probability, truth) for probability, truth, _ in kept])
    group_of = {name: number % GROUPS for number, name in enumerate(names)}
    found = [patient for *_, patient in kept]
    return scores, np.array([group_of[patient] for patient in found]), found


def _scores(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Dice (thresholds, sizes) of one image."""
    return np.array(
        [
            [
                dice(remove_small_components(probability >= threshold, size), truth)
                for size in SMALLEST_PX
            ]
            for threshold in THRESHOLDS
        ]
    )


def _best(scores: np.ndarray) -> tuple[int, int]:
    """Indices of the highest mean; of equal ones the first."""
    means = scores.mean(0)
    return tuple(int(index) for index in np.unravel_index(means.argmax(), means.shape))
