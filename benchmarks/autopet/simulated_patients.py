"""Scores of models on simulated patients, and their paired differences.

    nnUNetv2_mip_phantom -o COHORT -n 40 --seed 6003 --organs MAPS --variety wide
    python benchmarks/autopet/simulated_patients.py COHORT ... -o OUT [-device cpu] \\
        before=bundled after=MODEL_FOLDER 'plain=MODEL_FOLDER {"regions": null}'

A model is NAME=FOLDER, or NAME=bundled; settings that replace those of its inference.json can stand
behind it, as JSON. Every model predicts every study of the cohorts by the one predictor.
The first model is the one that the others are compared with. Patients are drawn for the intervals
(95 %, percentile bootstrap, 10,000 draws).

- Dice: of the studies with lesions.
- large masses: Dice of each lesion of the kind "large mass" with the predicted regions that touch
  it; the mean over a patient's masses where it has several.
- false ml: predicted regions that touch no lesion; in studies without lesions everything.

OUT gets `<name>.csv`, a row a study, and `table.md`. Run again, studies that are done are kept.
"""

import argparse
import csv
import json
import math
import time
from datetime import date
from pathlib import Path

import cc3d
import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.bootstrap import interval_over_groups
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.files import read_json
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.io.read_study import read_study
from nnunetv2_mip.io.volumes import read_mask
from nnunetv2_mip.lesions.components import LESION_CONNECTIVITY
from nnunetv2_mip.nnunet.model_folder import bundled_model
from nnunetv2_mip.nnunet.paths import add_own_trainers

COLUMNS = (
    "cohort",
    "patient",
    "study",
    "lesion_ml",
    "dice",
    "large_mass_dice",
    "large_mass_ml",
    "false_ml",
    "regions",
    "false_regions",
    "seconds",
)
LARGE_MASS = "large mass"
MEASURES = {
    "Dice": "dice",
    "Dice, large masses": "large_mass_dice",
    "false ml, with lesions": "false_ml",
    "false ml, without lesions": "false_ml",
    "share marked, without lesions": "marked",
}


def main() -> None:
    options = _options()
    add_own_trainers()
    options.out.mkdir(parents=True, exist_ok=True)
    studies = [
        (cohort, entry)
        for cohort in options.cohorts
        for entry in read_json(cohort / "cohort.json")["studies"]
    ]
    scores = {}
    for name, folder, settings in options.models:
        path = options.out / f"{name}.csv"
        rows = _rows_of(path)
        done = {(row["cohort"], row["patient"], row["study"]) for row in rows}
        predictor = None
        for cohort, entry in studies:
            key = (cohort.name, entry["patient"], entry["study"])
            if key in done:
                continue
            if predictor is None:
                predictor = MIPPredictor.from_model_folder(folder, device=options.device)
                predictor = predictor.override(**_choices(predictor.config, settings))
            row = {**dict(zip(COLUMNS, key)), **score(cohort, entry, predictor)}
            rows.append(row)
            _write_rows(path, rows)
        wanted = {(cohort.name, entry["patient"], entry["study"]) for cohort, entry in studies}
        scores[name] = [
            row for row in rows if (row["cohort"], row["patient"], row["study"]) in wanted
        ]
    table = table_of(scores)
    (options.out / "table.md").write_text(table)
    print(table)


def score(cohort: Path, entry: dict, predictor: MIPPredictor) -> dict:
    """Scores of one study: the columns of `COLUMNS` from `lesion_ml` on."""
    folder = cohort / entry["patient"] / entry["study"]
    study = read_study(folder / "SUV.nii.gz")
    truth = read_mask(folder / "SEG.nii.gz").array > 0
    started = time.perf_counter()
    mask = predictor.predict_study(study).mask > 0
    seconds = time.perf_counter() - started
    voxel_ml = math.prod(study.spacing_mm) / 1000
    regions = cc3d.connected_components(mask, connectivity=LESION_CONNECTIVITY[3])
    sizes = np.bincount(regions.ravel())
    right = np.unique(regions[truth])
    wrong = np.setdiff1d(np.arange(1, len(sizes)), right)
    masses = _large_masses(truth, entry, study)
    found = []
    for mass in masses:
        touching = np.unique(regions[mass])
        found.append(dice(np.isin(regions, touching[touching > 0]), mass))
    return {
        "lesion_ml": round(truth.sum() * voxel_ml, 3),
        "dice": round(dice(mask, truth), 4) if truth.any() else math.nan,
        "large_mass_dice": round(float(np.mean(found)), 4) if found else math.nan,
        "large_mass_ml": round(sum(mass.sum() for mass in masses) * voxel_ml, 1),
        "false_ml": round(float(sizes[wrong].sum()) * voxel_ml, 3),
        "regions": len(sizes) - 1,
        "false_regions": len(wrong),
        "seconds": round(seconds, 2),
    }


