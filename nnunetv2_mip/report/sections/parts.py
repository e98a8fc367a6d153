"""What the sections of the page are made of: tiles, numbers, tables, plots."""

import math
from collections.abc import Sequence

from nnunetv2_mip.report import charts
from nnunetv2_mip.report.case_facts import Facts
from nnunetv2_mip.report.content import Content
from nnunetv2_mip.report.markup import Markup, element, join

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
DECIMALS = {"dice": 3, "lesion_recall": 3, "lesion_precision": 3, "lesion_f1": 3, "hd95_mm": 1}


def section_of(identity: str, name: str, *children) -> tuple[str, str, Markup]:
    heading = element("h2", name, id=f"{identity}-title")
    whole = element("section", heading, *children, id=identity, aria_labelledby=f"{identity}-title")
    return identity, name, whole


def card_id(content: Content, case: str) -> str:
    """The id of a case's card."""
    return f"card-{list(content.turns).index(case)}"


def card_id_or_none(content: Content, case: str) -> str | None:
    return card_id(content, case) if case in content.turns else None


def tile_of(name: str, value: str, remark: str = "") -> Markup:
    return element(
        "div",
        element("span", name, class_="name"),
        element("span", value, class_="value"),
        element("span", remark, class_="muted"),
        class_="tile",
    )


def size_unit(facts: Sequence[Facts]) -> str | None:
    """The unit of the burdens, None where they differ."""
    units = {f.unit for f in facts}
    return units.pop() if len(units) == 1 else None


def formatted(value: float | None, decimals: int) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{decimals}f}"


def size_of(row: dict) -> float:
    return row["volume_ml"] if "volume_ml" in row else row["area_cm2"]


def plots_of(drawn: Sequence[charts.Chart]) -> Markup | None:
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


def scrolling(table: Markup, name: str) -> Markup:
    """A table that scrolls by itself where the window is narrow."""
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=name)


def sortable_table(content: Content, heads: Sequence[str], rows: Sequence, remark: str) -> Markup:
    body = []
    for case, cells in rows:
        card = card_id_or_none(content, case)
        name = element("a", case, href=f"#{card}") if card else case
        values = []
        for value, decimals in cells:
            known = value is not None and not math.isnan(value)
            key = repr(float(value)) if known else ""
            values.append(element("td", formatted(value, decimals), data_value=key))
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
            scrolling(table, "All cases"),
        ]
    )
