"""The sections of scores: means and plots, and a row for every case."""

import math
from collections.abc import Sequence

from nnunetv2_mip.evaluation.bootstrap import interval_over_cases
from nnunetv2_mip.evaluation.summary import BOOTSTRAP_SEED, worst_first
from nnunetv2_mip.report import charts
from nnunetv2_mip.report.case_facts import Facts
from nnunetv2_mip.report.content import Content
from nnunetv2_mip.report.markup import Markup, element
from nnunetv2_mip.report.sections.parts import (
    DECIMALS,
    SCORES,
    card_id_or_none,
    formatted,
    plots_of,
    scrolling,
    section_of,
    size_of,
    size_unit,
    sortable_table,
)

_SIGNS = ("positive", "negative")


def metrics_section(content: Content):
    if content.scores is None:
        return None
    scores = content.scores
    rows = []
    for key, (name, meaning) in SCORES.items():
        if key not in scores["mean"]:
            continue
        values = [case[key] for case in scores["cases"].values()]
        defined = [float(value) for value in values if not math.isnan(value)]
        low, high = (
            scores["dice_interval_95"]
            if key == "dice"
            else interval_over_cases(values, BOOTSTRAP_SEED)
        )
        decimals = DECIMALS.get(key, 2 if key.endswith("_ml") else 0)
        interval = "–" if math.isnan(low) else f"{low:.{decimals}f}–{high:.{decimals}f}"
        rows.append(
            element(
                "tr",
                element("th", name, element("small", meaning), scope="row"),
                element("td", formatted(scores["mean"][key], decimals), data_score=key),
                element("td", interval),
                element("td", len(defined)),
            )
        )
    head = element(
        "tr",
        element("th", "Score", scope="col"),
        element("th", "Mean", scope="col"),
        element("th", "95 % interval", scope="col"),
        element("th", "Cases", scope="col"),
    )
    table = scrolling(
        element("table", element("thead", head), element("tbody", rows), class_="metrics"),
        "Mean scores",
    )
    return section_of(
        "metrics", "Metrics", table, _pooled(scores), plots_of(_metric_charts(content))
    )


def _pooled(scores: dict) -> Markup | None:
    remarks = []
    if "pooled" in scores:
        counts, pooled = scores["counts"], scores["pooled"]
        remarks.append(
            f"Over all lesions together: recall {formatted(pooled['lesion_recall'], 3)} "
            f"({counts['lesions_found']} of {counts['lesions']}), precision "
            f"{formatted(pooled['lesion_precision'], 3)} ({counts['predicted_lesions_right']} of "
            f"{counts['predicted_lesions']})."
        )
    for key, words in (
        ("missing_predictions", "no prediction, counted as empty"),
        ("ignored_predictions", "predicted, but without truth"),
        ("controls_left_out", "controls without a prediction, left out"),
        ("not_predicted", "other cases without a prediction, left out"),
    ):
        if scores[key]:
            shown = ", ".join(scores[key][:5]) + (", …" if len(scores[key]) > 5 else "")
            remarks.append(f"{len(scores[key])} {words}: {shown}.")
    return element("p", " ".join(remarks)) if remarks else None


def _metric_charts(content: Content) -> list[charts.Chart]:
    scores, facts = content.scores, content.facts
    cases = scores["cases"]
    scored = {case: row for case, row in cases.items() if row["has_lesion"]}
    drawn = []

    def point(case: str, x: float, y: float, said: str) -> charts.Point:
        return charts.Point(x, y, f"{case}: {said}", card_id_or_none(content, case))

    if scored:
        points = [point(c, 0, row["dice"], f"Dice {row['dice']:.3f}") for c, row in scored.items()]
        drawn.append(
            charts.dice_by_case(points, scores["mean"]["dice"], tuple(scores["dice_interval_95"]))
        )
    unit = size_unit(list(facts.values()))
    sized = [case for case in scored if facts[case].burden]
    if sized and unit:
        points = [
            point(
                case,
                facts[case].burden,
                cases[case]["dice"],
                f"Dice {cases[case]['dice']:.3f}, {facts[case].burden:.3g} {unit}",
            )
            for case in sized
        ]
        drawn.append(charts.dice_by_burden(points, unit))
    drawn.append(_false_chart(cases, point))
    pooled = [row for f in facts.values() for row in f.lesions or () if "hit" in row]
    if pooled and unit:
        sizes = [size_of(row) for row in pooled]
        drawn.append(charts.found_by_size(sizes, [row["hit"] for row in pooled], unit))
    paired = [
        case
        for case in cases
        if facts[case].burden is not None and facts[case].predicted_burden is not None
    ]
    if paired and unit:
        points = [
            point(
                case,
                facts[case].burden,
                facts[case].predicted_burden,
                f"{facts[case].predicted_burden:.3g} of {facts[case].burden:.3g} {unit}",
            )
            for case in paired
        ]
        drawn.append(charts.burden_agreement(points, unit))
    return drawn


def _false_chart(cases: dict[str, dict], point) -> charts.Chart:
    volumes = "false_positive_volume_ml" in next(iter(cases.values()))
    unit = "ml" if volumes else "px"
    positive, negative = (f"false_{w}_{'volume_ml' if volumes else 'pixels'}" for w in _SIGNS)
    names = ("FPV", "FNV") if volumes else ("False positives", "False negatives")
    groups = {True: [], False: []}
    for case, row in cases.items():
        missed = row[negative] if row["has_lesion"] else 0.0
        said = f"{names[0]} {row[positive]:.4g} {unit}"
        if row["has_lesion"]:
            said += f", {names[1]} {missed:.4g} {unit}"
        groups[row["has_lesion"]].append(point(case, missed, row[positive], said))
    return charts.false_amounts(groups[True], groups[False], unit, names)


def all_cases_section(content: Content):
    if content.scores is not None:
        cases = content.scores["cases"]
        order = worst_first(cases)
        keys = [key for key in SCORES if key in content.scores["mean"]]
        counted = "lesions" in next(iter(cases.values()))
        heads = [SCORES[key][0] for key in keys] + (["Lesions", "Found"] if counted else [])
        rows = []
        for case in order:
            row = cases[case]
            cells = [(row[key], DECIMALS.get(key, 2 if key.endswith("_ml") else 0)) for key in keys]
            cells += [(row["lesions"], 0), (row["lesions_found"], 0)] if counted else []
            rows.append((case, cells))
        remark = "Worst first, cases without lesions at the end."
    elif content.facts:
        heads, rows = _table_without_truth(list(content.facts.values()))
        remark = "The largest predicted tumour burden first."
    else:
        return None
    return section_of("all", "All cases", sortable_table(content, heads, rows, remark))


def _table_without_truth(facts: Sequence[Facts]):
    unit = size_unit(facts) or "ml or cm²"
    volumes = all(f.kind == "volume" for f in facts)
    heads = ["Lesions", f"{'Volume' if unit == 'ml' else 'Area'} ({unit})"]
    heads += ["SUVmax", "TLG (g)"] if volumes else []
    rows = []
    for f in sorted(facts, key=lambda f: -(f.predicted_burden or 0)):
        some = f.predicted or []
        cells = [(len(some) if f.predicted is not None else None, 0), (f.predicted_burden, 2)]
        if volumes:
            known = [row for row in some if row["suv_max"] is not None]
            cells.append((max((row["suv_max"] for row in known), default=None), 2))
            cells.append((sum(row["tlg"] for row in known) if known else None, 1))
        rows.append((f.case, cells))
    return heads, rows
