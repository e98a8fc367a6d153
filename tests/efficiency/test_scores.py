"""Scores of masks and views, worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from nnunetv2_mip.efficiency.scores import mask_scores, mean_view_scores, view_scores
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.predictor import StudyPrediction
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.views.channels import StudyViews
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.projection import project_mask


def test_scores_of_a_volume_and_its_views_by_hand():
    axes = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    grid = SourceGrid((20, 20, 12), (2.0, 2.0, 4.0), (0.0, 0.0, 0.0), axes)
    suv = Volume(np.ones((12, 20, 20), np.float32), grid, Path("suv"))
    truth = np.zeros(suv.array.shape, np.uint8)
    truth[4:8, 8:13, 6:10] = 1
    mask = np.roll(truth, 1, axis=0)
    # And a voxel where nothing is, in line with the lesion in neither view.
    mask[0, 1, 1] = 1
    found = mask_scores(mask, truth, suv, 2)
    assert found["dice_3d"] == pytest.approx(2 * 60 / (80 + 81))
    assert found["fpv_ml"] == pytest.approx(0.016)
    assert found["fnv_ml"] == 0
    # Four rows of four (five) columns, one row too low, and a pixel: of the view.
    assert found["dice_projected"] == pytest.approx((2 * 12 / (16 + 17) + 2 * 15 / (20 + 21)) / 2)
    lower = mask_scores(np.roll(truth, 1, axis=0), truth, suv, 2)
    assert (lower["hd95_3d_mm"], lower["hd95_projected_mm"]) == (4.0, 4.0)
    assert lower["dice_projected"] == pytest.approx(3 / 4)
    # The views themselves: one column of 2 mm beside the truth at 0° and at 90°.
    geometry = ViewGeometry.for_volume(suv, (0.0, 90.0))
    views = np.roll(project_mask(truth, geometry), 1, axis=2)
    projected = StudyViews(views[None], views.astype(np.float32), None, None, geometry, None)
    prediction = StudyPrediction(truth, None, views.astype(np.float32), projected)
    config = InferenceConfig(pixel_mm=None, threshold=0.5, min_component_px=0)
    scores = view_scores(prediction, truth, config)
    assert scores["dice_2d"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert scores["hd95_2d_mm"] == pytest.approx(2.0)


def test_scores_of_views_by_hand():
    truth = np.zeros((3, 6, 6), np.uint8)
    truth[:2, 1:3, 1:3] = 1
    found = np.zeros_like(truth)
    found[0, 1:3, 1:3] = 1
    found[1, 1:3, 3:5] = 1
    found[2, 0, 0] = 1
    # Dice 1 and 0 (the third has no lesion); distances 0 and, two columns of 4 mm away, 8.
    assert mean_view_scores(found, truth, (5.0, 4.0)) == (0.5, 4.0)
    assert all(np.isnan(mean_view_scores(truth[2:], truth[2:], (1, 1))))
