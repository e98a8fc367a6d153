"""Splits that a trained model was trained with: cases and patients of each fold.

A model folder itself names no patient (`splits.without_patients`). nnU-Net trains by the splits of
the preprocessed data set, which the model's plans name; a fold `all` has seen every case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.nnunet.paths import nnunet_folder
from nnunetv2_mip.nnunet.splits import SPLITS_FILE, check_splits


@dataclass(frozen=True)
class TrainingSplits:
    """Splits of a model's training data.

    Attributes:
        source: the splits file.
        folds: content of the file: training and validation cases of each fold.
        patients: case → patient, of all cases.
    """

    source: Path
    folds: list[dict[str, list[str]]]
    patients: dict[str, str]

    def validated_in(self) -> dict[str, int]:
        """Case → fold whose network did not train on it."""
        return {case: fold for fold, split in enumerate(self.folds) for case in split["val"]}


def training_splits(model: Path) -> TrainingSplits:
    """Splits that a model was trained with, checked by `splits.check_splits`.

    Args:
        model: model folder.

    Raises:
        MipError: it is no model folder; its data set is not there (`nnUNet_preprocessed`), or has
            no splits; the splits are not nnU-Net's, or mix patients.
    """
    folder = _preprocessed(model)
    path = folder / SPLITS_FILE
    if not path.is_file():
        raise MipError(f"{path}: no such file: it says which patients each fold of {model} saw")
    folds, patients = read_json(path), _patients(folder)
    check_splits(folds, patients, sorted(patients), source=str(path))
    return TrainingSplits(path, folds, patients)


def seen_patients(model: Path, folds: Sequence[int | str]) -> set[str]:
    """Patients that at least one of a model's networks was trained on.

    Args:
        model: model folder.
        folds: of the networks in question, numbers or `all`.

    Raises:
        MipError: as `training_splits`, or the splits have no such fold.
    """
    if "all" in folds:
        patients = _patients(_preprocessed(model))
        if not patients:
            path = _preprocessed(model) / "dataset.json"
            raise MipError(f"{path}: {'names no patients' if path.is_file() else 'no such file'}")
        return set(patients.values())
    splits = training_splits(model)
    seen: set[str] = set()
    for fold in map(int, folds):
        if not 0 <= fold < len(splits.folds):
            raise MipError(f"{splits.source}: has no fold {fold}, of which {model} has a network")
        seen |= {splits.patients[case] for case in splits.folds[fold]["train"]}
    return seen


def _preprocessed(model: Path) -> Path:
    """Folder of the preprocessed data set that a model's plans name; it need not exist."""
    if not (model / "plans.json").is_file():
        raise MipError(f"{model}: is not a model folder: give one of nnUNet_results")
    dataset = read_json(model / "plans.json").get("dataset_name", "")
    return nnunet_folder("nnUNet_preprocessed") / dataset


def _patients(folder: Path) -> dict[str, str]:
    """Case → patient of a preprocessed data set; empty where it is missing or names none."""
    path = folder / "dataset.json"
    return read_json(path).get("mip", {}).get("patients", {}) if path.is_file() else {}
