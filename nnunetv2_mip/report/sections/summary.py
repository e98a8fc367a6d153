"""Section "Summary": the most important numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nnunetv2_mip.report.case_facts import CaseFacts, common_unit
from nnunetv2_mip.report.content import ReportContent
from nnunetv2_mip.report.dataset_check import DatasetCheck
from nnunetv2_mip.report.formatting import fixed
from nnunetv2_mip.report.sections.metrics import SCORES


@dataclass(frozen=True)
class Tile:
    """One number of the summary: its name, its value, a remark."""

    name: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class SummarySection:
    """Values of the summary.

    Attributes:
        tiles: in the order of the page.
        warnings: number of warnings of the data check.
    """

    id: ClassVar[str] = "summary"
    title: ClassVar[str] = "Summary"
    template: ClassVar[str] = "summary.html"
    tiles: list[Tile]
    warnings: int


def summary_section(content: ReportContent) -> SummarySection:
    """Summary of scores, else of predictions, else of the data set, else of the training."""
    tiles = []
    if content.scores is not None:
        tiles += _score_tiles(content.scores)
    elif content.facts:
        tiles += _prediction_tiles(list(content.facts.values()))
    if content.check is not None and not content.facts:
        tiles += _check_tiles(content.check)
    if content.training is not None and not tiles:
        tiles.append(Tile("Folds", str(len(content.training.folds)), "with training curves"))
    findings = [] if content.check is None else content.check.findings
    return SummarySection(tiles, sum(finding.level == "warning" for finding in findings))


def _score_tiles(scores: dict) -> list[Tile]:
    counts, mean = scores["counts"], scores["mean"]
    with_lesions = f"{counts['with_lesions']} with lesions, {counts['controls']} without"
    tiles = [Tile("Cases", str(counts["cases"]), with_lesions)]
    low, high = scores["dice_interval_95"]
    interval = "" if math.isnan(low) else f"95 % interval {low:.3f}–{high:.3f}"
    tiles.append(Tile("Mean Dice", fixed(mean["dice"], 3), interval))
    if counts.get("lesions"):
        found, total = counts["lesions_found"], counts["lesions"]
        tiles.append(Tile("Lesions found", f"{100 * found / total:.0f} %", f"{found} of {total}"))
    if counts.get("predicted_lesions"):
        right, total = counts["predicted_lesions_right"], counts["predicted_lesions"]
        share = f"{100 * right / total:.0f} %"
        tiles.append(Tile("Predicted lesions right", share, f"{right} of {total}"))
    for key in ("false_positive_volume_ml", "false_negative_volume_ml"):
        if key in mean:
            name = SCORES[key].name.split(" ")[0]
            tiles.append(Tile(f"Mean {name}", f"{fixed(mean[key], 2)} ml"))
    if counts["controls"]:
        marked = scores["controls"]["with_false_positives"]
        amount = f"{marked} of {counts['controls']}"
        tiles.append(Tile("Healthy cases marked", amount, "with false positives"))
    return tiles


def _prediction_tiles(facts: Sequence[CaseFacts]) -> list[Tile]:
    marked = [f for f in facts if f.predicted_burden]
    tiles = [Tile("Cases", str(len(facts)), f"{len(marked)} with predicted lesions")]
    tables = [f.predicted for f in facts if f.predicted is not None]
    if len(tables) == len(facts):
        tiles.append(Tile("Predicted lesions", str(sum(len(rows) for rows in tables))))
    amounts = [f.predicted_burden for f in facts if f.predicted_burden is not None]
    unit = common_unit(facts)
    if amounts and unit:
        remark = f"median of all cases, up to {max(amounts):.1f}" if len(amounts) > 1 else ""
        tiles.append(_amount_tile(amounts, unit, remark))
    return tiles


def _check_tiles(check: DatasetCheck) -> list[Tile]:
    facts = check.facts
    burdens = [f.burden for f in facts if f.burden is not None]
    filled = sum(burden > 0 for burden in burdens)
    tiles = [Tile("Cases", str(len(facts)), f"{filled} with lesions")]
    if check.patients:
        patients = {check.patients.get(f.case, f.case) for f in facts}
        tiles.append(Tile("Patients", str(len(patients))))
    tables = [f.lesions for f in facts if f.lesions is not None]
    if len(tables) == len(facts):
        tiles.append(Tile("Lesions", str(sum(len(rows) for rows in tables))))
    unit = common_unit(facts)
    if filled and unit:
        amounts = [burden for burden in burdens if burden]
        ends = f"{min(amounts):.3g} to {max(amounts):.3g}"
        remark = f"median of the cases with lesions, {ends}" if len(amounts) > 1 else ""
        tiles.append(_amount_tile(amounts, unit, remark))
    return tiles


def _amount_tile(amounts: Sequence[float], unit: str, remark: str) -> Tile:
    name = "Tumour volume" if unit == "ml" else "Lesion area"
    return Tile(name, f"{np.median(amounts):.1f} {unit}", remark)
