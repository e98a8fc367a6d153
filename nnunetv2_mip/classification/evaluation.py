"""Evaluation of a cross-validated classifier: natural ratio, heights matched, calibration."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_mip.classification.baselines import BIN_MM
from nnunetv2_mip.classification.cross_validation import OutOfFold
from nnunetv2_mip.classification.matched_scores import matched_scores
from nnunetv2_mip.classification.metrics import (
    calibration_error,
    scores_with_intervals,
)
from nnunetv2_mip.classification.study_labels import StudyLabel
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path, null_for_nan, write_json

METRICS_NAME, TABLE_NAME = "metrics.json", "out_of_fold.csv"
SHOWN = ("auroc", "f1", "precision", "recall", "accuracy")


@dataclass(frozen=True)
class Evaluation:
    """Scores of out-of-fold results.

    Attributes:
        natural: score → value and interval over all studies, at the natural threshold.
        matched: see `matched_scores.matched_scores`; None where no studies can be paired.
        calibration_error: expected calibration error over all studies.
    """

    natural: dict
    matched: dict | None
    calibration_error: float

    def to_dict(self) -> dict:
        """Entries of `metrics.json`."""
        return {
            "natural_ratio": self.natural,
            "heights_matched": self.matched,
            "calibration_error": self.calibration_error,
        }


def evaluate_out_of_fold(
    studies: Sequence[StudyLabel], results: OutOfFold, heights_mm: Sequence[float]
) -> Evaluation:
    """Evaluation of out-of-fold results.

    Args:
        studies: N.
        results: of the N studies.
        heights_mm: (N,) image heights, matched in bins of `BIN_MM`.
    """
    labels = [study.has_lesion for study in studies]
    patients = [study.patient for study in studies]
    natural = scores_with_intervals(
        labels, results.probabilities, results.decisions_natural, patients
    )
    try:
        matched = matched_scores(
            labels, results.probabilities, results.decisions, heights_mm, BIN_MM
        )
    except MipError:
        matched = None
    return Evaluation(natural, matched, calibration_error(labels, results.probabilities))


def describe(name: str, evaluation: Evaluation) -> str:
    """Printed lines: scores at the natural ratio, and at one to one with heights matched."""
    lines = [f"{name}, natural ratio: {_scores(evaluation.natural)}"]
    if evaluation.matched is not None:
        pairs = evaluation.matched["pairs"]
        lines.append(
            f"{name}, one to one with heights matched ({pairs:.0f} pairs): "
            f"{_scores(evaluation.matched['scores'])}"
        )
    return "\n".join(lines)


def _scores(scores: dict) -> str:
    return ", ".join(
        "{} {value:.3f} ({low:.3f}–{high:.3f})".format(
            name.upper() if name in ("auroc", "f1") else name, **scores[name]
        )
        for name in SHOWN
    )


def write_evaluation(
    folder: Path,
    studies: Sequence[StudyLabel],
    results: OutOfFold,
    folds: dict[str, int],
    report: dict,
) -> None:
    """Write `metrics.json` and `out_of_fold.csv`.

    Args:
        folder: made where it does not exist.
        studies: N.
        results: their out-of-fold results.
        folds: case → fold.
        report: content of `metrics.json`, NaN is written as null.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / METRICS_NAME, null_for_nan(report))
    with (
        atomic_path(folder / TABLE_NAME) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["case", "patient", "fold", "has_lesion", "probability", "decision"])
        for study, probability, decision in zip(studies, results.probabilities, results.decisions):
            writer.writerow(
                [
                    study.case,
                    study.patient,
                    folds[study.case],
                    int(study.has_lesion),
                    f"{probability:.6f}",
                    int(decision),
                ]
            )
