"""Printed findings of a prediction: lesions, their volume and uptake, the files, what to open."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.wording import counted

if TYPE_CHECKING:
    from nnunetv2_mip.inference.predict_files import Written

# Rows of a table at most: lesions of one case, or cases.
TABLE_ROWS = 20
# Column heads → keys of a row of the lesion table, and of the table of regions; with a format.
LESION_COLUMNS = {
    "lesion": ("lesion", "d"),
    "ml": ("volume_ml", ".2f"),
    "SUVmax": ("suv_max", ".1f"),
    "SUVmean": ("suv_mean", ".1f"),
    "TLG g": ("tlg", ".1f"),
}
REGION_COLUMNS = {
    "region": ("region", "d"),
    "cm²": ("area_cm2", ".2f"),
    "uptake % of scale": ("max_uptake_percent", ".0f"),
    "probability": ("max_probability", ".2f"),
}
KINDS = {
    "mask": "mask",
    "lesions": "lesions",
    "picture": "picture",
    "probabilities": "probabilities",
    "views": "views",
    "seg": "DICOM SEG",
    "rtstruct": "DICOM RTSTRUCT",
    "sr": "DICOM SR",
}


def findings_of_one(written: "Written") -> list[str]:
    """Lines about one case: what was found, its table, its files, what to open."""
    lines = [f"{written.job.case}: {written.found}"]
    if written.rows:
        is_volume = "volume_ml" in written.rows[0]
        columns = LESION_COLUMNS if is_volume else REGION_COLUMNS
        cells = [
            [
                format(row[key], style) if row[key] is not None else "-"
                for key, style in columns.values()
            ]
            for row in written.rows[:TABLE_ROWS]
        ]
        lines += _table(list(columns), cells)
        if len(written.rows) > TABLE_ROWS:
            lines.append(f"  … and {len(written.rows) - TABLE_ROWS} smaller")
    lines.append("files:")
    width = max(len(KINDS[kind]) for kind in written.files)
    lines += [f"  {KINDS[kind]:<{width}}  {path}" for kind, path in written.files.items()]
    return [*lines, "open:", *(f"  {line}" for line in _what_to_open(written))]


def _what_to_open(written: "Written") -> list[str]:
    mask, source = written.files["mask"], written.job.source
    picture = written.files.get("picture")
    lines = [] if picture is None else [f"{picture} in a browser or image viewer"]
    if written.job.kind == "png":
        return [*lines, f"{mask} (white is lesion) beside {source}"]
    if "seg" in written.files:
        lines.append(f"{written.files['seg']} in a DICOM viewer, with the series in {source}")
    return [*lines, f"{mask} over {_volume_of(written)} in 3D Slicer or ITK-SNAP"]


def _volume_of(written: "Written") -> str:
    """The volume that the mask is looked at with."""
    source = written.job.source
    return f"the series in {source}" if source.is_dir() else str(source)


def findings_of_many(written: Sequence["Written"]) -> list[str]:
    """Lines about several cases: a row each, how many have lesions, the files, what to open."""
    shown = [one for one in written if one.rows is not None]
    lines: list[str] = []
    if shown:
        is_image = shown[0].job.kind == "png"
        noun, size, unit = (
            ("region", "area_cm2", "cm²") if is_image else ("lesion", "volume_ml", "ml")
        )
        ranked = shown
        if len(shown) > TABLE_ROWS:
            ranked = sorted(shown, key=lambda one: -_total(one, size))[:TABLE_ROWS]
        head = ["case", f"{noun}s", unit] + ["SUVmax"] * (not is_image)
        lines += _table(head, [_case_row(one, size, is_image) for one in ranked])
        if len(shown) > TABLE_ROWS:
            lines.append(f"  … and {len(shown) - TABLE_ROWS} with less")
        found = [one for one in shown if one.rows]
        count = sum(len(one.rows or ()) for one in found)
        lines.append(
            f"{counted(len(shown), 'case')}: {len(found)} with {noun}s ({counted(count, noun)}), "
            f"{len(shown) - len(found)} without"
        )
    lines += _files_of_many(written)
    return lines


def _case_row(one: "Written", size: str, is_image: bool) -> list[str]:
    rows = one.rows or []
    total = f"{_total(one, size):.2f}" if rows else "-"
    row = [one.job.case, str(len(rows)), total]
    if not is_image:
        row.append(f"{max(lesion['suv_max'] for lesion in rows):.1f}" if rows else "-")
    return row


def _total(one: "Written", size: str) -> float:
    return sum(row[size] for row in one.rows or ())


def _files_of_many(written: Sequence["Written"]) -> list[str]:
    """Lines that name the files by their pattern: they are alike for all cases."""
    patterns: dict[str, str] = {}
    for one in written:
        for kind, path in one.files.items():
            patterns.setdefault(KINDS[kind], str(path.parent / f"CASE{_ending(one, path)}"))
    width = max(map(len, patterns))
    lines = ["files (CASE: name of the case):"]
    lines += [f"  {kind:<{width}}  {pattern}" for kind, pattern in patterns.items()]
    if "picture" in patterns:
        lines.append(f"open: {patterns['picture']} in a browser")
    return lines


def _ending(one: "Written", path: Path) -> str:
    """Part of a file name behind the name of the case."""
    if path.name.startswith(one.job.case):
        return path.name[len(one.job.case) :]
    ending = next((s for s in VOLUME_SUFFIXES if path.name.endswith(s)), path.suffix)
    return os.fspath(ending)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: first column to the left, numbers to the right."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    return [
        "  "
        + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
        for row in [head, *rows]
    ]
