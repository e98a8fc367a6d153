"""Dice by hand, and the policies for empty masks."""

import math

import numpy as np
import pytest

from nnunetv2_mip.evaluation.metrics import EmptyTruth, dice


def image(*rows):
    return np.array([[int(sign == "#") for sign in row] for row in rows], np.uint8)


def test_half_overlap():
    assert dice(image("##.."), image(".##.")) == 0.5


def test_empty_prediction_scores_zero():
    assert dice(image("...."), image(".##.")) == 0


@pytest.mark.parametrize("prediction", [image("...."), image("#...")])
def test_empty_truth_is_undefined(prediction):
    assert math.isnan(dice(prediction, image("....")))


def test_any_non_zero_value_is_foreground():
    assert dice(image("##..") * 255, image("##..")) == 1


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        dice(np.zeros((2, 3)), np.zeros((3, 2)))


def test_policies_for_an_empty_truth():
    empty, spot = image("...."), image("#...")
    for prediction, agreement in ((empty, 1.0), (spot, 0.0)):
        assert dice(prediction, empty, EmptyTruth.AGREEMENT) == agreement
        assert math.isnan(dice(prediction, empty, EmptyTruth.UNDEFINED))
    # The policy is of empty truths alone.
    for policy in EmptyTruth:
        assert dice(empty, spot, policy) == 0
        assert dice(image("##.."), image(".##."), policy) == 0.5
