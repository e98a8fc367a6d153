"""Lesion-wise detection: by hand, and with the roles of the masks exchanged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunetv2_mip.evaluation.lesion_scores import lesion_scores
from nnunetv2_mip.evaluation.metrics import dice


def image(*rows):
    return np.array([[int(sign == "#") for sign in row] for row in rows], np.uint8)


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


@st.composite
def mask_pairs(draw, dimensions):
    shape = tuple(draw(st.integers(1, 5)) for _ in range(dimensions))
    sparse = st.sampled_from([0, 0, 0, 1])
    return tuple(draw(arrays(np.uint8, shape, elements=sparse)) for _ in range(2))


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
