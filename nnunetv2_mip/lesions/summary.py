"""Summaries of lesion and region tables in a few words, for terminals and pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_mip.wording import counted


def amount(value: float, unit: str) -> str:
    """Value with a unit, to a tenth below 100: `2.1 ml`, `366 ml`; small ones to two digits."""
    if 0 < value < 0.095:
        return f"{value:.2g} {unit}"
    return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"


def describe_lesions(rows: Sequence[Mapping[str, Any]]) -> str:
    """Count, volume and highest SUV of the lesions of a `lesion_table`."""
    if not rows:
        return "no lesion"
    volume = amount(sum(row["volume_ml"] for row in rows), "ml")
    peaks = [row["suv_max"] for row in rows if row["suv_max"] is not None]
    parts = [counted(len(rows), "lesion"), volume + " in all" * (len(rows) > 1)]
    if peaks:
        parts.append(f"SUVmax {max(peaks):.1f}")
    return ", ".join(parts)


def describe_regions(rows: Sequence[Mapping[str, Any]]) -> str:
    """Count and area of the regions of a `region_table`."""
    if not rows:
        return "no region"
    area = amount(sum(row["area_cm2"] for row in rows), "cm²")
    return f"{counted(len(rows), 'region')}, {area}{' in all' * (len(rows) > 1)}"
