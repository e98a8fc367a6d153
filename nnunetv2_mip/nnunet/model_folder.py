"""Model folders that ship: the bundled one, and how a trained one becomes small enough.

A shipped folder has nnU-Net's form (dataset.json, plans.json, fold_*/checkpoint_final.pth) and our
inference.json, so that every nnU-Net command takes it too. It names no patient.
"""

import contextlib
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path, read_json, write_json
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.nnunet.splits import without_patients

BUNDLED = "mip_pet"
CHECKPOINT = "checkpoint_final.pth"
# In an exported folder: the first stage of a cascade.
FIRST_STAGE_FOLDER = "first_stage"
# Where a model folder keeps the volumetric network that works on what the views found.
VOLUMETRIC_STAGE = "stage2"


def models_folder() -> Path:
    """Where the models that come with the package lie."""
    return Path(str(files("nnunetv2_mip"))) / "models"


def bundled_model() -> Path:
    """The model that is used when none is named.

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


def folds_with_checkpoint(
    folder: Path, folds: Sequence[int | str] | None, checkpoint: str
) -> list[int | str]:
    """The folds of a model folder to use, all there are where `folds` is None.

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
    """The model folder of a cascade's first stage.

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


def export_model(
    source: Path | str,
    target: Path | str,
    folds: Sequence[int | str],
    checkpoint: str = CHECKPOINT,
) -> Path:
    """Write a trained model folder in the form that ships: weights alone, in half precision.

    Optimiser, logs and what names the machine stay behind. Where the network is the one nnU-Net
    builds from the plans, the checkpoint asks for nnU-Net's own trainer, which starts faster. The
    first stage of a cascade goes along, in `FIRST_STAGE_FOLDER`, and a second stage in 3D with all
    its folds, in `VOLUMETRIC_STAGE`.

    Args:
        source: as nnU-Net's training leaves it.
        target: a new folder.
        folds: those to take along.
        checkpoint: file name in the fold folders of `source`.

    Returns:
        the target.

    Raises:
        MipError: the source lacks something, or the target exists.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise MipError(f"{target}: exists; choose another -o or remove it")
    config = InferenceConfig.load(source)
    dataset, plans = (read_json(source / name) for name in ("dataset.json", "plans.json"))
    paths = {fold: source / f"fold_{fold}" / checkpoint for fold in folds}
    for path in paths.values():
        if not path.is_file():
            raise MipError(f"{path}: no such file; check -f and -chk")
    checkpoints = {fold: _read_checkpoint(path) for fold, path in paths.items()}
    configuration = next(iter(checkpoints.values()))["init_args"]["configuration"]
    stage = plans["configurations"].get(configuration, {}).get("previous_stage")
    first = first_stage_folder(source, stage) if stage else None
    second = source / VOLUMETRIC_STAGE
    second_folds = folds_with_checkpoint(second, None, checkpoint) if second.is_dir() else []
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as partial:
        partial.mkdir()
        if first is not None:
            export_model(first, partial / FIRST_STAGE_FOLDER, folds, checkpoint)
        if second_folds:
            export_model(second, partial / VOLUMETRIC_STAGE, second_folds, checkpoint)
        for fold, content in checkpoints.items():
            (partial / f"fold_{fold}").mkdir()
            _write_weights(content, partial / f"fold_{fold}" / CHECKPOINT)
        write_json(partial / "dataset.json", without_patients(dataset))
        write_json(partial / "plans.json", plans)
        config.save(partial)
    return target


def _read_checkpoint(path: Path) -> dict:
    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
        checkpoint["network_weights"], checkpoint["init_args"]["configuration"]
    except Exception as error:
        raise MipError(f"{path}: is not a checkpoint of nnU-Net: {error}") from None
    return checkpoint


def _write_weights(checkpoint: dict, target: Path) -> None:
    import torch

    weights = checkpoint["network_weights"]
    halved: dict[int, torch.Tensor] = {}
    small = {}
    for name, value in weights.items():
        # nnU-Net's networks list layers under several names: one tensor, saved once.
        key = value.data_ptr()
        if key not in halved:
            halved[key] = value.half() if value.is_floating_point() else value.clone()
        small[name] = halved[key]
    axes = checkpoint.get("inference_allowed_mirroring_axes")
    content = {
        "network_weights": small,
        "trainer_name": _trainer_for_inference(checkpoint["trainer_name"]),
        "trained_by": checkpoint["trainer_name"],
        "epochs": checkpoint.get("current_epoch"),
        "init_args": {"configuration": checkpoint["init_args"]["configuration"]},
        "inference_allowed_mirroring_axes": None if axes is None else [int(axis) for axis in axes],
    }
    torch.save(content, target)


def _trainer_for_inference(name: str) -> str:
    """nnU-Net's own trainer where that builds the same network, else `name`.

    nnU-Net looks a trainer up to let it build the network, and takes seconds for any other name.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunetv2_mip.nnunet.paths import add_own_trainers

    add_own_trainers()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise MipError(f"{name}: nnU-Net does not find this trainer: {error}") from None
    same = found.build_network_architecture is nnUNetTrainer.build_network_architecture
    return "nnUNetTrainer" if same else name
