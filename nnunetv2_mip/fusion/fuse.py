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
from numba import njit, prange
from scipy.ndimage import maximum_filter

from nnunetv2_mip.fusion.explain import explain
from nnunetv2_mip.fusion.rules import UNSEEN_WEIGHT, UPTAKE_RADIUS_MM, FusionRule
from nnunetv2_mip.views.footprint import column_range
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.projection import detector_layout, project

_RULE_CODES = {"hull": 0, "mean": 1, "max": 2, "visibility": 3}


def backproject(
    probabilities: np.ndarray,
    geometry: ViewGeometry,
    rule: str = "mean",
    suv: np.ndarray | None = None,
    suv_views: np.ndarray | None = None,
) -> np.ndarray:
    """Combine view probabilities into a 3D probability.

    Args:
        probabilities: (V, H, W) in [0, 1], views in the order of `geometry`.
        geometry: the geometry the views were projected with.
        rule: one of `fusion_rules.VOTES`.
        suv: (z, y, x) SUV on the grid of `geometry`, for `visibility`.
        suv_views: (V, H, W) its projections, where they are at hand; else they are computed.

    Returns:
        (z, y, x) float32 in [0, 1]. Voxels that no view calls lesion are 0.

    Raises:
        ValueError: shapes that do not belong together, or `visibility` without `suv`.
    """
    _require_stack(probabilities, geometry)
    volume, ray_maxima = None, None
    if rule == "visibility":
        if suv is None:
            raise ValueError("the rule 'visibility' needs the SUV volume")
        if suv_views is None:
            suv_views = project(suv, geometry).suv
        volume, ray_maxima = np.asarray(suv, np.float32), detector_layout(suv_views)
    marks = detector_layout(np.asarray(probabilities, np.float32))
    return _combine(marks, geometry, rule, volume, ray_maxima)


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
    _require_stack(probabilities, geometry)
    views = np.asarray(probabilities, np.float32)
    if suv is not None:
        suv = np.ascontiguousarray(suv, np.float32)
        suv_views = project(suv, geometry).suv if suv_views is None else suv_views
    hull = None
    # A view that marks nothing leaves no hull.
    if views.max(axis=(1, 2)).min() >= 0.5:
        hull = _combine(detector_layout(views), geometry, "hull", None, None) >= 0.5
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


def _require_stack(probabilities: np.ndarray, geometry: ViewGeometry) -> None:
    if probabilities.shape != geometry.stack_shape:
        raise ValueError(f"views {probabilities.shape} are not {geometry.stack_shape}")


def _combine(
    marks: np.ndarray,
    geometry: ViewGeometry,
    rule: str,
    suv: np.ndarray | None,
    ray_maxima: np.ndarray | None,
) -> np.ndarray:
    """`backproject` of views in the kernels' layout (V, W, z); SUV only where the rule needs it."""
    if rule != "visibility":
        suv = ray_maxima = np.zeros((1, 1, 1), np.float32)
    _, sy, sx = geometry.grid.spacing_zyx
    out = np.zeros(geometry.grid.shape_zyx, np.float32)
    _backproject_kernel(
        marks,
        marks.max(axis=2),
        ray_maxima,
        suv,
        np.deg2rad(geometry.angles_deg),
        sy / geometry.bin_mm,
        sx / geometry.bin_mm,
        _RULE_CODES[rule],
        np.float32(UNSEEN_WEIGHT),
        out,
    )
    return out


@njit(parallel=True, cache=True, error_model="numpy")
def _backproject_kernel(views, highest, ray_maxima, suv, angles, step_y, step_x, code, floor, out):
    """Fill out (z, y, x). views, ray_maxima: (V, W, z); highest: (V, W); suv: (z, y, x)."""
    n_views, width, _ = views.shape
    nz, ny, nx = out.shape
    middle = (width - 1) * 0.5
    for y in prange(ny):
        total = np.empty(nz, np.float32)
        weight = np.empty(nz, np.float32)
        answer = np.empty(nz, np.float32)
        for x in range(nx):
            # Work only where some view (of `hull`: every view) has something to say about this
            # column.
            asked = False
            for view in range(n_views):
                u = (
                    (x - (nx - 1) * 0.5) * step_x * np.cos(angles[view])
                    + (y - (ny - 1) * 0.5) * step_y * np.sin(angles[view])
                    + middle
                )
                if code == 0:
                    first, last = _shadow(u, angles[view], step_y, step_x, width)
                    asked = first <= last
                    for column in range(first, last + 1):
                        asked = asked and highest[view, column] > 0
                    if not asked:
                        break
                    continue
                left = int(np.floor(u))
                if 0 <= left < width:
                    asked = asked or highest[view, left] > 0
                if 0 <= left + 1 < width:
                    asked = asked or highest[view, left + 1] > 0
                if asked:
                    break
            if not asked:
                continue
            total[:] = np.float32(1) if code == 0 else np.float32(0)
            weight[:] = np.float32(0)
            for view in range(n_views):
                u = (
                    (x - (nx - 1) * 0.5) * step_x * np.cos(angles[view])
                    + (y - (ny - 1) * 0.5) * step_y * np.sin(angles[view])
                    + middle
                )
                if code == 0:
                    first, last = _shadow(u, angles[view], step_y, step_x, width)
                    answer[:] = views[view, first]
                    for column in range(first + 1, last + 1):
                        for z in range(nz):
                            answer[z] = min(answer[z], views[view, column, z])
                    for z in range(nz):
                        total[z] = min(total[z], answer[z])
                    continue
                left = int(np.floor(u + 1e-9))
                right_share = np.float32(max(u - left, 0.0))
                left_share = np.float32(1) - right_share
                # Beyond the detector a view knows nothing and claims nothing.
                has_left = 0 <= left < width
                has_right = 0 <= left + 1 < width
                if not has_left:
                    left_share = np.float32(0)
                if not has_right:
                    right_share = np.float32(0)
                a = views[view, left if has_left else 0]
                b = views[view, left + 1 if has_right else 0]
                if code == 3:
                    ma = ray_maxima[view, left if has_left else 0]
                    mb = ray_maxima[view, left + 1 if has_right else 0]
                    for z in range(nz):
                        p = left_share * a[z] + right_share * b[z]
                        ray = left_share * ma[z] + right_share * mb[z]
                        seen = suv[z, y, x] / ray if ray > 0 else np.float32(0)
                        seen = min(seen, np.float32(1))
                        w = floor + seen * seen
                        total[z] += w * p
                        weight[z] += w
                else:
                    for z in range(nz):
                        p = left_share * a[z] + right_share * b[z]
                        if code == 1:
                            total[z] += p
                        else:
                            total[z] = max(total[z], p)
            for z in range(nz):
                value = total[z]
                if code == 1:
                    value = value / n_views
                elif code == 3:
                    value = value / weight[z]
                out[z, y, x] = value


@njit(cache=True, inline="always")
def _shadow(u, angle, step_y, step_x, width):
    """First and last detector column that a voxel's shadow falls on (empty: first > last)."""
    half = (step_x * abs(np.cos(angle)) + step_y * abs(np.sin(angle))) * 0.5
    first, last = column_range(u, half)
    return max(first, 0), min(last, width - 1)
