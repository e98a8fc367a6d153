"""nnU-Net's folders from the environment, read at each call, without importing nnunetv2."""

import os
from importlib.resources import files
from pathlib import Path

from nnunetv2_mip.errors import MipError

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def nnunet_folder(variable: str) -> Path:
    """Folder that an environment variable names.

    Raises:
        MipError: the variable is not set, or names a file.
    """
    value = os.environ.get(variable)
    if not value:
        raise MipError(
            f"the environment variable {variable} is not set; run  "
            'eval "$(nnUNetv2_mip_env)"  or set it to a folder'
        )
    if Path(value).exists() and not Path(value).is_dir():
        raise MipError(f"{value}: the environment variable {variable} names a file, not a folder")
    return Path(value)


def dataset_name(dataset_id: int, name: str) -> str:
    """Name of a data set: `Dataset<three digits>_<name>`.

    Raises:
        MipError: an id outside 1–999 or a name nnU-Net cannot use.
    """
    if not 1 <= dataset_id <= 999:
        raise MipError(f"-d {dataset_id}: a data set id lies between 1 and 999")
    if not name or not all(c.isalnum() or c in "-_" for c in name) or "__" in name:
        raise MipError(f"--name {name!r}: use letters, digits, - and single _ only")
    return f"Dataset{dataset_id:03d}_{name}"


def existing_datasets(dataset_id: int) -> list[Path]:
    """Folders of a data set id under those nnU-Net folders that are set."""
    found = []
    for variable in VARIABLES:
        if os.environ.get(variable):
            found += sorted(Path(os.environ[variable]).glob(f"Dataset{dataset_id:03d}_*"))
    return found


def raw_dataset(dataset_id: int) -> Path:
    """Raw data set folder of an id.

    Raises:
        MipError: nnUNet_raw is not set, or it has no such data set.
    """
    root = nnunet_folder("nnUNet_raw")
    found = sorted(root.glob(f"Dataset{dataset_id:03d}_*"))
    if not found:
        raise MipError(f"{root}: has no data set with id {dataset_id}; convert one first")
    return found[0]


def trainers_folder() -> Path:
    """Installed folder of this package's trainer classes, for `nnUNet_extTrainer`."""
    return Path(str(files("nnunetv2_mip.trainers")))


def trainer_folders() -> str:
    """Value for `nnUNet_extTrainer`: the folders that are set, and this package's trainers."""
    folders = [part for part in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if part]
    own = str(trainers_folder())
    return os.pathsep.join(folders if own in folders else [*folders, own])


def add_own_trainers() -> None:
    """Add this package's trainers to `nnUNet_extTrainer` in this process."""
    os.environ["nnUNet_extTrainer"] = trainer_folders()
