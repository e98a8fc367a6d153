"""Evidence below which an image is called healthy, chosen so that no image with lesions is.

Chosen on probabilities of images that the network has not seen in training.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.conventions import LESION, PNG_PIXEL_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.lesions.healthy_images import HealthyRule, evidence

AREAS_MM2 = (200.0, 800.0, 3200.0)
GROUPS = 5
# The limit lies so much below the lowest evidence of an image with lesions.
MARGIN = 0.2
# Evidence (areas,), whether the image has lesions, name of the patient.
JudgedImage = tuple[np.ndarray, bool, str]


@dataclass(frozen=True)
class HealthyCalibration:
    """Choice of the rule for healthy images, and how many images it calls so.

    Attributes:
        rule: the choice.
        healthy: number of images without lesions.
        called_healthy: of these, how many the choice calls healthy.
        with_lesions: number of images with lesions; the choice calls none of them healthy.
        cross_fitted: (images without lesions, images with lesions) called healthy when each fifth
            of the patients is judged with the choice of the other four.
    """

    rule: HealthyRule
    healthy: int
    called_healthy: int
    with_lesions: int
    cross_fitted: tuple[int, int]


def judged_image(probability: np.ndarray, truth: np.ndarray, patient: str) -> JudgedImage:
    """Evidence of one image, for the choice.

    Args:
        probability: (H, W) in [0, 1], pixels of 2 mm.
        truth: (H, W) of 0, 1 and perhaps the ignore label.
        patient: its name.
    """
    pixel_mm = (PNG_PIXEL_MM, PNG_PIXEL_MM)
    found = np.array([evidence(probability, pixel_mm, area) for area in AREAS_MM2])
    return found, bool((np.asarray(truth) == LESION).any()), patient


def calibrate_healthy(images: Iterable[JudgedImage], margin: float = MARGIN) -> HealthyCalibration:
    """The rule that calls the most images without lesions healthy, and none with lesions.

    Args:
        images: of `judged_image`.
        margin: by how much (natural logarithm) the limit lies below the lowest evidence of an image
            with lesions.

    Raises:
        MipError: fewer than two patients with lesions, or no image without.
    """
    judged = list(images)
    values = np.array([found for found, _, _ in judged])
    lesions = np.array([there for _, there, _ in judged], bool)
    patients = [name for _, _, name in judged]
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
    area, limit = _best(values, lesions, margin)
    called = values[:, area] < limit
    apart = np.zeros(len(values), bool)
    for group in sorted(set(groups)):
        others = groups != group
        if not lesions[others].any() or lesions[others].all():
            continue
        its_area, its_limit = _best(values[others], lesions[others], margin)
        apart[~others] = values[~others, its_area] < its_limit
    return HealthyCalibration(
        rule=HealthyRule(AREAS_MM2[area], round(limit, 3)),
        healthy=int((~lesions).sum()),
        called_healthy=int((called & ~lesions).sum()),
        with_lesions=int(lesions.sum()),
        cross_fitted=(int((apart & ~lesions).sum()), int((apart & lesions).sum())),
    )


def _best(values: np.ndarray, lesions: np.ndarray, margin: float) -> tuple[int, float]:
    """Index of the area and limit with the most healthy images called so; of equal ones the first.

    Args:
        values: (images, areas).
        lesions: (images,) bool.
        margin: see `calibrate_healthy`.
    """
    limits = values[lesions].min(0) - margin
    called = (values[~lesions] < limits).sum(0)
    area = int(called.argmax())
    return area, float(limits[area])
