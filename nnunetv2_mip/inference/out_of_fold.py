"""Out-of-fold probabilities: each case of a data set by a network that did not train on it.

Either predicted here, fold by fold, or read from files that a training or a benchmark left.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_mip.conventions import LESION
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.nnunet.model_folder import CHECKPOINT, folds_with_checkpoint
from nnunetv2_mip.nnunet.paths import nnunet_folder
from nnunetv2_mip.nnunet.training_splits import training_splits
from nnunetv2_mip.views.stack_files import FILE_ENDING, read_levels, read_stack


@dataclass(frozen=True)
class TrainingData:
    """Raw data set that a model was trained on.

    Attributes:
        folder: with imagesTr and labelsTr.
        channels: number of channels of a case.
        patients: case → patient.
    """

    folder: Path
    channels: int
    patients: dict[str, str]

    @classmethod
    def of_model(cls, model: Path) -> "TrainingData":
        """The data set that a model's plans name.

        Raises:
            MipError: `nnUNet_raw` is not set or lacks the data set, or no converter of this package
                made it.
        """
        name = read_json(model / "plans.json").get("dataset_name", "")
        folder = nnunet_folder("nnUNet_raw") / name
        path = folder / "dataset.json"
        if not name or not path.is_file():
            raise MipError(f"{path}: no such file: {model} was trained on this data set")
        content = read_json(path)
        patients = content.get("mip", {}).get("patients")
        if not patients:
            raise MipError(f'{path}: no "mip" → "patients": convert the data set again')
        return cls(folder, len(content["channel_names"]), patients)

    def truth(self, case: str) -> np.ndarray:
        """Labels (V, H, W) of a case.

        Raises:
            MipError: the file is missing or cannot be read.
        """
        return read_stack(self._existing("labelsTr", case))[0]

    def levels(self, case: str, window_suv: float) -> tuple[np.ndarray, tuple[float, float]]:
        """Levels (C, V, H, W) of a case, and its (row, column) spacing in mm.

        Raises:
            MipError: a file is missing or cannot be read.
        """
        read = [
            read_levels(self._existing("imagesTr", f"{case}_{channel:04d}"), window_suv)
            for channel in range(self.channels)
        ]
        return np.stack([levels for levels, _ in read]), read[0][1][1:]

    def _existing(self, folder: str, stem: str) -> Path:
        path = self.folder / folder / f"{stem}{FILE_ENDING}"
        if not path.is_file():
            raise MipError(f"{path}: no such file: convert the data set again")
        return path


def validation_cases(
    model: Path, folds: Sequence[int | str] | None = None, checkpoint: str = CHECKPOINT
) -> dict[int, list[str]]:
    """Fold → its validation cases, for folds of a model that are trained.

    Args:
        model: model folder.
        folds: numbers of folds; None: all that have a checkpoint.
        checkpoint: file name in the fold folders.

    Raises:
        MipError: the folder or one of the folds lacks something; fold `all`, which has trained on
            every case; the splits are missing, mix patients or have no such fold.
    """
    folds = folds_with_checkpoint(model, folds, checkpoint)
    if any(not str(fold).isdigit() for fold in folds):
        raise MipError(
            f"{model}: fold {folds[0]} has trained on every case: train folds by number (0, 1, …)"
        )
    splits = training_splits(model)
    for fold in map(int, folds):
        if fold >= len(splits.folds):
            raise MipError(f"{splits.source}: has no fold {fold}, of which {model} has a network")
    return {int(fold): list(splits.folds[int(fold)]["val"]) for fold in folds}


def predict_out_of_fold(
    model: Path,
    data: TrainingData,
    cases: dict[int, list[str]],
    checkpoint: str = CHECKPOINT,
    device: str = "cuda",
) -> Iterator[tuple[str, np.ndarray]]:
    """Case and lesion probability (V, H, W), predicted with the settings of inference.json.

    Args:
        model: model folder.
        data: of the model.
        cases: fold → cases, from `validation_cases`.
        checkpoint: file name in the fold folders.
        device: `cpu`, `cuda` or `mps`.

    Raises:
        MipError: a model or a case that cannot be read.
    """
    from nnunetv2_mip.inference.view_predictor import ViewPredictor

    for fold, names in cases.items():
        predictor = ViewPredictor.from_model_folder(model, [fold], checkpoint, device)
        for case in names:
            levels, pixel_mm = data.levels(case, predictor.config.window_suv)
            yield case, predictor.view_probabilities(levels, pixel_mm)


def probability_files(folders: Sequence[Path], data: TrainingData) -> list[tuple[str, Path]]:
    """Case and file of all probabilities in these folders, `<case>.npz` each.

    Raises:
        MipError: a folder without such files, or a file that is no case of the data set.
    """
    found = []
    for folder in folders:
        files = sorted(folder.glob("*.npz"))
        if not files:
            raise MipError(f"{folder}: holds no probabilities (<case>.npz): train with --npz")
        found += [(path.stem, path) for path in files]
    for case, path in found:
        if case not in data.patients:
            raise MipError(f"{path}: {data.folder} has no case {case}")
    return found


def read_probability(path: Path) -> np.ndarray:
    """Lesion probability (V, H, W) float32 of a file.

    Args:
        path: nnU-Net's (`probabilities`, (K, V, H, W)), or one view in 8 bits (`levels`, (H, W)) as
            benchmarks/dmiai/recipes.py keeps it.

    Raises:
        MipError: another file.
    """
    try:
        with np.load(path) as content:
            if "levels" in content:
                return content["levels"][None].astype(np.float32) / 255
            return content["probabilities"][LESION].astype(np.float32)
    except (OSError, ValueError, KeyError, IndexError, EOFError) as error:
        raise MipError(f"{path}: holds no probabilities of nnU-Net ({error})") from None
