"""Shared part of the recipe benchmarks: images of a fold, perturbed copies, scores, tables.

An image is a case of a converted DM-i-AI data set (`nnUNetv2_mip_convert_dmiai`), one view a case.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from nnunetv2_mip.conventions import LEVEL_MAX
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.bootstrap import interval_over_cases
from nnunetv2_mip.evaluation.comparison import compare
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.files import atomic_path, read_json
from nnunetv2_mip.nnunet.splits import SPLITS_FILE
from nnunetv2_mip.views.stack_files import read_stack

# How the perturbed half of the 2025 evaluation was mirrored.
FLIP_SHARES = {"hflip": 0.43, "vflip": 0.34, "both": 0.23}
FLIP_AXES = {"hflip": (1,), "vflip": (0,), "both": (0, 1)}
NOISE_SHARE = (0.07, 0.11)
# Share of the perturbed copies that have noise as well; the evaluation had "some".
NOISY_COPIES = 0.5
COPIES = ("clean", "hflip", "vflip", "both", "noise", "perturbed")
# The rule of the competition's kit: a pixel darker than this in the PNG is tumour.
KIT_RULE_BELOW = 50


@dataclass(frozen=True)
class Image:
    """One case: levels (H, W), truth (H, W) of 0 and 1, its patient."""

    case: str
    patient: str
    levels: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Copy:
    """Copy of an image: levels as a network sees them, and the axes to mirror a mask back."""

    levels: np.ndarray
    axes: tuple[int, ...]

    def back(self, answer: np.ndarray) -> np.ndarray:
        """An answer (H, W) in the orientation of the image."""
        return np.flip(answer, self.axes)


def folds_of(raw: Path) -> list[dict[str, list[str]]]:
    return read_json(raw / SPLITS_FILE)


def images_of(raw: Path, cases: Sequence[str]) -> Iterator[Image]:
    """Read cases of a raw data set whose stacks hold one view.

    Raises:
        MipError: a stack of several views.
    """
    patients = read_json(raw / "dataset.json")["mip"]["patients"]
    for case in cases:
        levels, _ = read_stack(raw / "imagesTr" / f"{case}_0000.nii.gz")
        truth, _ = read_stack(raw / "labelsTr" / f"{case}.nii.gz")
        if len(levels) != 1:
            raise MipError(f"{raw}: {case} has {len(levels)} views; this benchmark is for PNGs")
        yield Image(case, patients[case], levels[0].astype(np.uint8), (truth[0] == 1))


def copy_of(image: Image, kind: str) -> Copy:
    """A copy by the seed of its case: the same in every run, whatever else is run.

    Args:
        kind: `clean`; `hflip`, `vflip`, `both`; `noise` (salt and pepper on 7 to 11 % of the
            pixels); `perturbed` (a flip drawn as in the 2025 evaluation, half of them with noise).
    """
    seed = int.from_bytes(sha256(f"{kind}:{image.case}".encode()).digest()[:8], "little")
    generator = np.random.default_rng(seed)
    flip, noisy = kind, kind == "noise"
    if kind == "perturbed":
        flip = str(generator.choice(list(FLIP_SHARES), p=list(FLIP_SHARES.values())))
        noisy = generator.random() < NOISY_COPIES
    axes = FLIP_AXES.get(flip, ())
    levels = np.flip(image.levels, axes).copy()
    if noisy:
        share = generator.uniform(*NOISE_SHARE)
        drawn = generator.random(levels.shape)
        levels[drawn < share / 2] = 0
        levels[drawn > 1 - share / 2] = LEVEL_MAX
    return Copy(levels, axes)


def kit_rule(levels: np.ndarray) -> np.ndarray:
    """The kit's threshold on the PNG's own values (dark = uptake)."""
    return LEVEL_MAX - levels.astype(np.int16) < KIT_RULE_BELOW


def score(image: Image, mask: np.ndarray) -> dict:
    """Dice (NaN for a control), false positive pixels, and whether there is a lesion."""
    return {
        "has_lesion": bool(image.truth.any()),
        "dice": dice(mask, image.truth) if image.truth.any() else math.nan,
        "false_positive_pixels": int((mask.astype(bool) & ~image.truth).sum()),
        "predicted_pixels": int(np.count_nonzero(mask)),
    }


def write_rows(rows: list[dict], path: Path) -> None:
    """Rows as CSV, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["has_lesion"] = row["has_lesion"] == "True"
        for name in ("dice", "seconds"):
            row[name] = float(row[name])
        for name in ("false_positive_pixels", "predicted_pixels"):
            row[name] = int(row[name])
    return rows


