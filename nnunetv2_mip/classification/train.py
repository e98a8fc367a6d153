"""Training of a classifier on a data set: cross-validation, baselines, report, and the file."""

from collections.abc import Callable, Mapping, Sequence
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
from nnunetv2_mip.classification.evaluation import (
    Evaluation,
    describe,
    evaluate_out_of_fold,
    write_evaluation,
)
from nnunetv2_mip.classification.folds import assigned_folds, folds_of_splits
from nnunetv2_mip.classification.study_labels import StudyLabel
from nnunetv2_mip.classification.trainer import ClassifierTrainer, TrainingOptions
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.nnunet.splits import SPLITS_FILE, check_format
from nnunetv2_mip.nnunet.training_splits import training_splits


def train_classifier(
    raw: Path,
    labelled: Sequence[LabelledStudy],
    network: Path,
    target: Path,
    options: TrainingOptions,
) -> str:
    """Report on a classifier that is trained, cross-validated and written.

    The written classifier is trained on all studies, and is calibrated on their out-of-fold scores.

    Args:
        raw: the data set's folder.
        labelled: its studies.
        network: folder of the segmentation model.
        target: folder to write `classifier.npz`, `metrics.json` and `out_of_fold.csv` into.
        options: how to train.

    Returns:
        the report as printed text.

    Raises:
        MipError: nothing to learn from, or a model that cannot be used.
    """
    studies = studies_of(labelled)
    own = network if options.fold_networks else None
    folds = training_folds(raw, studies, options.splits, own)
    if options.fold_networks:
        _check_fold_networks(network, folds, options.checkpoint)
    trainer = ClassifierTrainer(labelled, network, options, folds)
    text = "not cross-validated"
    if options.evaluate:
        results = cross_validate(studies, folds, trainer.fit)
        heights = [image_height_mm(*item.levels()) for item in labelled]
        evaluation = evaluate_out_of_fold(studies, results, heights)
        report = {"method": options.how, "studies": len(studies), **evaluation.to_dict()}
        lines = [describe(options.how, evaluation)]
        for name, baseline in evaluated_baselines(labelled, folds, heights).items():
            report[name] = baseline.to_dict()
            lines.append(describe(f"baseline ({name})", baseline))
        if options.how in ("frozen", "both") and not options.fold_networks:
            lines.append(
                "note: these scores are honest only for patients that the segmentation model was "
                "not trained on; else use --fold_networks"
            )
        text = "\n".join(lines)
    about, arrays = trainer.final_classifier()
    if options.evaluate:
        write_evaluation(target, studies, results, folds, report)
    write_classifier(target / FILE_NAME, about, arrays)
    return text


def evaluated_baselines(
    labelled: Sequence[LabelledStudy], folds: Mapping[str, int], heights_mm: Sequence[float]
) -> dict[str, Evaluation]:
    """Evaluations of classifiers on the baseline features, by name."""

    def evaluated(features: Callable[[np.ndarray, tuple[float, float]], np.ndarray]) -> Evaluation:
        studies = studies_of(labelled)
        bags = [features(*item.levels()) for item in labelled]
        fit = frozen_fit(lambda _: bags, studies, np.arange(bags[0].shape[-1]))
        return evaluate_out_of_fold(studies, cross_validate(studies, folds, fit), heights_mm)

    return {"height alone": evaluated(height_features), "margins": evaluated(margin_features)}


def _check_fold_networks(network: Path, folds: Mapping[str, int], checkpoint: str) -> None:
    """Check of the model's folds before the features of the first ones take minutes."""
    for fold in sorted(set(folds.values())):
        path = network / f"fold_{fold}" / checkpoint
        if not path.is_file():
            raise MipError(
                f"{path}: no such file; --fold_networks needs a network for every fold: train it, "
                "or name another model with --network"
            )


def training_folds(
    raw: Path, studies: Sequence[StudyLabel], splits: Path | None, network: Path | None = None
) -> dict[str, int]:
    """Case → fold: of a named splits file, else of the data set's own, else assigned at random.

    Cases that the file does not name are assigned to its folds at random.

    Args:
        raw: the data set's folder.
        studies: of it.
        splits: a splits file; None for the data set's own.
        network: folder of the segmentation model whose fold K is to validate fold K. The splits are
            then those of its training, unless a file is named.

    Raises:
        MipError: no such file, or not in nnU-Net's format; or a study would be validated by a
            network that was trained on it.
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
    if content is None:
        return assigned_folds(studies)
    folds = assigned_folds(studies, folds_of_splits(content), len(content))
    if network is not None:
        for case, fold in folds.items():
            if case in content[fold]["train"]:
                raise MipError(
                    f"{path}: {case} is in the training part of fold {fold} and validated by no "
                    "fold, so that no network can judge it: leave it out, or name other splits"
                )
    return folds
