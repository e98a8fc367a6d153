"""Cross-validation splits by patient, and the check that no patient is on both sides of a fold.

nnU-Net splits by case: two studies of one patient can be on both sides of a fold.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.wording import counted

SPLITS_FILE = "splits_final.json"
DEFAULT_FOLDS = 5
DEFAULT_SEED = 12345
# Parts of dataset.json["mip"] with data of single patients.
PATIENT_KEYS = ("patients", "has_lesion", "source_of")
# Names listed in an error line before it says how many more there are.
NAMES_SHOWN = 3


def patient_grouped_splits(
    patients: Mapping[str, str],
    has_lesion: Mapping[str, bool],
    n_folds: int = DEFAULT_FOLDS,
    seed: int = DEFAULT_SEED,
) -> list[dict[str, list[str]]]:
    """Splits of a data set in nnU-Net's format: [{"train": [case, …], "val": [case, …]}, …].

    All cases of a patient fall into one fold. Patients with a lesion (in any of their cases) and
    without are dealt out in turn, so that the folds differ by at most one patient in either group
    and in all. Patients with many cases are dealt first, which evens out the cases. The result
    depends on the names and the seed alone, not on the order of the mappings.

    Args:
        patients: case → patient.
        has_lesion: case → whether the case shows a lesion.
        n_folds: wanted folds; with fewer patients there are as many folds as patients.
        seed: another seed gives another arrangement.

    Returns:
        The folds with sorted cases. An empty list for a single patient, who cannot be split:
        such a data set trains with fold `all`.

    Raises:
        MipError: no case, fewer than two folds wanted, or a case without lesion information.
    """
    if n_folds < 2:
        raise MipError(f"{counted(n_folds, 'fold')}: a cross-validation needs at least 2")
    if not patients:
        raise MipError("no case to split: the data set is empty")
    unknown = sorted(set(patients) - set(has_lesion))
    if unknown:
        raise MipError(f"has_lesion says nothing about {_names(unknown)}")

    cases = Counter(patients.values())
    with_lesion = {patient for case, patient in patients.items() if has_lesion[case]}

    def turn(patient: str) -> tuple:
        shuffled = hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()
        return patient not in with_lesion, -cases[patient], shuffled

    count = min(n_folds, len(cases))
    if count < 2:
        return []
    fold_of = {patient: turn % count for turn, patient in enumerate(sorted(cases, key=turn))}
    return [
        {
            "train": sorted(case for case, patient in patients.items() if fold_of[patient] != fold),
            "val": sorted(case for case, patient in patients.items() if fold_of[patient] == fold),
        }
        for fold in range(count)
    ]


def check_splits(
    splits: Any, patients: Mapping[str, str], cases: Collection[str], source: str = SPLITS_FILE
) -> None:
    """Check that every fold uses all cases and that no patient is in two parts that exclude it.

    Args:
        splits: content of a splits file.
        patients: case → patient.
        cases: the cases that exist (as preprocessed, when a training asks).
        source: the file's name for messages.

    Raises:
        MipError: not nnU-Net's format; a case that does not exist, or one that a fold leaves out
            (a stale file); a case without a patient; a patient both in training and validation of
            a fold, or in the validation of two folds; a side of a fold without cases.
    """
    remedy = "convert the data set again, or write splits that are grouped by patient"
    cases = set(cases)
    check_format(splits, source)
    no_patient = sorted(cases - set(patients))
    if no_patient:
        raise MipError(
            f'dataset.json: "mip" → "patients" does not name the patient of {_names(no_patient)}: '
            "convert the data set again"
        )
    validated_in: dict[str, int] = {}
    for number, fold in enumerate(splits):
        train, val = set(fold["train"]), set(fold["val"])
        for side, content in (("train", train), ("val", val)):
            if not content:
                raise MipError(f"{source}: fold {number} has no {side} case: {remedy}")
        unknown = sorted((train | val) - cases)
        if unknown:
            raise MipError(
                f"{source}: stale: fold {number} names {_names(unknown)}, not in the data set: "
                f"{remedy}"
            )
        missing = sorted(cases - train - val)
        if missing:
            raise MipError(
                f"{source}: stale: fold {number} does not use {_names(missing)}: {remedy}"
            )
        val_patients = {patients[case] for case in val}
        shared = sorted(val_patients & {patients[case] for case in train})
        if shared:
            raise MipError(
                f"{source}: fold {number} has patient {_names(shared)} both in training and in "
                f"validation: {remedy}"
            )
        for patient in sorted(val_patients):
            if patient in validated_in:
                raise MipError(
                    f"{source}: patient {patient} is in the validation of folds "
                    f"{validated_in[patient]} and {number}: {remedy}"
                )
            validated_in[patient] = number


def without_patients(dataset_json: dict) -> dict:
    """Copy of a dataset.json's content without data of single patients."""
    if "mip" not in dataset_json:
        return dataset_json
    mip = {key: value for key, value in dataset_json["mip"].items() if key not in PATIENT_KEYS}
    return {**dataset_json, "mip": mip}


def check_format(splits: Any, source: str = SPLITS_FILE) -> None:
    """Check of a splits file's content for nnU-Net's form; raises MipError."""

    def is_fold(fold: Any) -> bool:
        return isinstance(fold, dict) and all(
            isinstance(fold.get(side), list) and all(isinstance(case, str) for case in fold[side])
            for side in ("train", "val")
        )

    if not isinstance(splits, list) or not all(is_fold(fold) for fold in splits):
        raise MipError(f'{source}: not a list of {{"train": [case, …], "val": [case, …]}}')


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    hidden = len(names) - NAMES_SHOWN
    return f"{shown} and {hidden} more" if hidden > 0 else shown
