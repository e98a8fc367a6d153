"""Outlines of fused regions moved to where their uptake ends.

Views are fused to regions that are right in place but not to the millimetre. The border of a region
moves to where the smoothed SUV is a share of the contrast between its surroundings and the highest
uptake nearby (contrast-oriented threshold, Schaefer et al., Eur. J. Nucl. Med. Mol. Imaging 35,
2008). "Nearby" lets the faint part of an uneven mass keep its own border. The border moves by a few
millimetres at most, so that what lies deep inside stays (necrotic centres, faint masses), and holes
are filled.
"""

import cc3d
import numpy as np
from scipy import ndimage

from nnunetv2_mip.fusion.surroundings import (
    SMOOTHING_FWHM_MM,
    SURROUNDINGS_MM,
    smoothed,
    surroundings_suv,
)
from nnunetv2_mip.lesions.components import LESION_CONNECTIVITY

# Chosen among ten rules on simulated patients.
NEARBY_MM = 12.0
INWARDS_MM, OUTWARDS_MM = 8.0, 6.0
# The border lies at least so much above the surroundings, SUV.
LEAST_CONTRAST = 0.1


def moved_outlines(
    mask: np.ndarray, suv: np.ndarray, spacing_mm: tuple[float, float, float], share: float
) -> np.ndarray:
    """Mask whose regions end where their uptake does.

    Args:
        mask: (z, y, x) bool.
        suv: (z, y, x) float32.
        spacing_mm: voxel size (z, y, x).
        share: of the contrast, in (0, 1); higher gives smaller regions.

    Returns:
        (z, y, x) bool. No region disappears or joins another.
    """
    regions = cc3d.connected_components(
        np.ascontiguousarray(mask), connectivity=LESION_CONNECTIVITY[3]
    )
    spacing = np.array(spacing_mm, float)
    margin = np.ceil((SURROUNDINGS_MM[1] + 2 * SMOOTHING_FWHM_MM) / spacing).astype(int)
    out = np.zeros(mask.shape, bool)
    for number, box in enumerate(ndimage.find_objects(regions), start=1):
        near = tuple(
            slice(max(part.start - step, 0), min(part.stop + step, size))
            for part, step, size in zip(box, margin, mask.shape)
        )
        inside = regions[near] == number
        # Other regions, moved already or not, are theirs.
        others = ((regions[near] > 0) & ~inside) | out[near]
        out[near] |= _moved(inside, others, suv[near], spacing, share)
    return out


def _moved(
    inside: np.ndarray, others: np.ndarray, suv: np.ndarray, spacing: np.ndarray, share: float
) -> np.ndarray:
    """One region within its box; all arrays (z, y, x)."""
    smooth = smoothed(suv, spacing)
    outwards = ndimage.distance_transform_edt(~inside, sampling=spacing)
    # The edge of the volume is no border of the body.
    inwards = ndimage.distance_transform_edt(inside, sampling=spacing)
    surroundings = surroundings_suv(smooth, suv, outwards, others)
    size = [2 * int(round(NEARBY_MM / step)) + 1 for step in spacing]
    peaks = ndimage.maximum_filter(np.where(inside, smooth, 0), size=size, mode="constant")
    border = surroundings + np.maximum(share * (peaks - surroundings), LEAST_CONTRAST)
    hot = smooth >= border
    moved = (inside & (hot | (inwards > INWARDS_MM))) | (hot & (outwards <= OUTWARDS_MM))
    moved &= ~_grown(others)
    parts = cc3d.connected_components(moved, connectivity=LESION_CONNECTIVITY[3])
    kept = np.unique(parts[moved & inside])
    if not len(kept):
        return inside
    return ndimage.binary_fill_holes(np.isin(parts, kept)) & ~others


def _grown(others: np.ndarray) -> np.ndarray:
    """Other regions and the voxels that touch them, so that none are joined."""
    if not others.any():
        return others
    return ndimage.binary_dilation(others, ndimage.generate_binary_structure(3, 2))
