"""Evidence below which an image is called healthy, chosen so that hardly any Dice is lost.

Chosen on probabilities of images that the network has not seen in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.conventions import PNG_PIXEL_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.lesions.healthy_images import HealthyRule, evidence

AREAS_MM2 = (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0)
GROUPS = 5
# The limit lies so much below the evidence of the first image whose loss would cost too much.
MARGIN = 0.2
# Mean Dice of the images with lesions that the choice may cost: images whose mask is wrong anyhow
# do not hold it back.
MOST_LOST = 0.001


@dataclass(frozen=True)
class HealthyCalibration:
    """Choice of the rule for healthy images, and how many images it calls so.

    Attributes:
        rule: the choice.
        healthy, called_healthy: number of images without lesions, and how many of them the choice
            calls healthy.
        with_lesions, missed: number of images with lesions, and how many of them it calls healthy.
        lost: mean Dice of the images with lesions that it costs.
        cross_fitted: (called_healthy, missed, lost) when each fifth of the patients is judged with
            the choice of the other four.
    """

    rule: HealthyRule
    healthy: int
    called_healthy: int
    with_lesions: int
    missed: int
    lost: float
    cross_fitted: tuple[int, int, float]


def evidence_of_areas(probability: np.ndarray) -> np.ndarray:
    """Evidence (areas,) of an image (H, W) in [0, 1], pixels of 2 mm, for `AREAS_MM2`."""
    pixel_mm = (PNG_PIXEL_MM, PNG_PIXEL_MM)
    return np.array([evidence(probability, pixel_mm, area) for area in AREAS_MM2])


def calibrate_healthy(
    evidences: Sequence[np.ndarray],
    dice: Sequence[float],
    patients: Sequence[str],
    margin: float = MARGIN,
    most_lost: float = MOST_LOST,
) -> HealthyCalibration:
    """The rule that calls the most images without lesions healthy, and costs hardly any Dice.

    Args:
        evidences: of each image, by `evidence_of_areas`.
        dice: of each image's mask where the rule does not call it healthy; NaN without lesions.
        patients: name of each image's patient.
        margin: by how much (natural logarithm) the limit lies below the evidence of the first image
            with lesions whose loss would cost more.
        most_lost: mean Dice of the images with lesions that may be lost.

    Raises:
        MipError: fewer than two patients with lesions, or no image without.
    """
    values, scores = np.array(evidences), np.array(dice, float)
    lesions = ~np.isnan(scores)
    names = sorted({name for name, there in zip(patients, lesions) if there})
    if len(names) < 2 or lesions.all():
        raise MipError(
            "the rule for healthy images needs predictions of at least two patients with lesions "
            "and of images without"
        )
    # Patients with lesions first, so that both kinds are shared out evenly.
    order = [*names, *sorted(set(patients) - set(names))]
    group_of = {name: number % GROUPS for number, name in enumerate(order)}
    groups = np.array([group_of[name] for name in patients])
    area, limit = _best(values, scores, margin, most_lost)
    limit = round(limit, 3)
    called = values[:, area] < limit
    apart = np.zeros(len(values), bool)
    for group in sorted(set(groups)):
        others = groups != group
        if not lesions[others].any() or lesions[others].all():
            continue
        its_area, its_limit = _best(values[others], scores[others], margin, most_lost)
        apart[~others] = values[~others, its_area] < its_limit
    found, judged = (_counts(which, scores) for which in (called, apart))
    return HealthyCalibration(
        rule=HealthyRule(AREAS_MM2[area], limit),
        healthy=int((~lesions).sum()),
        with_lesions=int(lesions.sum()),
        called_healthy=found[0],
        missed=found[1],
        lost=found[2],
        cross_fitted=judged,
    )


def _counts(called: np.ndarray, scores: np.ndarray) -> tuple[int, int, float]:
    """Images without lesions called healthy, images with, and the mean Dice lost by these."""
    lesions = ~np.isnan(scores)
    missed = called & lesions
    lost = float(scores[missed].sum() / lesions.sum())
    return int((called & ~lesions).sum()), int(missed.sum()), lost


def _best(
    values: np.ndarray, scores: np.ndarray, margin: float, most_lost: float
) -> tuple[int, float]:
    """Index of the area and limit with the most healthy images called so; of equal ones the first.

    Args:
        values: (images, areas).
        scores: Dice (images,), NaN without lesions.
        margin, most_lost: see `calibrate_healthy`.
    """
    lesions = ~np.isnan(scores)
    dice, limits = scores[lesions], []
    for found in values[lesions].T:
        order = np.argsort(found, kind="stable")
        too_much = np.cumsum(dice[order]) > most_lost * len(dice)
        # Where even the loss of all costs nothing, no limit is safe: below the highest.
        first = int(too_much.argmax()) if too_much.any() else len(order) - 1
        limits.append(found[order][first] - margin)
    called = (values[~lesions] < limits).sum(0)
    area = int(called.argmax())
    return area, float(limits[area])
