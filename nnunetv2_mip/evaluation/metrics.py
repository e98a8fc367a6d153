"""Scores of a predicted mask against the true one, for volumes (z, y, x) and images (row, column).

Masks are arrays in which anything non-zero is foreground. A *lesion* is a connected component:
18-connectivity in a volume (voxels that share a face or an edge), 8-connectivity in an image
(the same rule within a plane).

Conventions, the same everywhere:

- Truth without lesions (a control): Dice, false negative volume, lesion recall and lesion F1 are
  NaN, also when the prediction is empty too. A mean leaves NaN out, so a control neither helps
  nor hurts the mean Dice; what it shows is false positives (volume, pixels, lesion precision).
- Empty prediction of a truth with lesions: Dice 0, recall 0, F1 0, false positive volume 0, false
  negative volume the whole truth; lesion precision is NaN, for nothing was claimed.

Dice, false positive and false negative volume are those of the autoPET III evaluation script
(ClinicalDataScience/autoPETIII). The mean of `ImageScores.dice` over images with lesions is the
score of the DM-i-AI tumour segmentation task.

All work happens in the bounding box of the foreground; only numpy and connected-components-3d
are needed.
"""

import math
from dataclasses import dataclass

import cc3d
import numpy as np

from nnunetv2_mip.evaluation.surface_distance import hd95
from nnunetv2_mip.lesions.components import LESION_CONNECTIVITY, detected


@dataclass(frozen=True)
class LesionScores:
    """Lesion-wise detection. Recall, precision and F1 lie in [0, 1] or are NaN (see module).

    Attributes:
        lesion_recall: found true lesions / true lesions.
        lesion_precision: right predicted lesions / predicted lesions.
        lesion_f1: harmonic mean of the two; 0 when the truth has lesions and none is found.
        lesions: components of the truth.
        lesions_found: those that the prediction overlaps enough.
        predicted_lesions: components of the prediction.
        predicted_lesions_right: those that the truth overlaps enough.
    """

    lesion_recall: float
    lesion_precision: float
    lesion_f1: float
    lesions: int
    lesions_found: int
    predicted_lesions: int
    predicted_lesions_right: int


@dataclass(frozen=True)
class VolumeScores:
    """Scores of a volume; volumes are in ml, `hd95_mm` is that of `surface_distance.hd95`."""

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


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Foreground Dice, 2·|P∩T| / (|P| + |T|), NaN when `truth` is empty.

    Args:
        prediction: mask of any shape.
        truth: mask of the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, truth = _as_masks(prediction, truth)
    return _dice(prediction, truth)


def false_positive_volume_ml(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]
) -> float:
    """Volume of the predicted lesions without a single true voxel, in ml (autoPET).

    Args:
        prediction, truth: masks (z, y, x).
        spacing_mm: (z, y, x).

    Raises:
        ValueError: the shapes differ or are not 3D.
    """
    return volume_scores(prediction, truth, spacing_mm).false_positive_volume_ml


def false_negative_volume_ml(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]
) -> float:
    """Volume of the true lesions without a single predicted voxel, in ml (autoPET).

    NaN when `truth` is empty. Arguments and errors as `false_positive_volume_ml`.
    """
    return volume_scores(prediction, truth, spacing_mm).false_negative_volume_ml


def lesion_scores(
    prediction: np.ndarray, truth: np.ndarray, min_overlap: float = 0.0
) -> LesionScores:
    """Lesion-wise recall, precision and F1.

    A true lesion is *found* when at least one of its voxels, and at least the fraction
    `min_overlap` of them, is predicted (by whichever predicted lesions). A predicted lesion is
    *right* by the same rule with the roles exchanged. So one large prediction over two lesions
    finds both, and two fragments in one lesion are both right.

    Args:
        prediction, truth: masks (z, y, x) or (row, column).
        min_overlap: in [0, 1]; 0 asks for any overlap.

    Raises:
        ValueError: the shapes differ, are neither 2D nor 3D, or `min_overlap` is not in [0, 1].
    """
    prediction, truth = _cropped(*_as_masks(prediction, truth))
    return _lesion_scores(_Overlap(truth, prediction), _Overlap(prediction, truth), min_overlap)


def volume_scores(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, float, float],
    min_overlap: float = 0.0,
) -> VolumeScores:
    """All scores of a volume in one pass.

    Args:
        prediction, truth: masks (z, y, x).
        spacing_mm: (z, y, x), from the header.
        min_overlap: see `lesion_scores`; the false volumes always ask for any overlap.

    Raises:
        ValueError: the shapes differ or are not 3D.
    """
    prediction, truth = _as_masks(prediction, truth, dimensions=3)
    prediction, truth = _cropped(prediction, truth)
    voxel_ml = math.prod(float(value) for value in spacing_mm) / 1000.0
    true_lesions = _Overlap(truth, prediction)
    predicted_lesions = _Overlap(prediction, truth)
    return VolumeScores(
        dice=_dice(prediction, truth),
        hd95_mm=hd95(prediction, truth, spacing_mm),
        false_positive_volume_ml=predicted_lesions.voxels_without_overlap() * voxel_ml,
        false_negative_volume_ml=(
            true_lesions.voxels_without_overlap() * voxel_ml if true_lesions.count else math.nan
        ),
        true_volume_ml=int(true_lesions.sizes.sum()) * voxel_ml,
        predicted_volume_ml=int(predicted_lesions.sizes.sum()) * voxel_ml,
        lesion=_lesion_scores(true_lesions, predicted_lesions, min_overlap),
    )


