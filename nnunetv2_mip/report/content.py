"""Content of a report: what was asked, and what was found of every group of cases."""

from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_mip.report.case_facts import Facts
from nnunetv2_mip.report.dataset_check import Check
from nnunetv2_mip.report.rotating_mip import Turn, TurnSettings
from nnunetv2_mip.report.training_curves import Training

DEFAULT_SHOWN = 4


@dataclass(frozen=True)
class Request:
    """What a report is asked to be of; at least one of the first four is there.

    Attributes:
        predictions, truths: as `evaluation.evaluate` takes them.
        dataset: raw nnU-Net data set to check.
        model: model folder whose training is shown.
        images: where the images are, if neither truths nor data set have them.
        title: of the page; None makes one.
        shown: so many of the worst and of the best cases are drawn.
        turn: how they are drawn.
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
    turn: TurnSettings = field(default_factory=TurnSettings)
    allow_missing: bool = False
    only_predicted: bool = False
    min_overlap: float = 0.0
    processes: int = 1


@dataclass(frozen=True)
class Group:
    """Cases that are drawn together: heading, what they have in common, names."""

    heading: str
    remark: str
    cases: list[str]


@dataclass(frozen=True)
class Content:
    """What the page is made of; parts that were not asked for are None or empty.

    Attributes:
        scores: report of `evaluation.evaluate`.
        facts: of the predicted cases, by name.
        check: of the data set, or of the truths.
        groups, turns: the cases that are drawn, and their pictures by name.
        drawn_facts: facts of the drawn cases, by name.
    """

    request: Request
    scores: dict | None
    facts: dict[str, Facts]
    check: Check | None
    groups: list[Group]
    turns: dict[str, Turn]
    drawn_facts: dict[str, Facts]
    training: Training | None
