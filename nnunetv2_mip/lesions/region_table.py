"""Table of the regions of a mask in an image, as `lesion_table` is for volumes."""

import cc3d
import numpy as np

from nnunetv2_mip.conventions import LEVEL_MAX, PNG_PIXEL_MM
from nnunetv2_mip.lesions.components import LESION_CONNECTIVITY, detected

# Headings of the columns in reports.
TITLES = {
    "region": "Region",
    "area_cm2": "Area (cm²)",
    "max_uptake_percent": "Max. uptake (% of scale)",
    "max_probability": "Max. probability",
    "row": "Row",
    "column": "Column",
}


def region_table(
    mask: np.ndarray,
    levels: np.ndarray | None,
    pixel_mm: tuple[float, float] = (PNG_PIXEL_MM, PNG_PIXEL_MM),
    probability: np.ndarray | None = None,
    other: np.ndarray | None = None,
    min_overlap: float = 0.0,
) -> list[dict]:
    """Rows of the table, one a region (8-connected), the largest first.

    Args:
        mask: (H, W), non-zero is lesion.
        levels: (H, W) uint8, bright is uptake, or None.
        pixel_mm: (row, column) size of a pixel.
        probability: (H, W) in [0, 1]: adds the column `max_probability`.
        other: (H, W) another mask: adds the entry `hit`: whether it detects the region by the
            criterion of `components.detected`.
        min_overlap: of that criterion.

    Returns:
        Rows with the number from 1, the area in cm², the highest level in per cent of the scale
        (None without levels), the columns asked for, and the mean row and column.
    """
    regions = cc3d.connected_components(
        np.ascontiguousarray(np.asarray(mask) != 0), connectivity=LESION_CONNECTIVITY[2]
    )
    rows = [
        _region_row(regions == region, levels, pixel_mm, probability, other, min_overlap)
        for region in range(1, int(regions.max(initial=0)) + 1)
    ]
    rows.sort(key=lambda row: -row["area_cm2"])
    return [{"region": number, **row} for number, row in enumerate(rows, start=1)]


def _region_row(inside, levels, pixel_mm, probability, other, min_overlap) -> dict:
    """Row of one region, (H, W) bool, without its number."""
    where = np.nonzero(inside)
    size = len(where[0])
    row = {
        "area_cm2": round(size * pixel_mm[0] * pixel_mm[1] / 100, 2),
        "max_uptake_percent": None,
    }
    if levels is not None:
        row["max_uptake_percent"] = round(100 * float(levels[inside].max()) / LEVEL_MAX, 1)
    if probability is not None:
        row["max_probability"] = round(float(probability[inside].max()), 3)
    row["row"], row["column"] = (round(float(axis.mean()), 1) for axis in where)
    if other is not None:
        both = np.count_nonzero(other[inside])
        row["hit"] = bool(detected(np.array(size), np.array(both), min_overlap))
    return row
