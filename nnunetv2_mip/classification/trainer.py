"""Trainer of classifiers: heads on frozen features, networks of their own, or both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from nnunetv2_mip.classification.calibration import (
    Calibration,
    Platt,
    calibrate,
    calibrate_jointly,
)
from nnunetv2_mip.classification.classifier_file import (
    HEAD_PREFIX,
    KIND_BOTH,
    KIND_FROZEN,
    KIND_NETWORK,
    NETWORK_PREFIX,
    classifier_metadata,
)
from nnunetv2_mip.classification.cross_validation import (
    FoldModel,
    Positions,
    frozen_fit,
    joined_fit,
    scored_fit,
)
from nnunetv2_mip.classification.data import LabelledStudy, studies_of
from nnunetv2_mip.classification.features import LESION_GROUPS, FeatureExtractor
from nnunetv2_mip.classification.folds import inner_folds
from nnunetv2_mip.classification.head_fitting import PENALTY, FittedHead, fit_head
from nnunetv2_mip.classification.network import (
    StudyImages,
    network_arrays,
    new_network,
    score_images,
    study_images,
)
from nnunetv2_mip.classification.network_training import (
    EPOCHS,
    Schedule,
    train_network,
    window_for,
)
from nnunetv2_mip.classification.study_labels import require_both_classes
from nnunetv2_mip.inference.predictor import MIPPredictor

# Pixel size of the images of a network from scratch.
SCRATCH_MM = 4.0
KIND_OF_METHOD = {
    "frozen": KIND_FROZEN,
    "fine-tune": KIND_NETWORK,
    "from-scratch": KIND_NETWORK,
    "both": KIND_BOTH,
}


@dataclass(frozen=True)
class TrainingOptions:
    """Options of `nnUNetv2_mip_classify train`.

    Attributes:
        fold: of the segmentation model, None for the first that exists.
        checkpoint: file name in the fold folders.
        how: `frozen`, `fine-tune`, `from-scratch`, or `both` (frozen and from scratch).
        fold_networks: validate fold K with the segmentation model's fold K. `frozen`: a head on the
            lesion probability of every study by the network of its fold, which was not trained on
            it; the classifier then averages all folds.
        splits: a splits file, None for the data set's own.
        evaluate: cross-validate. Without it a network of its own is trained on four fifths of the
            studies and calibrated on the others.
        penalty: of the head, None for the default.
        shown_mm: pixel size of the images of a network of its own, None for the default.
        epochs: of that network.
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
    shown_mm: float | None = None
    epochs: int = EPOCHS
    cache: Path | None = None
    device: str = "cuda"

    @property
    def pixel_shown(self) -> float | None:
        """Pixel size in mm for a network of its own; None for that of the segmentation network."""
        fine_tune = self.how == "fine-tune"
        return self.shown_mm or (None if fine_tune else SCRATCH_MM)


