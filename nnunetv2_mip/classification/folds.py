"""Folds of a cross-validation: every case is validated once, all cases of a patient in one fold."""

from collections.abc import Mapping, Sequence

import numpy as np

from nnunetv2_mip.classification.study_labels import StudyLabel, patients_by_class
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.nnunet.splits import DEFAULT_FOLDS, DEFAULT_SEED, patient_grouped_splits

INNER_FOLDS = 5
INNER_SEED = 1


def folds_of_splits(splits: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, int]:
    """Case → fold that validates it, from nnU-Net's splits."""
    return {case: number for number, fold in enumerate(splits) for case in fold["val"]}


def assigned_folds(
    studies: Sequence[StudyLabel],
    fixed: Mapping[str, int] | None = None,
    n_folds: int = DEFAULT_FOLDS,
    seed: int = DEFAULT_SEED,
) -> dict[str, int]:
    """Case → fold: the `fixed` ones as they are, the others by `splits.patient_grouped_splits`.

    Folds are fixed for the cases that a segmentation network was trained on. Cases that it never
    saw can be in any fold.

    Args:
        studies: all of them.
        fixed: case → fold of some of them; other cases in it are ignored.
        n_folds: number of folds.
        seed: of the random assignment.

    Raises:
        MipError: a patient would be in two folds, or too few patients for the folds.
    """
    patients = {study.case: study.patient for study in studies}
    folds = {case: fold for case, fold in (fixed or {}).items() if case in patients}
    fold_of_patient: dict[str, int] = {}
    for case, fold in folds.items():
        if fold_of_patient.setdefault(patients[case], fold) != fold:
            raise MipError(
                f"patient {patients[case]} is in folds {fold_of_patient[patients[case]]} and {fold}"
            )
        if not 0 <= fold < n_folds:
            raise MipError(f"{case}: is in fold {fold}, of {n_folds} folds")
    rest = {}
    for case, patient in patients.items():
        if patient in fold_of_patient:
            folds[case] = fold_of_patient[patient]
        else:
            rest[case] = patient
    if rest:
        has_lesion = {study.case: study.has_lesion for study in studies}
        splits = patient_grouped_splits(rest, has_lesion, n_folds, seed)
        if not splits and len(set(rest.values())) == 1:
            return folds | dict.fromkeys(rest, 0)
        folds |= folds_of_splits(splits)
    return folds


def inner_folds(studies: Sequence[StudyLabel]) -> np.ndarray:
    """Fold of every study, (N,) int, within the training part of an outer fold.

    There are as many folds as the class with fewer patients allows, at most `INNER_FOLDS`.
    """
    rarest = min(map(len, patients_by_class(studies)))
    folds = assigned_folds(studies, n_folds=max(2, min(INNER_FOLDS, rarest)), seed=INNER_SEED)
    return np.array([folds[study.case] for study in studies])
