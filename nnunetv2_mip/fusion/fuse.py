"""Fusion of view probabilities (V, H, W) to one 3D mask on the source grid.

The rule `explain` looks for the mask that explains the views best (see `fusion.explain`). The other
rules give each voxel a probability of its own: they take the probability of each view at the
detector position of the voxel, interpolated linearly between columns, and combine them:

- `hull`: the smallest probability, the soft visual hull (Laurentini, IEEE TPAMI 16, 1994). Here the
  smallest over all columns of the voxel's footprint is taken, as for any-hit labels. With perfect
  views this is the largest mask that agrees with them. One view that misses a lesion removes it.
- `mean`, `max`: mean and maximum of the views, for comparison.
- `visibility`: mean weighted by the squared visibility of the voxel in each view, which is its SUV
  over the maximum of its ray. A lesion behind a hot organ is then decided by the views in which it
  is visible. This rule needs the SUV volume.
"""

import math

import cc3d
import numpy as np
from scipy.ndimage import maximum_filter

from nnunetv2_mip.fusion.backprojection import backproject, backproject_detector, require_view_shape
from nnunetv2_mip.fusion.explain import explain
from nnunetv2_mip.fusion.outlines import moved_outlines
from nnunetv2_mip.fusion.rules import UPTAKE_RADIUS_MM, FusionRule
from nnunetv2_mip.lesions.components import LESION_CONNECTIVITY
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.projection import detector_layout, project


def fuse(
    probabilities: np.ndarray,
    geometry: ViewGeometry,
    fusion: FusionRule,
    suv: np.ndarray | None = None,
    suv_views: np.ndarray | None = None,
) -> np.ndarray:
    """3D mask of view probabilities.

    Args:
        probabilities: (V, H, W) in [0, 1], views in the order of `geometry`.
        geometry: of the views.
        fusion: rule, and settings of the mask.
        suv: (z, y, x) SUV on the grid of `geometry`. Without it `hull` replaces `visibility`, and
            there is no isocontour.
        suv_views: (V, H, W) its projections; None computes them.

    Returns:
        (z, y, x) uint8 of 0 and 1.

    Raises:
        ValueError: shapes that do not belong together.
    """
    spacing = geometry.grid.spacing_zyx
    if fusion.rule != "explain":
        rule = fusion.rule if suv is not None or fusion.rule != "visibility" else "hull"
        volume = backproject(probabilities, geometry, rule, suv, suv_views)
        return mask_of_probability(volume, fusion, suv, spacing)
    require_view_shape(probabilities, geometry)
    views = moved_threshold(np.asarray(probabilities, np.float32), fusion.view_threshold, 0.5)
    if suv is not None:
        suv = np.ascontiguousarray(suv, np.float32)
        suv_views = project(suv, geometry).suv if suv_views is None else suv_views
    hull = None
    # If one view is empty, so is the hull.
    if views.max(axis=(1, 2)).min() >= 0.5:
        marks = detector_layout(views)
        hull = backproject_detector(marks, geometry, "hull", None, None) >= 0.5
    mask = explain(views, hull, suv, suv_views, geometry)
    return _outline(mask, fusion, suv, spacing)


def moved_threshold(probability: np.ndarray, before: float, after: float) -> np.ndarray:
    """Probabilities, linear on both sides, in which `before` has become `after`.

    Args:
        probability: float32 in [0, 1].
        before, after: between 0 and 1.

    Returns:
        float32 of the same shape, in the same order; the array itself where they are equal.
    """
    if before == after:
        return probability
    below = after * probability / before
    above = after + (1 - after) * (probability - before) / (1 - before)
    return np.where(probability < before, below, above).astype(np.float32)


def mask_of_probability(
    probability: np.ndarray,
    fusion: FusionRule,
    suv: np.ndarray | None,
    spacing_mm: tuple[float, float, float],
) -> np.ndarray:
    """Mask of a 3D probability: threshold, isocontour, removal of small components.

    Args:
        probability: (z, y, x) float32, of `backproject`.
        fusion: `threshold`, `uptake_share` and `smallest_ml` are used.
        suv: (z, y, x), or None for no isocontour.
        spacing_mm: voxel size (z, y, x).

    Returns:
        (z, y, x) uint8 of 0 and 1.
    """
    return _outline(probability >= max(fusion.threshold, 1e-6), fusion, suv, spacing_mm)


def _outline(mask, fusion, suv, spacing_mm) -> np.ndarray:
    """Mask (z, y, x) uint8 of `mask` (bool, changed) after isocontour and small components."""
    if suv is not None and fusion.uptake_share > 0 and mask.any():
        # Only in the box around the regions.
        box = tuple(slice(int(where.min()), int(where.max()) + 1) for where in np.nonzero(mask))
        inside = np.where(mask[box], suv[box], np.float32(0))
        size = [2 * round(UPTAKE_RADIUS_MM / step) + 1 for step in spacing_mm]
        peaks = maximum_filter(inside, size=size, mode="constant")
        mask[box] &= inside >= np.float32(fusion.uptake_share) * peaks
    if suv is not None and fusion.outline_share > 0 and mask.any():
        mask = moved_outlines(mask, suv, spacing_mm, fusion.outline_share)
    smallest = math.ceil(fusion.smallest_ml / (math.prod(spacing_mm) / 1000) - 1e-6)
    if smallest > 1 and mask.any():
        mask = cc3d.dust(mask, threshold=smallest, connectivity=LESION_CONNECTIVITY[3]) > 0
    return mask.view(np.uint8)
