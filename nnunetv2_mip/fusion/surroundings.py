"""SUV of a region's surroundings, and the smoothed SUV in which it and outlines are measured."""

import numpy as np
from scipy import ndimage

# FWHM of the Gauss that takes the noise out of single voxels, and its standard deviations.
SMOOTHING_FWHM_MM = 3.0
_SIGMAS_OF_FWHM = 2.355
# Distances from a region between which its surroundings lie.
SURROUNDINGS_MM = (8.0, 25.0)
# What is fainter is air. With few voxels left, as at the edge of a volume, a usual SUV is taken.
AIR_SUV, LEAST_VOXELS, USUAL_SUV = 0.1, 20, 0.5


def smoothed(suv: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """SUV (z, y, x) without the noise of single voxels; `spacing_mm` (z, y, x)."""
    return ndimage.gaussian_filter(suv, SMOOTHING_FWHM_MM / _SIGMAS_OF_FWHM / spacing_mm)


def surroundings_suv(
    smooth: np.ndarray, suv: np.ndarray, distance_mm: np.ndarray, others: np.ndarray
) -> float:
    """Median SUV of the body around a region.

    Args:
        smooth: (z, y, x) SUV of `smoothed`.
        suv: (z, y, x) SUV, which tells air from body.
        distance_mm: (z, y, x) distance from the region, 0 inside.
        others: (z, y, x) bool, voxels of other regions, which do not count.
    """
    shell = (distance_mm > SURROUNDINGS_MM[0]) & (distance_mm < SURROUNDINGS_MM[1])
    around = smooth[shell & ~others & (suv > AIR_SUV)]
    return float(np.median(around)) if len(around) > LEAST_VOXELS else USUAL_SUV
