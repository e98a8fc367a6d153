"""Stack of the slices of a series: order, spacing and grid, from the tags of their position."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.series import number_of, numbers_of, tag_name
from nnunetv2_mip.io.grid import SourceGrid

if TYPE_CHECKING:
    from pydicom import Dataset

# Bed overlaps leave gaps of 3.19 to 3.29 mm in series of 3.27 mm; a lost slice doubles one.
_GAP_TOLERANCE = 0.1
# Largest distance of a slice from its place on the uniform grid, in slices.
_PLACE_TOLERANCE = 0.25
# Positions nearer than this are one position.
_SAME_POSITION_MM = 0.01
_COSINE_TOLERANCE = 1e-4
# Positions that some archives round to whole mm.
_ROUNDING_MM, _WHOLE_TOLERANCE_MM = 1.0, 1e-3


class NoVolume(MipError):
    """Error: images that are no stack of slices at all (a rotating MIP, a single image, …)."""


class RepeatedPositions(MipError):
    """Error: several slices at one position, as in a dynamic or gated series."""


@dataclass(frozen=True)
class Stack:
    """Order and grid of slices.

    Attributes:
        order: indices of the slices, from the lowest to the highest position along their normal.
        grid: index axes are (column, row, slice).
        warnings: lines for the user.
    """

    order: tuple[int, ...]
    grid: SourceGrid
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SlicePlace:
    """Place of one slice.

    Attributes:
        size: (rows, columns).
        spacing: (row, column) mm.
        cosines: direction of a row and of a column, (6,).
        position: of pixel (0, 0), (3,).
    """

    size: tuple[int, int]
    spacing: np.ndarray
    cosines: np.ndarray
    position: np.ndarray


def place_of(header: "Dataset", path: Path) -> SlicePlace:
    """Place of a slice by its tags.

    Raises:
        MipError: one of them is missing or cannot be.
    """
    size = int(number_of(header, "Rows", path)), int(number_of(header, "Columns", path))
    spacing = numbers_of(header, "PixelSpacing", 2, path)
    cosines = numbers_of(header, "ImageOrientationPatient", 6, path)
    position = numbers_of(header, "ImagePositionPatient", 3, path)
    if min(spacing) <= 0:
        raise MipError(f"{path}: {tag_name('PixelSpacing')} is not above 0")
    return SlicePlace(size, spacing, cosines, position)


def stack_slices(
    places: Sequence[SlicePlace], files: Sequence[Path], stated_mm: Sequence[float] = ()
) -> Stack:
    """Stack of slices.

    Args:
        places, files: of the slices, in any order.
        stated_mm: distances of the slices by the header, for positions that were rounded.

    Raises:
        NoVolume: a single image, or images that are turned against each other.
        RepeatedPositions: several slices at one position.
        MipError: slices are missing, of different sizes, tilted, or oblique to the body.
    """
    if len(places) < 2:
        raise NoVolume(f"{files[0]}: is the only slice of its series; is the folder whole?")
    first = places[0]
    odd = [k for k, place in enumerate(places) if not _is_parallel(place, first)]
    if odd:
        reason = (
            f"{files[odd[0]]}: has another size, pixel spacing or orientation than "
            f"{files[0].name} of the same series"
        )
        turned = {tuple(np.round(place.cosines, 2)) for place in places}
        raise (NoVolume if len(turned) > 2 else MipError)(reason)
    row, column = first.cosines[:3], first.cosines[3:]
    normal = np.cross(row, column)
    positions = np.array([place.position for place in places])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    ordered = [files[index] for index in order]
    gap, warnings = _slice_gap(along[order], ordered, stated_mm)
    origin = positions[order[0]]
    steps = positions[order] - origin
    across = np.abs(steps - np.outer(steps @ normal, normal)).max()
    if across > 0.5 * min(first.spacing):
        raise MipError(
            f"{ordered[-1]}: the slices are shifted sideways along the series (tilted gantry); "
            "resample it first"
        )
    x, y, z = (float(value) for value in origin)
    grid = SourceGrid(
        size=(first.size[1], first.size[0], len(files)),
        spacing=(float(first.spacing[1]), float(first.spacing[0]), gap),
        origin=(x, y, z),
        direction=tuple(float(v) for v in np.stack([row, column, normal], axis=1).ravel()),
    )
    if not grid.is_axis_aligned:
        raise MipError(
            f"{ordered[0]}: is oblique to the body axes; resample it to an axis-aligned grid first"
        )
    return Stack(tuple(int(index) for index in order), grid, tuple(warnings))


def _is_parallel(place: SlicePlace, first: SlicePlace) -> bool:
    return (
        place.size == first.size
        and float(np.abs(place.spacing - first.spacing).max()) < 1e-3
        and float(np.abs(place.cosines - first.cosines).max()) < _COSINE_TOLERANCE
    )


def _slice_gap(
    along: np.ndarray, files: Sequence[Path], stated_mm: Sequence[float]
) -> tuple[float, list[str]]:
    """Distance of the slices in mm, from their sorted positions `along` the normal, and lines."""
    gaps = np.diff(along)
    near = int(gaps.argmin())
    if gaps[near] < _SAME_POSITION_MM:
        raise RepeatedPositions(
            f"{files[near + 1]}: lies at the position of {files[near].name}, in the same series; "
            "of a dynamic or gated series, give a folder with one time frame"
        )
    rounded_mm = _gap_of_rounded(along, stated_mm)
    if rounded_mm is not None:
        return rounded_mm, [
            f"{files[0]}: the positions of its series are rounded to whole mm; the slices are "
            f"taken as {rounded_mm:.4g} mm apart"
        ]
    median = float(np.median(gaps))
    far = int(gaps.argmax())
    if gaps[far] > (1 + _GAP_TOLERANCE) * median:
        raise MipError(
            f"{files[far]}: {gaps[far]:.2f} mm to {files[far + 1].name}, the other slices are "
            f"{median:.2f} mm apart; a slice is missing, copy the series again"
        )
    gap = float(along[-1] - along[0]) / (len(along) - 1)
    off = np.abs(along - along[0] - gap * np.arange(len(along)))
    if gaps[near] < (1 - _GAP_TOLERANCE) * median or off.max() > _PLACE_TOLERANCE * gap:
        raise MipError(
            f"{files[near]}: the slices are {gaps[near]:.2f} to {gaps[far]:.2f} mm apart, not "
            "evenly; resample the series first"
        )
    return gap, []


def _gap_of_rounded(along: np.ndarray, stated_mm: Sequence[float]) -> float | None:
    """Distance of slices whose positions were rounded to whole mm; None where they were not.

    Without a distance in the header that fits, unequal gaps mean a lost slice.
    """
    if np.abs(along - np.round(along)).max() > _WHOLE_TOLERANCE_MM or np.ptp(np.diff(along)) < 0.5:
        return None
    steps = np.arange(len(along))
    for stated in stated_mm:
        off = along - stated * steps
        is_whole = abs(stated - round(stated)) < 0.02
        if stated > 0 and not is_whole and np.ptp(off) <= _ROUNDING_MM + _WHOLE_TOLERANCE_MM:
            return float(stated)
    return None
