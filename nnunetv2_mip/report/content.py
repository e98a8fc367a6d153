"""Content of a report: the request, and what was read, scored and drawn for it."""

from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.report.case_facts import CaseFacts
from nnunetv2_mip.report.dataset_check import DatasetCheck
from nnunetv2_mip.report.rotating_mip import RotatingMIP, RotatingMIPSettings
from nnunetv2_mip.report.training_curves import TrainingHistory

DEFAULT_SHOWN = 4


@dataclass(frozen=True)
class ReportRequest:
    """Inputs and settings of a report; at least one of the first four is given.

    Attributes:
        predictions, truths: as `evaluation.evaluate` takes them.
        dataset: raw nnU-Net data set to check.
        model: model folder whose training is shown.
        images: where the images are, if neither truths nor data set have them.
        dicom: of images that are DICOM series.
        title: of the page; None makes one.
        shown: so many of the worst and of the best cases are drawn.
        drawing: settings of the rotating MIPs.
        allow_missing, only_predicted, min_overlap: as `evaluation.evaluate` takes them.
        processes: workers for reading and drawing.
    """

    predictions: Path | None = None
    truths: Path | None = None
    dataset: Path | None = None
    model: Path | None = None
    images: Path | None = None
    title: str | None = None
    shown: int = DEFAULT_SHOWN
    drawing: RotatingMIPSettings = field(default_factory=RotatingMIPSettings)
    allow_missing: bool = False
    only_predicted: bool = False
    min_overlap: float = 0.0
    processes: int = 1
    dicom: DicomOptions = FROM_HEADERS


@dataclass(frozen=True)
class CaseGroup:
    """Cases that are drawn under one heading.

    Attributes:
        heading: of the group.
        remark: what its cases have in common, or their order.
        cases: names, in the order of the page.
    """

    heading: str
    remark: str
    cases: list[str]


@dataclass(frozen=True)
class ReportContent:
    """Data of all sections; parts that were not asked for are None or empty.

    Attributes:
        request: inputs and settings.
        scores: result of `evaluation.evaluate`.
        facts: of the predicted cases, by name.
        check: of the data set, or of the truths.
        groups: cases that are drawn.
        pictures: their rotating MIPs, by name.
        drawn_facts: facts of the drawn cases, by name.
        training: curves of the model folder.
    """

    request: ReportRequest
    scores: dict | None
    facts: dict[str, CaseFacts]
    check: DatasetCheck | None
    groups: list[CaseGroup]
    pictures: dict[str, RotatingMIP]
    drawn_facts: dict[str, CaseFacts]
    training: TrainingHistory | None

    def card_id(self, case: str) -> str | None:
        """Id of the element that shows a case, None for a case that is not drawn."""
        return self.drawn_card_id(case) if case in self.pictures else None

    def drawn_card_id(self, case: str) -> str:
        """Id of the element that shows a drawn case."""
        return f"card-{list(self.pictures).index(case)}"
