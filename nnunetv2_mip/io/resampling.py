"""Volumes resampled to the grid of another one."""

import numpy as np
import SimpleITK as sitk

from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import Volume, image_on_grid


def resample_to_grid(volume: Volume, grid: SourceGrid, outside: float) -> Volume:
    """A volume interpolated linearly at the voxels of another grid, by their place in space.

    Args:
        volume: (z, y, x), canonical axes.
        grid: the grid asked for.
        outside: value of voxels that lie outside the volume.

    Returns:
        (z, y, x) float32, canonical axes, on `grid`.
    """
    resampled = sitk.Resample(
        image_on_grid(volume.array.astype(np.float32, copy=False), volume.grid),
        grid.size,
        sitk.Transform(),
        sitk.sitkLinear,
        grid.origin,
        grid.spacing,
        grid.direction,
        outside,
        sitk.sitkFloat32,
    )
    array = grid.to_canonical(sitk.GetArrayFromImage(resampled))
    return Volume(np.ascontiguousarray(array), grid, volume.path)
