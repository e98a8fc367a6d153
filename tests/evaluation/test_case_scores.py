"""Scores of a case: by hand (2D apart from 3D), a naive reference, properties, golden values."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from nnunetv2_mip.evaluation.case_scores import image_scores, stack_scores, volume_scores
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.io.volumes import read_volume

UNIT_ML = (10.0, 10.0, 10.0)  # a voxel of 1 ml


def volume(*voxels, shape=(4, 5, 6)):
    mask = np.zeros(shape, np.uint8)
    for voxel in voxels:
        mask[voxel] = 1
    return mask


def image(*rows):
    return np.array([[int(sign == "#") for sign in row] for row in rows], np.uint8)


class TestVolume:
    def test_hand_computed(self):
        truth = volume((0, 0, 0), (0, 0, 1), (3, 4, 5))
        prediction = volume((0, 0, 1), (0, 0, 2), (2, 2, 2), (2, 2, 3))
        scores = volume_scores(prediction, truth, (3.0, 2.0, 2.0))
        assert scores.dice == pytest.approx(2 * 1 / (3 + 4))
        assert scores.false_positive_volume_ml == pytest.approx(2 * 0.012)
        assert scores.false_negative_volume_ml == pytest.approx(1 * 0.012)
        assert scores.true_volume_ml == pytest.approx(3 * 0.012)
        assert scores.predicted_volume_ml == pytest.approx(4 * 0.012)
        assert (scores.lesion.lesions, scores.lesion.lesions_found) == (2, 1)
        assert scores.lesion.lesion_recall == 0.5
        assert scores.lesion.lesion_precision == 0.5
        assert scores.lesion.lesion_f1 == 0.5

    def test_voxels_that_share_an_edge_are_one_lesion(self):
        # The second voxel is missed, yet its lesion is not: 18-connectivity.
        truth = volume((1, 1, 1), (1, 2, 2))
        scores = volume_scores(volume((1, 1, 1)), truth, UNIT_ML)
        assert scores.false_negative_volume_ml == 0

    def test_voxels_that_share_a_corner_are_two_lesions(self):
        truth = volume((1, 1, 1), (2, 2, 2))
        scores = volume_scores(volume((1, 1, 1)), truth, UNIT_ML)
        assert scores.false_negative_volume_ml == 1

    def test_false_positive_volume_ignores_what_touches_the_truth(self):
        prediction = volume((0, 0, 0), (0, 0, 1), (0, 0, 2), (3, 3, 3))
        scores = volume_scores(prediction, volume((0, 0, 0)), UNIT_ML)
        assert scores.false_positive_volume_ml == 1

    def test_empty_truth(self):
        scores = volume_scores(volume((0, 0, 0)), volume(), UNIT_ML)
        assert math.isnan(scores.dice) and math.isnan(scores.false_negative_volume_ml)
        assert scores.false_positive_volume_ml == 1
        assert math.isnan(scores.lesion.lesion_recall) and math.isnan(scores.lesion.lesion_f1)
        assert scores.lesion.lesion_precision == 0

    def test_empty_prediction(self):
        scores = volume_scores(volume(), volume((0, 0, 0), (3, 3, 3)), UNIT_ML)
        assert scores.dice == 0
        assert scores.false_positive_volume_ml == 0
        assert scores.false_negative_volume_ml == 2
        assert scores.lesion.lesion_recall == 0 and scores.lesion.lesion_f1 == 0
        assert math.isnan(scores.lesion.lesion_precision)

    def test_both_empty(self):
        scores = volume_scores(volume(), volume(), UNIT_ML)
        assert math.isnan(scores.dice) and math.isnan(scores.false_negative_volume_ml)
        assert scores.false_positive_volume_ml == 0
        assert (scores.lesion.lesions, scores.lesion.predicted_lesions) == (0, 0)

    def test_an_image_is_refused(self):
        with pytest.raises(ValueError, match="3 dimensions"):
            volume_scores(image("#"), image("#"), UNIT_ML)


class TestImage:
    def test_hand_computed(self):
        truth = image("##...", "##...", ".....", "....#")
        prediction = image(".##..", ".##..", ".....", ".....")
        scores = image_scores(prediction, truth)
        assert scores.dice == pytest.approx(2 * 2 / (5 + 4))
        assert (scores.false_positive_pixels, scores.false_negative_pixels) == (2, 3)
        assert (scores.true_pixels, scores.predicted_pixels) == (5, 4)
        assert (scores.lesion.lesions, scores.lesion.lesions_found) == (2, 1)

    def test_diagonal_pixels_are_one_lesion(self):
        assert image_scores(image("#.", ".."), image("#.", ".#")).lesion.lesions == 1

    def test_control_reports_its_pixels_and_no_dice(self):
        scores = image_scores(image("#.#"), image("..."))
        assert math.isnan(scores.dice)
        assert scores.false_positive_pixels == 2

    def test_a_volume_is_refused(self):
        with pytest.raises(ValueError, match="2 dimensions"):
            image_scores(volume(), volume())


class TestStack:
    def test_mean_over_views_with_lesions_not_over_pixels(self):
        truth = np.stack([image("####"), image("#..."), image("....")])
        prediction = np.stack([image("####"), image("...."), image("##..")])
        scores = stack_scores(prediction, truth)
        assert scores.dice == 0.5  # (1 + 0) / 2; pooled it would be 8/11
        assert (scores.views, scores.views_with_lesions) == (3, 2)
        assert (scores.false_positive_pixels, scores.false_negative_pixels) == (2, 1)

    def test_no_view_has_a_lesion(self):
        scores = stack_scores(np.ones((2, 1, 3)), np.zeros((2, 1, 3)))
        assert math.isnan(scores.dice)
        assert scores.false_positive_pixels == 6


def naive_volume_without_overlap(mask, other):
    """Voxels of the components of `mask` outside `other`, component by component."""
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, 2))
    components = (labels == index for index in range(1, count + 1))
    return sum(int(c.sum()) for c in components if not (c & (other > 0)).any())


@st.composite
def mask_pairs(draw):
    shape = tuple(draw(st.integers(1, 5)) for _ in range(3))
    sparse = st.sampled_from([0, 0, 0, 1])
    return tuple(draw(arrays(np.uint8, shape, elements=sparse)) for _ in range(2))


@settings(max_examples=80, deadline=None)
@given(mask_pairs())
def test_false_volumes_equal_a_naive_reference(pair):
    prediction, truth = pair
    scores = volume_scores(prediction, truth, UNIT_ML)
    assert scores.false_positive_volume_ml == naive_volume_without_overlap(prediction, truth)
    if truth.any():
        assert scores.false_negative_volume_ml == naive_volume_without_overlap(truth, prediction)
    assert scores.dice == pytest.approx(dice(prediction, truth), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(mask_pairs())
def test_bounds(pair):
    prediction, truth = pair
    scores = volume_scores(prediction, truth, UNIT_ML)
    lesion = scores.lesion
    for value in (scores.dice, lesion.lesion_recall, lesion.lesion_precision, lesion.lesion_f1):
        assert math.isnan(value) or 0 <= value <= 1
    assert 0 <= scores.false_positive_volume_ml <= scores.predicted_volume_ml
    assert math.isnan(scores.dice) == (not truth.any())


@settings(max_examples=40, deadline=None)
@given(mask_pairs(), st.integers(0, 3))
def test_a_border_changes_nothing(pair, width):
    plain = volume_scores(*pair, UNIT_ML)
    padded = volume_scores(*(np.pad(mask, width) for mask in pair), UNIT_ML)
    assert repr(plain) == repr(padded)


@settings(max_examples=40, deadline=None)
@given(mask_pairs())
def test_the_truth_is_a_perfect_prediction(pair):
    truth = pair[0]
    truth[0, 0, 0] = 1
    scores = volume_scores(truth, truth, UNIT_ML, min_overlap=1.0)
    lesion = scores.lesion
    assert scores.dice == lesion.lesion_recall == lesion.lesion_precision == lesion.lesion_f1 == 1
    assert scores.false_positive_volume_ml == scores.false_negative_volume_ml == 0


def test_golden_values_of_the_official_script():
    data = os.environ.get("NNUNETV2_MIP_TEST_DATA")
    if not data:
        pytest.skip("NNUNETV2_MIP_TEST_DATA is not set (real data for tests)")
    folder = Path(data) / "golden_metrics"
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    prediction = read_volume(folder / "prediction.nii.gz")
    truth = read_volume(folder / "ground_truth.nii.gz")
    scores = volume_scores(prediction.array, truth.array, truth.spacing_mm)
    assert scores.dice == pytest.approx(expected["dice"], abs=1e-4)
    for name in ("false_positive_volume_ml", "false_negative_volume_ml"):
        assert getattr(scores, name) == pytest.approx(expected[name], rel=1e-4, abs=1e-4)
