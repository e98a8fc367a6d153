"""Extent of the body in a SUV volume, found in one pass over the voxels."""

import numpy as np
from numba import njit, prange


@njit(parallel=True, cache=True)
def body_extent(volume, body_suv):
    """Number of body slices at each in-plane position, and the box of all voxels above 0.

    Args:
        volume: (z, y, x) float32, SUV.
        body_suv: float32.

    Returns:
        count: (y, x) int32, number of slices above `body_suv`.
        box: (3, 2) int64, first and last voxel above 0 along z, y and x; last is −1 without any.
    """
    nz, ny, nx = volume.shape
    count = np.zeros((ny, nx), np.int32)
    row_any = np.zeros(ny, np.bool_)
    column_any = np.zeros((ny, nx), np.bool_)
    slice_any = np.zeros((ny, nz), np.bool_)
    for y in prange(ny):
        for z in range(nz):
            above = 0
            for x in range(nx):
                count[y, x] += volume[z, y, x] > body_suv
                column_any[y, x] |= volume[z, y, x] > 0
                above += volume[z, y, x] > 0
            slice_any[y, z] = above > 0
            row_any[y] |= above > 0
    box = np.zeros((3, 2), np.int64)
    _ends(slice_any, box[0])
    _ends(row_any.reshape(1, -1), box[1])
    _ends(column_any, box[2])
    return count, box


@njit(cache=True)
def _ends(marks, ends):
    """Fill ends (2) with the first and last marked column in any row; 0 and −1 without any."""
    ends[0], ends[1] = 0, -1
    for k in range(marks.shape[1]):
        if marks[:, k].any():
            if ends[1] < 0:
                ends[0] = k
            ends[1] = k
