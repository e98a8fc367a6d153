"""Section "All cases": a table with a row for every case, which the page sorts."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from nnunetv2_mip.evaluation.summary import worst_first
from nnunetv2_mip.report.case_facts import CaseFacts, common_unit
from nnunetv2_mip.report.content import ReportContent
from nnunetv2_mip.report.formatting import fixed
from nnunetv2_mip.report.sections.metrics import SCORES


@dataclass(frozen=True)
class Cell:
    """Number in the table: rounded as `text`, with all digits as `value` for sorting."""

    text: str
    value: str


@dataclass(frozen=True)
class CaseRow:
    """Row of a case; `card` is the id of its picture's element, None for a case not drawn."""

    case: str
    card: str | None
    cells: list[Cell]


@dataclass(frozen=True)
class AllCasesSection:
    """Values of the table of all cases: a remark on the order, titles of the columns, rows."""

    id: ClassVar[str] = "all"
    title: ClassVar[str] = "All cases"
    template: ClassVar[str] = "all_cases.html"
    remark: str
    columns: list[str]
    rows: list[CaseRow]


def all_cases_section(content: ReportContent) -> AllCasesSection | None:
    """Scores of every case, or its predicted lesions without truth; None without predictions."""
    if content.scores is not None:
        remark = "Worst first, cases without lesions at the end."
        columns, rows = _scored(content.scores)
    elif content.facts:
        remark = "The largest predicted tumour burden first."
        columns, rows = _unscored(list(content.facts.values()))
    else:
        return None
    return AllCasesSection(
        remark,
        ["Case", *columns],
        [CaseRow(case, content.card_id(case), cells) for case, cells in rows],
    )


def _cell(value: float | None, decimals: int) -> Cell:
    text = fixed(value, decimals)
    return Cell(text, "" if value is None or math.isnan(value) else repr(float(value)))


def _scored(scores: dict) -> tuple[list[str], Iterable[tuple[str, list[Cell]]]]:
    cases = scores["cases"]
    shown = {key: score for key, score in SCORES.items() if key in scores["mean"]}
    columns = [score.name for score in shown.values()]
    counts: tuple[str, ...] = ()
    if "lesions" in next(iter(cases.values())):
        columns += ["Lesions", "Found"]
        counts = ("lesions", "lesions_found")
    rows = []
    for case in worst_first(cases):
        row = cases[case]
        cells = [_cell(row[key], score.decimals) for key, score in shown.items()]
        rows.append((case, cells + [_cell(row[key], 0) for key in counts]))
    return columns, rows


def _unscored(facts: list[CaseFacts]) -> tuple[list[str], Iterable[tuple[str, list[Cell]]]]:
    unit = common_unit(facts) or "ml or cm²"
    are_volumes = all(f.kind == "volume" for f in facts)
    columns = ["Lesions", f"{'Volume' if unit == 'ml' else 'Area'} ({unit})"]
    columns += ["SUVmax", "TLG (g)"] if are_volumes else []
    rows = []
    for f in sorted(facts, key=lambda f: -(f.predicted_burden or 0)):
        lesions = f.predicted or []
        count = None if f.predicted is None else len(lesions)
        cells = [_cell(count, 0), _cell(f.predicted_burden, 2)]
        if are_volumes:
            known = [row for row in lesions if row["suv_max"] is not None]
            highest = max((row["suv_max"] for row in known), default=None)
            cells.append(_cell(highest, 2))
            cells.append(_cell(sum(row["tlg"] for row in known) if known else None, 1))
        rows.append((f.case, cells))
    return columns, rows