def image_scores(
    prediction: np.ndarray, truth: np.ndarray, min_overlap: float = 0.0
) -> ImageScores:
    """All scores of an image.

    Args:
        prediction, truth: masks (row, column).
        min_overlap: see `lesion_scores`.

    Raises:
        ValueError: the shapes differ or are not 2D.
    """
    prediction, truth = _as_masks(prediction, truth, dimensions=2)
    prediction, truth = _cropped(prediction, truth)
    lesion = _lesion_scores(_Overlap(truth, prediction), _Overlap(prediction, truth), min_overlap)
    return ImageScores(**_pixel_scores(prediction, truth), lesion=lesion)


def stack_scores(prediction: np.ndarray, truth: np.ndarray) -> StackScores:
    """Scores of a stack of views, each view judged as an image of its own.

    Args:
        prediction, truth: masks (view, row, column).

    Raises:
        ValueError: the shapes differ or are not 3D.
    """
    prediction, truth = _as_masks(prediction, truth, dimensions=3)
    views = [_pixel_scores(p, t) for p, t in zip(prediction, truth)]
    with_lesions = [view["dice"] for view in views if view["true_pixels"]]
    return StackScores(
        dice=float(np.mean(with_lesions)) if with_lesions else math.nan,
        **{name: sum(view[name] for view in views) for name in _PIXEL_COUNTS},
        views=len(views),
        views_with_lesions=len(with_lesions),
    )


_PIXEL_COUNTS = (
    "false_positive_pixels",
    "false_negative_pixels",
    "true_pixels",
    "predicted_pixels",
)


def _pixel_scores(prediction: np.ndarray, truth: np.ndarray) -> dict:
    return {
        "dice": _dice(prediction, truth),
        "false_positive_pixels": int(np.count_nonzero(prediction & ~truth)),
        "false_negative_pixels": int(np.count_nonzero(truth & ~prediction)),
        "true_pixels": int(np.count_nonzero(truth)),
        "predicted_pixels": int(np.count_nonzero(prediction)),
    }


class _Overlap:
    """The lesions of `mask` and how many of their voxels lie in `other`."""

    def __init__(self, mask: np.ndarray, other: np.ndarray):
        if not mask.any():
            self.count, self.sizes, self.overlaps = 0, np.zeros(0, int), np.zeros(0, int)
            return
        labels, self.count = cc3d.connected_components(
            np.ascontiguousarray(mask), connectivity=LESION_CONNECTIVITY[mask.ndim], return_N=True
        )
        self.sizes = np.bincount(labels[mask], minlength=self.count + 1)[1:]
        self.overlaps = np.bincount(labels[mask & other], minlength=self.count + 1)[1:]

    def voxels_without_overlap(self) -> int:
        return int(self.sizes[self.overlaps == 0].sum())

    def hit(self, min_overlap: float) -> int:
        return int(np.count_nonzero(detected(self.sizes, self.overlaps, min_overlap)))


def _lesion_scores(true: _Overlap, predicted: _Overlap, min_overlap: float) -> LesionScores:
    if not 0 <= min_overlap <= 1:
        raise ValueError(f"min_overlap is a fraction from 0 to 1, not {min_overlap}")
    found, right = true.hit(min_overlap), predicted.hit(min_overlap)
    recall = found / true.count if true.count else math.nan
    precision = right / predicted.count if predicted.count else math.nan
    if not true.count:
        f1 = math.nan
    elif found == 0 or right == 0:
        f1 = 0.0
    else:
        f1 = 2 * precision * recall / (precision + recall)
    return LesionScores(recall, precision, f1, true.count, found, predicted.count, right)


def _dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    true = int(np.count_nonzero(truth))
    if not true:
        return math.nan
    both = int(np.count_nonzero(prediction & truth))
    return 2 * both / (true + int(np.count_nonzero(prediction)))


def _as_masks(
    prediction: np.ndarray, truth: np.ndarray, dimensions: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    if dimensions is not None and truth.ndim != dimensions:
        raise ValueError(f"masks of {dimensions} dimensions are needed, not {truth.ndim}")
    return prediction != 0, truth != 0


def _cropped(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks in the bounding box of all foreground (of size 0 when there is none)."""
    if truth.ndim not in LESION_CONNECTIVITY:
        raise ValueError(f"masks of 2 or 3 dimensions are needed, not {truth.ndim}")
    for axis in range(truth.ndim):
        others = tuple(other for other in range(truth.ndim) if other != axis)
        occupied = np.flatnonzero(prediction.any(axis=others) | truth.any(axis=others))
        extent = slice(occupied[0], occupied[-1] + 1) if len(occupied) else slice(0, 0)
        box = (slice(None),) * axis + (extent,)
        prediction, truth = prediction[box], truth[box]
    return prediction, truth
