"""All scores of one case: a volume (z, y, x), an image (row, column), or a stack of views.

Dice, false positive and false negative volume are those of the autoPET III evaluation script
(ClinicalDataScience/autoPETIII). The mean of `ImageScores.dice` over images with lesions is the
score of the DM-i-AI tumour segmentation task. For empty masks see `metrics.EmptyTruth`.

The work happens in the bounding box of the foreground.
"""

import math
from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.evaluation.lesion_scores import LesionOverlaps, LesionScores, scores_of_overlaps
from nnunetv2_mip.evaluation.metrics import as_masks, crop_to_foreground, dice
from nnunetv2_mip.evaluation.surface_distance import hd95

_PIXEL_COUNTS = (
    "false_positive_pixels",
    "false_negative_pixels",
    "true_pixels",
    "predicted_pixels",
)


@dataclass(frozen=True)
class VolumeScores:
    """Scores of a volume.

    Attributes:
        dice: foreground Dice.
        hd95_mm: see `surface_distance.hd95`.
        false_positive_volume_ml: of the predicted lesions without a single true voxel.
        false_negative_volume_ml: of the true lesions without a single predicted voxel.
        true_volume_ml, predicted_volume_ml: of all foreground.
        lesion: lesion-wise detection.
    """

    dice: float
    hd95_mm: float
    false_positive_volume_ml: float
    false_negative_volume_ml: float
    true_volume_ml: float
    predicted_volume_ml: float
    lesion: LesionScores


@dataclass(frozen=True)
class ImageScores:
    """Scores of an image; a control's `false_positive_pixels` are all its predicted pixels."""

    dice: float
    false_positive_pixels: int
    false_negative_pixels: int
    true_pixels: int
    predicted_pixels: int
    lesion: LesionScores


@dataclass(frozen=True)
class StackScores:
    """Scores of a stack of views; pixels are summed over all views.

    Attributes:
        dice: mean of the views' Dice over the views with lesions, NaN when there is none.
        views: number of views.
        views_with_lesions: views whose truth is not empty.
    """

    dice: float
    false_positive_pixels: int
    false_negative_pixels: int
    true_pixels: int
    predicted_pixels: int
    views: int
    views_with_lesions: int


def volume_scores(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, float, float],
    min_overlap: float = 0.0,
) -> VolumeScores:
    """Scores of a volume; its lesions are labelled once for all of them.

    Args:
        prediction, truth: masks (z, y, x).
        spacing_mm: (z, y, x), from the header.
        min_overlap: see `lesion_scores`; the false volumes always ask for any overlap.

    Raises:
        ValueError: the shapes differ or are not 3D.
    """
    prediction, truth = as_masks(prediction, truth, dimensions=3)
    prediction, truth = crop_to_foreground(prediction, truth)
    voxel_ml = math.prod(float(value) for value in spacing_mm) / 1000.0
    true_lesions = LesionOverlaps(truth, prediction)
    predicted_lesions = LesionOverlaps(prediction, truth)
    return VolumeScores(
        dice=dice(prediction, truth),
        hd95_mm=hd95(prediction, truth, spacing_mm),
        false_positive_volume_ml=predicted_lesions.voxels_without_overlap() * voxel_ml,
        false_negative_volume_ml=(
            true_lesions.voxels_without_overlap() * voxel_ml if true_lesions.count else math.nan
        ),
        true_volume_ml=int(true_lesions.sizes.sum()) * voxel_ml,
        predicted_volume_ml=int(predicted_lesions.sizes.sum()) * voxel_ml,
        lesion=scores_of_overlaps(true_lesions, predicted_lesions, min_overlap),
    )


def image_scores(
    prediction: np.ndarray, truth: np.ndarray, min_overlap: float = 0.0
) -> ImageScores:
    """Scores of an image.

    Args:
        prediction, truth: masks (row, column).
        min_overlap: see `lesion_scores`.

    Raises:
        ValueError: the shapes differ or are not 2D.
    """
    prediction, truth = as_masks(prediction, truth, dimensions=2)
    prediction, truth = crop_to_foreground(prediction, truth)
    lesion = scores_of_overlaps(
        LesionOverlaps(truth, prediction), LesionOverlaps(prediction, truth), min_overlap
    )
    return ImageScores(**_pixel_scores(prediction, truth), lesion=lesion)


def stack_scores(prediction: np.ndarray, truth: np.ndarray) -> StackScores:
    """Scores of a stack of views, each view scored as an image of its own.

    Args:
        prediction, truth: masks (view, row, column).

    Raises:
        ValueError: the shapes differ or are not 3D.
    """
    prediction, truth = as_masks(prediction, truth, dimensions=3)
    views = [_pixel_scores(p, t) for p, t in zip(prediction, truth)]
    with_lesions = [view["dice"] for view in views if view["true_pixels"]]
    return StackScores(
        dice=float(np.mean(with_lesions)) if with_lesions else math.nan,
        **{name: sum(view[name] for view in views) for name in _PIXEL_COUNTS},
        views=len(views),
        views_with_lesions=len(with_lesions),
    )


def _pixel_scores(prediction: np.ndarray, truth: np.ndarray) -> dict:
    return {
        "dice": dice(prediction, truth),
        "false_positive_pixels": int(np.count_nonzero(prediction & ~truth)),
        "false_negative_pixels": int(np.count_nonzero(truth & ~prediction)),
        "true_pixels": int(np.count_nonzero(truth)),
        "predicted_pixels": int(np.count_nonzero(prediction)),
    }
