"""Cases as pictures to turn, with their lesions."""

from collections.abc import Sequence

from nnunetv2_mip.lesions.lesion_table import TITLES as LESION_TITLES
from nnunetv2_mip.lesions.region_table import TITLES as REGION_TITLES
from nnunetv2_mip.report.case_facts import Facts
from nnunetv2_mip.report.content import Content
from nnunetv2_mip.report.markup import Markup, counted, element
from nnunetv2_mip.report.sections.parts import card_id, scrolling, section_of

# In a table that is looked at on a phone: what matters first.
LESION_COLUMNS = ("volume_ml", "area_cm2", "suv_max", "suv_mean", "tlg", "max_uptake_percent")
MAX_LESION_ROWS = 60


def cases_section(content: Content):
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
    return section_of(
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
    sliders = (
        ("opacity", "Overlay", 0, 100, 70),
        ("darkness", "Darkness", 100, 500, 100),
        ("size", "Size", 100, 300, 100),
    )
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
    identity, page = card_id(content, case), turn.page
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
            number = "" if rows is None else f", {counted(len(rows), 'lesion')}"
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
            element("details", element("summary", count), scrolling(table, f"{name}, {facts.case}"))
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
