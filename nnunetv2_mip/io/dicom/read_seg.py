"""Lesion mask of a DICOM segmentation (SEG), each frame at its own place in the patient."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.lesion_names import NamedRegion, choose_lesions
from nnunetv2_mip.io.dicom.pet import DicomPet
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.wording import counted

if TYPE_CHECKING:
    from pydicom import Dataset

# Probability or occupancy from which a voxel of a FRACTIONAL segment counts.
_HALF = 0.5
# Largest distance (in voxels) of a frame's corner from a voxel of the PET that is the same place.
_SAME_PLACE = 0.05
_ABNORMAL = {"49755003", "M-01000"}
_NEOPLASTIC = {
    *("108369006", "86049000", "14799000", "4147007", "52988006", "27925004", "228793007"),
    *("M-8FFFF", "M-80000", "M-80003", "M-80006", "M-03000", "M-01100", "M-03010"),
}
_ANATOMICAL = {"123037004", "T-D0050", "91723000", "T-D000A"}


@dataclass(frozen=True)
class _Frame:
    """Pixels of lesions of one frame.

    Attributes:
        pixels: (N, 2) row and column of those that are set.
        size: (rows, columns).
        corner: mm of the first pixel.
        right, down: mm from one column, one row, to the next.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    corner: np.ndarray
    right: np.ndarray
    down: np.ndarray


def seg_mask(
    data: "Dataset",
    grid: SourceGrid,
    path: Path,
    warn: Callable[[str], None],
    pet: DicomPet | None = None,
) -> np.ndarray:
    """Lesion mask (z, y, x) of 0 and 1, uint8, on a grid.

    Args:
        data: the SEG with its pixels.
        grid: that the mask is wanted on. Where the frames lie on other voxels, each voxel of the
            grid gets the nearest one's value, and `warn` a line.
        path: of the SEG.
        warn: gets lines for the user.
        pet: gives the place of frames that refer to its slices without one of their own.

    Raises:
        MipError: no lesions by name, unreadable pixels, or frames without a place.
    """
    chosen = choose_lesions(_segments(data), "segment", path, warn)
    frames, thickness = _frames(data, chosen, path, pet)
    mask = np.zeros(grid.shape_zyx, np.uint8)
    if not any(len(frame.pixels) for frame in frames):
        return mask
    placed = [_places(frame, grid) for frame in frames]
    if all(places is not None for places in placed):
        found = np.concatenate([places for places in placed if places is not None])
        inside = ((found >= 0) & (found < mask.shape)).all(axis=1)
        mask[tuple(found[inside].T)] = 1
        lost = int(np.count_nonzero(~inside)) * grid.voxel_ml
    else:
        mask, lost = _nearest(frames, thickness, grid, path, warn), 0.0
    if not mask.any():
        raise MipError(f"{path}: its lesions lie outside of the PET; is it of another study?")
    if lost:
        warn(f"{path}: {lost:.2f} ml of its lesions lie outside of the PET and are left out")
    return mask


def _segments(data: "Dataset") -> list[NamedRegion]:
    regions = []
    for item in data.get("SegmentSequence") or []:
        category, kind = (
            _code(item, f"SegmentedProperty{part}CodeSequence") for part in ("Category", "Type")
        )
        says = ""
        if category[0] in _ABNORMAL or kind[0] in _NEOPLASTIC:
            says = "lesion"
        elif category[0] in _ANATOMICAL and kind[1].lower() != "tissue":
            says = "other"
        number, label = int(item.SegmentNumber), str(item.get("SegmentLabel") or "")
        # LABELMAP lists what is no segment too.
        if number > 0:
            regions.append(NamedRegion(number, label or kind[1], says, kind[1]))
    return regions


def _code(item: "Dataset", keyword: str) -> tuple[str, str]:
    """Value and meaning of a code; empty where absent."""
    codes = item.get(keyword) or []
    if not codes:
        return "", ""
    return str(codes[0].get("CodeValue") or ""), str(codes[0].get("CodeMeaning") or "")


