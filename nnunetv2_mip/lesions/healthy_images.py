"""Rule by which a single image is called healthy, from its lesion probabilities alone.

The evidence of an image is the mean log odds of its most suspicious pixels, an area that is much
larger than most lesions: in images of patients the surroundings of a lesion and other lesions are
suspicious too, a hot organ in a healthy image stands alone.
"""

import math
from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.errors import MipError

# Probabilities are kept with about four digits, so that log odds beyond this say nothing.
LOWEST_PROBABILITY = 1e-4


@dataclass(frozen=True)
class HealthyRule:
    """Evidence below which an image is called healthy: its mask is empty.

    Attributes:
        area_mm2: area of the most suspicious pixels.
        log_odds: their mean log odds (natural logarithm) below which the image is healthy.

    Raises:
        MipError: a value out of range.
    """

    area_mm2: float
    log_odds: float

    def __post_init__(self):
        if not (_is_finite(self.area_mm2) and self.area_mm2 > 0):
            raise MipError(f"healthy_image: area_mm2 {self.area_mm2!r} must be above 0")
        if not _is_finite(self.log_odds):
            raise MipError(f"healthy_image: log_odds {self.log_odds!r} must be a number")

    def is_healthy(self, probability: np.ndarray, pixel_mm: tuple[float, float]) -> bool:
        """Whether an image is called healthy.

        Args:
            probability: (H, W) in [0, 1].
            pixel_mm: (row, column) size of a pixel.
        """
        return evidence(probability, pixel_mm, self.area_mm2) < self.log_odds


def evidence(probability: np.ndarray, pixel_mm: tuple[float, float], area_mm2: float) -> float:
    """Mean log odds of the most suspicious `area_mm2` of an image.

    Args:
        probability: (H, W) in [0, 1]; below 0.0001 and above 0.9999 it counts as these.
        pixel_mm: (row, column) size of a pixel.
        area_mm2: at least one pixel counts, at most all.
    """
    count = max(1, round(area_mm2 / (pixel_mm[0] * pixel_mm[1])))
    values = np.asarray(probability, np.float32).ravel()
    if count < len(values):
        values = np.partition(values, len(values) - count)[len(values) - count :]
    values = np.clip(values.astype(np.float64), LOWEST_PROBABILITY, 1 - LOWEST_PROBABILITY)
    return float(np.log(values / (1 - values)).mean())


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
