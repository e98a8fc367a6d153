"""The sections on the data set and on training."""

import math

from nnunetv2_mip.io.volumes import PLAUSIBLE_BODY_MEDIAN_SUV
from nnunetv2_mip.report import charts
from nnunetv2_mip.report.content import Content
from nnunetv2_mip.report.dataset_check import Check
from nnunetv2_mip.report.markup import counted, element
from nnunetv2_mip.report.sections.parts import (
    card_id_or_none,
    formatted,
    plots_of,
    scrolling,
    section_of,
    size_of,
    size_unit,
)
from nnunetv2_mip.report.training_curves import Training

LEVEL_WORDS = {"ok": "OK", "note": "Note", "warning": "Warning"}


def dataset_section(content: Content):
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
    return section_of(
        "data",
        "Data",
        element("p", f"{check.name}: {counted(len(check.facts), 'case')}.", class_="muted"),
        element("ul", findings, class_="findings"),
        plots_of(_data_charts(content, check)),
    )


def _data_charts(content: Content, check: Check) -> list[charts.Chart]:
    facts, drawn = check.facts, []

    def points(pairs) -> list[charts.Point]:
        return [
            charts.Point(0, value, f"{case}: {value:.4g}", card_id_or_none(content, case))
            for case, value in pairs
        ]

    unit = size_unit(facts)
    lesions = [row for f in facts for row in f.lesions or ()]
    if lesions and unit:
        drawn.append(charts.lesion_sizes([size_of(row) for row in lesions], unit))
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


def training_section(training: Training | None):
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
                formatted(curves.values["val_loss"][-1], 3),
                f"{dice[-1]:.3f}" if dice else "–",
                f"{max(dice):.3f}" if dice else "–",
                f"{hours:.2f}",
            ]
        )
    heads = (
        "Fold", "Epochs", "Training loss", "Validation loss", "Pseudo Dice, last",
        "Pseudo Dice, best", "Hours",
    )  # fmt: skip
    parts = [scrolling(element("table", element("tbody", known)), "Model")]
    if folds:
        head = element("tr", [element("th", name, scope="col") for name in heads])
        body = [element("tr", [element("td", cell) for cell in row]) for row in folds]
        table = element("table", element("thead", head), element("tbody", body))
        parts.append(scrolling(table, "Folds"))
    if training.silent:
        text = (
            f"No training curves for fold {', '.join(training.silent)}: the folder holds weights "
            "alone (an exported model keeps no logs)."
        )
        parts.append(element("p", text, class_="muted"))
    return section_of("training", "Training", parts, plots_of(_training_charts(training)))


def _training_charts(training: Training) -> list[charts.Chart]:
    folds = training.folds
    if not folds:
        return []
    losses = [(c.fold, c.epochs, c.values["train_loss"], c.values["val_loss"]) for c in folds]
    dices = [(c.fold, c.epochs, c.values["dice"]) for c in folds]
    return [charts.loss_curves(losses), charts.dice_curves(dices)]
