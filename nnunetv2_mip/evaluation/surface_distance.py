"""Hausdorff distance of two masks at the 95th centile.

For every surface element of one mask: the distance to the nearest surface element of the other. Of
these the 95th centile; of the two directions the larger value
(Taha and Hanbury, BMC Medical Imaging 15:29, 2015, with the centile per direction as MONAI has it).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

CENTILE = 95


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> float:
    """Hausdorff distance at the 95th centile, in the unit of `spacing`.

    Args:
        prediction, truth: masks of equal shape, two or three axes.
        spacing: size of an element along each axis.

    Returns:
        NaN where one of the masks, or both, is empty.
    """
    if not prediction.any() or not truth.any():
        return math.nan
    # Surfaces only: the work grows with the lesions, not with the volume.
    ours, theirs = (_surface(mask) * np.asarray(spacing, float) for mask in (prediction, truth))
    there = cKDTree(theirs).query(ours)[0]
    back = cKDTree(ours).query(theirs)[0]
    return float(max(np.percentile(there, CENTILE), np.percentile(back, CENTILE)))


def _surface(mask: np.ndarray) -> np.ndarray:
    """Indices (N, axes) of the elements with a face to the background or to the edge."""
    mask = np.asarray(mask, bool)
    low = [int(where.min()) for where in np.nonzero(mask)]
    high = [int(where.max()) + 1 for where in np.nonzero(mask)]
    box = mask[tuple(slice(a, b) for a, b in zip(low, high))]
    return np.argwhere(box & ~binary_erosion(box)) + low
