"""Table of scores, one row a study."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_mip.classification.classifier import StudyScore
from nnunetv2_mip.files import atomic_path

COLUMNS = ("case", "probability", "has_lesion", "views")


@dataclass(frozen=True)
class ScoreRow:
    """Case and score of one study."""

    case: str
    score: StudyScore


def write_scores(path: Path, rows: Sequence[ScoreRow]) -> None:
    """Write the table as CSV.

    Columns: case, probability, has_lesion (0 or 1), views (number of them), and the weights of the
    views as weight_0, weight_1, …; a study with fewer views leaves the last columns empty.
    """
    most = max((len(row.score.weights) for row in rows), default=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_path(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *(f"weight_{view}" for view in range(most))])
        for row in rows:
            weights = [f"{weight:.5f}" for weight in row.score.weights]
            writer.writerow(
                [
                    row.case,
                    f"{row.score.probability:.6f}",
                    int(row.score.has_lesion),
                    len(weights),
                    *weights,
                    *[""] * (most - len(weights)),
                ]
            )
