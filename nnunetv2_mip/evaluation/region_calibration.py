"""Training of the region classifier, and the choice of its threshold and that of the views.

The regions come from studies that the network has not seen in training. They are found with several
thresholds of the views; a lower one finds fainter lesions and more that is none, which the
classifier is to remove. Both thresholds are chosen by cross-validation over patients: the highest
mean Dice among the choices with few false millilitres in studies without lesions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.fusion.fuse import fuse
from nnunetv2_mip.fusion.region_classifier import RegionClassifier, products_of, standardised
from nnunetv2_mip.fusion.region_features import FEATURES, RegionContext, region_features
from nnunetv2_mip.fusion.rules import FusionRule

VIEW_THRESHOLDS = (0.2, 0.3, 0.4, 0.5)
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(19))
# Threshold of the views without a classifier, with which a choice is compared.
PLAIN = 0.5
# False millilitres of a choice in studies without lesions, as a share of those of the comparison.
FALSE_SHARE = 0.5
# A region is a lesion when this share of it is.
LESION_SHARE = 0.1
FOLDS = 10
# Inverse strength of the penalty on the weights, and the power of the volume that a region counts.
PENALTY_C, VOLUME_POWER = 0.003, 0.5
DIGITS = 6


@dataclass(frozen=True)
class StudyRegions:
    """Regions of one study at every threshold of the views.

    Attributes:
        patient: its name.
        lesion_voxels: number of voxels with lesion.
        voxel_ml: volume of a voxel.
        features: for each of `VIEW_THRESHOLDS` the features (R, F).
        voxels, hits: for each the voxels of every region (R,), and those with lesion.
    """

    patient: str
    lesion_voxels: int
    voxel_ml: float
    features: tuple[np.ndarray, ...]
    voxels: tuple[np.ndarray, ...]
    hits: tuple[np.ndarray, ...]

    def save(self, path: Path) -> None:
        """Write a file `.npz` that `load` reads."""
        parts: dict[str, np.ndarray] = {"lesion_voxels": np.array(self.lesion_voxels)}
        parts["voxel_ml"], parts["patient"] = np.array(self.voxel_ml), np.array(self.patient)
        for name in ("features", "voxels", "hits"):
            parts |= {f"{name}_{i}": part for i, part in enumerate(getattr(self, name))}
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, **parts)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> "StudyRegions":
        """Read a file of `save`.

        Raises:
            MipError: it is none, or of other features.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                parts = [
                    tuple(file[f"{name}_{i}"] for i in range(len(VIEW_THRESHOLDS)))
                    for name in ("features", "voxels", "hits")
                ]
                found = cls(
                    str(file["patient"]),
                    int(file["lesion_voxels"]),
                    float(file["voxel_ml"]),
                    *parts,
                )
        except (OSError, ValueError, KeyError) as error:
            raise MipError(f"{path}: no regions of a study ({error}): remove the file") from None
        if any(part.shape[1:] != (len(FEATURES),) for part in found.features):
            raise MipError(f"{path}: regions with other features: remove the file")
        return found


@dataclass(frozen=True)
class RegionCalibration:
    """Region classifier, the threshold of the views that belongs to it, and their scores.

    Attributes:
        classifier: fitted on all studies.
        view_threshold: of `FusionRule`.
        dice, dice_plain: mean Dice of the studies with lesions, judged by classifiers that have not
            seen the patient; and without a classifier at `PLAIN`.
        false_ml, false_ml_plain: mean false millilitres in studies without lesions, likewise.
        studies, healthy: numbers of studies, and of those without lesions.
        compared: (threshold of the views, threshold of the classifier, Dice, false ml) of the
            choice beside others: every threshold of the views, with the classifier and without.
    """

    classifier: RegionClassifier
    view_threshold: float
    dice: float
    dice_plain: float
    false_ml: float
    false_ml_plain: float
    studies: int
    healthy: int
    compared: tuple[tuple[float, float, float, float], ...]


def study_regions(
    context: RegionContext, truth: np.ndarray, fusion: FusionRule, patient: str
) -> StudyRegions:
    """Regions of a study at every threshold of the views.

    Args:
        context: with the probabilities of the views.
        truth: (z, y, x), non-zero is lesion.
        fusion: of the model.
        patient: its name.
    """
    lesion = truth != 0
    found = []
    for threshold in VIEW_THRESHOLDS:
        rule = replace(fusion, view_threshold=threshold)
        mask = fuse(context.views, context.geometry, rule, context.suv, context.suv_views)
        regions, features = region_features(mask, context)
        count = len(features) + 1
        voxels = np.bincount(regions.ravel(), minlength=count)[1:]
        hits = np.bincount(regions[lesion], minlength=count)[1:]
        found.append((features, voxels, hits))
    features, voxels, hits = zip(*found)
    voxel_ml = float(np.prod(context.spacing) / 1000)
    return StudyRegions(patient, int(lesion.sum()), voxel_ml, features, voxels, hits)


