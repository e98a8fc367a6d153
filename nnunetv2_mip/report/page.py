"""The page: sections, tables and cards around plots and pictures, in one file.

The browser is told to fetch nothing: a policy in the page allows its own style sheet and script
(by its checksum) and embedded pictures, and no address at all.
"""

import base64
import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunetv2_mip import __version__
from nnunetv2_mip.evaluation import BOOTSTRAP_SEED, worst_first
from nnunetv2_mip.lesion_table import TITLES as LESION_TITLES
from nnunetv2_mip.metrics import bootstrap_interval
from nnunetv2_mip.region_table import TITLES as REGION_TITLES
from nnunetv2_mip.report import charts
from nnunetv2_mip.report.build import Content
from nnunetv2_mip.report.dataset_check import Check
from nnunetv2_mip.report.facts import Facts
from nnunetv2_mip.report.markup import Markup, element, join, json_block
from nnunetv2_mip.report.training import Training
from nnunetv2_mip.volumes import PLAUSIBLE_BODY_MEDIAN_SUV

STATIC = Path(__file__).parent / "static"
# The rotating MIP of the service's page and of the report are turned by the same script.
SHARED = Path(__file__).parent.parent / "service" / "static"
SCRIPTS = (SHARED / "turntable.js", STATIC / "report.js")
STYLE = STATIC / "report.css"
# Score → (name, what it is), in the order of the page.
SCORES = {
    "dice": ("Dice", "overlap of prediction and truth, 0 to 1; cases with lesions only"),
    "hd95_mm": ("HD95 (mm)", "95th percentile of the distances between the surfaces"),
    "false_positive_volume_ml": ("FPV (ml)", "predicted lesions without any true voxel (autoPET)"),
    "false_negative_volume_ml": ("FNV (ml)", "true lesions without any predicted voxel (autoPET)"),
    "false_positive_pixels": ("False positive (px)", "predicted pixels that are no lesion"),
    "false_negative_pixels": ("False negative (px)", "lesion pixels that are not predicted"),
    "lesion_recall": ("Lesion recall", "found lesions of all true ones, case by case"),
    "lesion_precision": ("Lesion precision", "right lesions of all predicted ones, case by case"),
    "lesion_f1": ("Lesion F1", "harmonic mean of the two"),
    "true_volume_ml": ("True volume (ml)", "of all lesions of a case"),
    "predicted_volume_ml": ("Predicted volume (ml)", "of all predicted lesions of a case"),
    "true_pixels": ("True pixels", "of all lesions of a case"),
    "predicted_pixels": ("Predicted pixels", "of all predicted lesions of a case"),
}
_DECIMALS = {"dice": 3, "lesion_recall": 3, "lesion_precision": 3, "lesion_f1": 3, "hd95_mm": 1}
LEVEL_WORDS = {"ok": "OK", "note": "Note", "warning": "Warning"}
# In a table that is looked at on a phone: what matters first.
LESION_COLUMNS = ("volume_ml", "area_cm2", "suv_max", "suv_mean", "tlg", "max_uptake_percent")
MAX_LESION_ROWS = 60


