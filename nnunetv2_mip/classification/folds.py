"""Folds of a classification: every case judged once, patients kept apart."""

from collections.abc import Mapping, Sequence

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.nnunet.splits import DEFAULT_FOLDS, DEFAULT_SEED, patient_grouped_splits


def folds_of_splits(splits: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, int]:
    """Case → the fold that judges it, from nnU-Net's splits."""
    return {case: number for number, fold in enumerate(splits) for case in fold["val"]}


def dealt_folds(
    patients: Mapping[str, str],
    has_lesion: Mapping[str, bool],
    given: Mapping[str, int] | None = None,
    n_folds: int = DEFAULT_FOLDS,
    seed: int = DEFAULT_SEED,
) -> dict[str, int]:
    """A fold for every case; those already `given` stay, the others are dealt as by `splits`.

    A segmentation network that saw some of the cases gives the folds of those; the cases it never
    saw can be dealt freely.

    Args:
        patients: case → patient.
        has_lesion: case → whether it shows a lesion.
        given: case → fold of some of them; cases that `patients` lacks are passed over.
        n_folds: number of folds.
        seed: of the dealing.

    Raises:
        MipError: a patient would be in two folds, or too few patients for the folds.
    """
    folds = {case: fold for case, fold in (given or {}).items() if case in patients}
    home: dict[str, int] = {}
    for case, fold in folds.items():
        if home.setdefault(patients[case], fold) != fold:
            raise MipError(
                f"patient {patients[case]} is in folds {home[patients[case]]} and {fold}"
            )
        if not 0 <= fold < n_folds:
            raise MipError(f"{case}: is in fold {fold}, of {n_folds} folds")
    rest = {}
    for case, patient in patients.items():
        if patient in home:
            folds[case] = home[patient]
        else:
            rest[case] = patient
    if rest:
        dealt = patient_grouped_splits(rest, has_lesion, n_folds, seed)
        if not dealt and len(set(rest.values())) == 1:
            return folds | dict.fromkeys(rest, 0)
        folds |= folds_of_splits(dealt)
    return folds
