"""Trains classifiers on a data set: heads on frozen features, networks of their own, or both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn
from tqdm import tqdm

from nnunetv2_mip.classification.calibration import calibrate
from nnunetv2_mip.classification.classifier_file import (
    BOTH,
    FROZEN,
    HEAD_PART,
    NETWORK_PART,
    WHOLE,
    about_of,
)
from nnunetv2_mip.classification.cross_validation import frozen_fit, joined_fit, scored_fit
from nnunetv2_mip.classification.data import LabelledStudy, studies_of
from nnunetv2_mip.classification.features import LESION_GROUPS, FeatureExtractor
from nnunetv2_mip.classification.head_fitting import (
    PENALTY,
    FittedHead,
    check_studies,
    fit_head,
    inner_folds,
    join,
)
from nnunetv2_mip.classification.network import (
    Images,
    network_arrays,
    network_images,
    new_network,
    score_images,
)
from nnunetv2_mip.classification.network_training import (
    EPOCHS,
    Schedule,
    train_network,
    window_for,
)
from nnunetv2_mip.inference.predictor import MIPPredictor

# Pixels that a network from scratch is shown.
SCRATCH_MM = 4.0
KINDS = {"frozen": FROZEN, "fine-tune": WHOLE, "from-scratch": WHOLE, "both": BOTH}


@dataclass(frozen=True)
class TrainingChoices:
    """How to train; the options of `nnUNetv2_mip_classify train`.

    Attributes:
        fold: of the segmentation model, None for the first there is.
        checkpoint: file name in the fold folders.
        how: `frozen`, `fine-tune`, `from-scratch`, or `both` (frozen and from scratch).
        fold_networks: judge fold K with the model's own fold K. `frozen`: a head on the lesion
            probability that every study gets from the fold that never saw it; the classifier then
            asks all folds.
        splits: a splits file, None for the data set's own.
        evaluate: cross-validate. Without, a network of its own learns from four fifths of the
            studies, and the last one calibrates it.
        penalty: of the head, None for the default.
        shown_mm: pixel size that a network of its own is shown, None for the default.
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
        """Pixel size for a network of its own, mm; None for the segmentation network's."""
        fine_tune = self.how == "fine-tune"
        return self.shown_mm or (None if fine_tune else SCRATCH_MM)