def page_of(content: Content) -> str:
    """The whole file."""
    sections = [
        section
        for section in (
            _summary(content),
            _metrics(content),
            _shown(content),
            _all_cases(content),
            _dataset(content),
            _training(content.training),
            _method(content),
        )
        if section is not None
    ]
    title = content.request.title or _default_title(content)
    script = "\n".join(path.read_text("utf-8") for path in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    head = join(
        [
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=policy),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("meta", name="generator", content=f"nnunetv2-mip {__version__}"),
            element("title", title),
            element("style", Markup(STYLE.read_text("utf-8"))),
        ]
    )
    links = [element("a", name, href=f"#{identity}") for identity, name, _ in sections]
    body = join(
        [
            element(
                "header",
                element("h1", title),
                element("p", _subtitle(content), class_="muted"),
                element(
                    "p",
                    element("b", "Research use only."),
                    " Not a medical device: not for diagnosis, therapy planning or any clinical "
                    "decision.",
                    class_="research",
                ),
            ),
            element("nav", links, aria_label="Sections"),
            element("main", [section for _, _, section in sections]),
            json_block("turns", {_card(content, c): t.page for c, t in content.turns.items()}),
            Markup(f"<script>{script}</script>"),
        ]
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _section(identity: str, name: str, *children) -> tuple[str, str, Markup]:
    heading = element("h2", name, id=f"{identity}-title")
    whole = element("section", heading, *children, id=identity, aria_labelledby=f"{identity}-title")
    return identity, name, whole


def _default_title(content: Content) -> str:
    request = content.request
    if request.predictions is not None:
        return f"Report: {request.predictions.resolve().name}"
    if content.check is not None:
        return f"Data set check: {content.check.name}"
    return f"Training: {content.training.name}"


def _subtitle(content: Content) -> str:
    request = content.request
    parts = [
        f"{word} {path.resolve().name}"
        for word, path in (
            ("predictions", request.predictions),
            ("truth", request.truths),
            ("data set", request.dataset),
            ("model", request.model),
        )
        if path is not None
    ]
    return f"{' · '.join(parts)} · {time.strftime('%Y-%m-%d')}"


def _card(content: Content, case: str) -> str:
    """The id of a case's card."""
    return f"card-{list(content.turns).index(case)}"


def _card_or_none(content: Content, case: str) -> str | None:
    return _card(content, case) if case in content.turns else None


# Summary


def _summary(content: Content):
    tiles = []
    if content.scores is not None:
        tiles += _score_tiles(content.scores)
    elif content.facts:
        tiles += _prediction_tiles(list(content.facts.values()))
    if content.check is not None and not content.facts:
        tiles += _check_tiles(content.check)
    if content.training is not None and not tiles:
        tiles.append(_tile("Folds", str(len(content.training.folds)), "with training curves"))
    warnings = []
    if content.check is not None:
        warnings = [f for f in content.check.findings if f.level == "warning"]
    note = None
    if warnings:
        what = f"The data check has {_count(len(warnings), 'warning')}: "
        note = element(
            "p", what, element("a", "see Data", href="#data"), ".", class_="finding warning"
        )
    return _section("summary", "Summary", element("div", tiles, class_="tiles"), note)


def _tile(name: str, value: str, remark: str = "") -> Markup:
    return element(
        "div",
        element("span", name, class_="name"),
        element("span", value, class_="value"),
        element("span", remark, class_="muted"),
        class_="tile",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _score_tiles(scores: dict) -> list[Markup]:
    counts, mean = scores["counts"], scores["mean"]
    with_lesions = f"{counts['with_lesions']} with lesions, {counts['controls']} without"
    tiles = [_tile("Cases", str(counts["cases"]), with_lesions)]
    low, high = scores["dice_interval_95"]
    interval = "" if math.isnan(low) else f"95 % interval {low:.3f}–{high:.3f}"
    tiles.append(_tile("Mean Dice", _number(mean["dice"], 3), interval))
    if counts.get("lesions"):
        found, total = counts["lesions_found"], counts["lesions"]
        tiles.append(_tile("Lesions found", f"{100 * found / total:.0f} %", f"{found} of {total}"))
    if counts.get("predicted_lesions"):
        right, total = counts["predicted_lesions_right"], counts["predicted_lesions"]
        share = f"{100 * right / total:.0f} %"
        tiles.append(_tile("Predicted lesions right", share, f"{right} of {total}"))
    for key in ("false_positive_volume_ml", "false_negative_volume_ml"):
        if key in mean:
            name = SCORES[key][0].split(" ")[0]
            tiles.append(_tile(f"Mean {name}", f"{_number(mean[key], 2)} ml", ""))
    if counts["controls"]:
        marked = scores["controls"]["with_false_positives"]
        remark = "with false positives"
        tiles.append(_tile("Healthy cases marked", f"{marked} of {counts['controls']}", remark))
    return tiles


def _prediction_tiles(facts: Sequence[Facts]) -> list[Markup]:
    marked = [f for f in facts if f.predicted_burden]
    tiles = [_tile("Cases", str(len(facts)), f"{len(marked)} with predicted lesions")]
    if all(f.predicted is not None for f in facts):
        tiles.append(_tile("Predicted lesions", str(sum(len(f.predicted) for f in facts))))
    amounts = [f.predicted_burden for f in facts if f.predicted_burden is not None]
    if amounts and len({f.unit for f in facts}) == 1:
        unit = facts[0].unit
        name = "Tumour volume" if unit == "ml" else "Lesion area"
        remark = f"median of all cases, up to {max(amounts):.1f}"
        tiles.append(_tile(name, f"{np.median(amounts):.1f} {unit}", remark))
    return tiles


def _check_tiles(check: Check) -> list[Markup]:
    facts = check.facts
    labelled = [f for f in facts if f.burden is not None]
    filled = sum(f.burden > 0 for f in labelled)
    tiles = [_tile("Cases", str(len(facts)), f"{filled} with lesions")]
    if check.patients:
        patients = {check.patients.get(f.case, f.case) for f in facts}
        tiles.append(_tile("Patients", str(len(patients))))
    if all(f.lesions is not None for f in facts):
        tiles.append(_tile("Lesions", str(sum(len(f.lesions) for f in facts))))
    unit = _unit(facts)
    if filled and unit:
        name = "Tumour volume" if unit == "ml" else "Lesion area"
        amounts = [f.burden for f in labelled if f.burden]
        remark = f"median of the cases with lesions, {min(amounts):.3g} to {max(amounts):.3g}"
        tiles.append(_tile(name, f"{np.median(amounts):.1f} {unit}", remark))
    return tiles


def _unit(facts: Sequence[Facts]) -> str | None:
    """The unit of the burdens, None where they differ."""
    units = {f.unit for f in facts}
    return units.pop() if len(units) == 1 else None


def _number(value: float | None, decimals: int) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{decimals}f}"


# Metrics


def _metrics(content: Content):
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
            else bootstrap_interval(values, BOOTSTRAP_SEED)
        )
        decimals = _DECIMALS.get(key, 2 if key.endswith("_ml") else 0)
        interval = "–" if math.isnan(low) else f"{low:.{decimals}f}–{high:.{decimals}f}"
        rows.append(
            element(
                "tr",
                element("th", name, element("small", meaning), scope="row"),
                element("td", _number(scores["mean"][key], decimals), data_score=key),
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
    table = _scroll(
        element("table", element("thead", head), element("tbody", rows), class_="metrics"),
        "Mean scores",
    )
    return _section("metrics", "Metrics", table, _pooled(scores), _plots(_metric_charts(content)))


def _pooled(scores: dict) -> Markup | None:
    remarks = []
    if "pooled" in scores:
        counts, pooled = scores["counts"], scores["pooled"]
        remarks.append(
            f"Over all lesions together: recall {_number(pooled['lesion_recall'], 3)} "
            f"({counts['lesions_found']} of {counts['lesions']}), precision "
            f"{_number(pooled['lesion_precision'], 3)} ({counts['predicted_lesions_right']} of "
            f"{counts['predicted_lesions']})."
        )
    for key, words in (
        ("missing_predictions", "no prediction, counted as empty"),
        ("ignored_predictions", "predicted, but without truth"),
        ("controls_left_out", "controls without a prediction, left out"),
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
        return charts.Point(x, y, f"{case}: {said}", _card_or_none(content, case))

    if scored:
        points = [point(c, 0, row["dice"], f"Dice {row['dice']:.3f}") for c, row in scored.items()]
        drawn.append(
            charts.dice_by_case(points, scores["mean"]["dice"], tuple(scores["dice_interval_95"]))
        )
    unit = _unit(list(facts.values()))
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
        sizes = [_size(row) for row in pooled]
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


def _size(row: dict) -> float:
    return row["volume_ml"] if "volume_ml" in row else row["area_cm2"]


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


_SIGNS = ("positive", "negative")


def _plots(drawn: Sequence[charts.Chart]) -> Markup | None:
    if not drawn:
        return None
    figures = [
        element(
            "figure",
            element("h3", chart.title),
            Markup(chart.svg),
            element("figcaption", chart.caption),
        )
        for chart in drawn
    ]
    return element("div", figures, class_="plots")


def _scroll(table: Markup, name: str) -> Markup:
    """A table that scrolls by itself where the window is narrow."""
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=name)


# Cases with pictures


def _shown(content: Content):
    if not content.turns:
        return None
    pages = [turn.page for turn in content.turns.values()]
    turning = any(page["views"] > 1 for page in pages)
    masks = [
        name
        for name, key in (("Truth", "has_truth"), ("Prediction", "has_prediction"))
        if any(page[key] for page in pages)
    ]
    hint = (
        "Drag a picture sideways to turn it, or use the arrow keys."
        if turning
        else "Pixels are taken as 2 mm."
    )
    groups = []
    for group in content.groups:
        groups += [
            element("h3", group.heading, element("small", group.remark)),
            element("div", [_card_of(content, case) for case in group.cases], class_="cards"),
        ]
    return _section(
        "cases",
        "Cases",
        _toolbar(masks, turning),
        element("p", hint, " Dark is uptake.", class_="muted"),
        element("noscript", element("p", "The pictures need JavaScript.")),
        groups,
    )


def _toolbar(masks: Sequence[str], turning: bool) -> Markup:
    controls = [
        element(
            "label",
            element("input", type="checkbox", id=f"show-{name.lower()}", checked=True),
            element("span", class_=f"swatch {name.lower()}"),
            name,
            class_="check",
        )
        for name in masks
    ]
    sliders = (("opacity", "Overlay", 0, 100, 70), ("darkness", "Darkness", 100, 500, 100))
    for identity, name, low, high, value in sliders:
        slider = element("input", type="range", id=identity, min=low, max=high, value=value, step=5)
        controls.append(element("label", name, slider, class_="slider"))
    controls.append(
        element("label", element("input", type="checkbox", id="invert"), "Invert", class_="check")
    )
    if turning:
        controls.append(
            element("button", "Turn all", type="button", id="play", aria_pressed="false")
        )
    return element("div", controls, class_="toolbar", role="group", aria_label="Pictures")


def _card_of(content: Content, case: str) -> Markup:
    facts, turn = content.drawn_facts[case], content.turns[case]
    identity, page = _card(content, case), turn.page
    turns = page["views"] > 1
    said = _chips(content, case)
    label = f"{'Rotating MIP' if turns else 'MIP'} of {case}; {', '.join(said)}"
    role = (
        {"role": "slider", "aria_valuemin": 0, "aria_valuemax": 359, "aria_valuenow": 0,
         "aria_orientation": "horizontal"}
        if turns
        else {"role": "img"}
    )  # fmt: skip
    return element(
        "article",
        element("h4", case),
        element("p", [element("span", chip) for chip in said], class_="chips"),
        element(
            "canvas",
            id=f"{identity}-canvas",
            tabindex="0" if turns else None,
            data_turn=identity,
            width=page["columns"],
            height=page["rows"],
            class_="turns" if turns else None,
            aria_label=label,
            **role,
        ),
        element("p", "0°", class_="angle muted", aria_hidden="true") if turns else None,
        None if page["has_image"] else element("p", "No PET image: masks only.", class_="muted"),
        _lesions(facts, turn.seen_in, turn.views),
        id=identity,
        class_="card",
    )


def _chips(content: Content, case: str) -> list[str]:
    facts = content.drawn_facts[case]
    said = []
    if content.scores is not None:
        row = content.scores["cases"][case]
        if row["has_lesion"]:
            said.append(f"Dice {row['dice']:.3f}")
        else:
            said.append("no lesion")
        if "false_positive_volume_ml" in row:
            said.append(f"FPV {row['false_positive_volume_ml']:.1f} ml")
            if row["has_lesion"]:
                said.append(f"FNV {row['false_negative_volume_ml']:.1f} ml")
        else:
            said.append(f"FP {row['false_positive_pixels']} px")
            if row["has_lesion"]:
                said.append(f"FN {row['false_negative_pixels']} px")
        if row.get("lesions"):
            said.append(f"found {row['lesions_found']} of {row['lesions']}")
        return said
    for words, amount, rows in (
        ("truth", facts.burden, facts.lesions),
        ("predicted", facts.predicted_burden, facts.predicted),
    ):
        if amount is not None:
            number = "" if rows is None else f", {_count(len(rows), 'lesion')}"
            said.append(f"{words} {amount:.1f} {facts.unit}{number}")
    return said


def _lesions(facts: Facts, seen_in: list[int] | None, views: int) -> list[Markup]:
    parts = []
    rows = facts.lesions
    if rows and seen_in is not None:
        rows = [row | {"seen_in": seen, "views": views} for row, seen in zip(rows, seen_in)]
    for name, some, hit, words in (
        ("True lesions", rows, "Found", ("yes", "missed")),
        ("Predicted lesions", facts.predicted, "Right", ("yes", "false")),
    ):
        if not some:
            continue
        single = not any("hit" in row for row in some)
        table = _lesion_rows(some, None if single else hit, words)
        count = f"{name} ({len(some)})"
        parts.append(
            element("details", element("summary", count), _scroll(table, f"{name}, {facts.case}"))
        )
    return parts


def _lesion_rows(rows: Sequence[dict], hit: str | None, words: tuple[str, str]) -> Markup:
    titles = {**LESION_TITLES, **REGION_TITLES}
    columns = [key for key in LESION_COLUMNS if any(row.get(key) is not None for row in rows)]
    seen = any("seen_in" in row for row in rows)
    # What is asked first stands first: on a phone the rest is scrolled to.
    asked = ([hit] if hit else []) + (["Visible in views"] if seen else [])
    heads = ["#", *[titles[key] for key in columns[:1]], *asked]
    heads += [titles[key] for key in columns[1:]]
    body = []
    for number, row in enumerate(rows[:MAX_LESION_ROWS], start=1):
        values = ["" if row[key] is None else f"{row[key]:.4g}" for key in columns]
        answers = [words[0 if row["hit"] else 1]] if hit else []
        answers += [f"{row['seen_in']} of {row['views']}"] if seen else []
        cells = [number, *values[:1], *answers, *values[1:]]
        missed = "missed" if hit and not row["hit"] else None
        body.append(element("tr", [element("td", cell) for cell in cells], class_=missed))
    if len(rows) > MAX_LESION_ROWS:
        more = f"… and {len(rows) - MAX_LESION_ROWS} smaller ones"
        body.append(element("tr", element("td", more, colspan=len(heads))))
    head = element("tr", [element("th", name, scope="col") for name in heads])
    return element("table", element("thead", head), element("tbody", body))


# All cases


def _all_cases(content: Content):
    if content.scores is not None:
        cases = content.scores["cases"]
        order = worst_first(cases)
        keys = [key for key in SCORES if key in content.scores["mean"]]
        counted = "lesions" in next(iter(cases.values()))
        heads = [SCORES[key][0] for key in keys] + (["Lesions", "Found"] if counted else [])
        rows = []
        for case in order:
            row = cases[case]
            cells = [
                (row[key], _DECIMALS.get(key, 2 if key.endswith("_ml") else 0)) for key in keys
            ]
            cells += [(row["lesions"], 0), (row["lesions_found"], 0)] if counted else []
            rows.append((case, cells))
        remark = "Worst first, cases without lesions at the end."
    elif content.facts:
        heads, rows = _table_without_truth(list(content.facts.values()))
        remark = "The largest predicted tumour burden first."
    else:
        return None
    return _section("all", "All cases", _sortable(content, heads, rows, remark))


def _table_without_truth(facts: Sequence[Facts]):
    unit = _unit(facts) or "ml or cm²"
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


def _sortable(content: Content, heads: Sequence[str], rows: Sequence, remark: str) -> Markup:
    body = []
    for case, cells in rows:
        card = _card_or_none(content, case)
        name = element("a", case, href=f"#{card}") if card else case
        values = []
        for value, decimals in cells:
            known = value is not None and not math.isnan(value)
            key = repr(float(value)) if known else ""
            values.append(element("td", _number(value, decimals), data_value=key))
        body.append(element("tr", element("th", name, scope="row"), values))
    titles = [
        element("th", element("button", name, type="button", class_="sort"), scope="col")
        for name in ("Case", *heads)
    ]
    table = element(
        "table", element("thead", element("tr", titles)), element("tbody", body), class_="cases"
    )
    return join(
        [
            element("p", remark, " Names lead to the pictures of the case.", class_="muted"),
            element(
                "label", "Find a case ", element("input", type="search", id="find"), class_="find"
            ),
            _scroll(table, "All cases"),
        ]
    )


# Data


def _dataset(content: Content):
    check = content.check
    if check is None:
        return None
    findings = [
        element(
            "li",
            element("b", LEVEL_WORDS[finding.level]),
            " ",
            finding.text,
            class_=f"finding {finding.level}",
        )
        for finding in check.findings
    ]
    return _section(
        "data",
        "Data",
        element("p", f"{check.name}: {_count(len(check.facts), 'case')}.", class_="muted"),
        element("ul", findings, class_="findings"),
        _plots(_data_charts(content, check)),
    )


def _data_charts(content: Content, check: Check) -> list[charts.Chart]:
    facts, drawn = check.facts, []

    def points(pairs) -> list[charts.Point]:
        return [
            charts.Point(0, value, f"{case}: {value:.4g}", _card_or_none(content, case))
            for case, value in pairs
        ]

    unit = _unit(facts)
    lesions = [row for f in facts for row in f.lesions or ()]
    if lesions and unit:
        drawn.append(charts.lesion_sizes([_size(row) for row in lesions], unit))
    if lesions:
        counts = [len(f.lesions) for f in facts if f.lesions is not None]
        drawn.append(charts.lesion_counts(counts))
    shares = [row["seen_in"] / row["views"] for row in lesions if row.get("views")]
    if shares:
        drawn.append(charts.visibility(shares))
    amounts = [(f.case, f.burden) for f in facts if f.burden]
    if amounts and unit:
        name = "Tumour volume" if unit == "ml" else "Lesion area"
        drawn.append(charts.lesion_sizes([v for _, v in amounts], unit, f"{name} of a case", True))
    if check.folds:
        drawn.append(charts.fold_sizes(check.folds))
    known = [f for f in facts if f.uptake is not None]
    volumes = [f for f in known if f.kind == "volume"]
    if volumes:
        drawn.append(
            charts.values_by_case(
                points((f.case, f.uptake) for f in volumes),
                "Median uptake of the body",
                "SUV",
                PLAUSIBLE_BODY_MEDIAN_SUV,
                "what SUV gives; beyond it the unit is most likely another",
            )
        )
    elif known:
        drawn.append(
            charts.values_by_case(
                points((f.case, f.uptake) for f in known),
                "Mean level of the body",
                "level (0–255)",
            )
        )
    along = [2 if f.kind == "volume" else 1 for f in facts]
    lengths = [(f.case, f.size[a] * f.spacing_mm[a] / 10) for f, a in zip(facts, along)]
    drawn.append(
        charts.values_by_case(points(lengths), "Length of the images", "head to foot (cm)")
    )
    return drawn


# Training


def _training(training: Training | None):
    if training is None:
        return None
    rows = [
        ("Model folder", training.name),
        ("Trainer", training.trainer),
        ("Plans", training.plans),
        ("Configuration", training.configuration),
    ]
    known = [
        element("tr", element("th", name, scope="row"), element("td", value))
        for name, value in rows
        if value
    ]
    folds = []
    for curves in training.folds:
        dice = [value for value in curves.values["dice"] if not math.isnan(value)]
        hours = sum(value for value in curves.values["seconds"] if not math.isnan(value)) / 3600
        folds.append(
            [
                curves.fold,
                curves.epochs[-1],
                f"{curves.values['train_loss'][-1]:.3f}",
                _number(curves.values["val_loss"][-1], 3),
                f"{dice[-1]:.3f}" if dice else "–",
                f"{max(dice):.3f}" if dice else "–",
                f"{hours:.2f}",
            ]
        )
    heads = (
        "Fold", "Epochs", "Training loss", "Validation loss", "Pseudo Dice, last",
        "Pseudo Dice, best", "Hours",
    )  # fmt: skip
    parts = [_scroll(element("table", element("tbody", known)), "Model")]
    if folds:
        head = element("tr", [element("th", name, scope="col") for name in heads])
        body = [element("tr", [element("td", cell) for cell in row]) for row in folds]
        table = element("table", element("thead", head), element("tbody", body))
        parts.append(_scroll(table, "Folds"))
    if training.silent:
        text = (
            f"No training curves for fold {', '.join(training.silent)}: the folder holds weights "
            "alone (an exported model keeps no logs)."
        )
        parts.append(element("p", text, class_="muted"))
    return _section("training", "Training", parts, _plots(_training_charts(training)))


def _training_charts(training: Training) -> list[charts.Chart]:
    folds = training.folds
    if not folds:
        return []
    losses = [(c.fold, c.epochs, c.values["train_loss"], c.values["val_loss"]) for c in folds]
    dices = [(c.fold, c.epochs, c.values["dice"]) for c in folds]
    return [charts.loss_curves(losses), charts.dice_curves(dices)]


# Method


def _method(content: Content):
    request = content.request
    lines = []
    if content.scores is not None:
        overlap = (
            "at least one voxel"
            if not request.min_overlap
            else f"at least {request.min_overlap:g} of it"
        )
        lines += [
            "Scores are those of nnUNetv2_mip_evaluate. A case without lesions has no Dice and "
            "stays out of its mean; its false positives are reported instead. Intervals are "
            "percentile bootstraps over cases (95 %, 10 000 draws).",
            "A lesion is a connected component: 18-connected in a volume, 8-connected in an "
            f"image. It is found when {overlap} is predicted; a predicted lesion is right by the "
            "same rule with the roles exchanged.",
        ]
    if any(f.kind == "volume" for f in content.drawn_facts.values()):
        lines.append(
            f"Rotating MIPs: {request.turn.views} views over 180°, window SUV 0 to "
            f"{request.turn.window_suv:g}; the other half of the turn is their mirror image. 0° is "
            "seen from the front, with the patient's left on the right of the picture. A lesion "
            "counts as visible in a view when enough of its pixels win their rays (occlusion rule "
            "of arXiv 2510.09326). TLG: mean SUV × ml."
        )
    if any(f.kind == "png" for f in (*content.facts.values(), *content.drawn_facts.values())):
        lines.append("PNGs say nothing of their pixels: 2 mm are taken.")
    lines.append(f"Made by nnunetv2-mip {__version__}, nnUNetv2_mip_report.")
    return _section("method", "Method", [element("p", line) for line in lines])
