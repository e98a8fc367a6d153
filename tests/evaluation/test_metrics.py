"""Scores: hand-computed cases (2D apart from 3D), a naive reference, properties, golden values."""

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

from nnunetv2_mip.evaluation.bootstrap import bootstrap_interval
from nnunetv2_mip.evaluation.metrics import (
    dice,
    false_negative_volume_ml,
    false_positive_volume_ml,
    image_scores,
    lesion_scores,
    stack_scores,
    volume_scores,
)
from nnunetv2_mip.io.volumes import read_volume

UNIT_ML = (10.0, 10.0, 10.0)  # a voxel of 1 ml


def volume(*voxels, shape=(4, 5, 6)):
    mask = np.zeros(shape, np.uint8)
    for voxel in voxels:
        mask[voxel] = 1
    return mask


def image(*rows):
    return np.array([[int(sign == "#") for sign in row] for row in rows], np.uint8)


class TestDice:
    def test_half_overlap(self):
        assert dice(image("##.."), image(".##.")) == 0.5

    def test_empty_prediction_scores_zero(self):
        assert dice(image("...."), image(".##.")) == 0

    @pytest.mark.parametrize("prediction", [image("...."), image("#...")])
    def test_empty_truth_is_undefined(self, prediction):
        assert math.isnan(dice(prediction, image("....")))

    def test_any_non_zero_value_is_foreground(self):
        assert dice(image("##..") * 255, image("##..")) == 1

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match="differ in shape"):
            dice(np.zeros((2, 3)), np.zeros((3, 2)))


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
        assert false_negative_volume_ml(volume((1, 1, 1)), truth, UNIT_ML) == 0

    def test_voxels_that_share_a_corner_are_two_lesions(self):
        truth = volume((1, 1, 1), (2, 2, 2))
        assert false_negative_volume_ml(volume((1, 1, 1)), truth, UNIT_ML) == 1

    def test_false_positive_volume_ignores_what_touches_the_truth(self):
        prediction = volume((0, 0, 0), (0, 0, 1), (0, 0, 2), (3, 3, 3))
        assert false_positive_volume_ml(prediction, volume((0, 0, 0)), UNIT_ML) == 1

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


class TestLesions:
    truth = image(
        "####......",
        "..........",
        "......####",
    )

    def test_any_overlap_finds(self):
        prediction = image("#.........", "..........", "..........")
        scores = lesion_scores(prediction, self.truth)
        assert (scores.lesions_found, scores.predicted_lesions_right) == (1, 1)

    @pytest.mark.parametrize(("fraction", "found"), [(0.5, 1), (0.51, 0)])
    def test_minimal_overlap_of_the_true_lesion(self, fraction, found):
        prediction = image("##........", "..........", "..........")
        scores = lesion_scores(prediction, self.truth, fraction)
        assert scores.lesions_found == found
        assert scores.predicted_lesions_right == 1  # it lies inside the truth entirely

    def test_minimal_overlap_of_the_predicted_lesion(self):
        prediction = image("########..", "..........", "..........")
        assert lesion_scores(prediction, self.truth, 0.5).predicted_lesions_right == 1
        assert lesion_scores(prediction, self.truth, 0.6).predicted_lesions_right == 0
        assert lesion_scores(prediction, self.truth, 0.6).lesions_found == 1

    def test_a_fraction_that_is_not_exact_in_binary(self):
        truth = image("##########")
        assert lesion_scores(image("###......."), truth, 0.3).lesions_found == 1

    def test_one_prediction_over_two_lesions_finds_both(self):
        scores = lesion_scores(np.ones_like(self.truth), self.truth)
        assert (scores.lesions_found, scores.predicted_lesions) == (2, 1)
        assert scores.lesion_recall == scores.lesion_precision == scores.lesion_f1 == 1

    def test_two_fragments_in_one_lesion_are_both_right(self):
        scores = lesion_scores(image("#..#......", "..........", ".........."), self.truth)
        assert (scores.lesions_found, scores.predicted_lesions_right) == (1, 2)
        assert scores.lesion_f1 == pytest.approx(2 * 1 * 0.5 / 1.5)

    def test_fraction_out_of_range(self):
        with pytest.raises(ValueError, match="from 0 to 1"):
            lesion_scores(self.truth, self.truth, 1.5)


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


