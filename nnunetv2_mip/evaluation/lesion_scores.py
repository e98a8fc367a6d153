"""Lesion-wise detection scores of a predicted mask.

A *lesion* is a connected component: 18-connectivity in a volume (voxels that share a face or an
edge), 8-connectivity in an image (the same rule within a plane). For empty masks see
`metrics.EmptyTruth`.
"""

import math
from dataclasses import dataclass

import cc3d
import numpy as np

from nnunetv2_mip.evaluation.metrics import as_masks, crop_to_foreground
from nnunetv2_mip.lesions.components import LESION_CONNECTIVITY, detected


@dataclass(frozen=True)
class LesionScores:
    """Lesion-wise detection scores of a case; recall, precision and F1 in [0, 1] or NaN.

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


def lesion_scores(
    prediction: np.ndarray, truth: np.ndarray, min_overlap: float = 0.0
) -> LesionScores:
    """Lesion-wise recall, precision and F1 of a predicted mask.

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
    prediction, truth = crop_to_foreground(*as_masks(prediction, truth))
    return scores_of_overlaps(
        LesionOverlaps(truth, prediction), LesionOverlaps(prediction, truth), min_overlap
    )


class LesionOverlaps:
    """Sizes of a mask's lesions, and of their overlaps with another mask.

    Args:
        mask, other: boolean arrays (z, y, x) or (row, column).

    Attributes:
        count: lesions of `mask`.
        sizes: (count,) voxels or pixels of each.
        overlaps: (count,) those of them that lie in `other`.
    """

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
        """Voxels of all lesions that do not touch the other mask."""
        return int(self.sizes[self.overlaps == 0].sum())

    def overlapped(self, min_overlap: float) -> int:
        """Number of lesions of which the other mask holds enough, see `lesion_scores`."""
        return int(np.count_nonzero(detected(self.sizes, self.overlaps, min_overlap)))


def scores_of_overlaps(
    true: LesionOverlaps, predicted: LesionOverlaps, min_overlap: float
) -> LesionScores:
    """Scores from the overlaps of the true lesions and of the predicted ones.

    Raises:
        ValueError: `min_overlap` is not in [0, 1].
    """
    if not 0 <= min_overlap <= 1:
        raise ValueError(f"min_overlap is a fraction from 0 to 1, not {min_overlap}")
    found, right = true.overlapped(min_overlap), predicted.overlapped(min_overlap)
    recall = found / true.count if true.count else math.nan
    precision = right / predicted.count if predicted.count else math.nan
    if not true.count:
        f1 = math.nan
    elif found == 0 or right == 0:
        f1 = 0.0
    else:
        f1 = 2 * precision * recall / (precision + recall)
    return LesionScores(recall, precision, f1, true.count, found, predicted.count, right)
