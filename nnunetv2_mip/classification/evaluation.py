"""The report of a cross-validated classifier: natural ratio, heights matched, calibration."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_mip.classification.baselines import BIN_MM
from nnunetv2_mip.classification.cross_validation import Judged
from nnunetv2_mip.classification.head_fitting import Study
from nnunetv2_mip.classification.metrics import (
    calibration_error,
    matched_scores,
    scores_with_intervals,
)
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path, null_for_nan, write_json

METRICS_NAME, TABLE_NAME = "metrics.json", "out_of_fold.csv"
SHOWN = ("auroc", "f1", "precision", "recall", "accuracy")


@dataclass(frozen=True)
class Evaluation:
    """What is measured of out-of-fold results.

    Attributes:
        natural: score → value and interval, all studies, natural threshold.
        matched: see `metrics.matched_scores`; None where nothing can be paired.
        calibration_error: expected calibration error over all studies.
    """

    natural: dict
    matched: dict | None
    calibration_error: float

    def to_dict(self) -> dict:
        return {
            "natural_ratio": self.natural,
            "heights_matched": self.matched,
            "calibration_error": self.calibration_error,
        }


def evaluate_judged(
    studies: Sequence[Study], judged: Judged, heights_mm: Sequence[float]
) -> Evaluation:
    """Score out-of-fold results.

    Args:
        studies: N.
        judged: their out-of-fold results.
        heights_mm: (N,) image heights, matched in bins of `BIN_MM`.
    """
    labels = [study.has_lesion for study in studies]
    patients = [study.patient for study in studies]
    natural = scores_with_intervals(
        labels, judged.probabilities, judged.decisions_natural, patients
    )
    try:
        matched = matched_scores(labels, judged.probabilities, judged.decisions, heights_mm, BIN_MM)
    except MipError:
        matched = None
    return Evaluation(natural, matched, calibration_error(labels, judged.probabilities))


def describe(name: str, evaluation: Evaluation) -> str:
    """Two lines: the natural ratio, and one to one with heights matched."""
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
    folder: Path, studies: Sequence[Study], judged: Judged, folds: dict[str, int], report: dict
) -> None:
    """Write `metrics.json` and `out_of_fold.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / METRICS_NAME, null_for_nan(report))
    with (
        atomic_path(folder / TABLE_NAME) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["case", "patient", "fold", "has_lesion", "probability", "decision"])
        for study, probability, decision in zip(studies, judged.probabilities, judged.decisions):
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
