"""Model folders: the bundled one, the folds of one, the first stage of a cascade.

A model folder has nnU-Net's form (dataset.json, plans.json, fold_*/checkpoint_final.pth) and this
package's inference.json, so that every nnU-Net command takes it too.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from nnunetv2_mip.errors import MipError

BUNDLED = "mip_pet"
BUNDLED_VOLUME_WARNING = (
    "the bundled model has learned volumes from simulated patients, not from real ones; look at "
    "every mask"
)
CHECKPOINT = "checkpoint_final.pth"
# In an exported folder: folder of a cascade's first stage.
FIRST_STAGE_FOLDER = "first_stage"
# In a model folder of views: folder of the second stage in 3D.
VOLUMETRIC_STAGE = "stage2"
# In a model folder for volumes: model folder for single MIP-PET images.
IMAGE_MODEL = "images"


def models_folder() -> Path:
    """Folder of the models that are installed with the package."""
    return Path(str(files("nnunetv2_mip"))) / "models"


def bundled_model() -> Path:
    """Model folder that is used when the user names none.

    Raises:
        MipError: its folder was removed.
    """
    folder = models_folder() / BUNDLED
    if not (folder / "plans.json").is_file():
        raise MipError(
            f"{folder}: there is no bundled model: name one, with -m FOLDER or -d ID (with -tr, "
            "-p, -c), or install nnunetv2-mip again"
        )
    return folder


def image_model_folder(folder: Path) -> Path:
    """Model folder for single images within a model folder; that itself where it has none."""
    images = folder / IMAGE_MODEL
    return images if (images / "plans.json").is_file() else folder


def folds_with_checkpoint(
    folder: Path, folds: Sequence[int | str] | None, checkpoint: str
) -> list[int | str]:
    """Folds of a model folder to use; all that have the checkpoint where `folds` is None.

    Raises:
        MipError: the folder lacks something, or one of the folds.
    """
    if not folder.is_dir():
        raise MipError(f"{folder}: no such model folder: train a model first, or name another")
    for name in ("dataset.json", "plans.json"):
        if not (folder / name).is_file():
            hint = "; give its parent" if folder.name.startswith("fold_") else ""
            raise MipError(f"{folder}: lacks {name}, so it is not a nnU-Net model folder{hint}")
    there = {
        path.parent.name.removeprefix("fold_"): path for path in folder.glob(f"fold_*/{checkpoint}")
    }
    if folds is None:
        # Cross-validation folds before `all`: an ensemble of folds never mixes with it.
        numbers = sorted(int(name) for name in there if name.isdigit())
        chosen: list[int | str] = list(numbers) or [name for name in there if name == "all"]
        if not chosen:
            raise MipError(
                f"{folder}: has no fold with {checkpoint}: let its training end, or name the file "
                "of one that was stopped (-chk checkpoint_latest.pth)"
            )
        return chosen
    for fold in folds:
        if str(fold) not in there:
            raise MipError(
                f"{folder / f'fold_{fold}' / checkpoint}: no such file; check -f and -chk"
            )
    return list(folds)


def first_stage_folder(folder: Path, configuration: str) -> Path:
    """Model folder of a cascade's first stage.

    Args:
        folder: of the second stage, as nnU-Net's training or `export_model` leaves it.
        configuration: of the first stage, by the plans.

    Raises:
        MipError: neither within `folder` nor beside it.
    """
    name = folder.resolve().name.rpartition("__")[0]
    places = [folder / FIRST_STAGE_FOLDER, folder.resolve().parent / f"{name}__{configuration}"]
    for place in places:
        if (place / "plans.json").is_file():
            return place
    raise MipError(
        f"{folder}: the second stage of a cascade, whose first stage ({configuration}) is neither "
        f"{places[0]} nor {places[1]}: train it, or copy its model folder there"
    )
