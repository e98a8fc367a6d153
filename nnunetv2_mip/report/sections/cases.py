"""Section "Cases": cards with a rotating MIP, scores and tables of lesions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nnunetv2_mip.lesions.lesion_table import TITLES as LESION_TITLES
from nnunetv2_mip.lesions.region_table import TITLES as REGION_TITLES
from nnunetv2_mip.report.case_facts import CaseFacts
from nnunetv2_mip.report.content import ReportContent
from nnunetv2_mip.report.rotating_mip import RotatingMIP
from nnunetv2_mip.wording import counted

# In the order of importance: on a phone the first columns are seen without scrolling.
LESION_COLUMNS = ("volume_ml", "area_cm2", "suv_max", "suv_mean", "tlg", "max_uptake_percent")
MAX_LESION_ROWS = 60


@dataclass(frozen=True)
class LesionRow:
    """Row of a lesion: its cells as text, and whether it is missed or false."""

    cells: list[str]
    is_error: bool


@dataclass(frozen=True)
class LesionTable:
    """Table of the true or predicted lesions of a case.

    Attributes:
        name: of the table.
        case: whose lesions these are.
        count: number of lesions.
        columns: titles.
        rows: of at most `MAX_LESION_ROWS` lesions, the largest first.
    """

    name: str
    case: str
    count: int
    columns: list[str]
    rows: list[LesionRow]


@dataclass(frozen=True)
class Card:
    """Card of one case.

    Attributes:
        id: of its element.
        case: name.
        facts: scores or amounts, as short texts.
        is_rotating: whether it has several views.
        columns, rows: pixels of a view.
        has_image: whether there is a PET image behind the masks.
        tables: of true and of predicted lesions.
    """

    id: str
    case: str
    facts: list[str]
    is_rotating: bool
    columns: int
    rows: int
    has_image: bool
    tables: list[LesionTable]


@dataclass(frozen=True)
class CardGroup:
    """Cards under one heading."""

    heading: str
    remark: str
    cards: list[Card]


@dataclass(frozen=True)
class CasesSection:
    """Values of the section of cases.

    Attributes:
        masks: names of the masks that can be shown and hidden.
        is_rotating: whether any case has several views.
        groups: of cards.
    """

    id: ClassVar[str] = "cases"
    title: ClassVar[str] = "Cases"
    template: ClassVar[str] = "cases.html"
    masks: list[str]
    is_rotating: bool
    groups: list[CardGroup]


def cases_section(content: ReportContent) -> CasesSection | None:
    """Cards of the drawn cases; None where none is drawn."""
    if not content.pictures:
        return None
    pages = [picture.page for picture in content.pictures.values()]
    masks = [
        name
        for name, key in (("Truth", "has_truth"), ("Prediction", "has_prediction"))
        if any(page[key] for page in pages)
    ]
    groups = [
        CardGroup(group.heading, group.remark, [_card(content, case) for case in group.cases])
        for group in content.groups
    ]
    return CasesSection(masks, any(page["views"] > 1 for page in pages), groups)


def _card(content: ReportContent, case: str) -> Card:
    facts, picture = content.drawn_facts[case], content.pictures[case]
    texts = (
        _amounts(facts) if content.scores is None else _score_texts(content.scores["cases"][case])
    )
    return Card(
        content.drawn_card_id(case),
        case,
        texts,
        picture.views > 1,
        picture.page["columns"],
        picture.page["rows"],
        picture.page["has_image"],
        _lesion_tables(facts, picture),
    )


def _score_texts(row: dict) -> list[str]:
    has_lesion = row["has_lesion"]
    texts = [f"Dice {row['dice']:.3f}" if has_lesion else "no lesion"]
    if "false_positive_volume_ml" in row:
        texts.append(f"FPV {row['false_positive_volume_ml']:.1f} ml")
        texts += [f"FNV {row['false_negative_volume_ml']:.1f} ml"] if has_lesion else []
    else:
        texts.append(f"FP {row['false_positive_pixels']} px")
        texts += [f"FN {row['false_negative_pixels']} px"] if has_lesion else []
    if row.get("lesions"):
        texts.append(f"found {row['lesions_found']} of {row['lesions']}")
    return texts


def _amounts(facts: CaseFacts) -> list[str]:
    texts = []
    for mask, amount, rows in (
        ("truth", facts.burden, facts.lesions),
        ("predicted", facts.predicted_burden, facts.predicted),
    ):
        if amount is not None:
            count = "" if rows is None else f", {counted(len(rows), 'lesion')}"
            texts.append(f"{mask} {amount:.1f} {facts.unit}{count}")
    return texts


def _lesion_tables(facts: CaseFacts, picture: RotatingMIP) -> list[LesionTable]:
    true = facts.lesions
    if true and picture.seen_in is not None:
        views = {"views": picture.views}
        true = [row | {"seen_in": seen} | views for row, seen in zip(true, picture.seen_in)]
    tables = []
    for name, rows, column, answers in (
        ("True lesions", true, "Found", ("yes", "missed")),
        ("Predicted lesions", facts.predicted, "Right", ("yes", "false")),
    ):
        if rows:
            is_compared = any("hit" in row for row in rows)
            columns, cells = _lesion_rows(rows, column if is_compared else None, answers)
            tables.append(LesionTable(name, facts.case, len(rows), columns, cells))
    return tables


def _lesion_rows(
    rows: Sequence[dict], hit_column: str | None, answers: tuple[str, str]
) -> tuple[list[str], list[LesionRow]]:
    """Titles of the columns and rows of a table of lesions.

    Args:
        rows: of `CaseFacts`.
        hit_column: title of the column that says which lesions are hit, None to leave it out.
        answers: its texts for hit lesions and for others.
    """
    titles = {**LESION_TITLES, **REGION_TITLES}
    keys = [key for key in LESION_COLUMNS if any(row.get(key) is not None for row in rows)]
    has_visibility = any("seen_in" in row for row in rows)
    # The size first, then the answers, then the rest.
    columns = ["#", *[titles[key] for key in keys[:1]]]
    columns += [hit_column] if hit_column else []
    columns += ["Visible in views"] if has_visibility else []
    columns += [titles[key] for key in keys[1:]]
    shown = []
    for number, row in enumerate(rows[:MAX_LESION_ROWS], start=1):
        values = ["" if row[key] is None else f"{row[key]:.4g}" for key in keys]
        cells = [str(number), *values[:1]]
        cells += [answers[0 if row["hit"] else 1]] if hit_column else []
        cells += [f"{row['seen_in']} of {row['views']}"] if has_visibility else []
        is_error = hit_column is not None and not row["hit"]
        shown.append(LesionRow([*cells, *values[1:]], is_error))
    return columns, shown
