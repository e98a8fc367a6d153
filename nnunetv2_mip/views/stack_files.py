"""Files of view stacks: (V, H, W) NIfTI files with a geometry file beside them."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_mip.conventions import STACK_SPACING_MM, VOLUME_SUFFIXES
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json, write_json
from nnunetv2_mip.io.image_header import read_header, read_voxels
from nnunetv2_mip.io.volumes import (
    has_suffix,
    without_suffix,
    write_image,
)
from nnunetv2_mip.io.voxel_size import LARGEST_VOXEL_MM
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.intensity import levels_from_suv
from nnunetv2_mip.views.resampling import view_shape

FILE_ENDING = ".nii.gz"
GEOMETRY_NAME = "geometry.json"
GEOMETRY_SUFFIX = "_geometry.json"
LESIONS_SUFFIX = "_lesions.json"


def write_stack(
    stack: np.ndarray, spacing_mm: tuple[float, float, float], path: Path | str
) -> None:
    """Write a stack (V, H, W) with spacing (view axis, row, column) in mm, whole or not at all."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(stack))
    image.SetSpacing([float(value) for value in reversed(spacing_mm)])
    write_image(image, path)


def read_stack(path: Path | str) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Stack (V, H, W) of a file, and its spacing (view axis, row, column) in mm.

    Raises:
        MipError: unreadable or not three-dimensional.
    """
    header = read_header(path)
    if header.grid is None or header.values != 1:
        raise MipError(f"{path}: is not a stack of views (V, H, W)")
    spacing = header.grid.spacing
    return read_voxels(header), (spacing[2], spacing[1], spacing[0])


def case_of_channel_file(path: Path | str) -> str:
    """Case name of an image file: `NAME_0000.nii.gz` → `NAME`, `NAME.nii.gz` → `NAME`."""
    name = without_suffix(path)
    head, _, tail = name.rpartition("_")
    return head if head and len(tail) == 4 and tail.isdigit() else name


def geometry_path(stack_path: Path | str) -> Path | None:
    """Path of the geometry file beside a stack, or None.

    In nnU-Net folders it is `<case>_geometry.json`, in the output of `nnUNetv2_mip_project`
    `geometry.json`.
    """
    stack_path = Path(stack_path)
    for name in (case_of_channel_file(stack_path) + GEOMETRY_SUFFIX, GEOMETRY_NAME):
        if (stack_path.parent / name).is_file():
            return stack_path.parent / name
    return None


def is_stack_file(path: Path | str) -> bool:
    """Whether a file is a stack of views: it has a geometry beside it, or a stack's spacing."""
    path = Path(path)
    if not has_suffix(path, VOLUME_SUFFIXES):
        return False
    if geometry_path(path) is not None:
        return True
    try:
        grid = read_header(path, with_voxels=False).grid
    except MipError:
        return False
    # A volume in another unit may have such a spacing too, but along all axes.
    return (
        grid is not None
        and grid.spacing[2] >= STACK_SPACING_MM
        and min(grid.spacing) < LARGEST_VOXEL_MM
    )


def require_geometry_path(stack_path: Path | str) -> Path:
    """Path of the geometry file beside a stack (see `geometry_path`).

    Raises:
        MipError: there is none.
    """
    path = geometry_path(stack_path)
    if path is None:
        raise MipError(
            f"{stack_path}: has no geometry file beside it ({GEOMETRY_NAME} or "
            f"<case>{GEOMETRY_SUFFIX}), so its views cannot be placed in space"
        )
    return path


def load_geometry(stack_path: Path | str) -> ViewGeometry:
    """Geometry of the views of a stack, read from the file beside it.

    Raises:
        MipError: there is none, or it cannot be read.
    """
    return ViewGeometry.load(require_geometry_path(stack_path))


def save_geometry(geometry: ViewGeometry, path: Path | str, pixel_mm: float | None = None) -> None:
    """Write a geometry file.

    Args:
        geometry: of the views.
        path: the file.
        pixel_mm: pixels that the stacks beside it were resampled to; None for the detector's own.
    """
    write_json(path, {**geometry.to_dict(), "pixel_mm": pixel_mm})


def load_pixel_mm(path: Path | str) -> float | None:
    """Pixel size in mm of the resampled stacks beside a geometry file; None if not resampled.

    Raises:
        MipError: the entry is no size.
    """
    value = read_json(path).get("pixel_mm")
    if value is not None and not (isinstance(value, int | float) and value > 0):
        raise MipError(f"{path}: pixel_mm {value!r} is no size")
    return value


def require_stack_shape(
    stack: np.ndarray, geometry: ViewGeometry, path: Path | str, pixel_mm: float | None = None
) -> None:
    """Check that a stack has the shape of its geometry: MipError otherwise."""
    expected = view_shape(geometry, pixel_mm)
    if stack.shape != expected:
        raise MipError(
            f"{path}: holds {stack.shape} (views, rows, columns), its geometry says {expected}"
        )


def read_levels(path: Path, window_suv: float) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Levels (V, H, W) of a stack file, and its spacing (view axis, row, column) in mm.

    Raises:
        MipError: unreadable, or neither levels nor the SUV of `nnUNetv2_mip_project`.
    """
    levels, spacing = read_stack(path)
    if _holds_raw_suv(path):
        levels = levels_from_suv(levels, window_suv)
    # In this form NaN fails too.
    if not (levels.min() >= 0 and levels.max() <= 255):
        raise MipError(
            f"{path}: a stack holds levels 0 to 255 (as the converters write), this one "
            f"{levels.min():g} to {levels.max():g}; give the SUV volume instead"
        )
    return levels, spacing


def _holds_raw_suv(path: Path) -> bool:
    """Whether a stack holds SUV, as nnUNetv2_mip_project writes it, instead of levels."""
    geometry = geometry_path(path)
    if geometry is None:
        return False
    content = read_json(geometry)
    return content.get("kind") == "volume" and content.get("window_suv") is None