def calibrate_regions(studies: Sequence[StudyRegions]) -> RegionCalibration:
    """The classifier and both thresholds for these studies.

    Args:
        studies: of patients whom the network has not seen.

    Raises:
        MipError: too few studies, patients or regions of one kind.
    """
    patients = sorted({study.patient for study in studies})
    healthy = [study.lesion_voxels == 0 for study in studies]
    if len(patients) < FOLDS or all(healthy) or not any(healthy):
        raise MipError(
            f"the region classifier needs studies of at least {FOLDS} patients, with lesions and "
            "without"
        )
    order = np.random.default_rng(0).permutation(len(patients))
    fold_of = {name: int(place) % FOLDS for name, place in zip(patients, order)}
    folds = np.array([fold_of[study.patient] for study in studies])
    judged: list[list[np.ndarray]] = [[] for _ in studies]
    for fold in range(FOLDS):
        classifier = fit_classifier([s for s, own in zip(studies, folds) if own != fold])
        for number in np.flatnonzero(folds == fold).tolist():
            judged[number] = [classifier.probabilities(part) for part in studies[number].features]
    everything = [[np.ones(len(part)) for part in study.features] for study in studies]
    plain = _scores(studies, everything, VIEW_THRESHOLDS.index(PLAIN), 0.0)
    choices = []
    for index in range(len(VIEW_THRESHOLDS)):
        for threshold in THRESHOLDS:
            dice, false_ml = _scores(studies, judged, index, threshold)
            choices.append((dice, false_ml, index, threshold))
    fair = [choice for choice in choices if choice[1] <= FALSE_SHARE * plain[1]]
    # Where no choice has so few false millilitres: the one with the fewest.
    dice, false_ml, index, threshold = (
        max(fair, key=lambda choice: choice[0])
        if fair
        else min(choices, key=lambda choice: (choice[1], -choice[0]))
    )
    compared = [
        (VIEW_THRESHOLDS[at], border, value, ml)
        for value, ml, at, border in choices
        if border in (0.0, threshold)
    ]
    return RegionCalibration(
        replace(fit_classifier(studies), threshold=threshold),
        VIEW_THRESHOLDS[index],
        dice,
        plain[0],
        false_ml,
        plain[1],
        len(studies),
        sum(healthy),
        tuple(compared),
    )


def fit_classifier(studies: Sequence[StudyRegions]) -> RegionClassifier:
    """Classifier fitted on the regions of all thresholds of the views, its threshold 0.5.

    A region counts by the square root of its volume: a large false one costs more than a small.

    Raises:
        MipError: no region of one kind.
    """
    from sklearn.linear_model import LogisticRegression

    features = np.concatenate([part for study in studies for part in study.features])
    voxels = np.concatenate([part for study in studies for part in study.voxels])
    hits = np.concatenate([part for study in studies for part in study.hits])
    volumes = np.concatenate([part * study.voxel_ml for study in studies for part in study.voxels])
    lesion = hits > LESION_SHARE * voxels
    if lesion.all() or not lesion.any():
        raise MipError("the region classifier needs regions that are lesions and others")
    mean, scale = features.mean(0), np.maximum(features.std(0), 1e-3)
    # As the file keeps them.
    mean, scale = (np.round(part.astype(float), DIGITS) for part in (mean, scale))
    values = standardised(features, mean, scale)
    inputs = np.concatenate([values, products_of(values)], axis=1)
    middle, width = inputs.mean(0), np.maximum(inputs.std(0), 1e-6)
    weight = volumes**VOLUME_POWER
    fitted = LogisticRegression(C=PENALTY_C, max_iter=5000).fit(
        (inputs - middle) / width, lesion, sample_weight=weight / weight.mean()
    )
    weights = np.round(fitted.coef_[0] / width, DIGITS)
    count = len(FEATURES)
    return RegionClassifier(
        features=FEATURES,
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(weights[:count].tolist()),
        bias=round(float(fitted.intercept_[0] - weights @ middle), DIGITS),
        threshold=0.5,
        products=tuple(weights[count:].tolist()),
    )


def _scores(
    studies: Sequence[StudyRegions],
    judged: Sequence[Sequence[np.ndarray]],
    index: int,
    threshold: float,
) -> tuple[float, float]:
    """Mean Dice of the studies with lesions, mean false ml of those without.

    Args:
        studies, judged: and the probability of each of their regions.
        index: of the threshold of the views.
        threshold: of the classifier.
    """
    dice, false_ml = [], []
    for study, probabilities in zip(studies, judged):
        kept = probabilities[index] >= threshold
        marked, hit = study.voxels[index][kept].sum(), study.hits[index][kept].sum()
        if study.lesion_voxels:
            dice.append(2 * hit / (marked + study.lesion_voxels))
        else:
            false_ml.append(marked * study.voxel_ml)
    return float(np.mean(dice)), float(np.mean(false_ml))
