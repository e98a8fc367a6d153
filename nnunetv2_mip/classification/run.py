"""A whole training of a classifier: features or images, cross-validation, the file that ships."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn
from tqdm import tqdm

from nnunetv2_mip.classification.calibration import best_threshold, fit_platt
from nnunetv2_mip.classification.classifier import (
    FILE_NAME,
    FROZEN,
    WHOLE,
    about_of,
    write_classifier,
)
from nnunetv2_mip.classification.evaluation import describe, evaluate_judged, write_evaluation
from nnunetv2_mip.classification.features import LESION_GROUPS, FeatureExtractor
from nnunetv2_mip.classification.inputs import LabelledStudy, studies_of
from nnunetv2_mip.classification.network import (
    Images,
    Schedule,
    network_arrays,
    network_images,
    new_network,
    score_images,
    train_network,
    window_for,
)
from nnunetv2_mip.classification.shortcuts import (
    height_features,
    image_height_mm,
    margin_features,
)
from nnunetv2_mip.classification.splits import dealt_folds, folds_of_splits
from nnunetv2_mip.classification.training import (
    PENALTY,
    Fit,
    FittedHead,
    Study,
    check_studies,
    cross_validate,
    fit_head,
    frozen_fit,
    inner_folds,
)
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.predictor import MIPPredictor
from nnunetv2_mip.splits import SPLITS_FILE, check_format
from nnunetv2_mip.training_splits import training_splits


@dataclass(frozen=True)
class TrainingChoices:
    """How to train; the options of `nnUNetv2_mip_classify train`.

    Attributes:
        fold: of the segmentation model, None for the first there is.
        checkpoint: file name in the fold folders.
        how: `frozen`, `fine-tune` or `from-scratch`.
        fold_networks: judge fold K with the model's own fold K. `frozen`: a head on the lesion
            probability that every study gets from the fold that never saw it; the classifier then
            asks all folds.
        splits: a splits file, None for the data set's own.
        evaluate: cross-validate.
        penalty: of the head, None for the default.
        coarser, epochs: of a network trained as a whole.
        cache: folder for frozen features.
        device: for the networks.
    """

    fold: str | None = None
    checkpoint: str = "checkpoint_final.pth"
    how: str = "frozen"
    fold_networks: bool = False
    splits: Path | None = None
    evaluate: bool = True
    penalty: float | None = None
    coarser: int = 2
    epochs: int = 44
    cache: Path | None = None
    device: str = "cuda"


def train_classifier(
    raw: Path,
    labelled: Sequence[LabelledStudy],
    network: Path,
    target: Path,
    choices: TrainingChoices,
) -> str:
    """Train, cross-validate, and write the classifier and its report.

    A head is fitted on all studies; a network trained as a whole on four fifths of them, the last
    one calibrates it.

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


