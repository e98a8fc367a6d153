"""Calibration of threshold and smallest component, on images made by hand."""

import numpy as np
import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.evaluation.threshold_calibration import calibrate, cross_fitted_choices


def images(count=10, level=0.3, speck=0.9):
    """Probabilities whose truth lies at `level`, with a speck of 3 pixels that is none."""
    for number in range(count):
        truth = np.zeros((40, 40), bool)
        truth[5:20, 5 + number : 15 + number] = True
        probability = np.where(truth, level, 0.0)
        probability[30, 30:33] = speck
        yield probability, truth, f"p{number}"


def test_finds_the_threshold_and_drops_specks():
    found = calibrate(images())
    assert 0.05 < found.threshold <= 0.3
    assert found.min_component_px == 5
    assert found.dice == found.dice_cross_fitted == 1
    assert found.dice_default == 0
    assert (found.images, found.patients) == (10, 10)


def test_the_cross_fitted_value_does_not_see_the_judged_patients():
    """One needs a low threshold, the other a high one: what suits one is wrong for the other."""
    (low, truth, _), *_ = images(1, level=0.3, speck=0)
    high = np.where(truth, 0.9, 0.6)
    found = calibrate([(low, truth, "one"), (high, truth, "two")])
    assert found.dice > 0.5
    assert found.dice_cross_fitted < 0.2


def test_controls_do_not_count_and_one_patient_is_too_few():
    some = list(images(1))
    control = (np.ones((40, 40)), np.zeros((40, 40)), "healthy")
    with pytest.raises(MipError, match="two patients"):
        calibrate([*some, control])


def test_choices_for_an_image_are_made_on_other_patients():
    """One patient's probabilities would want another threshold than all others'."""
    truth = np.zeros((20, 20), bool)
    truth[5:10, 5:10] = True
    usual, odd = np.where(truth, 0.9, 0.6), np.where(truth, 0.3, 0.05)
    patients = [f"p{number}" for number in range(10)]
    probabilities = [odd] + [usual] * 9
    with_lesion = [(p, truth, patient) for p, patient in zip(probabilities, patients)]
    choices = cross_fitted_choices([*with_lesion, (usual, np.zeros_like(truth), "control")])
    assert len(choices) == 11
    # Whatever the odd one says, it is judged by what suits the others.
    assert 0.6 < choices[0][0] <= 0.9
    assert calibrate(with_lesion).dice_cross_fitted == pytest.approx(
        np.mean(
            [
                dice(probability >= threshold, truth)
                for probability, (threshold, _) in zip(probabilities, choices)
            ]
        )
    )


def test_ignored_pixels_are_no_false_positives():
    ignoring = []
    for probability, truth, patient in images(speck=0.9):
        labels = truth.astype(np.uint8)
        labels[30, 30:33] = 2
        ignoring.append((probability, labels, patient))
    found = calibrate(ignoring)
    assert (found.min_component_px, found.dice) == (0, 1)
