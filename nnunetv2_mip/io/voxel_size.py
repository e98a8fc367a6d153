"""Voxel sizes that no patient's image has: another unit is recognised, doubt is told."""

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.grid import SourceGrid

# PET of a patient has voxels of 1 to 10 mm and covers more than 6 cm; a whole body is below 3 m.
PATIENT_VOXEL_MM = (1.0, 10.0)
PATIENT_LENGTH_MM = (60.0, 3000.0)
# No scanner, of small animals neither, has voxels below this, and none has all axes above that. (A
# stack of views has one axis above it.)
SMALLEST_VOXEL_MM, LARGEST_VOXEL_MM = 0.2, 100.0
# An image that is shorter along every axis holds no body.
SHORTEST_BODY_MM = 30.0
# One with voxels below 1 mm that is shorter than this holds an animal, or its unit is cm.
SHORT_BODY_MM = 250.0
# Units of headers that do not say so, or say another one: m, cm and µm.
_UNITS_MM = (1000.0, 10.0, 0.001)


def in_plausible_unit(grid: SourceGrid, name: str) -> tuple[SourceGrid, list[str]]:
    """Grid in mm, and the reasons why its voxel size is in doubt.

    A grid that is too small or too large for any image is read in the one other unit in which it
    is that of a patient.

    Args:
        grid: as its header gives it.
        name: of the file, for messages.

    Raises:
        MipError: the voxel size is impossible in every unit.
    """
    spacing = np.array(grid.spacing)
    lengths = spacing * grid.size
    impossible = spacing.min() < SMALLEST_VOXEL_MM or spacing.min() >= LARGEST_VOXEL_MM
    shown = f"voxels of {_mm(spacing)} by its header"
    if impossible or lengths.max() < SHORTEST_BODY_MM:
        fitting = [unit for unit in _UNITS_MM if _is_patient(spacing * unit, lengths * unit)]
        if len(fitting) == 1:
            grid = grid.in_unit(fitting[0])
            return grid, [
                f"has {shown}, which are read as {_mm(spacing * fitting[0])}; write it with its "
                "voxel size in mm if that is wrong"
            ]
        if impossible:
            raise MipError(
                f"{name}: has {shown}, which no PET has; write it with the voxel size of its "
                "source in mm"
            )
    if tuple(grid.spacing) == (1.0, 1.0, 1.0) and not any(grid.origin):
        return grid, [
            "its header has voxels of 1 x 1 x 1 mm at the origin, as that of a file which lost its "
            "header; volumes in ml and the shape of the body depend on it"
        ]
    small = spacing.max() < PATIENT_VOXEL_MM[0] and lengths.max() < SHORT_BODY_MM
    if small or lengths.max() < SHORTEST_BODY_MM:
        return grid, [
            f"has {shown} and is {lengths.max():.3g} mm long at most, too small for a patient; "
            "correct the header if it is in another unit"
        ]
    return grid, []


def _is_patient(spacing: np.ndarray, lengths: np.ndarray) -> bool:
    """Whether voxels and lengths in mm are those of a patient's image."""
    (small, large), (short, long) = PATIENT_VOXEL_MM, PATIENT_LENGTH_MM
    return bool(
        spacing.min() >= small * (1 - 1e-6)
        and spacing.max() < large
        and short <= lengths.max() < long
    )


def _mm(spacing: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in spacing) + " mm"