class ScoreFolder:
    """Folder of scores that later trainings add to, small enough for the repository.

    `<recipe>.csv` has a row for each image and copy, `trainings.csv` one for each recipe and fold:
    iterations, parameters, minutes. No images, no masks.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def trainings(self) -> list[dict]:
        return self._read("trainings.csv")

    def rows(self) -> list[dict]:
        """All rows, the recipes in the order in which they came."""
        names = dict.fromkeys(row["recipe"] for row in self.trainings())
        return [row for name in names for row in read_rows(self._file(name))]

    def has(self, recipe: str, fold: int, iterations: int) -> bool:
        """Whether a recipe's fold is there.

        Raises:
            MipError: the recipe is there with another number of iterations.
        """
        there = [row for row in self.trainings() if row["recipe"] == recipe]
        for row in there:
            if row["iterations"] != str(iterations):
                raise MipError(
                    f"{self.folder}: {recipe} is there with {row['iterations']} iterations, not "
                    f"{iterations}; choose another --scores or another name"
                )
        return any(row["fold"] == str(fold) for row in there)

    def add(self, rows: list[dict], iterations: int, parameters: int, minutes: float) -> None:
        """Add one fold of one recipe; what was there of it is replaced."""
        recipe, fold = rows[0]["recipe"], str(rows[0]["fold"])
        path = self._file(recipe)
        others = read_rows(path) if path.is_file() else []
        others = [row for row in others if row["fold"] != fold]
        kept = [row | {"dice": round(float(row["dice"]), 4)} for row in rows]
        write_rows(sorted([*others, *kept], key=lambda row: int(row["fold"])), path)
        about = {"recipe": recipe, "fold": fold, "iterations": iterations}
        about |= {"parameters": parameters, "minutes": round(minutes, 2)}
        trainings = [
            row for row in self.trainings() if (row["recipe"], row["fold"]) != (recipe, fold)
        ]
        write_rows([*trainings, about], self.folder / "trainings.csv")

    def notes(self) -> dict[str, dict]:
        """For `table`: iterations, parameters, mean minutes of the folds that were timed."""
        found = {}
        for row in self.trainings():
            new = {"parameters": int(row["parameters"]), "iterations": set()}
            note = found.setdefault(row["recipe"], new)
            note["iterations"].add(int(row["iterations"]))
            if float(row["minutes"]) > 0:
                note.setdefault("all", []).append(float(row["minutes"]))
        for note in found.values():
            # Folds whose training was stopped have fewer.
            least, most = min(note["iterations"]), max(note["iterations"])
            note["iterations"] = (
                "" if not most else f"{least}–{most}" if least < most else f"{most}"
            )
            if minutes := note.pop("all", None):
                note["training_minutes"] = sum(minutes) / len(minutes)
        return found

    def _file(self, recipe: str) -> Path:
        return self.folder / f"{re.sub('[^A-Za-z0-9]+', '_', recipe).strip('_')}.csv"

    def _read(self, name: str) -> list[dict]:
        path = self.folder / name
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))


def summary(rows: list[dict]) -> dict:
    """Means over the cases of `rows` (one recipe, one kind of copy), any number of folds."""
    values = [row["dice"] for row in rows if row["has_lesion"]]
    controls = [row["predicted_pixels"] for row in rows if not row["has_lesion"]]
    return {
        "patients": len(values),
        "dice": float(np.mean(values)) if values else math.nan,
        "interval_95": list(interval_over_cases(values)),
        "controls": len(controls),
        "controls_marked": sum(pixels > 0 for pixels in controls),
        "control_pixels": float(np.mean(controls)) if controls else math.nan,
        "seconds": float(np.mean([row["seconds"] for row in rows])),
    }


def difference(first: list[dict], second: list[dict]) -> dict:
    """`comparison.compare` of two recipes on the same images, paired, over patients."""
    reports = []
    for rows in (first, second):
        cases = {row["case"]: row for row in rows}
        reports.append({"kind": "png", "cases": cases})
    return compare(*reports, {row["case"]: row["patient"] for row in first})


def table(all_rows: list[dict], reference: str, notes: dict[str, dict] | None = None) -> str:
    """Markdown: a line a recipe; differences are to `reference`, on the folds that both have."""
    recipes = list(dict.fromkeys(row["recipe"] for row in all_rows))
    copies = [kind for kind in COPIES if any(row["copy"] == kind for row in all_rows)]
    compared = [kind for kind in ("clean", "perturbed") if kind in copies]
    heads = ["recipe", "folds", "patients", "iterations", "parameters", "training min"]
    heads += ["s an image"]
    heads += [f"Dice {kind} (95 %)" for kind in copies]
    heads += [f"{kind} against {reference}" for kind in compared]
    heads += ["controls marked (mean pixels)"]
    lines = [table_line(heads), "|---" * len(heads) + "|"]

    def of(recipe: str, kind: str) -> list[dict]:
        return [row for row in all_rows if row["recipe"] == recipe and row["copy"] == kind]

    for recipe in recipes:
        note = (notes or {}).get(recipe, {})
        clean = of(recipe, "clean")
        total = summary(clean)
        folds = sorted({str(row["fold"]) for row in clean})
        parameters, minutes = note.get("parameters"), note.get("training_minutes")
        cells = [recipe, ", ".join(folds), str(total["patients"]), note.get("iterations", "")]
        cells += [f"{parameters / 1e6:.1f} M" if parameters else ""]
        cells += [f"{minutes:.1f}" if minutes else "", f"{total['seconds']:.2f}"]
        for kind in copies:
            rows = of(recipe, kind)
            found = summary(rows) if rows else None
            cells.append(_with_interval(found["dice"], found["interval_95"]) if found else "")
        for kind in compared:
            cells.append(
                "" if recipe == reference else _paired(of(recipe, kind), of(reference, kind))
            )
        marked = f"{total['controls_marked']} of {total['controls']}"
        lines.append(table_line([*cells, f"{marked} ({total['control_pixels']:.0f})"]))
    return "\n".join(lines)


def table_line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def _with_interval(value: float, interval: Sequence[float], sign: str = "") -> str:
    low, high = interval
    between = " to " if sign else "–"
    return f"{value:{sign}.3f} ({low:{sign}.3f}{between}{high:{sign}.3f})"


def _paired(rows: list[dict], reference: list[dict]) -> str:
    """The difference on the cases that both have."""
    shared = {row["case"] for row in rows} & {row["case"] for row in reference}
    if not shared:
        return ""
    parts = [[row for row in part if row["case"] in shared] for part in (rows, reference)]
    paired = difference(*parts)
    return _with_interval(paired["dice_difference"], paired["interval_95"], "+")


def save_probability(probability: np.ndarray, path: Path) -> None:
    """(H, W) in [0, 1] as 8 bits, which is all a threshold in steps of 0.01 needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, levels=np.rint(probability * 255).astype(np.uint8))


def load_probability(path: Path) -> np.ndarray:
    with np.load(path) as content:
        return content["levels"].astype(np.float32) / 255


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_text(text, "utf-8")


def as_json(content: dict) -> str:
    return json.dumps(content, indent=1) + "\n"


def read_notes(path: Path) -> dict:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