def _large_masses(truth: np.ndarray, entry: dict, study) -> list[np.ndarray]:
    """Components (z, y, x) bool of the truth, largest first, as many as there are large masses."""
    count = sum(lesion["kind"] == LARGE_MASS for lesion in entry["lesions"])
    parts = cc3d.connected_components(truth, connectivity=LESION_CONNECTIVITY[3])
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = np.argsort(-sizes)[:count]
    return [parts == part for part in largest if sizes[part]]


def table_of(scores: dict[str, list[dict]]) -> str:
    """Table in Markdown: each measure of each model, and the differences from the first model."""
    first = next(iter(scores))
    lines = [
        f"Simulated patients, {date.today()}. Differences are paired, against {first!r}.",
        "",
        "| measure | studies | "
        + " | ".join(scores)
        + " | "
        + " | ".join(f"{name} − {first}" for name in scores if name != first)
        + " |",
        "|---|---|" + "---|" * (2 * len(scores) - 1),
    ]
    for measure in MEASURES:
        values = {name: _values(rows, measure) for name, rows in scores.items()}
        keys = [key for key in values[first] if all(key in found for found in values.values())]
        if not keys:
            continue
        cells = [_interval([found[key] for key in keys]) for found in values.values()]
        cells += [
            _interval([found[key] - values[first][key] for key in keys], sign=True)
            for name, found in values.items()
            if name != first
        ]
        lines.append(f"| {measure} | {len(keys)} | " + " | ".join(cells) + " |")
    lines.append("")
    for name, rows in scores.items():
        seconds = [float(row["seconds"]) for row in rows]
        lines.append(f"{name}: {np.median(seconds):.1f} s a study (median).")
    return "\n".join(lines) + "\n"


def _values(rows: list[dict], measure: str) -> dict[tuple, float]:
    """Values of a measure by study; studies that have none are left out."""
    column, found = MEASURES[measure], {}
    for row in rows:
        healthy = float(row["lesion_ml"]) == 0
        if measure.endswith("without lesions") and not healthy:
            continue
        if measure.endswith("with lesions") and "without" not in measure and healthy:
            continue
        value = float(int(row["regions"]) > 0) if column == "marked" else float(row[column])
        if not math.isnan(value):
            found[(row["cohort"], row["patient"], row["study"])] = value
    return found


def _interval(values: list[float], sign: bool = False) -> str:
    low, high = interval_over_groups([[value] for value in values])
    plus = "+" if sign else ""
    return f"{np.mean(values):{plus}.3f} ({low:{plus}.3f} to {high:{plus}.3f})"


def _rows_of(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write_rows(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _choices(config: InferenceConfig, settings: dict) -> dict:
    """Settings of JSON as the choices of an `InferenceConfig`; those of `fusion` one by one."""
    content = config.to_dict()
    for key, value in settings.items():
        content[key] = {**content[key], **value} if key == "fusion" else value
    wanted = InferenceConfig.from_dict(content)
    return {key: getattr(wanted, key) for key in settings}


def _model(text: str) -> tuple[str, Path, dict]:
    """(name, folder, settings) of an argument NAME=FOLDER [JSON]."""
    name, _, rest = text.partition("=")
    folder, brace, settings = rest.partition("{")
    folder = folder.strip()
    return (
        name,
        bundled_model() if folder == "bundled" else Path(folder),
        json.loads(brace + settings) if brace else {},
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohorts", nargs="+", help="cohort folders, then NAME=FOLDER of models")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("-device", default="cpu")
    options = parser.parse_intermixed_args()
    options.models = [_model(text) for text in options.cohorts if "=" in text]
    options.cohorts = [Path(text) for text in options.cohorts if "=" not in text]
    if not options.models or not options.cohorts:
        parser.error("name at least one cohort and one model")
    for cohort in options.cohorts:
        if not (cohort / "cohort.json").is_file():
            raise MipError(f"{cohort}: no cohort of nnUNetv2_mip_phantom: no cohort.json")
    return options


if __name__ == "__main__":
    main()