def _frames(
    data: "Dataset", chosen: set[int], path: Path, pet: DicomPet | None
) -> tuple[list[_Frame], float]:
    """Frames with their set pixels, and the distance of slices that the file claims (0: none)."""
    kind = str(data.get("SegmentationType") or "BINARY").upper()
    try:
        pixels = data.pixel_array
    except Exception as error:  # truncated pixels, or a compression without its decoder
        reason = " ".join(str(error).split())
        raise MipError(f"{path}: the pixels cannot be decoded: {reason}") from None
    count = int(data.get("NumberOfFrames") or 1)
    pixels = pixels.reshape(count, int(data.Rows), int(data.Columns))
    per_frame = data.get("PerFrameFunctionalGroupsSequence") or []
    if len(per_frame) != count:
        raise MipError(f"{path}: has {counted(count, 'frame')}, and the places of {len(per_frame)}")
    shared = (data.get("SharedFunctionalGroupsSequence") or [None])[0]
    level = 1.0
    if kind == "FRACTIONAL":
        level = _HALF * float(data.get("MaximumFractionalValue") or 255)
    uids = [str(header.get("SOPInstanceUID")) for header in pet.headers] if pet else []
    # Frames of one file share its UID, which says no place.
    sources = {uid: pet.headers[k] for k, uid in enumerate(uids) if pet and uids.count(uid) == 1}
    frames, thickness = [], 0.0
    for stored, own in zip(pixels, per_frame):
        if kind == "LABELMAP":
            inside = np.isin(stored, sorted(chosen))
        elif _segment_of(own, shared, path) in chosen:
            inside = stored >= level
        else:
            continue
        frame, claimed = _placed(np.argwhere(inside), stored.shape, own, shared, path, sources)
        frames.append(frame)
        thickness = thickness or claimed
    return frames, thickness


def _group(own: "Dataset", shared: "Dataset | None", keyword: str) -> "Dataset | None":
    """Functional group of a frame, or of all frames."""
    for holder in (own, shared):
        items = (holder.get(keyword) if holder is not None else None) or []
        if items:
            return items[0]
    return None


def _segment_of(own: "Dataset", shared: "Dataset | None", path: Path) -> int:
    group = _group(own, shared, "SegmentIdentificationSequence")
    if group is None:
        raise MipError(f"{path}: a frame does not say of which segment it is")
    return int(group.ReferencedSegmentNumber)


