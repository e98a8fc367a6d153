"""Table of the lesions of a mask: volume, uptake and position, as a CSV beside the mask."""

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import without_suffix
from nnunetv2_mip.lesions.components import detected, lesion_centres_mm, lesion_voxels

LESION_TABLE_SUFFIX = "_lesions.csv"
COLUMNS = ("lesion", "volume_ml", "suv_max", "suv_mean", "tlg", "x_mm", "y_mm", "z_mm")
# Headings of the columns in reports.
TITLES = {
    "lesion": "Lesion",
    "volume_ml": "Volume (ml)",
    "suv_max": "SUVmax",
    "suv_mean": "SUVmean",
    "tlg": "TLG (g)",
    "x_mm": "x (mm)",
    "y_mm": "y (mm)",
    "z_mm": "z (mm)",
}


def lesion_table(
    mask: np.ndarray,
    suv: np.ndarray | None,
    grid: SourceGrid,
    other: np.ndarray | None = None,
    min_overlap: float = 0.0,
) -> list[dict]:
    """Rows of the table, one a lesion (18-connected), the largest first.

    Args:
        mask: (z, y, x), canonical axes, non-zero is lesion.
        suv: (z, y, x) SUV on the same grid, or None.
        grid: of both.
        other: (z, y, x) another mask on the same grid. It adds the entry `hit`: whether it detects
            the lesion by the criterion of `components.detected`.
        min_overlap: of that criterion.

    Returns:
        Rows with the keys `COLUMNS`: number from 1, volume in ml, highest and mean SUV, total
        lesion glycolysis (TLG, mean SUV × ml; Larson et al., Clin. Positron Imaging 2, 1999), and
        the mean position in physical LPS mm. Without `suv` the entries that need it are None.
    """
    zyx, starts = lesion_voxels(mask)
    if not len(zyx):
        return []
    rows = []
    for centre, (first, last) in zip(lesion_centres_mm(zyx, starts, grid), pairwise(starts)):
        volume_ml = float(last - first) * grid.voxel_ml
        uptake: dict[str, float | None] = dict.fromkeys(("suv_max", "suv_mean", "tlg"))
        if suv is not None:
            values = suv[tuple(zyx[first:last].T)].astype(np.float64)
            uptake = {
                "suv_max": round(float(values.max()), 3),
                "suv_mean": round(float(values.mean()), 3),
                "tlg": round(float(values.mean()) * volume_ml, 3),
            }
        place = dict(zip(("x_mm", "y_mm", "z_mm"), (round(float(value), 1) for value in centre)))
        row: dict[str, Any] = {"volume_ml": round(volume_ml, 4), **uptake, **place}
        if other is not None:
            both = np.count_nonzero(other[tuple(zyx[first:last].T)])
            row["hit"] = bool(detected(np.array(last - first), np.array(both), min_overlap))
        rows.append(row)
    rows = [rows[index] for index in _largest_first(starts, grid)]
    return [{"lesion": number, **row} for number, row in enumerate(rows, start=1)]


def _largest_first(starts: np.ndarray, grid: SourceGrid) -> list[int]:
    """Indices of the lesions of `lesion_voxels` in the order of the table."""
    volumes = np.round(np.diff(starts) * grid.voxel_ml, 4)
    return np.argsort(-volumes, kind="stable").tolist()


def lesion_numbers(mask: np.ndarray, grid: SourceGrid) -> np.ndarray:
    """Number of the lesion in the table of a mask, at each voxel; 0 outside.

    Args:
        mask: (z, y, x), canonical axes, non-zero is lesion.
        grid: of the mask.

    Returns:
        (z, y, x) uint16, or uint32 of more lesions than that can count.
    """
    zyx, starts = lesion_voxels(mask)
    order = _largest_first(starts, grid)
    numbers = np.zeros(mask.shape, np.uint16 if len(order) < 1 << 16 else np.uint32)
    for number, index in enumerate(order, start=1):
        numbers[tuple(zyx[starts[index] : starts[index + 1]].T)] = number
    return numbers


def lesion_table_path(mask_path: Path | str) -> Path:
    """Path of the table beside a mask: `NAME.nii.gz` → `NAME_lesions.csv`."""
    path = Path(mask_path)
    name = without_suffix(path, (*VOLUME_SUFFIXES, path.suffix.lower()))
    return path.with_name(name + LESION_TABLE_SUFFIX)


def write_lesion_table(rows: list[dict], path: Path | str) -> None:
    """Write the CSV of `lesion_table`; without lesions it has a header only."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial, partial.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
