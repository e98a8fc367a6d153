"""Healthy or with lesions: a probability for a study from its views, and which views it rests on.

A classifier is one file, `classifier.npz`: arrays, and the JSON text `about`. It belongs to one
segmentation network, which makes the views and (frozen) the features; the file names that network
and holds its fingerprint, so that a head never runs on another network's features. In a folder with
a segmentation model the file belongs to that model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nnunetv2_mip.classification.calibration import Platt, mean_log_odds
from nnunetv2_mip.classification.classifier_file import (
    FROZEN,
    HEAD_PART,
    NETWORK_PART,
    WHOLE,
    find_classifier,
    network_folder,
    part_of,
    read_classifier,
)
from nnunetv2_mip.classification.head import Head
from nnunetv2_mip.errors import MipError

if TYPE_CHECKING:
    from nnunetv2_mip.inference.predictor import MIPPredictor


@dataclass(frozen=True)
class StudyScore:
    """What a classifier says of a study.

    Attributes:
        probability: that it shows lesions, in [0, 1].
        has_lesion: whether the probability reaches the classifier's threshold.
        weights: (V,) attention of the views, sum 1.
    """

    probability: float
    has_lesion: bool
    weights: np.ndarray


class Scorer(Protocol):
    """Log odds and weights of views, of a stack of views."""

    def score(
        self, levels: np.ndarray, pixel_mm: tuple[float, float]
    ) -> tuple[float, np.ndarray]: ...


@dataclass(frozen=True)
class FrozenScorer:
    """A head on the features of a segmentation network, whose weights stay as they are."""

    extractor: Any
    head: Head

    def score(self, levels: np.ndarray, pixel_mm: tuple[float, float]) -> tuple[float, np.ndarray]:
        return self.head.score(self.extractor.features(levels, pixel_mm)[0])


@dataclass(frozen=True)
class NetworkScorer:
    """A network of its own on the views that the segmentation network would be shown."""

    predictor: "MIPPredictor"
    network: Any
    shown_mm: float | None
    window: tuple[int, int]

    def score(self, levels: np.ndarray, pixel_mm: tuple[float, float]) -> tuple[float, np.ndarray]:
        from nnunetv2_mip.classification.network import network_images, score_images

        images = network_images(self.predictor, levels, pixel_mm, self.shown_mm)
        return score_images(self.network, images, self.window)


@dataclass(frozen=True)
class JoinedScorer:
    """Several scorers as one: means of their calibrated log odds and of their weights."""

    parts: tuple[tuple[Scorer, Platt], ...]

    def score(self, levels: np.ndarray, pixel_mm: tuple[float, float]) -> tuple[float, np.ndarray]:
        found = [scorer.score(levels, pixel_mm) for scorer, _ in self.parts]
        score = mean_log_odds([platt for _, platt in self.parts], [score for score, _ in found])
        return float(score), np.mean([weights for _, weights in found], axis=0)


@dataclass(frozen=True)
class Classifier:
    """A scorer, its calibration and what is known of it.

    Attributes:
        predictor: makes the views of a study.
        about: what the file says of itself.
    """

    predictor: "MIPPredictor"
    scorer: Scorer
    platt: Platt
    threshold: float
    about: dict

    def score(self, levels: np.ndarray, pixel_mm: tuple[float, float]) -> StudyScore:
        """Score a stack of views.

        Args:
            levels: (C, V, H, W) or (V, H, W), 0–255, bright is uptake.
            pixel_mm: (row, column) spacing.

        Raises:
            MipError: an empty image, or channels that the network has not.
        """
        score, weights = self.scorer.score(levels, pixel_mm)
        probability = float(self.platt(score))
        return StudyScore(probability, probability >= self.threshold, weights)


def load_classifier(
    model: Path | str | None = None, network: Path | str | None = None, device: str = "cuda"
) -> Classifier:
    """Load a classifier and the segmentation network it belongs to.

    Args:
        model: its file, a folder that holds it, or None for the one that comes along.
        network: the segmentation model's folder; None for the folder the file lies in, where that
            is one, else the one the file names.
        device: `cpu`, `cuda` (falls back to `cpu`) or `mps`.

    Raises:
        MipError: no classifier, no network, or a classifier that belongs to another network.
    """
    path = find_classifier(model)
    about, arrays = read_classifier(path)
    folder = network_folder(path, about, network)
    # Slow imports only once everything is there.
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
    if about["kind"] == FROZEN:
        return _frozen_scorer(about, arrays, predictor, path)
    if about["kind"] == WHOLE:
        return _network_scorer(about, arrays, predictor, path)
    scorers = (
        _frozen_scorer(about, part_of(arrays, HEAD_PART), predictor, path),
        _network_scorer(about, part_of(arrays, NETWORK_PART), predictor, path),
    )
    platts = (Platt(*map(float, values)) for values in about["parts"])
    return JoinedScorer(tuple(zip(scorers, platts)))


def _frozen_scorer(
    about: dict, arrays: dict[str, np.ndarray], predictor: "MIPPredictor", path: Path
) -> FrozenScorer:
    from nnunetv2_mip.classification.features import FeatureExtractor

    extractor = FeatureExtractor(predictor, networks=int(about["networks"]))
    head = Head.from_arrays(arrays, str(path))
    if int(head.columns.max()) >= extractor.layout.width:
        raise MipError(f"{path}: is not a whole classifier: features that do not exist")
    return FrozenScorer(extractor, head)


def _network_scorer(
    about: dict, arrays: dict[str, np.ndarray], predictor: "MIPPredictor", path: Path
) -> NetworkScorer:
    from nnunetv2_mip.classification.network import network_from_arrays

    network = network_from_arrays(predictor, arrays, about["how"] != "fine-tune", path)
    rows, columns = about["window"]
    return NetworkScorer(predictor, network, about["shown_mm"], (int(rows), int(columns)))
