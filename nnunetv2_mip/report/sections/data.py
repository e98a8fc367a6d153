"""Section "Data": findings of the data check, plots of the data set."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from nnunetv2_mip.io.volumes import PLAUSIBLE_BODY_MEDIAN_SUV
from nnunetv2_mip.report import charts
from nnunetv2_mip.report.case_facts import CaseFacts, common_unit, lesion_size
from nnunetv2_mip.report.content import ReportContent
from nnunetv2_mip.report.dataset_check import DatasetCheck, Finding
from nnunetv2_mip.report.svg_plot import Chart, Point


@dataclass(frozen=True)
class DataSection:
    """Values of the data section: name of the data set, number of cases, findings, plots."""

    id: ClassVar[str] = "data"
    title: ClassVar[str] = "Data"
    template: ClassVar[str] = "data.html"
    name: str
    cases: int
    findings: list[Finding]
    charts: list[Chart]


def data_section(content: ReportContent) -> DataSection | None:
    """Check of the data set; None without one."""
    check = content.check
    if check is None:
        return None
    drawn = [*_lesion_charts(check), *_case_charts(content, check)]
    return DataSection(check.name, len(check.facts), check.findings, drawn)


def _lesion_charts(check: DatasetCheck) -> list[Chart]:
    facts, unit = check.facts, common_unit(check.facts)
    lesions = [row for f in facts for row in f.lesions or ()]
    drawn = []
    if lesions and unit:
        drawn.append(charts.lesion_sizes([lesion_size(row) for row in lesions], unit))
    if lesions:
        drawn.append(charts.lesion_counts([len(f.lesions) for f in facts if f.lesions is not None]))
    shares = [row["seen_in"] / row["views"] for row in lesions if row.get("views")]
    if shares:
        drawn.append(charts.visibility(shares))
    return drawn


def _case_charts(content: ReportContent, check: DatasetCheck) -> list[Chart]:
    facts, unit = check.facts, common_unit(check.facts)

    def points(values: Iterable[tuple[str, float]]) -> list[Point]:
        return [
            Point(0, value, f"{case}: {value:.4g}", content.card_id(case)) for case, value in values
        ]

    drawn = []
    burdens = [f.burden for f in facts if f.burden]
    if burdens and unit:
        name = "Tumour volume" if unit == "ml" else "Lesion area"
        drawn.append(charts.lesion_sizes(burdens, unit, f"{name} of a case", True))
    if check.folds:
        drawn.append(charts.fold_sizes(check.folds))
    known = [(f.case, f.uptake) for f in facts if f.uptake is not None]
    volumes = [(f.case, f.uptake) for f in facts if f.kind == "volume" and f.uptake is not None]
    if volumes:
        drawn.append(
            charts.values_by_case(
                points(volumes),
                "Median uptake of the body",
                "SUV",
                PLAUSIBLE_BODY_MEDIAN_SUV,
                "what SUV gives; beyond it the unit is most likely another",
            )
        )
    elif known:
        uptakes = points(known)
        drawn.append(charts.values_by_case(uptakes, "Mean level of the body", "level (0–255)"))
    lengths = points((f.case, _length_cm(f)) for f in facts)
    drawn.append(charts.values_by_case(lengths, "Length of the images", "head to foot (cm)"))
    return drawn


def _length_cm(facts: CaseFacts) -> float:
    axis = 2 if facts.kind == "volume" else 1
    return facts.size[axis] * facts.spacing_mm[axis] / 10
