"""A whole training of a classifier: features or images, cross-validation, the file that ships."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunetv2_mip.classification.baselines import (
    height_features,
    image_height_mm,
    margin_features,
)
from nnunetv2_mip.classification.classifier_file import FILE_NAME, write_classifier
from nnunetv2_mip.classification.cross_validation import cross_validate, frozen_fit
from nnunetv2_mip.classification.data import LabelledStudy, studies_of
from nnunetv2_mip.classification.evaluation import describe, evaluate_judged, write_evaluation
from nnunetv2_mip.classification.folds import dealt_folds, folds_of_splits
from nnunetv2_mip.classification.head_fitting import Study
from nnunetv2_mip.classification.trainer import Trainer, TrainingChoices
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.nnunet.splits import SPLITS_FILE, check_format
from nnunetv2_mip.nnunet.training_splits import training_splits


def train_classifier(
    raw: Path,
    labelled: Sequence[LabelledStudy],
    network: Path,
    target: Path,
    choices: TrainingChoices,
) -> str:
    """Train, cross-validate, and write the classifier and its report.

    What is written learned from all studies, and is calibrated on the scores that they got in
    cross-validation.

    Args:
        raw: the data set's folder.
        labelled: its studies.
        network: the segmentation model.
        target: folder to write `classifier.npz`, `metrics.json` and `out_of_fold.csv` into.
        choices: how.

    Returns:
        the report as text.

    Raises:
        MipError: nothing to learn from, or a model that cannot be used.
    """
    studies = studies_of(labelled)
    own = network if choices.fold_networks else None
    folds = training_folds(raw, studies, choices.splits, own)
    if choices.fold_networks:
        _check_fold_networks(network, folds, choices.checkpoint)
    trainer = Trainer(labelled, network, choices, folds)
    text = "not cross-validated"
    if choices.evaluate:
        judged = cross_validate(studies, folds, trainer.fit)
        heights = [image_height_mm(*item.levels()) for item in labelled]
        evaluation = evaluate_judged(studies, judged, heights)
        report = {"method": choices.how, "studies": len(studies), **evaluation.to_dict()}
        lines = [describe(choices.how, evaluation)]
        for name, features in (("height alone", height_features), ("margins", margin_features)):
            bags = [features(*item.levels()) for item in labelled]
            columns = np.arange(bags[0].shape[-1])
            baseline = evaluate_judged(
                studies,
                cross_validate(studies, folds, frozen_fit(lambda _, b=bags: b, studies, columns)),
                heights,
            )
            report[name] = baseline.to_dict()
            lines.append(describe(f"baseline ({name})", baseline))
        if choices.how in ("frozen", "both") and not choices.fold_networks:
            lines.append(
                "note: these scores are honest only for patients that the segmentation model was "
                "not trained on; else use --fold-networks"
            )
        text = "\n".join(lines)
    about, arrays = trainer.final()
    if choices.evaluate:
        write_evaluation(target, studies, judged, folds, report)
    write_classifier(target / FILE_NAME, about, arrays)
    return text


def _check_fold_networks(network: Path, folds: Mapping[str, int], checkpoint: str) -> None:
    """At the door: features of the first folds take minutes."""
    for fold in sorted(set(folds.values())):
        path = network / f"fold_{fold}" / checkpoint
        if not path.is_file():
            raise MipError(
                f"{path}: no such file; --fold-networks needs a network for every fold: train it, "
                "or name another model with --network"
            )


def training_folds(
    raw: Path, studies: Sequence[Study], splits: Path | None, network: Path | None = None
) -> dict[str, int]:
    """Case → fold: of the splits file named, else of the data set's own, else dealt.

    Cases that the file does not name are dealt over its folds.

    Args:
        raw: the data set's folder.
        studies: of it.
        splits: a splits file; None for the data set's own.
        network: the segmentation model whose fold K is to judge fold K. The splits are then those
            of its own data set, unless a file is named.

    Raises:
        MipError: no such file, or not of nnU-Net's form; or a study would be judged by the network
            of a fold that was trained on it.
    """
    path, content = splits or raw / SPLITS_FILE, None
    if splits is None and network is not None:
        trained = training_splits(network)
        path, content = trained.source, trained.folds
    elif path.is_file():
        content = read_json(path)
        check_format(content, str(path))
    elif splits is not None:
        raise MipError(f"{splits}: no such file; check --splits")
    patients = {study.case: study.patient for study in studies}
    lesions = {study.case: study.has_lesion for study in studies}
    if content is None:
        return dealt_folds(patients, lesions)
    folds = dealt_folds(patients, lesions, folds_of_splits(content), len(content))
    if network is not None:
        for case, fold in folds.items():
            if case in content[fold]["train"]:
                raise MipError(
                    f"{path}: {case} is in the training part of fold {fold} and validated by no "
                    "fold, so that no network can judge it: leave it out, or name other splits"
                )
    return folds
