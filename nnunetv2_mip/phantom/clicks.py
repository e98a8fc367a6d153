"""Simulated clicks of a reader, made from a true mask: for phantoms and benchmarks."""

import cc3d
import numpy as np
from scipy.ndimage import distance_transform_edt

from nnunetv2_mip.io.clicks import Clicks, Voxel

# Least distance of background clicks from each other, and from every lesion.
APART_MM, CLEAR_MM = 30.0, 8.0


def preset_clicks(
    suv: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float], count: int
) -> Clicks:
    """Clicks made from the truth alone, as a challenge provides them.

    Tumour clicks lie innermost in the lesions (18-connected), the largest first; where there are
    fewer lesions, the rest lies anywhere in them (fixed seed). Background clicks lie where the
    uptake outside of lesions is highest, `APART_MM` apart. The first k of each are the same
    for every count.

    Args:
        suv, truth: (z, y, x).
        spacing_mm: (z, y, x).
        count: of each kind; without lesions there are no tumour clicks.
    """
    tumour: list[Voxel] = []
    if truth.any():
        lesions = cc3d.connected_components(truth, connectivity=18)
        sizes = cc3d.statistics(lesions)["voxel_counts"].astype(np.int64)
        order = np.argsort(-sizes[1:], kind="stable") + 1
        tumour = [innermost(lesions == label, spacing_mm) for label in order[:count]]
        places = np.argwhere(truth)
        rng = np.random.default_rng(0)
        while len(tumour) < min(count, len(places)):
            place = _voxel(places[rng.integers(len(places))])
            if place not in tumour:
                tumour.append(place)
    left = suv.copy()
    if truth.any():
        left[distance_transform_edt(truth == 0, spacing_mm) < CLEAR_MM] = 0
    axes = np.ogrid[tuple(slice(0, n) for n in suv.shape)]
    background: list[Voxel] = []
    while len(background) < count and left.any():
        place = _voxel(np.unravel_index(left.argmax(), left.shape))
        background.append(place)
        squares = (((a - p) * mm) ** 2 for a, p, mm in zip(axes, place, spacing_mm))
        left[sum(squares) < APART_MM**2] = 0
    return Clicks(tuple(tumour), tuple(background))


def corrective_clicks(
    mask: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float], earlier: Clicks
) -> Clicks:
    """Earlier clicks and one more of each kind, innermost in the largest error of that kind.

    Args:
        mask, truth: (z, y, x); not 0 is lesion.
        spacing_mm: (z, y, x).
        earlier: clicks so far.
    """
    found = []
    for wrong, clicked in (
        ((truth > 0) & (mask == 0), earlier.tumour),
        ((truth == 0) & (mask > 0), earlier.background),
    ):
        if wrong.any():
            parts = cc3d.connected_components(wrong, connectivity=18)
            sizes = cc3d.statistics(parts)["voxel_counts"].astype(np.int64)
            largest = int(sizes[1:].argmax()) + 1
            clicked = (*clicked, innermost(parts == largest, spacing_mm))
        found.append(clicked)
    return Clicks(*found)


def innermost(region: np.ndarray, spacing_mm: tuple[float, float, float]) -> Voxel:
    """Voxel of a region (z, y, x) bool that is farthest from its surface."""
    places = np.nonzero(region)
    low = [int(axis.min()) for axis in places]
    box = tuple(slice(a, int(axis.max()) + 1) for a, axis in zip(low, places))
    depth = distance_transform_edt(np.pad(region[box], 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    inner = np.unravel_index(depth.argmax(), depth.shape)
    return _voxel([a + i for a, i in zip(low, inner)])


def _voxel(place) -> Voxel:
    z, y, x = (int(value) for value in place)
    return z, y, x