class Trainer:
    """Fits for any fold, and on all studies.

    Args:
        labelled: the studies.
        network: the segmentation model.
        choices: how to train.
        folds: case → fold.
        judged: folds to judge, for which networks of their own are trained; None for all.
    """

    def __init__(
        self,
        labelled: Sequence[LabelledStudy],
        network: Path,
        choices: TrainingChoices,
        folds: Mapping[str, int],
        judged: Sequence[int] | None = None,
    ):
        self.labelled, self.network, self.choices = labelled, network, choices
        self.studies = studies_of(labelled)
        self.labels = np.array([study.has_lesion for study in self.studies])
        self.folds, self.judged = folds, judged
        self.penalty = choices.penalty or PENALTY
        self._predictors: dict[str | None, MIPPredictor] = {}
        self._bags: tuple[list[np.ndarray], np.ndarray] | None = None
        self._images: list[Images] | None = None
        self._unseen: tuple[np.ndarray, nn.Module | None] | None = None

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
        """What a network of its own is shown of all studies."""
        if self._images is None:
            predictor, shown = self.predictor(None), self.choices.pixel_shown
            self._images = [
                network_images(predictor, *item.levels(), shown, item.mask())
                for item in tqdm(self.labelled, desc="images", unit="study", disable=None)
            ]
        return self._images

    def unseen_scores(self) -> tuple[np.ndarray, nn.Module | None]:
        """By networks of their own: log odds (N,) of studies that the network never saw.

        NaN for those of folds that are not judged. With `evaluate` a network for every fold, and
        None; else of a fifth of the studies by one network, and that network.
        """
        if self._unseen is None:
            choices = self.choices
            number = np.array([self.folds[study.case] for study in self.studies])
            parts = sorted(set(number.tolist()) if self.judged is None else set(self.judged))
            if not choices.evaluate:
                number, parts = inner_folds(self.studies), [0]
            own_encoder = choices.how == "fine-tune" and choices.fold_networks and choices.evaluate
            scores, network = np.full(len(number), np.nan), None
            window = window_for(self.images())
            for part in parts:
                encoder = str(part) if own_encoder else None
                training = np.flatnonzero(number != part)
                what = f"network without fold {part}" if choices.evaluate else "network"
                network = self._trained(training, what, part, encoder)
                for i in np.flatnonzero(number == part):
                    scores[i] = score_images(network, self.images()[i], window)[0]
            self._unseen = scores, None if choices.evaluate else network
        return self._unseen

    def _trained(
        self, training: Sequence[int], what: str, seed: int = 0, encoder: str | None = None
    ) -> nn.Module:
        """A network on some studies; `encoder`: fold of the segmentation model to go on from."""
        check_studies([self.studies[i] for i in training])
        images, epochs = self.images(), self.choices.epochs
        predictor = self.predictor(encoder)
        with tqdm(total=epochs, desc=what, unit="epoch", disable=None) as bar:
            return train_network(
                new_network(predictor, self.choices.how != "fine-tune", seed),
                [images[i] for i in training],
                self.labels[training],
                window_for(images),
                Schedule(epochs=epochs),
                seed,
                bar.update,
            )

    def fit(self, training: Sequence[int], fold: int) -> tuple[Callable, float, float]:
        """A `training.Fit`."""
        kind = KINDS[self.choices.how]
        if kind == WHOLE:
            return scored_fit(self.unseen_scores()[0], self.studies)(training, fold)
        bags, columns = self.bags()
        if kind == FROZEN:
            return frozen_fit(lambda _: bags, self.studies, columns, self.penalty)(training, fold)
        scores, _ = self.unseen_scores()
        return joined_fit(bags, scores, self.studies, columns, self.penalty)(training, fold)

    def fitted(self) -> FittedHead:
        """The head on the features of all studies."""
        bags, columns = self.bags()
        return fit_head(bags, self.studies, columns, self.penalty)

    def final(
        self, predictor: MIPPredictor | None = None, name: str | None = None
    ) -> tuple[dict, dict[str, np.ndarray]]:
        """Text part and arrays of the classifier that is written.

        Args:
            predictor: the segmentation model that it is to belong to; None for the one that it was
                trained with.
            name: of that model's folder, as the file names it.
        """
        choices, kind = self.choices, KINDS[self.choices.how]
        sick = int(self.labels.sum())
        about = {
            "folds": None if choices.fold is None else [choices.fold],
            "checkpoint": choices.checkpoint,
            "how": choices.how,
            "studies": {"with_lesions": sick, "without": len(self.studies) - sick},
        }
        networks, calibration, arrays, scores = 1, None, {}, []
        if kind != WHOLE:
            fitted = self.fitted()
            calibration, scores = fitted.calibration, [fitted.out_of_fold]
            arrays = fitted.head.arrays()
            about["views"] = max(bag.shape[1] for bag in self.bags()[0])
            if choices.fold_networks and predictor is None:
                about["folds"] = names = self.fold_names()
                predictor, networks = self._load(names), len(names)
        if kind != FROZEN:
            unseen, network = self.unseen_scores()
            network = network or self._trained(range(len(self.studies)), "network")
            about["views"] = max(len(study.views) for study in self.images())
            about["shown_mm"], about["window"] = choices.pixel_shown, window_for(self.images())
            if kind == WHOLE:
                calibration, arrays = calibrate(unseen, self.labels), network_arrays(network)
            else:
                joined = join([*scores, unseen], self.labels)
                calibration = joined.calibration
                about["parts"] = [[platt.slope, platt.offset] for platt in joined.parts]
                arrays = {
                    **{HEAD_PART + key: array for key, array in arrays.items()},
                    **{NETWORK_PART + key: x for key, x in network_arrays(network).items()},
                }
        about = about_of(
            kind,
            predictor or self.predictor(None),
            name or str(self.network.resolve()),
            calibration.platt,
            networks,
            threshold=calibration.threshold,
            **about,
        )
        return about, arrays
