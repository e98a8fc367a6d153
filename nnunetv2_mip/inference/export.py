"""Export of a trained model to a small folder for prediction: weights alone, half precision."""

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path, read_json, write_json
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.nnunet.model_folder import (
    CHECKPOINT,
    FIRST_STAGE_FOLDER,
    IMAGE_MODEL,
    VOLUMETRIC_STAGE,
    first_stage_folder,
    folds_with_checkpoint,
)
from nnunetv2_mip.nnunet.splits import without_patients


def export_model(
    source: Path | str,
    target: Path | str,
    folds: Sequence[int | str],
    checkpoint: str = CHECKPOINT,
    images: Path | str | None = None,
) -> Path:
    """Write a copy of a model folder for prediction: weights alone, in half precision.

    Optimiser, logs and what names the machine stay behind. Where the network is the one nnU-Net
    builds from the plans, the checkpoint asks for nnU-Net's own trainer, which starts faster. The
    first stage of a cascade goes along, in `FIRST_STAGE_FOLDER`, and a second stage in 3D with all
    its folds, in `VOLUMETRIC_STAGE`. So does a model for single images, in `IMAGE_MODEL`.

    Args:
        source: as nnU-Net's training leaves it.
        target: a new folder.
        folds: those to take along.
        checkpoint: file name in the fold folders of `source`.
        images: trained model for single images, which has these folds too; None for the one
            within `source`, if there is one.

    Returns:
        the target.

    Raises:
        MipError: the source lacks something, or the target exists.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise MipError(f"{target}: exists; choose another -o or remove it")
    folds_with_checkpoint(source, folds, checkpoint)
    config = InferenceConfig.load(source)
    dataset, plans = (read_json(source / name) for name in ("dataset.json", "plans.json"))
    paths = {fold: source / f"fold_{fold}" / checkpoint for fold in folds}
    checkpoints = {fold: _read_checkpoint(path) for fold, path in paths.items()}
    configuration = next(iter(checkpoints.values()))["init_args"]["configuration"]
    stage = plans["configurations"].get(configuration, {}).get("previous_stage")
    first = first_stage_folder(source, stage) if stage else None
    if images is None and (source / IMAGE_MODEL).is_dir():
        images = source / IMAGE_MODEL
    second = source / VOLUMETRIC_STAGE
    second_folds = folds_with_checkpoint(second, None, checkpoint) if second.is_dir() else []
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as partial:
        partial.mkdir()
        if first is not None:
            export_model(first, partial / FIRST_STAGE_FOLDER, folds, checkpoint)
        if second_folds:
            export_model(second, partial / VOLUMETRIC_STAGE, second_folds, checkpoint)
        if images is not None:
            export_model(images, partial / IMAGE_MODEL, folds, checkpoint)
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
    """Name of the trainer to store: nnU-Net's own where it builds the same network, else `name`.

    nnU-Net looks a trainer up to let it build the network, and takes seconds for any other name.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunetv2_mip.nnunet.loading import quiet
    from nnunetv2_mip.nnunet.paths import add_own_trainers

    add_own_trainers()
    try:
        with quiet():
            found = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise MipError(f"{name}: nnU-Net does not find this trainer: {error}") from None
    same = found.build_network_architecture is nnUNetTrainer.build_network_architecture
    return "nnUNetTrainer" if same else name
