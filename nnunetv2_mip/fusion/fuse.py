"""From view probabilities (V, H, W) back to one 3D probability on the source grid.

Every voxel asks each view at the detector position where it is seen, interpolated linearly
between columns. The rules differ in how the answers are combined:

- `hull`: the smallest answer, the soft visual hull (Laurentini, IEEE TPAMI 16, 1994). Here a voxel
  asks all columns that its shadow falls on, as any-hit labels are made: if it is lesion, every one
  of them must say so. The largest mask that perfect views allow; one blind view erases a lesion.
- `mean`, `max`: plain smearing and averaging, for comparison.
- `visibility`: the mean weighted by how visible the voxel is in each view: its SUV over the
  maximum of its ray, squared. A lesion behind a hot organ is judged by the views
  that see it. Needs the SUV volume.
"""

import math

import cc3d
import numpy as np
from scipy.ndimage import maximum_filter

from nnunetv2_mip.fusion.backprojection import backproject, combine, require_stack
from nnunetv2_mip.fusion.explain import explain
from nnunetv2_mip.fusion.rules import UPTAKE_RADIUS_MM, FusionRule
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.projection import detector_layout, project


def fuse(
    probabilities: np.ndarray,
    geometry: ViewGeometry,
    fusion: FusionRule,
    suv: np.ndarray | None = None,
    suv_views: np.ndarray | None = None,
) -> np.ndarray:
    """The 3D mask of view probabilities.

    `explain` looks for the mask that explains the views best (see `explanation`), any other rule is
    `backproject`, then `mask_of_probability`. Without an SUV volume `visibility` cannot be had and
    `hull` is used instead, and the uptake is not looked at.

    Returns:
        (z, y, x) uint8 of 0 and 1.
    """
    spacing = geometry.grid.spacing_zyx
    if fusion.rule != "explain":
        rule = fusion.rule if suv is not None or fusion.rule != "visibility" else "hull"
        volume = backproject(probabilities, geometry, rule, suv, suv_views)
        return mask_of_probability(volume, fusion, suv, spacing)
    require_stack(probabilities, geometry)
    views = np.asarray(probabilities, np.float32)
    if suv is not None:
        suv = np.ascontiguousarray(suv, np.float32)
        suv_views = project(suv, geometry).suv if suv_views is None else suv_views
    hull = None
    # A view that marks nothing leaves no hull.
    if views.max(axis=(1, 2)).min() >= 0.5:
        hull = combine(detector_layout(views), geometry, "hull", None, None) >= 0.5
    mask = explain(views, hull, suv, suv_views, geometry)
    return _tidy(mask, fusion, suv, spacing)


def mask_of_probability(
    probability: np.ndarray,
    fusion: FusionRule,
    suv: np.ndarray | None,
    spacing_mm: tuple[float, float, float],
) -> np.ndarray:
    """The mask of a 3D probability: threshold, isocontour of `uptake_share`, smallest component.

    Args:
        probability: (z, y, x) as `backproject` gives it.
        fusion: `threshold`, `uptake_share` and `smallest_ml` are used.
        suv: (z, y, x), or None to look at the threshold only.
        spacing_mm: (z, y, x).

    Returns:
        (z, y, x) uint8 of 0 and 1.
    """
    return _tidy(probability >= max(fusion.threshold, 1e-6), fusion, suv, spacing_mm)


def _tidy(mask, fusion, suv, spacing_mm) -> np.ndarray:
    """A mask (z, y, x) bool after isocontour and smallest component, uint8; `mask` is changed."""
    if suv is not None and fusion.uptake_share > 0 and mask.any():
        # Only the box around the regions is worked on.
        box = tuple(slice(int(where.min()), int(where.max()) + 1) for where in np.nonzero(mask))
        inside = np.where(mask[box], suv[box], np.float32(0))
        size = [2 * round(UPTAKE_RADIUS_MM / step) + 1 for step in spacing_mm]
        peaks = maximum_filter(inside, size=size, mode="constant")
        mask[box] &= inside >= np.float32(fusion.uptake_share) * peaks
    smallest = math.ceil(fusion.smallest_ml / (math.prod(spacing_mm) / 1000) - 1e-6)
    if smallest > 1 and mask.any():
        mask = cc3d.dust(mask, threshold=smallest, connectivity=18) > 0
    return mask.view(np.uint8)
