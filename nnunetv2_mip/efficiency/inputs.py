"""Inputs of an efficiency study: studies with truth, and networks that have not seen them."""

import re
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.efficiency.tasks import Model
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.inference.config import INFERENCE_FILE, InferenceConfig
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.patients import Grouping, PatientOptions
from nnunetv2_mip.io.study_layouts import StudyFiles, scan_tree, with_dicom_options
from nnunetv2_mip.nnunet.model_folder import CHECKPOINT, folds_with_checkpoint
from nnunetv2_mip.nnunet.second_stage_data import CUE, STAGE2
from nnunetv2_mip.nnunet.splits import SPLITS_FILE, check_format
from nnunetv2_mip.nnunet.training_splits import seen_patients
from nnunetv2_mip.views.settings import check_channels


def studies_of_tree(
    tree: Path | str,
    patients: PatientOptions | None = None,
    options: DicomOptions = FROM_HEADERS,
) -> tuple[list[StudyFiles], Grouping]:
    """Studies of a tree, each with its truth, and how they were given to patients.

    Raises:
        MipError: as `scan_tree` and `with_dicom_options`; or a study is broken or has no truth.
    """
    found = with_dicom_options(scan_tree(tree, patients), options, tree)
    for path, reason in found.problems:
        raise MipError(f"{path}: {reason}")
    for study in found.studies:
        if study.seg is None:
            raise MipError(
                f"{study.suv}: {study.no_seg or 'its study has no lesion mask (SEG)'}: a study of "
                "efficiency needs the truth; add it or take the study out"
            )
    return list(found.studies), found.grouping


def studies_of_dataset(raw: Path, fold: int) -> list[StudyFiles]:
    """Validation studies of a fold of a data set of volumes.

    Args:
        raw: raw data set of `nnUNetv2_mip_convert_stage2` (with a cue or not).
        fold: of its `splits_final.json`.

    Raises:
        MipError: it holds views, not volumes; lacks the truth; or has no such fold.
    """
    mip = read_json(raw / "dataset.json").get("mip", {})
    if mip.get("source") != STAGE2:
        raise MipError(
            f"{raw}: holds no volumes, so there is no truth in 3D: give the tree of its studies "
            "by -i, or a data set of nnUNetv2_mip_convert_stage2 --no_cue"
        )
    splits = read_json(raw / SPLITS_FILE)
    check_format(splits, str(raw / SPLITS_FILE))
    if not 0 <= fold < len(splits):
        raise MipError(f"{raw / SPLITS_FILE}: has no fold {fold}; choose 0 to {len(splits) - 1}")
    studies = []
    for case in sorted(splits[fold]["val"]):
        files = {
            channel: raw / "imagesTr" / f"{case}_{index:04d}.nii.gz"
            for index, channel in enumerate(mip["channels"])
        }
        seg = raw / "labelsTr" / f"{case}.nii.gz"
        for path in (files["suv"], seg):
            if not path.is_file():
                raise MipError(f"{path}: no such file; convert the data set again")
        patient = mip.get("patients", {}).get(case, case)
        studies.append(StudyFiles(case, patient, files["suv"], files.get("ct"), seg))
    return studies


def read_models(
    arguments: Sequence[str],
    folds: Sequence[int | str] | None = None,
    checkpoint: str = CHECKPOINT,
) -> list[Model]:
    """Networks of `[NAME=]FOLDER` arguments, described without loading them.

    The default name is made of the names of data set and trainer.

    Raises:
        MipError: a folder that is no model of views or volumes, or a name that comes twice.
    """
    models: list[Model] = []
    for text in arguments:
        name, separator, folder = text.partition("=")
        path = Path(folder if separator else text)
        if separator and not re.fullmatch(r"[\w.+-]+", name):
            raise MipError(f"--models {text}: a name has letters, digits and . _ + - only")
        chosen = tuple(folds_with_checkpoint(path, folds, checkpoint))
        if not separator:
            parent = path.resolve().parent.name
            name = re.sub(r"[^\w.+-]", "_", f"{parent}_{path.resolve().name.split('__')[0]}")
        if name in [model.name for model in models]:
            raise MipError(f"--models {text}: {name} comes twice; call one NAME={path}")
        models.append(Model(name, path, _is_volumetric(path), chosen, checkpoint))
    return models


def _is_volumetric(folder: Path) -> bool:
    """Whether a model is a 3D network; MipError where it is neither a 3D nor a MIP network."""
    mip = read_json(folder / "dataset.json").get("mip")
    if isinstance(mip, dict) and mip.get("source") == STAGE2:
        if CUE in mip["channels"]:
            raise MipError(
                f"{folder}: wants the cue of a 2D model, so it is no 3D network of its own: train "
                "one on a data set of nnUNetv2_mip_convert_stage2 --no_cue"
            )
        return True
    if not isinstance(mip, dict) and not (folder / INFERENCE_FILE).is_file():
        raise MipError(
            f'{folder}: is no MIP model (its dataset.json has no "mip" part): train one on a data '
            "set of nnUNetv2_mip_convert_autopet, or of nnUNetv2_mip_convert_stage2 --no_cue"
        )
    try:
        check_channels(InferenceConfig.load(folder).channels)
    except MipError as error:
        raise MipError(f"{folder}: the model wants {error}") from None
    return False


def check_unseen(models: Sequence[Model], studies: Sequence[StudyFiles]) -> list[str]:
    """Check that no network was trained on a patient of the studies.

    Returns:
        a warning for every network whose training patients are unknown.

    Raises:
        MipError: a network has seen one of the patients.
    """
    warnings = []
    for model in models:
        try:
            known = seen_patients(model.folder, model.folds)
        except MipError as error:
            warnings.append(
                f"{model.folder}: cannot tell whom it was trained on ({error}): make sure that it "
                "has not seen these patients"
            )
            continue
        for study in studies:
            if study.patient in known:
                raise MipError(
                    f"{model.folder}: was trained on {study.patient}, which is among the studies: "
                    "give studies that it has not seen, or -d ID -f FOLD"
                )
    return warnings
