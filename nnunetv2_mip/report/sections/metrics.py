"""Section "Metrics": mean scores, remarks on the counts, plots."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from nnunetv2_mip.evaluation.bootstrap import interval_over_cases
from nnunetv2_mip.evaluation.summary import BOOTSTRAP_SEED
from nnunetv2_mip.report import charts
from nnunetv2_mip.report.case_facts import common_unit, lesion_size
from nnunetv2_mip.report.content import ReportContent
from nnunetv2_mip.report.formatting import fixed
from nnunetv2_mip.report.svg_plot import Chart, Point

NAMES_SHOWN = 5


@dataclass(frozen=True)
class Score:
    """Score of the evaluation as the page names it.

    Attributes:
        name: with its unit.
        meaning: in a few words.
        decimals: shown.
    """

    name: str
    meaning: str
    decimals: int


# Key in the evaluation's result → score, in the order of the page.
SCORES = {
    "dice": Score("Dice", "overlap of prediction and truth, 0 to 1; cases with lesions only", 3),
    "hd95_mm": Score("HD95 (mm)", "95th percentile of the distances between the surfaces", 1),
    "false_positive_volume_ml": Score(
        "FPV (ml)", "predicted lesions without any true voxel (autoPET)", 2
    ),
    "false_negative_volume_ml": Score(
        "FNV (ml)", "true lesions without any predicted voxel (autoPET)", 2
    ),
    "false_positive_pixels": Score("False positive (px)", "predicted pixels that are no lesion", 0),
    "false_negative_pixels": Score(
        "False negative (px)", "lesion pixels that are not predicted", 0
    ),
    "lesion_recall": Score("Lesion recall", "found lesions of all true ones, case by case", 3),
    "lesion_precision": Score(
        "Lesion precision", "right lesions of all predicted ones, case by case", 3
    ),
    "lesion_f1": Score("Lesion F1", "harmonic mean of the two", 3),
    "true_volume_ml": Score("True volume (ml)", "of all lesions of a case", 2),
    "predicted_volume_ml": Score("Predicted volume (ml)", "of all predicted lesions of a case", 2),
    "true_pixels": Score("True pixels", "of all lesions of a case", 0),
    "predicted_pixels": Score("Predicted pixels", "of all predicted lesions of a case", 0),
}


@dataclass(frozen=True)
class ScoreRow:
    """Row of the table of mean scores.

    Attributes:
        key: of the score in the evaluation's result.
        name, meaning: of the score.
        mean, interval: as text.
        cases: number of cases in which the score is defined.
    """

    key: str
    name: str
    meaning: str
    mean: str
    interval: str
    cases: int


@dataclass(frozen=True)
class MetricsSection:
    """Values of the metrics section: rows of the table, a paragraph on the counts, plots."""

    id: ClassVar[str] = "metrics"
    title: ClassVar[str] = "Metrics"
    template: ClassVar[str] = "metrics.html"
    rows: list[ScoreRow]
    remarks: str
    charts: list[Chart]


def metrics_section(content: ReportContent) -> MetricsSection | None:
    """Mean scores of the cases; None without scores."""
    scores = content.scores
    if scores is None:
        return None
    rows = [_row(scores, key, score) for key, score in SCORES.items() if key in scores["mean"]]
    return MetricsSection(rows, _remarks(scores), _charts(content, scores))


def _row(scores: dict, key: str, score: Score) -> ScoreRow:
    values = [case[key] for case in scores["cases"].values()]
    low, high = (
        scores["dice_interval_95"] if key == "dice" else interval_over_cases(values, BOOTSTRAP_SEED)
    )
    has_interval = not math.isnan(low)
    ends = f"{fixed(low, score.decimals)}–{fixed(high, score.decimals)}"
    return ScoreRow(
        key,
        score.name,
        score.meaning,
        fixed(scores["mean"][key], score.decimals),
        ends if has_interval else "–",
        sum(not math.isnan(value) for value in values),
    )


def _remarks(scores: dict) -> str:
    remarks = []
    if "pooled" in scores:
        counts, pooled = scores["counts"], scores["pooled"]
        remarks.append(
            f"Over all lesions together: recall {fixed(pooled['lesion_recall'], 3)} "
            f"({counts['lesions_found']} of {counts['lesions']}), precision "
            f"{fixed(pooled['lesion_precision'], 3)} ({counts['predicted_lesions_right']} of "
            f"{counts['predicted_lesions']})."
        )
    for key, words in (
        ("missing_predictions", "no prediction, counted as empty"),
        ("ignored_predictions", "predicted, but without truth"),
        ("controls_left_out", "controls without a prediction, left out"),
        ("not_predicted", "other cases without a prediction, left out"),
    ):
        names = scores[key]
        if names:
            shown = ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
            remarks.append(f"{len(names)} {words}: {shown}.")
    return " ".join(remarks)


def _charts(content: ReportContent, scores: dict) -> list[Chart]:
    facts, cases = content.facts, scores["cases"]
    unit = common_unit(list(facts.values()))

    def point(case: str, x: float, y: float, text: str) -> Point:
        return Point(x, y, f"{case}: {text}", content.card_id(case))

    scored = {case: row for case, row in cases.items() if row["has_lesion"]}
    drawn = []
    if scored:
        points = [point(c, 0, row["dice"], f"Dice {row['dice']:.3f}") for c, row in scored.items()]
        interval = tuple(scores["dice_interval_95"])
        drawn.append(charts.dice_by_case(points, scores["mean"]["dice"], interval))
    sized = {case: burden for case in scored if (burden := facts[case].burden)}
    if sized and unit:
        points = [
            point(
                case,
                burden,
                cases[case]["dice"],
                f"Dice {cases[case]['dice']:.3f}, {burden:.3g} {unit}",
            )
            for case, burden in sized.items()
        ]
        drawn.append(charts.dice_by_burden(points, unit))
    drawn.append(_false_amounts(cases, point))
    lesions = [row for f in facts.values() for row in f.lesions or () if "hit" in row]
    if lesions and unit:
        sizes = [lesion_size(row) for row in lesions]
        drawn.append(charts.found_by_size(sizes, [row["hit"] for row in lesions], unit))
    paired = {
        case: (true, predicted)
        for case in cases
        if (true := facts[case].burden) is not None
        and (predicted := facts[case].predicted_burden) is not None
    }
    if paired and unit:
        points = [
            point(case, true, predicted, f"{predicted:.3g} of {true:.3g} {unit}")
            for case, (true, predicted) in paired.items()
        ]
        drawn.append(charts.burden_agreement(points, unit))
    return drawn


def _false_amounts(cases: dict[str, dict], point: Callable[..., Point]) -> Chart:
    is_volume = "false_positive_volume_ml" in next(iter(cases.values()))
    unit, suffix = ("ml", "volume_ml") if is_volume else ("px", "pixels")
    names = ("FPV", "FNV") if is_volume else ("False positives", "False negatives")
    groups: dict[bool, list[Point]] = {True: [], False: []}
    for case, row in cases.items():
        missed = row[f"false_negative_{suffix}"] if row["has_lesion"] else 0.0
        text = f"{names[0]} {row[f'false_positive_{suffix}']:.4g} {unit}"
        if row["has_lesion"]:
            text += f", {names[1]} {missed:.4g} {unit}"
        groups[row["has_lesion"]].append(point(case, missed, row[f"false_positive_{suffix}"], text))
    return charts.false_amounts(groups[True], groups[False], unit, names)