def _placed(
    pixels: np.ndarray,
    size: tuple[int, int],
    own: "Dataset",
    shared: "Dataset | None",
    path: Path,
    sources: dict[str, "Dataset"],
) -> tuple[_Frame, float]:
    """A frame at its place, and the distance of slices that its file claims (0: none)."""
    source = _source_slice(own, sources)
    values: list[Any] = []
    for sequence, keyword in (
        ("PlanePositionSequence", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing"),
    ):
        group = _group(own, shared, sequence)
        value = group.get(keyword) if group is not None else None
        if value is None and source is not None:
            value = source.get(keyword)
        if value is None:
            raise MipError(f"{path}: a frame has no {keyword}, so its place is unknown")
        values.append(np.array(value, float))
    position, cosines, (rows_mm, columns_mm) = values
    measures = _group(own, shared, "PixelMeasuresSequence")
    claimed = 0.0
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        claimed = claimed or abs(float((measures.get(keyword) if measures else 0) or 0))
    frame = _Frame(pixels, size, position, cosines[:3] * columns_mm, cosines[3:] * rows_mm)
    return frame, claimed


def _source_slice(own: "Dataset", sources: dict[str, "Dataset"]) -> "Dataset | None":
    """Header of the PET's slice that a frame was derived from."""
    for derivation in own.get("DerivationImageSequence") or []:
        for item in derivation.get("SourceImageSequence") or []:
            found = sources.get(str(item.get("ReferencedSOPInstanceUID")))
            if found is not None:
                return found
    return None


def _places(frame: _Frame, grid: SourceGrid) -> np.ndarray | None:
    """Voxels (z, y, x) of the set pixels; None where the frame does not lie on the grid's voxels.

    They may lie outside of the grid.
    """
    rows, columns = frame.size
    ends = (frame.corner, frame.corner + frame.right, frame.corner + frame.down)
    last = frame.corner + frame.right * (columns - 1) + frame.down * (rows - 1)
    start, right, down, end = grid.canonical_places(np.array([*ends, last]))
    first = np.rint(start)
    steps = np.rint(right - start), np.rint(down - start)
    reached = first + steps[0] * (columns - 1) + steps[1] * (rows - 1)
    unit = all(np.abs(step).sum() == 1 for step in steps)
    if not unit or max(np.abs(start - first).max(), np.abs(end - reached).max()) > _SAME_PLACE:
        return None
    return (first + frame.pixels[:, 1:] * steps[0] + frame.pixels[:, :1] * steps[1]).astype(int)


def _nearest(
    frames: list[_Frame],
    claimed_mm: float,
    grid: SourceGrid,
    path: Path,
    warn: Callable[[str], None],
) -> np.ndarray:
    """Mask on a grid of other voxels than the frames': each voxel as the nearest one of them."""
    first = frames[0]
    normal = np.cross(first.right, first.down)
    normal /= np.linalg.norm(normal)
    steps = np.array([first.right, first.down])
    if any(
        frame.size != first.size or np.abs(frame.right - first.right).max() > 1e-3
        or np.abs(frame.down - first.down).max() > 1e-3
        for frame in frames
    ):  # fmt: skip
        raise MipError(f"{path}: its frames differ in size, pixel spacing or orientation")
    along = np.array([frame.corner @ normal for frame in frames])
    gaps = np.diff(np.unique(np.round(along, 2)))
    gap = float(gaps.min()) if len(gaps) else claimed_mm
    if gap <= 0:
        raise MipError(
            f"{path}: has one slice and no slice distance; resample it to the PET's grid"
        )
    slots = np.rint((along - along.min()) / gap).astype(int)
    stack = np.zeros((slots.max() + 1, *first.size), bool)
    for slot, frame in zip(slots, frames):
        stack[slot][tuple(frame.pixels.T)] = True
    origin = frames[int(along.argmin())].corner
    whole = np.linalg.inv(np.stack([normal * gap, steps[1], steps[0]], axis=1))
    mask = np.zeros(grid.shape_zyx, np.uint8)
    set_mm = np.concatenate(
        [f.corner + f.pixels[:, 1:] * f.right + f.pixels[:, :1] * f.down for f in frames]
    )
    near = grid.canonical_places(set_mm)
    low = np.floor(near.min(axis=0) - _reach(first, gap, grid)).astype(int).clip(0)
    high = np.ceil(near.max(axis=0) + _reach(first, gap, grid)).astype(int) + 1
    centre = grid.canonical()
    box = tuple(slice(a, b) for a, b in zip(low, np.minimum(high, mask.shape)))
    for z in range(box[0].start, box[0].stop):
        y, x = np.mgrid[box[1], box[2]]
        points = np.stack([x, y, np.full_like(x, z)], axis=-1).reshape(-1, 3)
        points = points * np.array(centre.spacing) + np.array(centre.origin)
        index = np.rint((points - origin) @ whole.T).astype(int)
        inside = ((index >= 0) & (index < stack.shape)).all(axis=1)
        values = np.zeros(len(points), bool)
        values[inside] = stack[tuple(index[inside].T)]
        mask[z][box[1:]] = values.reshape(x.shape)
    there = stack.sum() * gap * float(np.prod(np.linalg.norm(steps, axis=1))) / 1000
    warn(
        f"{path}: lies on other voxels than the PET, so each voxel of the PET takes the nearest "
        f"one's value: {there:.2f} ml become {mask.sum() * grid.voxel_ml:.2f} ml"
    )
    return mask


def _reach(frame: _Frame, gap_mm: float, grid: SourceGrid) -> np.ndarray:
    """Half the diagonal of a voxel of the frames, in voxels of the grid (z, y, x)."""
    diagonal_mm = np.sqrt(gap_mm**2 + frame.right @ frame.right + frame.down @ frame.down)
    return diagonal_mm / 2 / np.array(grid.spacing_zyx)
