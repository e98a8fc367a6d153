"""Threshold and smallest component of the highest mean per-image Dice.

Chosen on probabilities of images that the network has not seen in training.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.conventions import IGNORE_LABEL, LESION
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.lesions.components import remove_small_components

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(2, 19))
SMALLEST_PX = (0, 5, 10, 20, 40)
GROUPS = 5
# Probability (H, W), truth (H, W) of 0, 1 and perhaps the ignore label, name of the patient.
ScoredImage = tuple[np.ndarray, np.ndarray, str]


@dataclass(frozen=True)
class Calibration:
    """A choice of threshold and smallest component, and its Dice.

    Attributes:
        threshold, min_component_px: as in `InferenceConfig`.
        dice: mean per-image Dice of the choice on the images it was made on.
        dice_default: the same at a threshold of 0.5 with nothing dropped.
        dice_cross_fitted: mean per-image Dice when each fifth of the patients is scored with the
            choice of the other four: an estimate for other patients.
        images, patients: numbers of images and patients with lesions.
        image_dice: of every image with the choice; NaN without lesions.
    """

    threshold: float
    min_component_px: int
    dice: float
    dice_default: float
    dice_cross_fitted: float
    images: int
    patients: int
    image_dice: tuple[float, ...]


def calibrate(images: Iterable[ScoredImage]) -> Calibration:
    """The choice of threshold and smallest component for these images.

    Args:
        images: probability, truth and patient of each. The probabilities come from networks that
            did not train on the patient. Images without lesion have no Dice and are left out.
            Ignored pixels count neither as lesion nor as false positive. One image is held in
            memory at a time.

    Raises:
        MipError: fewer than two patients with lesions.
    """
    tables, patients = _dice_tables(images)
    with_lesion = [patient for table, patient in zip(tables, patients) if table is not None]
    scores, groups = _grouped(tables, patients)
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
        images=len(with_lesion),
        patients=len(set(with_lesion)),
        image_dice=tuple(
            math.nan if table is None else float(table[threshold, size]) for table in tables
        ),
    )


def cross_fitted_choices(images: Iterable[ScoredImage]) -> list[tuple[float, int]]:
    """Threshold and smallest component for every image, chosen on the other groups of patients.

    Args and raises: as `calibrate`. Images without lesion get a choice too: patients without any
    lesion are shared out among the groups in the order of their names.
    """
    tables, patients = _dice_tables(images)
    scores, groups = _grouped(tables, patients)
    with_lesion = [patient for table, patient in zip(tables, patients) if table is not None]
    group_of = dict(zip(with_lesion, groups.tolist()))
    without = sorted(set(patients) - set(group_of))
    there = sorted(set(groups.tolist()))
    group_of |= {name: there[number % len(there)] for number, name in enumerate(without)}
    best = {group: _best(scores[groups != group]) for group in there}
    choices = [best[group_of[patient]] for patient in patients]
    return [(THRESHOLDS[threshold], SMALLEST_PX[size]) for threshold, size in choices]


def _dice_tables(images: Iterable[ScoredImage]) -> tuple[list[np.ndarray | None], list[str]]:
    """Dice (thresholds, sizes) of each image, None without lesion; and the images' patients."""
    tables, patients = [], []
    for probability, truth, patient in images:
        truth = np.asarray(truth)
        tables.append(_dice_table(probability, truth) if (truth == LESION).any() else None)
        patients.append(patient)
    return tables, patients


def _dice_table(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    lesion, known = truth == LESION, truth != IGNORE_LABEL
    return np.array(
        [
            [
                dice(remove_small_components(probability >= threshold, px) & known, lesion)
                for px in SMALLEST_PX
            ]
            for threshold in THRESHOLDS
        ]
    )


def _grouped(tables: list[np.ndarray | None], patients: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Dice (images, thresholds, sizes) and groups (images,) of the images with lesions."""
    scores = [table for table in tables if table is not None]
    found = [patient for table, patient in zip(tables, patients) if table is not None]
    names = sorted(set(found))
    if len(names) < 2:
        raise MipError("calibration needs predictions of at least two patients with lesions")
    group_of = {name: number % GROUPS for number, name in enumerate(names)}
    return np.array(scores), np.array([group_of[patient] for patient in found])


def _best(scores: np.ndarray) -> tuple[int, int]:
    """Indices of the highest mean; of equal ones the first."""
    means = scores.mean(0)
    threshold, smallest = np.unravel_index(means.argmax(), means.shape)
    return int(threshold), int(smallest)