class TestBootstrap:
    def test_holds_the_mean_and_is_reproducible(self):
        values = list(np.linspace(0.2, 0.9, 30))
        low, high = bootstrap_interval(values, seed=3)
        assert low < np.mean(values) < high
        # Close to the normal interval of so even a sample.
        half = 1.96 * np.std(values) / np.sqrt(len(values))
        assert (high - low) / 2 == pytest.approx(half, rel=0.05)
        assert (low, high) == bootstrap_interval(values, seed=3)
        assert (low, high) != bootstrap_interval(values, seed=4)

    def test_nan_is_left_out(self):
        assert bootstrap_interval([0.5, math.nan, 0.7]) == bootstrap_interval([0.5, 0.7])

    @pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan]])
    def test_too_few_cases(self, values):
        assert all(math.isnan(bound) for bound in bootstrap_interval(values))


def naive_volume_without_overlap(mask, other):
    """Voxels of the components of `mask` outside `other`, component by component."""
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, 2))
    components = (labels == index for index in range(1, count + 1))
    return sum(int(c.sum()) for c in components if not (c & (other > 0)).any())


@st.composite
def mask_pairs(draw, dimensions):
    shape = tuple(draw(st.integers(1, 5)) for _ in range(dimensions))
    sparse = st.sampled_from([0, 0, 0, 1])
    return tuple(draw(arrays(np.uint8, shape, elements=sparse)) for _ in range(2))


@settings(max_examples=80, deadline=None)
@given(mask_pairs(3))
def test_false_volumes_equal_a_naive_reference(pair):
    prediction, truth = pair
    scores = volume_scores(prediction, truth, UNIT_ML)
    assert scores.false_positive_volume_ml == naive_volume_without_overlap(prediction, truth)
    if truth.any():
        assert scores.false_negative_volume_ml == naive_volume_without_overlap(truth, prediction)
    assert scores.dice == pytest.approx(dice(prediction, truth), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.one_of(mask_pairs(2), mask_pairs(3)))
def test_exchanging_the_roles(pair):
    prediction, truth = pair
    there, back = lesion_scores(prediction, truth), lesion_scores(truth, prediction)
    assert there.lesion_recall == pytest.approx(back.lesion_precision, nan_ok=True)
    assert there.lesions == back.predicted_lesions
    if prediction.any() and truth.any():
        assert dice(prediction, truth) == dice(truth, prediction)
        assert there.lesion_f1 == pytest.approx(back.lesion_f1)


@settings(max_examples=60, deadline=None)
@given(mask_pairs(3))
def test_bounds(pair):
    prediction, truth = pair
    scores = volume_scores(prediction, truth, UNIT_ML)
    lesion = scores.lesion
    for value in (scores.dice, lesion.lesion_recall, lesion.lesion_precision, lesion.lesion_f1):
        assert math.isnan(value) or 0 <= value <= 1
    assert 0 <= scores.false_positive_volume_ml <= scores.predicted_volume_ml
    assert math.isnan(scores.dice) == (not truth.any())


@settings(max_examples=40, deadline=None)
@given(mask_pairs(3), st.integers(0, 3))
def test_a_border_changes_nothing(pair, width):
    plain = volume_scores(*pair, UNIT_ML)
    padded = volume_scores(*(np.pad(mask, width) for mask in pair), UNIT_ML)
    assert repr(plain) == repr(padded)


@settings(max_examples=40, deadline=None)
@given(mask_pairs(3))
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
