"""Backprojection of view probabilities: lesion probability of each voxel alone (rules `VOTES`)."""

import numpy as np
from numba import njit, prange

from nnunetv2_mip.fusion.rules import UNSEEN_WEIGHT
from nnunetv2_mip.views.footprint import footprint_columns
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
    """3D lesion probability of a stack of view probabilities.

    Args:
        probabilities: (V, H, W) in [0, 1], views in the order of `geometry`.
        geometry: of the views.
        rule: one of `rules.VOTES` (see `fusion.fuse`).
        suv: (z, y, x) SUV on the grid of `geometry`, for `visibility`.
        suv_views: (V, H, W) its projections; None computes them.

    Returns:
        (z, y, x) float32 in [0, 1]. Voxels that every view calls background are 0.

    Raises:
        ValueError: shapes that do not belong together, or `visibility` without `suv`.
    """
    require_view_shape(probabilities, geometry)
    volume, ray_maxima = None, None
    if rule == "visibility":
        if suv is None:
            raise ValueError("the rule 'visibility' needs the SUV volume")
        if suv_views is None:
            suv_views = project(suv, geometry).suv
        volume, ray_maxima = np.asarray(suv, np.float32), detector_layout(suv_views)
    marks = detector_layout(np.asarray(probabilities, np.float32))
    return backproject_detector(marks, geometry, rule, volume, ray_maxima)


def require_view_shape(probabilities: np.ndarray, geometry: ViewGeometry) -> None:
    """Check that views have the shape (V, H, W) of their geometry: ValueError otherwise."""
    if probabilities.shape != geometry.stack_shape:
        raise ValueError(f"views {probabilities.shape} are not {geometry.stack_shape}")


def backproject_detector(
    marks: np.ndarray,
    geometry: ViewGeometry,
    rule: str,
    suv: np.ndarray | None,
    ray_maxima: np.ndarray | None,
) -> np.ndarray:
    """`backproject` of views in the kernels' order (see `views.geometry`).

    Args:
        marks: (V, W, z) float32, probabilities.
        geometry: of the views.
        rule: one of `rules.VOTES`.
        suv: (z, y, x) float32; only `visibility` needs it.
        ray_maxima: (V, W, z) float32, projections of the SUV; only `visibility` needs them.

    Returns:
        (z, y, x) float32.
    """
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
    """Fill out (z, y, x) with the combined probabilities.

    Args:
        views, ray_maxima: (V, W, z).
        highest: (V, W) maximum of `views` along z.
        suv: (z, y, x).
        angles: (V,) in radians.
        step_y, step_x: voxel size in detector columns.
        code: of the rule, see `_RULE_CODES`.
        floor: weight of a view that does not see the voxel.
    """
    n_views, width, _ = views.shape
    nz, ny, nx = out.shape
    middle = (width - 1) * 0.5
    for y in prange(ny):
        total = np.empty(nz, np.float32)
        weight = np.empty(nz, np.float32)
        answer = np.empty(nz, np.float32)
        for x in range(nx):
            # A column of voxels is left out where no view (`hull`: not every view) marks any of it.
            marked = False
            for view in range(n_views):
                u = (
                    (x - (nx - 1) * 0.5) * step_x * np.cos(angles[view])
                    + (y - (ny - 1) * 0.5) * step_y * np.sin(angles[view])
                    + middle
                )
                if code == 0:
                    first, last = _footprint(u, angles[view], step_y, step_x, width)
                    marked = first <= last
                    for column in range(first, last + 1):
                        marked = marked and highest[view, column] > 0
                    if not marked:
                        break
                    continue
                left = int(np.floor(u))
                if 0 <= left < width:
                    marked = marked or highest[view, left] > 0
                if 0 <= left + 1 < width:
                    marked = marked or highest[view, left + 1] > 0
                if marked:
                    break
            if not marked:
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
                    first, last = _footprint(u, angles[view], step_y, step_x, width)
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
                # Beyond the detector a view is 0.
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
def _footprint(u, angle, step_y, step_x, width):
    """First and last detector column of a voxel's footprint (empty: first > last)."""
    half = (step_x * abs(np.cos(angle)) + step_y * abs(np.sin(angle))) * 0.5
    first, last = footprint_columns(u, half)
    return max(first, 0), min(last, width - 1)
