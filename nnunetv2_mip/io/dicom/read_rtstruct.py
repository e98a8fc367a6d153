"""Lesion mask of a DICOM structure set (RTSTRUCT): its contours filled by voxel centres."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.contours import union
from nnunetv2_mip.io.dicom.lesion_names import NamedRegion, choose_lesions
from nnunetv2_mip.io.grid import SourceGrid

if TYPE_CHECKING:
    from pydicom import Dataset

# Largest distance of a contour from the slice that it is drawn on, in slices.
_SAME_SLICE = 0.1
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
# (z, y, x), for messages.
_PLANES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True)
class _Contour:
    """A closed contour.

    Attributes:
        region: number of its ROI.
        places: (N, 3) (z, y, x), in voxels of the grid.
        xor: whether it is combined by exclusive or.
    """

    region: int
    places: np.ndarray
    xor: bool


def rtstruct_mask(
    data: "Dataset", grid: SourceGrid, path: Path, warn: Callable[[str], None]
) -> np.ndarray:
    """Lesion mask (z, y, x) of 0 and 1, uint8, on a grid.

    A voxel is inside where its centre is. Holes are contours within contours of one ROI, contours
    of the type CLOSEDPLANAR_XOR, or joined to the outside by a narrow channel. Where contours were
    drawn on other slices than the grid's, each slice takes the nearest contours, and `warn` gets a
    line.

    Args:
        data: the RTSTRUCT.
        grid: that the mask is wanted on.
        path: of the RTSTRUCT.
        warn: gets lines for the user.

    Raises:
        MipError: no lesions by name, or contours that cannot be filled.
    """
    chosen = choose_lesions(_regions(data), "ROI", path, warn)
    contours = _contours(data, chosen, grid, path, warn)
    mask = np.zeros(grid.shape_zyx, np.uint8)
    if not contours:
        return mask
    axis = _axis(contours, grid, path)
    levels = np.array([contour.places[:, axis].mean() for contour in contours])
    slots = _slots(levels, mask.shape[axis], path, axis, warn)
    view = np.moveaxis(mask, axis, 0)
    across = [other for other in range(3) if other != axis]
    groups: dict[tuple[int, int], list[_Contour]] = defaultdict(list)
    for contour, slot in zip(contours, slots):
        for index in slot:
            groups[index, contour.region].append(contour)
    for (index, _), parts in groups.items():
        polygons = [part.places[:, across] for part in parts]
        view[index] |= union(polygons, view.shape[1:], any(part.xor for part in parts))
    if not mask.any():
        raise MipError(
            f"{path}: its contours hold no voxel of the PET; is it of another study, or are they "
            "smaller than a voxel?"
        )
    outside = np.count_nonzero((levels < -0.5) | (levels > mask.shape[axis] - 0.5))
    if outside:
        warn(f"{path}: {outside} contours lie on no slice of the PET and are left out")
    return mask


def _regions(data: "Dataset") -> list[NamedRegion]:
    kinds = {
        int(item.ReferencedROINumber): str(item.get("RTROIInterpretedType") or "").upper()
        for item in data.get("RTROIObservationsSequence") or []
        if item.get("ReferencedROINumber") is not None
    }
    regions = []
    for item in data.get("StructureSetROISequence") or []:
        kind = kinds.get(int(item.ROINumber), "")
        says = {"GTV": "lesion", "": ""}.get(kind, "other")
        regions.append(NamedRegion(int(item.ROINumber), str(item.get("ROIName") or ""), says))
    return regions


def _contours(
    data: "Dataset",
    chosen: set[int],
    grid: SourceGrid,
    path: Path,
    warn: Callable[[str], None],
) -> list[_Contour]:
    found, left = [], 0
    for roi in data.get("ROIContourSequence") or []:
        number = int(roi.ReferencedROINumber)
        if number not in chosen:
            continue
        for item in roi.get("ContourSequence") or []:
            kind = str(item.get("ContourGeometricType") or "CLOSED_PLANAR").upper()
            values = np.array(item.get("ContourData") or [], float)
            # Of one or two points are those of the parts so small that an outline holds no more.
            if kind not in _CLOSED or not len(values):
                left += 1
                continue
            if len(values) % 3 or not np.isfinite(values).all():
                raise MipError(f"{path}: a contour of ROI {number} is no list of points x, y, z")
            places = grid.canonical_places(values.reshape(-1, 3))
            found.append(_Contour(number, places, kind == "CLOSEDPLANAR_XOR"))
    if left:
        warn(f"{path}: {left} contours are no closed lines, and hold no voxel")
    return found


def _axis(contours: list[_Contour], grid: SourceGrid, path: Path) -> int:
    """Axis (of z, y, x) along which the contours lie one behind the other."""
    depth = np.array([np.ptp(contour.places, axis=0) for contour in contours]).max(axis=0)
    flat = [axis for axis in range(3) if depth[axis] <= _SAME_SLICE]
    if not flat:
        raise MipError(
            f"{path}: its contours lie in no plane of the voxels (deviation of up to "
            f"{depth.min():.2f} slices); draw or export them on the slices of the PET"
        )
    # Of a contour that is flat in two ways, the slices of the file.
    step = np.subtract(grid.to_canonical_index((0, 0, 1)), grid.to_canonical_index((0, 0, 0)))
    own = int(np.abs(step).argmax())
    return own if own in flat else flat[0]


def _slots(
    levels: np.ndarray, count: int, path: Path, axis: int, warn: Callable[[str], None]
) -> list[list[int]]:
    """Slices of the grid that each contour fills.

    Args:
        levels: place of each contour along the axis, in slices.
        count: number of slices.
        path, axis, warn: for messages.
    """
    nearest = np.rint(levels)
    if np.abs(levels - nearest).max() <= _SAME_SLICE:
        return [[int(slot)] if 0 <= slot < count else [] for slot in nearest]
    planes = np.unique(np.round(levels, 2))
    gap = float(np.diff(planes).min()) if len(planes) > 1 else 1.0
    slots: list[list[int]] = [[] for _ in levels]
    for index in range(count):
        distance = np.abs(levels - index)
        if distance.min() <= gap / 2 + 1e-6:
            for near in np.flatnonzero(distance <= distance.min() + 0.01):
                slots[int(near)].append(index)
    warn(
        f"{path}: its contours lie on other slices than the PET's ({_PLANES[axis]}, {gap:.3g} of "
        "its slices apart), so each slice of the PET takes the nearest ones"
    )
    return slots