class Trainer:
    """Fits for any fold, and on all studies.

    Args:
        labelled: the studies.
        network: the segmentation model.
        choices: how to train.
        folds: case → fold; needed where every fold has its network.
    """

    def __init__(
        self,
        labelled: Sequence[LabelledStudy],
        network: Path,
        choices: TrainingChoices,
        folds: Mapping[str, int] | None = None,
    ):
        self.labelled, self.network, self.choices = labelled, network, choices
        self.studies = studies_of(labelled)
        self.folds = folds
        self._predictors: dict[str | None, MIPPredictor] = {}
        self._bags: tuple[list[np.ndarray], np.ndarray] | None = None
        self._images: list[Images] | None = None

    def predictor(self, fold: str | None) -> MIPPredictor:
        """The segmentation model with one fold; None for the one that was chosen."""
        name = self.choices.fold if fold is None else fold
        if name not in self._predictors:
            self._predictors = {name: self._load(None if name is None else [name])}
        return self._predictors[name]

    def _load(self, folds: list[str] | None) -> MIPPredictor:
        return MIPPredictor.from_model_folder(
            self.network, folds, self.choices.checkpoint, self.choices.device
        )

    def bags(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Frozen features of all studies, (B, V, F) each, and the columns that a head uses."""
        if self._bags is None:
            self._bags = self._unseen_bags() if self.choices.fold_networks else self._all_bags()
        return self._bags

    def _all_bags(self) -> tuple[list[np.ndarray], np.ndarray]:
        """By one network."""
        extractor = FeatureExtractor(self.predictor(None), self.choices.cache)
        bags = [
            extractor.features(*item.levels())
            for item in tqdm(self.labelled, desc="features", unit="study", disable=None)
        ]
        return bags, extractor.layout.columns()

    def _unseen_bags(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Of every study by the network of its own fold, which never saw it."""
        bags: dict[int, np.ndarray] = {}
        for fold in self.fold_names():
            extractor = FeatureExtractor(self.predictor(fold), self.choices.cache)
            own = [n for n, s in enumerate(self.studies) if str(self.folds[s.case]) == fold]
            name = f"features, network of fold {fold}"
            for n in tqdm(own, desc=name, unit="study", disable=None):
                bags[n] = extractor.features(*self.labelled[n].levels())
        columns = extractor.layout.columns(*LESION_GROUPS)
        return [bags[n] for n in range(len(bags))], columns

    def fold_names(self) -> list[str]:
        return [str(fold) for fold in sorted(set(self.folds.values()))]

    def images(self) -> list[Images]:
        """What a network that is trained as a whole is shown of all studies."""
        if self._images is None:
            predictor = self.predictor(None)
            self._images = [
                network_images(predictor, *item.levels(), self.choices.coarser, item.mask())
                for item in tqdm(self.labelled, desc="images", unit="study", disable=None)
            ]
        return self._images

    def fit(self, training: Sequence[int], fold: int) -> tuple[Callable, float, float]:
        """A `training.Fit`."""
        if self.choices.how == "frozen":
            bags, columns = self.bags()
            penalty = self.choices.penalty or PENALTY
            return frozen_fit(lambda _: bags, self.studies, columns, penalty)(training, fold)
        own = str(fold) if self.choices.fold_networks else None
        return self._whole_fit(self.images(), own)(training, fold)

    def fitted(self) -> FittedHead:
        """The head on the features of all studies."""
        bags, columns = self.bags()
        return fit_head(bags, self.studies, columns, self.choices.penalty or PENALTY)

    def final(self) -> tuple[dict, dict[str, np.ndarray]]:
        """Text part and arrays of the classifier that is written."""
        choices = self.choices
        sick = sum(study.has_lesion for study in self.studies)
        about = {
            "folds": None if choices.fold is None else [choices.fold],
            "checkpoint": choices.checkpoint,
            "how": choices.how,
            "studies": {"with_lesions": sick, "without": len(self.studies) - sick},
        }
        network = str(self.network.resolve())
        if choices.how == "frozen":
            about["views"] = max(bag.shape[1] for bag in self.bags()[0])
            fitted = self.fitted()
            predictor, networks = self.predictor(None), 1
            if choices.fold_networks:
                about["folds"] = names = self.fold_names()
                predictor, networks = self._load(names), len(names)
            about = about_of(
                FROZEN,
                predictor,
                network,
                fitted.platt,
                networks,
                threshold=fitted.threshold,
                **about,
            )
            return about, fitted.head.arrays()
        images = self.images()
        about["views"] = max(len(study.views) for study in images)
        about["coarser"] = choices.coarser
        about["window"] = window_for(images)
        whole, scores, outside = self._train_whole(images, range(len(images)), None)
        truth = np.array([self.studies[i].has_lesion for i in outside])
        platt = fit_platt(scores, truth)
        threshold = best_threshold(platt(scores), truth)
        about = about_of(WHOLE, self.predictor(None), network, platt, threshold=threshold, **about)
        return about, network_arrays(whole)

    def _whole_fit(self, images: Sequence[Images], own: str | None) -> Fit:
        def fit(training: Sequence[int], fold: int):
            whole, scores, outside = self._train_whole(images, training, own)
            truth = np.array([self.studies[i].has_lesion for i in outside])
            platt = fit_platt(scores, truth)
            probabilities = platt(scores)
            window = window_for(images)

            def score(positions: Sequence[int]) -> np.ndarray:
                return platt([score_images(whole, images[i], window)[0] for i in positions])

            return (
                score,
                best_threshold(probabilities, truth),
                best_threshold(probabilities, truth, balanced=False),
            )

        return fit

    def _train_whole(
        self, images: Sequence[Images], training: Sequence[int], own: str | None
    ) -> tuple[nn.Module, np.ndarray, list[int]]:
        """Train on four fifths; also scores and positions of the fifth that calibrates."""
        training = list(training)
        check_studies([self.studies[i] for i in training])
        inner = inner_folds([self.studies[i] for i in training])
        inside = [i for i, part in zip(training, inner) if part]
        outside = [i for i, part in zip(training, inner) if not part]
        predictor, choices = self.predictor(own), self.choices
        scratch = choices.how == "from-scratch"
        window = window_for(images)
        whole = train_network(
            new_network(predictor, scratch),
            [images[i] for i in inside],
            [self.studies[i].has_lesion for i in inside],
            window,
            Schedule(epochs=choices.epochs),
        )
        scores = np.array([score_images(whole, images[i], window)[0] for i in outside])
        return whole, scores, outside
