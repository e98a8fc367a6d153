"""Classifier of studies: the probability that a study shows lesions, from its views.

A classifier belongs to one segmentation model, which makes the views and, with a frozen encoder,
the features. Its file holds a fingerprint of that model, so that a head is never applied to the
features of another one. In a folder with a segmentation model the file belongs to that model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nnunetv2_mip.classification.calibration import Platt, mean_log_odds
from nnunetv2_mip.classification.classifier_file import (
    HEAD_PREFIX,
    KIND_FROZEN,
    KIND_NETWORK,
    NETWORK_PREFIX,
    arrays_of_part,
    find_classifier,
    read_classifier,
    segmentation_model_folder,
)
from nnunetv2_mip.classification.head import Head
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.deadline import Deadline

if TYPE_CHECKING:
    from nnunetv2_mip.inference.predictor import MIPPredictor


@dataclass(frozen=True)
class StudyScore:
    """Result of a classifier for one study.

    Attributes:
        probability: that the study shows lesions, in [0, 1].
        has_lesion: whether the probability reaches the classifier's threshold.
        weights: (V,) attention of the views, sum 1.
    """

    probability: float
    has_lesion: bool
    weights: np.ndarray


class Scorer(Protocol):
    """Model that gives a stack of views its log odds and the weights of the views, (V,)."""

    def score(
        self, levels: np.ndarray, pixel_mm: tuple[float, float], deadline: Deadline
    ) -> tuple[float, np.ndarray]: ...


@dataclass(frozen=True)
class FrozenEncoderScorer:
    """Head on the features of a segmentation network's frozen encoder."""

    extractor: Any
    head: Head

    def score(
        self, levels: np.ndarray, pixel_mm: tuple[float, float], deadline: Deadline
    ) -> tuple[float, np.ndarray]:
        features = self.extractor.features_of_whole_body(levels, pixel_mm, deadline)
        return self.head.score(features)


@dataclass(frozen=True)
class NetworkScorer:
    """Classification network of its own, on views prepared as for the segmentation network."""

    predictor: "MIPPredictor"
    network: Any
    shown_mm: float | None
    window: tuple[int, int]

    def score(
        self, levels: np.ndarray, pixel_mm: tuple[float, float], deadline: Deadline
    ) -> tuple[float, np.ndarray]:
        from nnunetv2_mip.classification.network import score_images, study_images

        images = study_images(self.predictor, levels, pixel_mm, self.shown_mm)
        return score_images(self.network, images, self.window)


@dataclass(frozen=True)
class JoinedScorer:
    """Several scorers averaged: means of their calibrated log odds and of their weights."""

    parts: tuple[tuple[Scorer, Platt], ...]

    def score(
        self, levels: np.ndarray, pixel_mm: tuple[float, float], deadline: Deadline
    ) -> tuple[float, np.ndarray]:
        found = [scorer.score(levels, pixel_mm, deadline) for scorer, _ in self.parts]
        score = mean_log_odds([platt for _, platt in self.parts], [score for score, _ in found])
        return float(score), np.mean([weights for _, weights in found], axis=0)


@dataclass(frozen=True)
class Classifier:
    """Scorer with its calibration and decision threshold.

    Attributes:
        predictor: the segmentation model, which makes the views of a study.
        scorer: log odds of a stack of views.
        platt: log odds → probability.
        threshold: probability from which on a study counts as showing lesions.
        about: metadata of the file.
    """

    predictor: "MIPPredictor"
    scorer: Scorer
    platt: Platt
    threshold: float
    about: dict

    def score(
        self,
        levels: np.ndarray,
        pixel_mm: tuple[float, float],
        deadline: Deadline | None = None,
    ) -> StudyScore:
        """Probability, decision and weights of a stack of views.

        Args:
            levels: (C, V, H, W) or (V, H, W), 0–255, bright is uptake.
            pixel_mm: (row, column) spacing.
            deadline: asked before each pass of the segmentation network.

        Raises:
            MipError: an empty image, or channels that the network does not have.
        """
        score, weights = self.scorer.score(levels, pixel_mm, deadline or Deadline())
        probability = float(self.platt(score))
        return StudyScore(probability, probability >= self.threshold, weights)


def load_classifier(
    model: Path | str | None = None, network: Path | str | None = None, device: str = "cuda"
) -> Classifier:
    """Classifier of a file, with the segmentation model that it belongs to.

    Args:
        model: the file, a folder that holds it, or None for the bundled one.
        network: folder of the segmentation model, see `segmentation_model_folder`.
        device: `cpu`, `cuda` (falls back to `cpu`) or `mps`.

    Raises:
        MipError: no classifier, no network, or a classifier of another network.
    """
    path = find_classifier(model)
    about, arrays = read_classifier(path)
    folder = segmentation_model_folder(path, about, network)
    # Slow imports only after the files were checked.
    from nnunetv2_mip.classification.features import network_fingerprint
    from nnunetv2_mip.inference.predictor import MIPPredictor

    predictor = MIPPredictor.from_model_folder(
        folder, about.get("folds"), about.get("checkpoint", "checkpoint_final.pth"), device
    )
    networks = int(about["networks"])
    if network_fingerprint(predictor, networks) != about["fingerprint"]:
        raise MipError(
            f"{path}: belongs to another network than {folder}: train the classifier again on "
            "this network, or name its own with --network FOLDER"
        )
    scorer = _scorer(about, arrays, predictor, path)
    platt = Platt(*map(float, about["platt"]))
    return Classifier(predictor, scorer, platt, float(about["threshold"]), about)


def _scorer(
    about: dict, arrays: dict[str, np.ndarray], predictor: "MIPPredictor", path: Path
) -> Scorer:
    if about["kind"] == KIND_FROZEN:
        return _frozen_scorer(about, arrays, predictor, path)
    if about["kind"] == KIND_NETWORK:
        return _network_scorer(about, arrays, predictor, path)
    scorers = (
        _frozen_scorer(about, arrays_of_part(arrays, HEAD_PREFIX), predictor, path),
        _network_scorer(about, arrays_of_part(arrays, NETWORK_PREFIX), predictor, path),
    )
    platts = (Platt(*map(float, values)) for values in about["parts"])
    return JoinedScorer(tuple(zip(scorers, platts)))


def _frozen_scorer(
    about: dict, arrays: dict[str, np.ndarray], predictor: "MIPPredictor", path: Path
) -> FrozenEncoderScorer:
    from nnunetv2_mip.classification.features import FeatureExtractor

    extractor = FeatureExtractor(predictor, networks=int(about["networks"]))
    head = Head.from_arrays(arrays, str(path))
    if int(head.columns.max()) >= extractor.layout.width:
        raise MipError(f"{path}: is not a whole classifier: features that do not exist")
    return FrozenEncoderScorer(extractor, head)


def _network_scorer(
    about: dict, arrays: dict[str, np.ndarray], predictor: "MIPPredictor", path: Path
) -> NetworkScorer:
    from nnunetv2_mip.classification.network import network_from_arrays

    network = network_from_arrays(predictor, arrays, about["how"] != "fine-tune", path)
    rows, columns = about["window"]
    return NetworkScorer(predictor, network, about["shown_mm"], (int(rows), int(columns)))
