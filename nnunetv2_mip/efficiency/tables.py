"""Tables of an efficiency study: finished cells as rows, CSV, JSON and Markdown.

The three Markdown tables have the shape of those in arXiv 2510.09326: 3D against MIP, numbers of
views, and efficiency.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nnunetv2_mip.evaluation.bootstrap import interval_over_groups
from nnunetv2_mip.files import atomic_path, read_json, write_json

# Names in the folder of a study (see `efficiency.experiment`).
SETTINGS_FILE = "settings.json"
CELLS, TRAINING = "cells", "training"
VOLUME_CELL = "3d"
# nnU-Net's epoch.
ITERATIONS_AN_EPOCH = 250
# Means over studies, with an interval over patients.
SCORES = (
    "dice_2d",
    "hd95_2d_mm",
    "dice_projected",
    "hd95_projected_mm",
    "dice_3d",
    "hd95_3d_mm",
    "fpv_ml",
    "fnv_ml",
)
# Summaries of the costs of a study over the studies.
_COST_SUMMARIES: dict[str, Callable[[list[float]], float]] = {
    "seconds": np.median,
    "cpu_seconds": np.median,
    "peak_mb": np.max,
    "peak_gpu_mb": np.max,
    "energy_wh": np.mean,
    "processor_wh": np.mean,
}


def write_tables(out: Path | str) -> dict:
    """Content of `study.json`, which is written with `study.csv`, `cases.csv` and `tables.md`.

    It has `settings`, `rows` (see `rows_of`) and the names of `unfinished` cells.
    """
    out = Path(out)
    settings = read_json(out / SETTINGS_FILE)
    cells, unfinished = _finished_cells(out, settings)
    rows = rows_of(cells, settings, _training(out, settings))
    report = {"settings": settings, "rows": rows, "unfinished": unfinished}
    _write_csv(out / "study.csv", rows)
    records = [
        {"model": name, "views": cell, **record}
        for (name, cell), found in cells.items()
        for record in found
    ]
    _write_csv(out / "cases.csv", records)
    write_json(out / "study.json", report)
    with atomic_path(out / "tables.md") as partial:
        partial.write_text(markdown(rows), "utf-8")
    return report


def rows_of(cells: dict, settings: dict, training: dict) -> list[dict]:
    """Rows of the table, one for each cell.

    Args:
        cells: (network, views or `3d`) → records of all studies.
        settings: of `settings.json`.
        training: network → record of an iteration.

    Returns:
        rows with `model`, `kind`, `trained_views`, `views`, `studies`, `patients`; the mean of each
        of `SCORES` over the studies where it is defined, with `_low` and `_high` (95 %, bootstrap
        over patients); `dice_difference` with the same, paired, against the first network at its
        most views; `tflop` and `energy_wh`, `processor_wh` (means a study), `seconds`,
        `cpu_seconds` (medians), `peak_mb`, `peak_gpu_mb` (highest), `parameters`; of an epoch of
        250 iterations `epoch_tflop`, `epoch_seconds`, `epoch_cpu_seconds`, `epoch_wh`,
        `epoch_processor_wh`. None where there is no value.
    """
    if not cells:
        return []
    reference = _reference_cell(cells)
    rows = []
    for key, records in cells.items():
        (name, cell), model = key, settings["models"][key[0]]
        row = {
            "model": name,
            "kind": "3d" if model["volumetric"] else "mip",
            "trained_views": model["trained_views"],
            "views": None if cell == VOLUME_CELL else int(cell),
            "studies": len(records),
            "patients": len({record["patient"] for record in records}),
        }
        for score in SCORES:
            values = [(record["patient"], record.get(score)) for record in records]
            row |= _with_interval(score, values)
        other = {record["case"]: record["dice_3d"] for record in cells[reference]}
        differences = [
            (record["patient"], record["dice_3d"] - other[record["case"]])
            for record in records
            if None not in (record["dice_3d"], other[record["case"]])
        ]
        # Nothing differs from itself.
        row |= _with_interval("dice_difference", [] if key == reference else differences)
        rows.append(row | _study_costs(records) | _epoch_costs(training.get(name)))
    return rows


def _reference_cell(cells: dict) -> tuple[str, str]:
    """Cell that others are compared with: the first network, with the most views it has."""
    reference = next(iter(cells))
    for key in cells:
        if key[0] == reference[0] and key[1] != VOLUME_CELL:
            reference = max(reference, key, key=lambda cell: int(cell[1]))
    return reference


def _study_costs(records: list[dict]) -> dict:
    """Columns of a row for the cost of a study."""
    row = {
        "tflop": float(np.mean([record["operations"] for record in records])) / 1e12,
        "parameters": records[0]["parameters"],
    }
    for cost, summary in _COST_SUMMARIES.items():
        values = [record[cost] for record in records]
        row[cost] = None if None in values else float(summary(values))
    reasons = sorted({record["energy_missing"] for record in records} - {None})
    return row | {"energy_missing": reasons[0] if reasons else None}


def _epoch_costs(record: dict | None) -> dict:
    """Columns of a row for the cost of an epoch; None in each without a record of training."""
    names = ("seconds", "cpu_seconds", "wh", "processor_wh")
    if record is None:
        return dict.fromkeys(("epoch_tflop", *(f"epoch_{name}" for name in names)))
    row = {"epoch_tflop": record["operations"] * ITERATIONS_AN_EPOCH / 1e12}
    for name in names:
        value = record["energy_wh" if name == "wh" else name]
        row[f"epoch_{name}"] = None if value is None else value * ITERATIONS_AN_EPOCH
    return row


def _with_interval(name: str, values: list[tuple[str, float | None]]) -> dict:
    """Columns of a score for (patient, value) pairs: mean, and low and high of its interval."""
    groups = defaultdict(list)
    for patient, value in values:
        if value is not None:
            groups[patient].append(value)
    if not groups:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    low, high = (None if math.isnan(x) else x for x in interval_over_groups(list(groups.values())))
    mean = float(np.mean([value for group in groups.values() for value in group]))
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _finished_cells(out: Path, settings: dict) -> tuple[dict, list[str]]:
    """Finished cells with their records, in the order of networks and views; unfinished names."""
    cells, unfinished = {}, []
    for name in settings["models"]:
        folders = [folder for folder in (out / CELLS / name).glob("*") if folder.is_dir()]
        for folder in sorted(folders, key=lambda f: int(f.name) if f.name.isdigit() else 0):
            paths = [folder / f"{case}.json" for case in settings["studies"]]
            if all(path.is_file() for path in paths):
                cells[name, folder.name] = [read_json(path) for path in paths]
            else:
                unfinished.append(f"{name}/{folder.name}")
    return cells, unfinished


def _training(out: Path, settings: dict) -> dict:
    paths = {name: out / TRAINING / f"{name}.json" for name in settings["models"]}
    return {name: read_json(path) for name, path in paths.items() if path.is_file()}


def _write_csv(path: Path, rows: list[dict]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def markdown(rows: list[dict]) -> str:
    """Three Markdown tables: 3D against MIP, numbers of views, efficiency."""
    parts = []
    volumetric = [row for row in rows if row["kind"] == "3d"]
    most = {row["model"]: row for row in rows if row["kind"] == "mip"}
    if volumetric and most:
        parts.append(
            "**3D against MIP** (2D: views that a 2D network segmented; projected: the 3D mask "
            "onto the reference views)\n\n" + _table([*volumetric, *most.values()], _SEGMENTATION)
        )
    parts.append(
        "**Views** (mean, 95 % interval over patients)\n\n"
        + _table([row for row in rows if row["kind"] == "mip"], _VIEWS)
    )
    parts.append("**Efficiency**\n\n" + _table(rows, _EFFICIENCY))
    return "\n\n".join(parts) + "\n"


def _with(name: str, digits: int):
    def cell(row: dict) -> str:
        mean, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
        if mean is None:
            return ""
        if low is None:
            return f"{mean:.{digits}f}"
        return f"{mean:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"

    return cell


def _plain(name: str, style: str):
    return lambda row: "" if row[name] is None else format(row[name], style)


def _difference(row: dict) -> str:
    mean, low, high = (row[f"dice_difference{end}"] for end in ("", "_low", "_high"))
    if mean is None or low is None:
        return ""
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


_NAME = {"network": lambda row: row["model"], "views": _plain("views", "d")}
_SEGMENTATION = {
    **_NAME,
    "2D Dice": _with("dice_2d", 3),
    "2D HD95 mm": _with("hd95_2d_mm", 1),
    "projected Dice": _with("dice_projected", 3),
    "projected HD95 mm": _with("hd95_projected_mm", 1),
    "3D Dice": _with("dice_3d", 3),
    "3D Dice, difference": _difference,
    "FPV ml": _with("fpv_ml", 2),
    "FNV ml": _with("fnv_ml", 2),
}
_VIEWS = {
    **_NAME,
    "trained on": _plain("trained_views", "d"),
    "2D Dice": _with("dice_2d", 3),
    "2D HD95 mm": _with("hd95_2d_mm", 1),
    "3D Dice": _with("dice_3d", 3),
    "3D Dice, difference": _difference,
    "FPV ml": _with("fpv_ml", 2),
    "FNV ml": _with("fnv_ml", 2),
}
_EFFICIENCY = {
    **_NAME,
    "parameters": _plain("parameters", ",d"),
    "TFLOP a study": _plain("tflop", ".4f"),
    "CPU s": _plain("cpu_seconds", ".2f"),
    "s": _plain("seconds", ".2f"),
    "peak MB": _plain("peak_mb", ".0f"),
    "mWh a study, estimate (CPU and GPU alone)": lambda row: (
        ""
        if row["energy_wh"] is None
        else f"{row['energy_wh'] * 1000:.2f} ({row['processor_wh'] * 1000:.2f})"
    ),
    "TFLOP an epoch": _plain("epoch_tflop", ".1f"),
    "CPU s an epoch": _plain("epoch_cpu_seconds", ".0f"),
    "Wh an epoch, estimate (CPU and GPU alone)": lambda row: (
        ""
        if row["epoch_wh"] is None
        else f"{row['epoch_wh']:.2f} ({row['epoch_processor_wh']:.2f})"
    ),
}


def _table(rows: list[dict], columns: dict) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell(row) for cell in columns.values())} |" for row in rows]
    return "\n".join(lines)
