"""Footprints of voxels on the detector: the rays of a view that cross a voxel.

A voxel's footprint is the interval of the detector that its square in the plane projects to. The
work grows with the voxels of a structure, not with the volume.
"""

import math

import numpy as np
from numba import njit


@njit(cache=True, inline="always")
def footprint_columns(u, half):
    """First and last detector column whose ray crosses a voxel.

    Everything that asks whether a ray hits a voxel uses this function. A ray that touches a corner
    only does not hit (`half` is reduced by 1e-6 columns). A footprint that lies exactly between two
    rays is hit by both.

    Args:
        u: middle of the footprint, in columns.
        half: half of its width, in columns.
    """
    first = math.ceil(u - half + 1e-6)
    last = math.floor(u + half - 1e-6)
    if first > last:
        first = math.floor(u)
        last = math.ceil(u)
    return first, last


@njit(cache=True)
def depth_footprint(zs, y_mm, x_mm, z_low, z_high, cos, sin, sy, sx, bin_mm, width):
    """Any-hit projection of a structure in one view, with its depth range on every ray.

    What lies before the structure does not matter here.

    Args:
        zs, y_mm, x_mm: (N,) its voxels: slice, and position from the rotation centre in mm.
        z_low, z_high: lowest and highest of `zs`.
        cos, sin: of the view's angle.
        sy, sx: voxel size, mm.
        bin_mm, width: size in mm and number of the detector columns.

    Returns:
        left: first detector column that is hit.
        near, far: (columns from `left`, slices from `z_low`) float32, depth (mm along the ray) of
            the nearest and the farthest voxel centre; +inf and −inf where the ray does not hit.
    """
    half = (sx * abs(cos) + sy * abs(sin)) / 2 / bin_mm
    middle = (width - 1) * 0.5
    left, right = width, -1
    for voxel in range(len(zs)):
        u = (x_mm[voxel] * cos + y_mm[voxel] * sin) / bin_mm + middle
        first, last = footprint_columns(u, half)
        left = min(left, max(first, 0))
        right = max(right, min(last, width - 1))
    shape = (max(0, right - left + 1), z_high - z_low + 1)
    near = np.full(shape, np.float32(np.inf))
    far = np.full(shape, np.float32(-np.inf))
    for voxel in range(len(zs)):
        u = (x_mm[voxel] * cos + y_mm[voxel] * sin) / bin_mm + middle
        depth = np.float32(y_mm[voxel] * cos - x_mm[voxel] * sin)
        first, last = footprint_columns(u, half)
        z = zs[voxel] - z_low
        for column in range(max(first, 0) - left, min(last, width - 1) - left + 1):
            near[column, z] = min(near[column, z], depth)
            far[column, z] = max(far[column, z], depth)
    return left, near, far
