"""Names and truths of the studies that a classifier is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.wording import counted


@dataclass(frozen=True)
class StudyLabel:
    """Case, patient and truth of one study.

    Attributes:
        case, patient: names.
        has_lesion: the truth.
    """

    case: str
    patient: str
    has_lesion: bool


def patients_by_class(studies: Sequence[StudyLabel]) -> tuple[set[str], set[str]]:
    """Patients with a study that shows lesions, and patients without one."""
    with_lesions = {study.patient for study in studies if study.has_lesion}
    return with_lesions, {study.patient for study in studies} - with_lesions


def require_both_classes(studies: Sequence[StudyLabel]) -> None:
    """Check that a classifier can be trained on these studies.

    Raises:
        MipError: no study, or a class with fewer than two patients.
    """
    if not studies:
        raise MipError("no study to learn from: the data set is empty")
    with_lesions, without = patients_by_class(studies)
    remedy = "a classifier needs at least two patients of either kind in every part it learns from"
    if len(without) < 2:
        raise MipError(
            f"{counted(len(without), 'patient')} without lesions: {remedy}; add lesion-free studies"
        )
    if len(with_lesions) < 2:
        raise MipError(
            f"{counted(len(with_lesions), 'patient')} with lesions: {remedy}; add studies with "
            "lesions"
        )
