"""Converter of PET/CT studies to the volumes of the second stage, with the cue of a 2D model.

Every cue is out of fold: it comes from the one fold of the 2D model that has not seen the patient.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_mip.dataset_conversion.conversion_plan import Case, CasePaths, ConversionPlan
from nnunetv2_mip.dataset_conversion.raw_dataset import ConversionResult, build_raw_dataset
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.inference.config import INFERENCE_FILE
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.patients import Grouping, PatientOptions
from nnunetv2_mip.io.read_study import read_study_files
from nnunetv2_mip.io.study_layouts import CT_NAME, StudyFiles, scan_tree, with_dicom_options
from nnunetv2_mip.io.volumes import write_volume
from nnunetv2_mip.nnunet.second_stage_data import CUE, INTENSITY, STAGE2, stage2_input
from nnunetv2_mip.nnunet.training_splits import training_splits

DEFAULT_NAME = "AutoPETStage2"
CHECKPOINT = "checkpoint_final.pth"
NO_MASK = "its study has no lesion mask (SEG); training needs one"


@dataclass(frozen=True)
class _Study:
    """Input of one case; `model` and `fold` are None without a cue."""

    files: StudyFiles
    channels: tuple[str, ...]
    model: Path | None = None
    fold: int | None = None
    device: str = "cpu"


def convert_stage2(
    tree: Path | str,
    dataset_id: int,
    model: Path | str | None,
    name: str = DEFAULT_NAME,
    with_ct: bool = False,
    device: str = "cpu",
    workers: int = 1,
    skip_broken: bool = False,
    dask: str | None = None,
    patients: PatientOptions | None = None,
    options: DicomOptions = FROM_HEADERS,
) -> ConversionResult:
    """Convert every study of an autoPET tree into volumes with a cue.

    Args:
        tree: folder with the studies, as for `convert_autopet`.
        dataset_id: of the new data set.
        model: model folder of a 2D model, trained on these studies in folds; None makes a data set
            without a cue, to compare with.
        name: of the new data set.
        with_ct: the CT is a channel too.
        device: on which the 2D model runs.
        workers, skip_broken, dask: see `raw_dataset.build_raw_dataset`.
        patients: what the user says of the patients; those of the 2D model's data set otherwise.
        options: of the DICOM studies; a weight, dose or injection of one study alone.

    The splits are those of the 2D model's data set, so that the second stage is validated on
    patients that neither stage has seen.

    Raises:
        MipError: see `study_layouts.scan_tree` and `raw_dataset.build_raw_dataset`; or the model's
            data set or one of its folds is missing; or no name says who the patients are.
    """
    found = with_dicom_options(scan_tree(tree, patients), options, tree)
    grouping = found.grouping
    channels = ("suv", *(("ct",) if with_ct else ()), *((CUE,) if model is not None else ()))
    splits, folds = None, {}
    known: Mapping[str, str] = {}
    if model is None:
        grouping.require_answer()
    else:
        model = Path(model)
        trained = training_splits(model)
        splits, folds = trained.folds, trained.validated_in()
        # Splits and patients are those of the 2D model.
        known, grouping = trained.patients, Grouping()
        # A model that is not there, or not whole, is said before the first study is read.
        for fold in sorted(set(folds.values())):
            path = model / f"fold_{fold}" / CHECKPOINT
            if not path.is_file():
                raise MipError(f"{path}: no such file: train fold {fold} of the 2D model first")
    cases, problems = [], list(found.problems)
    for study in found.studies:
        if study.seg is None:
            problems.append((study.suv, study.no_seg or NO_MASK))
        elif with_ct and study.ct is None and not study.suv.is_dir():
            problems.append((study.suv, f"its study has no {CT_NAME}; --with_ct needs it"))
        elif model is not None and study.case not in folds:
            problems.append(
                (study.suv, f"{study.case} is in no fold of {model}: convert the same studies")
            )
        else:
            payload = _Study(study, channels, model, folds.get(study.case), device)
            patient = known.get(study.case, study.patient)
            inputs = (*study.files, *_model_files(payload))
            choices = study.options.to_dict()
            cases.append(Case(study.case, patient, payload, inputs, study.original, choices))
    entries = {"channels": list(channels), "cue_from": model and model.name}
    plan = ConversionPlan(
        dataset_id=dataset_id,
        name=name,
        cases=cases,
        convert=convert_study,
        settings={"converter": STAGE2, "layout": found.layout, **entries},
        mip={"source": STAGE2, **entries},
        source=Path(tree),
        problems=problems,
        warnings=(*found.warnings, *grouping.warnings),
        grouping=grouping.line,
        totals=("lesion_ml",),
        intensity={channel: INTENSITY[channel] for channel in channels},
        splits=splits,
    )
    return build_raw_dataset(plan, workers, skip_broken, dask)


def _model_files(study: _Study) -> list[Path]:
    """Files of the network that makes the cue of a study."""
    if study.model is None:
        return []
    names = ("plans.json", INFERENCE_FILE, f"fold_{study.fold}/{CHECKPOINT}")
    return [path for path in (study.model / name for name in names) if path.is_file()]


def convert_study(study: _Study, paths: CasePaths) -> dict:
    """Write SUV, CT, cue and mask of one study in canonical axes; returns its record."""
    wants_ct = "ct" in study.channels or (
        study.model is not None
        and "ct" in _predictor(study.model, study.fold, study.device).config.channels
    )
    files = study.files
    found = read_study_files(files, wants_ct=wants_ct)
    suv, ct, mask = found.suv, found.ct, found.lesion_mask
    cue = np.zeros((0,), np.float32)
    record: dict[str, Any] = {
        "has_lesion": bool(mask.any()),
        "lesion_ml": round(float(mask.sum()) * suv.grid.voxel_ml, 3),
    }
    if study.model is not None:
        predictor = _predictor(study.model, study.fold, study.device)
        predicted = predictor.predict_study(found, with_probability=True)
        cue = predicted.probability
        record["cue_fold"] = study.fold
        # Dice of the fused views: what the second stage adds is measured against it.
        if record["has_lesion"]:
            record["fused_dice"] = round(dice(predicted.mask > 0, mask > 0), 4)
    grid = suv.grid.canonical()
    hu = None if ct is None else ct.array
    array = stage2_input(study.channels, suv.array, hu, cue, str(suv.path))
    for index, channel in enumerate(array):
        write_volume(channel, grid, paths.channel(index))
    write_volume(mask.astype(np.uint8), grid, paths.label)
    return {**record, "warnings": list(found.warnings)}


@functools.lru_cache(maxsize=1)
def _predictor(model: Path, fold: int, device: str):
    from nnunetv2_mip.inference.predictor import MIPPredictor

    # A second stage in the folder has folds of its own, which have seen the patient.
    return MIPPredictor.from_model_folder(model, (fold,), device=device, second_stage=False)