class ClassifierTrainer:
    """Trainer of one data set: a model without each fold, and the final one on all studies.

    Features, images and networks are computed once and kept.

    Args:
        labelled: the studies.
        network: folder of the segmentation model.
        options: how to train.
        folds: case → fold.
        validated: folds that networks of their own are trained without; None for all.
    """

    def __init__(
        self,
        labelled: Sequence[LabelledStudy],
        network: Path,
        options: TrainingOptions,
        folds: Mapping[str, int],
        validated: Sequence[int] | None = None,
    ):
        self.labelled, self.network, self.options = labelled, network, options
        self.studies = studies_of(labelled)
        self.labels = np.array([study.has_lesion for study in self.studies])
        self.folds, self.validated = folds, validated
        self.penalty = options.penalty or PENALTY
        self._predictors: dict[str | None, MIPPredictor] = {}
        self._bags: tuple[list[np.ndarray], np.ndarray] | None = None
        self._images: list[StudyImages] | None = None
        self._network_scores: tuple[np.ndarray, nn.Module | None] | None = None

    def predictor(self, fold: str | None) -> MIPPredictor:
        """Segmentation model with one fold; None for the fold of the options."""
        name = self.options.fold if fold is None else fold
        if name not in self._predictors:
            self._predictors = {name: self._load(None if name is None else [name])}
        return self._predictors[name]

    def _load(self, folds: list[str] | None) -> MIPPredictor:
        return MIPPredictor.from_model_folder(
            self.network, folds, self.options.checkpoint, self.options.device
        )

    def bags(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Frozen features of all studies, (B, V, F) each, and the columns that a head uses."""
        if self._bags is None:
            self._bags = (
                self._out_of_fold_bags() if self.options.fold_networks else self._all_bags()
            )
        return self._bags

    def _all_bags(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Features of all studies by one network, and all columns."""
        extractor = FeatureExtractor(self.predictor(None), self.options.cache)
        bags = [
            extractor.features(*item.levels())
            for item in tqdm(self.labelled, desc="features", unit="study", disable=None)
        ]
        return bags, extractor.layout.columns()

    def _out_of_fold_bags(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Features of every study by the network of its fold, and the comparable columns."""
        bags: dict[int, np.ndarray] = {}
        for fold in self.fold_names():
            extractor = FeatureExtractor(self.predictor(fold), self.options.cache)
            own = [n for n, s in enumerate(self.studies) if str(self.folds[s.case]) == fold]
            name = f"features, network of fold {fold}"
            for n in tqdm(own, desc=name, unit="study", disable=None):
                bags[n] = extractor.features(*self.labelled[n].levels())
        columns = extractor.layout.columns(*LESION_GROUPS)
        return [bags[n] for n in range(len(bags))], columns

    def fold_names(self) -> list[str]:
        """Numbers of all folds, as text."""
        return [str(fold) for fold in sorted(set(self.folds.values()))]

    def images(self) -> list[StudyImages]:
        """Network input of all studies, for a network of its own."""
        if self._images is None:
            self._images = [
                self._images_of(item)
                for item in tqdm(self.labelled, desc="images", unit="study", disable=None)
            ]
        return self._images

    def _images_of(self, item: LabelledStudy) -> StudyImages:
        levels, pixel_mm = item.levels()
        shown_mm = self.options.pixel_shown
        return study_images(self.predictor(None), levels, pixel_mm, shown_mm, item.mask())

    def out_of_fold_scores(self) -> tuple[np.ndarray, nn.Module | None]:
        """Log odds (N,) of studies by networks of their own that were not trained on them.

        With `evaluate`: by a network for every validated fold, NaN for studies of other folds; and
        None. Else: of a fifth of the studies, by one network; and that network.
        """
        if self._network_scores is None:
            options = self.options
            number = np.array([self.folds[study.case] for study in self.studies])
            parts = sorted(set(number.tolist()) if self.validated is None else set(self.validated))
            if not options.evaluate:
                number, parts = inner_folds(self.studies), [0]
            own_encoder = options.how == "fine-tune" and options.fold_networks and options.evaluate
            scores, network = np.full(len(number), np.nan), None
            window = window_for(self.images())
            for part in parts:
                encoder = str(part) if own_encoder else None
                training = np.flatnonzero(number != part)
                what = f"network without fold {part}" if options.evaluate else "network"
                network = self._trained(training, what, part, encoder)
                for i in np.flatnonzero(number == part):
                    scores[i] = score_images(network, self.images()[i], window)[0]
            self._network_scores = scores, None if options.evaluate else network
        return self._network_scores

    def _trained(
        self, training: Positions, what: str, seed: int = 0, encoder: str | None = None
    ) -> nn.Module:
        """Network trained on some studies.

        Args:
            training: their positions.
            what: label of the progress bar.
            seed: of weights and crops.
            encoder: fold of the segmentation model whose encoder is fine-tuned.
        """
        require_both_classes([self.studies[i] for i in training])
        images, epochs = self.images(), self.options.epochs
        predictor = self.predictor(encoder)
        with tqdm(total=epochs, desc=what, unit="epoch", disable=None) as bar:
            return train_network(
                new_network(predictor, self.options.how != "fine-tune", seed),
                [images[i] for i in training],
                self.labels[training],
                window_for(images),
                Schedule(epochs=epochs),
                seed,
                bar.update,
            )

    def fit(self, training: Positions, fold: int) -> FoldModel:
        """Model without one fold, a `cross_validation.Fit`."""
        kind = KIND_OF_METHOD[self.options.how]
        if kind == KIND_NETWORK:
            return scored_fit(self.out_of_fold_scores()[0], self.studies)(training, fold)
        bags, columns = self.bags()
        if kind == KIND_FROZEN:
            return frozen_fit(lambda _: bags, self.studies, columns, self.penalty)(training, fold)
        scores, _ = self.out_of_fold_scores()
        return joined_fit(bags, scores, self.studies, columns, self.penalty)(training, fold)

    def fitted_head(self) -> FittedHead:
        """Head on the features of all studies."""
        bags, columns = self.bags()
        return fit_head(bags, self.studies, columns, self.penalty)

    def final_classifier(
        self, predictor: MIPPredictor | None = None, name: str | None = None
    ) -> tuple[dict, dict[str, np.ndarray]]:
        """Metadata and arrays of the classifier of all studies.

        Args:
            predictor: the segmentation model that it is to belong to; None for the one that it was
                trained with.
            name: folder of that model in the metadata; None for the path of the model it was
                trained with.
        """
        options, kind = self.options, KIND_OF_METHOD[self.options.how]
        with_lesions = int(self.labels.sum())
        about: dict[str, Any] = {
            "folds": None if options.fold is None else [options.fold],
            "checkpoint": options.checkpoint,
            "how": options.how,
            "studies": {"with_lesions": with_lesions, "without": len(self.studies) - with_lesions},
        }
        networks, fitted, network = 1, None, None
        if kind != KIND_NETWORK:
            fitted = self.fitted_head()
            about["views"] = max(bag.shape[1] for bag in self.bags()[0])
            if options.fold_networks and predictor is None:
                about["folds"] = names = self.fold_names()
                predictor, networks = self._load(names), len(names)
        if kind != KIND_FROZEN:
            network = self.out_of_fold_scores()[1]
            network = network or self._trained(range(len(self.studies)), "network")
            about["views"] = max(len(study.views) for study in self.images())
            about["shown_mm"], about["window"] = options.pixel_shown, window_for(self.images())
        calibration, parts = self._final_calibration(fitted)
        if parts:
            about["parts"] = [[platt.slope, platt.offset] for platt in parts]
        about = classifier_metadata(
            kind,
            predictor or self.predictor(None),
            name or str(self.network.resolve()),
            calibration.platt,
            networks,
            threshold=calibration.threshold,
            **about,
        )
        return about, _final_arrays(fitted, network)

    def _final_calibration(
        self, fitted: FittedHead | None
    ) -> tuple[Calibration, tuple[Platt, ...]]:
        """Calibration of the final classifier, and the sigmoids of head and network for both."""
        if fitted is not None and KIND_OF_METHOD[self.options.how] == KIND_FROZEN:
            return fitted.calibration, ()
        scores, _ = self.out_of_fold_scores()
        if fitted is None:
            return calibrate(scores, self.labels), ()
        joined = calibrate_jointly([fitted.out_of_fold, scores], self.labels)
        return joined.calibration, joined.parts


def _final_arrays(fitted: FittedHead | None, network: nn.Module | None) -> dict[str, np.ndarray]:
    """Arrays of a head, of a network, or of both with a prefix each."""
    of_head = {} if fitted is None else fitted.head.arrays()
    of_network = {} if network is None else network_arrays(network)
    if fitted is None or network is None:
        return of_head | of_network
    return {
        **{HEAD_PREFIX + key: array for key, array in of_head.items()},
        **{NETWORK_PREFIX + key: array for key, array in of_network.items()},
    }
