import numpy as np
import pytest

from nnunetv2_mip.calibration import calibrate
from nnunetv2_mip.errors import MipError


def images(count=10, level=0.3, speck=0.9):
    """Probabilities whose truth lies at `level`, with a speck of 3 pixels that is none."""
    for number in range(count):
        truth = np.zeros((40, 40), bool)
        truth[5:20, 5 + number : 15 + number] = True
        probability = np.where(truth, level, 0.0)
        probability[30, 30:33] = speck
        yield probability, truth, f"p{number}"


def test_finds_the_threshold_and_drops_specks():
    found = calibrate(*zip(*images()))
    assert 0.05 < found.threshold <= 0.3
    assert found.min_component_px == 5
    assert found.dice == found.dice_cross_fitted == 1
    assert found.dice_default == 0
    assert (found.images, found.patients) == (10, 10)


def test_the_cross_fitted_value_does_not_see_the_judged_patients():
    """One needs a low threshold, the other a high one: what suits one is wrong for the other."""
    (low, truth, _), *_ = images(1, level=0.3, speck=0)
    high = np.where(truth, 0.9, 0.6)
    found = calibrate([low, high], [truth, truth], ["one", "two"])
    assert found.dice > 0.5
    assert found.dice_cross_fitted < 0.2


def test_controls_do_not_count_and_one_patient_is_too_few():
    some = list(images(1))
    control = (np.ones((40, 40)), np.zeros((40, 40)), "healthy")
    with pytest.raises(MipError, match="two patients"):
        calibrate(*zip(*(some + [control])))
