"""Scores of a prediction in 2D and in 3D, which make 2D and 3D networks comparable.

There are two kinds of 2D scores: of the views that a 2D network segmented, and of a 3D mask
projected onto fixed views, which every network has. Truth is projected likewise: a pixel is lesion
when its ray meets one.
"""

import math
from collections.abc import Sequence

import numpy as np

from nnunetv2_mip.evaluation.case_scores import volume_scores
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.evaluation.surface_distance import hd95
from nnunetv2_mip.inference.postprocessing import mask_of_view
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.projection import project_mask
from nnunetv2_mip.views.resampling import to_pixels


def mean_view_scores(
    prediction: np.ndarray, truth: np.ndarray, pixel_mm: Sequence[float]
) -> tuple[float, float]:
    """Dice and 95 % Hausdorff distance of views, each averaged over the views of a study.

    Args:
        prediction, truth: masks (V, H, W).
        pixel_mm: (row, column).

    Returns:
        Dice over the views with lesions, and HD95 in mm over those in which both masks mark
        something; NaN where there is no such view.
    """
    overlaps = [dice(ours, theirs) for ours, theirs in zip(prediction, truth)]
    distances = [hd95(ours, theirs, pixel_mm) for ours, theirs in zip(prediction, truth)]
    return _mean(overlaps), _mean(distances)


def mask_scores(
    mask: np.ndarray, truth: np.ndarray, suv: Volume, reference_views: int
) -> dict[str, float]:
    """Scores of a 3D mask, in 3D and projected onto fixed views.

    Args:
        mask, truth: (z, y, x), canonical axes.
        suv: the study, for grid and body.
        reference_views: views over half a turn onto which both masks are projected.

    Returns:
        `dice_3d`, `hd95_3d_mm`, `fpv_ml`, `fnv_ml`, `dice_projected`, `hd95_projected_mm`; NaN
        where a score is not defined (see `evaluation.metrics`).
    """
    volume = volume_scores(mask, truth, suv.spacing_mm)
    geometry = ViewGeometry.for_volume(suv, view_angles(reference_views))
    overlap, distance = mean_view_scores(
        project_mask(mask, geometry), project_mask(truth, geometry), geometry.pixel_mm
    )
    return {
        "dice_3d": volume.dice,
        "hd95_3d_mm": volume.hd95_mm,
        "fpv_ml": volume.false_positive_volume_ml,
        "fnv_ml": volume.false_negative_volume_ml,
        "dice_projected": overlap,
        "hd95_projected_mm": distance,
    }


def view_scores(found, truth: np.ndarray, config) -> dict[str, float]:
    """Scores of the views that a 2D network segmented.

    Args:
        found: a `StudyPrediction`.
        truth: (z, y, x).
        config: the `InferenceConfig` that it was made with.

    Returns:
        `dice_2d`, `hd95_2d_mm`, see `mean_view_scores`.
    """
    views = to_pixels(
        project_mask(truth, found.geometry), found.geometry, config.pixel_mm, nearest=True
    )
    masks = np.stack([mask_of_view(view, config) for view in found.view_probability])
    overlap, distance = mean_view_scores(masks, views, found.spacing_mm[1:])
    return {"dice_2d": overlap, "hd95_2d_mm": distance}


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
