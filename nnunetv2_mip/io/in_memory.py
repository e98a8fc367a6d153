"""Volumes and studies of images and arrays in memory, checked as those of files are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.read_study import Study, ct_of_volume, new_warnings
from nnunetv2_mip.io.volumes import (
    Volume,
    checked_grid,
    mask_of_volume,
    require_same_grid,
    suv_of_volume,
    suv_warning,
)


def volume_of_image(image: sitk.Image, name: str = "image") -> Volume:
    """Volume of a 3D scalar image, in canonical axes; its grid is that of the image.

    Args:
        image: in any of the 48 orders and directions of its axes.
        name: in messages.

    Raises:
        MipError: not 3D, more than one value a voxel, empty, or oblique.
    """
    if image.GetDimension() != 3:
        raise MipError(f"{name}: has {image.GetDimension()} dimensions, a volume has 3")
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise MipError(f"{name}: has several values per voxel, one is expected")
    return _volume(sitk.GetArrayFromImage(image), SourceGrid.of_image(image), name)


def volume_of_array(array: np.ndarray, spacing_mm: Sequence[float], name: str = "array") -> Volume:
    """Volume of an array in canonical axes.

    Args:
        array: (z, y, x): z to the head, y to the back, x to the patient's left.
        spacing_mm: (z, y, x), in the order of the axes of `array`.
        name: in messages.

    Raises:
        MipError: not 3D, no numbers, empty, or a voxel size that cannot be.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "buif":
        raise MipError(f"{name}: holds values of type {array.dtype}, numbers are expected")
    if array.ndim != 3:
        raise MipError(f"{name}: has {array.ndim} dimensions, a volume has 3 (z, y, x)")
    try:
        spacing = tuple(float(value) for value in spacing_mm)
    except (TypeError, ValueError):
        spacing = ()
    if len(spacing) != 3 or not all(np.isfinite(value) and value > 0 for value in spacing):
        raise MipError(
            f"{name}: spacing {spacing_mm!r}: three numbers above 0 are expected, (z, y, x) in mm"
        )
    nz, ny, nx = array.shape
    sz, sy, sx = spacing
    identity = tuple(np.eye(3).ravel().tolist())
    grid = SourceGrid((nx, ny, nz), (sx, sy, sz), (0.0, 0.0, 0.0), identity)
    # A copy: what the caller does to the array later must not change the volume, nor the reverse.
    kind = np.uint8 if array.dtype == bool else array.dtype.newbyteorder("=")
    return _volume(array.astype(kind), grid, name)


def _volume(array: np.ndarray, grid: SourceGrid, name: str) -> Volume:
    """Volume of an array in the order (k, j, i) of its grid."""
    path = Path(name)
    grid, doubts = checked_grid(grid, path)
    warnings = tuple(f"{name}: {reason}" for reason in doubts)
    return Volume(grid.to_canonical(array), grid, path, warnings)


def study_of_volumes(suv: Volume, ct: Volume | None = None, seg: Volume | None = None) -> Study:
    """Study of volumes on one grid.

    Args:
        suv: PET in SUV.
        ct: HU.
        seg: lesion mask: 0 and one other value.

    Raises:
        MipError: values that are none of these, or another grid than that of the PET.
    """
    suv = suv_of_volume(suv)
    unit = suv_warning(suv)
    warnings = (*suv.warnings, *((unit,) if unit else ()))
    if ct is not None:
        ct = ct_of_volume(ct, suv)
        warnings += new_warnings(ct, suv)
    if seg is not None:
        require_same_grid(seg, suv)
        seg = mask_of_volume(seg)
        warnings += new_warnings(seg, suv)
    return Study(suv, ct, seg, warnings)
