"""Which rays of a view pass through which voxels: footprints of sparse structures.

Nothing here looks at a whole volume: the work grows with the voxels of the structure.
"""

import math

import numpy as np
from numba import njit


@njit(cache=True, inline="always")
def column_range(u, half):
    """First and last detector column whose ray crosses a voxel's shadow.

    The one rule of what "a ray hits a voxel" means. A touch of a corner alone is no hit (`half`
    is drawn in by 1e-6 columns); a shadow that lies exactly between two rays is hit by both.

    Args:
        u: middle of the shadow, in columns.
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
    """Where a view sees a structure, and over which depths, whatever lies before it.

    Args:
        zs, y_mm, x_mm: its voxels: slice, and place about the rotation centre in mm.
        z_low, z_high: lowest and highest of `zs`.
        cos, sin: of the view's angle.
        sy, sx: voxel size, mm.
        bin_mm, width: size and number of the detector columns.

    Returns:
        The first column, and the depth (mm along the ray) of the nearest and the farthest voxel
        centre, each (columns, slices) float32; +inf and -inf where the structure is not hit.
    """
    half = (sx * abs(cos) + sy * abs(sin)) / 2 / bin_mm
    middle = (width - 1) * 0.5
    left, right = width, -1
    for voxel in range(len(zs)):
        u = (x_mm[voxel] * cos + y_mm[voxel] * sin) / bin_mm + middle
        first, last = column_range(u, half)
        left = min(left, max(first, 0))
        right = max(right, min(last, width - 1))
    shape = (max(0, right - left + 1), z_high - z_low + 1)
    near = np.full(shape, np.float32(np.inf))
    far = np.full(shape, np.float32(-np.inf))
    for voxel in range(len(zs)):
        u = (x_mm[voxel] * cos + y_mm[voxel] * sin) / bin_mm + middle
        depth = np.float32(y_mm[voxel] * cos - x_mm[voxel] * sin)
        first, last = column_range(u, half)
        z = zs[voxel] - z_low
        for column in range(max(first, 0) - left, min(last, width - 1) - left + 1):
            near[column, z] = min(near[column, z], depth)
            far[column, z] = max(far[column, z], depth)
    return left, near, far
