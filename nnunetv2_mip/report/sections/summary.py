"""The page's first section: the most important numbers."""

import math
from collections.abc import Sequence

import numpy as np

from nnunetv2_mip.report.case_facts import Facts
from nnunetv2_mip.report.content import Content
from nnunetv2_mip.report.dataset_check import Check
from nnunetv2_mip.report.markup import Markup, counted, element
from nnunetv2_mip.report.sections.parts import SCORES, formatted, section_of, size_unit, tile_of


def summary_section(content: Content):
    tiles = []
    if content.scores is not None:
        tiles += _score_tiles(content.scores)
    elif content.facts:
        tiles += _prediction_tiles(list(content.facts.values()))
    if content.check is not None and not content.facts:
        tiles += _check_tiles(content.check)
    if content.training is not None and not tiles:
        tiles.append(tile_of("Folds", str(len(content.training.folds)), "with training curves"))
    warnings = []
    if content.check is not None:
        warnings = [f for f in content.check.findings if f.level == "warning"]
    note = None
    if warnings:
        what = f"The data check has {counted(len(warnings), 'warning')}: "
        note = element(
            "p", what, element("a", "see Data", href="#data"), ".", class_="finding warning"
        )
    return section_of("summary", "Summary", element("div", tiles, class_="tiles"), note)


def _score_tiles(scores: dict) -> list[Markup]:
    counts, mean = scores["counts"], scores["mean"]
    with_lesions = f"{counts['with_lesions']} with lesions, {counts['controls']} without"
    tiles = [tile_of("Cases", str(counts["cases"]), with_lesions)]
    low, high = scores["dice_interval_95"]
    interval = "" if math.isnan(low) else f"95 % interval {low:.3f}–{high:.3f}"
    tiles.append(tile_of("Mean Dice", formatted(mean["dice"], 3), interval))
    if counts.get("lesions"):
        found, total = counts["lesions_found"], counts["lesions"]
        tiles.append(
            tile_of("Lesions found", f"{100 * found / total:.0f} %", f"{found} of {total}")
        )
    if counts.get("predicted_lesions"):
        right, total = counts["predicted_lesions_right"], counts["predicted_lesions"]
        share = f"{100 * right / total:.0f} %"
        tiles.append(tile_of("Predicted lesions right", share, f"{right} of {total}"))
    for key in ("false_positive_volume_ml", "false_negative_volume_ml"):
        if key in mean:
            name = SCORES[key][0].split(" ")[0]
            tiles.append(tile_of(f"Mean {name}", f"{formatted(mean[key], 2)} ml", ""))
    if counts["controls"]:
        marked = scores["controls"]["with_false_positives"]
        remark = "with false positives"
        tiles.append(tile_of("Healthy cases marked", f"{marked} of {counts['controls']}", remark))
    return tiles


def _prediction_tiles(facts: Sequence[Facts]) -> list[Markup]:
    marked = [f for f in facts if f.predicted_burden]
    tiles = [tile_of("Cases", str(len(facts)), f"{len(marked)} with predicted lesions")]
    if all(f.predicted is not None for f in facts):
        tiles.append(tile_of("Predicted lesions", str(sum(len(f.predicted) for f in facts))))
    amounts = [f.predicted_burden for f in facts if f.predicted_burden is not None]
    if amounts and len({f.unit for f in facts}) == 1:
        unit = facts[0].unit
        name = "Tumour volume" if unit == "ml" else "Lesion area"
        several = len(amounts) > 1
        remark = f"median of all cases, up to {max(amounts):.1f}" if several else ""
        tiles.append(tile_of(name, f"{np.median(amounts):.1f} {unit}", remark))
    return tiles


def _check_tiles(check: Check) -> list[Markup]:
    facts = check.facts
    labelled = [f for f in facts if f.burden is not None]
    filled = sum(f.burden > 0 for f in labelled)
    tiles = [tile_of("Cases", str(len(facts)), f"{filled} with lesions")]
    if check.patients:
        patients = {check.patients.get(f.case, f.case) for f in facts}
        tiles.append(tile_of("Patients", str(len(patients))))
    if all(f.lesions is not None for f in facts):
        tiles.append(tile_of("Lesions", str(sum(len(f.lesions) for f in facts))))
    unit = size_unit(facts)
    if filled and unit:
        name = "Tumour volume" if unit == "ml" else "Lesion area"
        amounts = [f.burden for f in labelled if f.burden]
        ends = f"{min(amounts):.3g} to {max(amounts):.3g}"
        remark = f"median of the cases with lesions, {ends}" if len(amounts) > 1 else ""
        tiles.append(tile_of(name, f"{np.median(amounts):.1f} {unit}", remark))
    return tiles
