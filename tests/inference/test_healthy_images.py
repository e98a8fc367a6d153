"""The rule for healthy images: evidence by hand, the masks it empties, its calibration."""

import math

import numpy as np
import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.healthy_calibration import (
    AREAS_MM2,
    calibrate_healthy,
    evidence_of_areas,
)
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.postprocessing import mask_of_image
from nnunetv2_mip.lesions.healthy_images import HealthyRule, evidence

PIXEL = (2.0, 2.0)


def image(*values: float, rest: float = 0.001) -> np.ndarray:
    found = np.full((40, 40), rest)
    found.flat[: len(values)] = values
    return found


def test_evidence_is_the_mean_log_odds_of_the_most_suspicious_area():
    three = image(0.9, 0.5, 0.2)
    expected = (math.log(9) + 0 + math.log(0.25)) / 3
    assert evidence(three, PIXEL, 12.0) == pytest.approx(expected)
    assert evidence(three, PIXEL, 4.0) == pytest.approx(math.log(9))
    # At least one pixel, at most all; limits keep it finite.
    assert evidence(three, PIXEL, 0.1) == pytest.approx(math.log(9))
    assert evidence(np.ones((2, 2)), PIXEL, 1e6) == pytest.approx(math.log(9999))
    assert evidence(np.zeros((2, 2)), PIXEL, 4.0) == pytest.approx(-math.log(9999))


def test_a_healthy_image_gets_an_empty_mask():
    config = InferenceConfig(threshold=0.5, healthy_image=HealthyRule(16.0, 1.0))
    strong, weak = image(*[0.9] * 4), image(0.9, 0.6, 0.6, 0.3)
    assert mask_of_image(strong, config).sum() == 4
    assert mask_of_image(weak, config).sum() == 0
    assert mask_of_image(weak, config.changed(healthy_image=None)).sum() == 3
    # Asked for a mask that is never empty, the rule does not count.
    assert mask_of_image(weak, config.changed(never_empty=True)).sum() == 3


def test_the_rule_is_kept_in_the_file(tmp_path):
    config = InferenceConfig(healthy_image=HealthyRule(800.0, -3.5))
    config.save(tmp_path)
    assert InferenceConfig.load(tmp_path) == config


@pytest.mark.parametrize(
    "content, words",
    [
        ({"area_mm2": 0, "log_odds": 1}, "area_mm2 0 must be above 0"),
        ({"area_mm2": 800, "log_odds": "low"}, "log_odds 'low' must be a number"),
        ({"area_mm2": 800, "log_odds": math.nan}, "log_odds nan must be a number"),
        ({"area_mm2": 800, "log_odds": 1, "more": 2}, "healthy_image: unknown key more"),
        ({"area_mm2": 800}, "log_odds"),
        (3, "healthy_image: not a JSON object"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(content, words):
    with pytest.raises(MipError, match=words):
        InferenceConfig.from_dict({"format_version": 1, "healthy_image": content})


def calibrated(with_lesions: list[tuple[float, float]], without: list[float], **settings):
    """Calibration on images of one patient each: (evidence, Dice) and evidence."""
    values = [value for value, _ in with_lesions] + without
    dice = [dice for _, dice in with_lesions] + [math.nan] * len(without)
    names = [f"{'p' if number < len(with_lesions) else 'c'}{number}" for number in range(len(dice))]
    return calibrate_healthy(
        [np.full(len(AREAS_MM2), value) for value in values], dice, names, **settings
    )


CONTROLS = [-6.0, -5.0, -4.0, -3.0, -2.0, -1.0]


def test_calibration_stays_below_the_images_with_lesions():
    found = calibrated([(-2.0 + n, 0.8) for n in range(5)], CONTROLS, margin=0.5)
    # Lowest with lesions: -2; limit -2.5; healthy ones at -6, -5, -4, -3 lie below.
    assert found.rule == HealthyRule(AREAS_MM2[0], -2.5)
    assert (found.called_healthy, found.healthy) == (4, 6)
    assert (found.missed, found.with_lesions, found.lost) == (0, 5, 0.0)
    # Judged without itself, the image at -2 lies below the limit of the others (-1.5).
    healthy, missed, lost = found.cross_fitted
    assert missed == 1 and lost == pytest.approx(0.8 / 5) and healthy >= 4


def test_an_image_whose_mask_is_wrong_anyhow_does_not_hold_the_limit_back():
    # The loss of the image at -4 costs nothing, of that at -2 0.01 of 5 images: 0.002.
    images = [(-4.0, 0.0), (-2.0, 0.01), (0.0, 0.8), (1.0, 0.8), (2.0, 0.8)]
    found = calibrated(images, CONTROLS, margin=0.5)
    assert found.rule.log_odds == -2.5
    assert (found.called_healthy, found.missed, found.lost) == (4, 1, 0.0)
    dearer = calibrated(images, CONTROLS, margin=0.5, most_lost=0.002)
    assert dearer.rule.log_odds == -0.5
    assert (dearer.called_healthy, dearer.missed) == (6, 2)
    assert dearer.lost == pytest.approx(0.002)


def test_calibration_takes_the_area_that_separates_best():
    separate = np.zeros(len(AREAS_MM2))
    separate[2] = -4.0
    lesion = np.full(len(AREAS_MM2), -1.0)
    found = calibrate_healthy([lesion, lesion, separate], [0.8, 0.8, math.nan], ["p0", "p1", "c0"])
    assert found.rule.area_mm2 == AREAS_MM2[2]


def test_evidence_of_an_image_and_what_calibration_needs():
    found = evidence_of_areas(image(*[0.9] * 100))
    assert found[:3] == pytest.approx([math.log(9)] * 3) and (found[3:] < found[2]).all()
    for with_lesions, without in ([(0.0, 0.8)], [0.0]), ([(0.0, 0.8)] * 2, []):
        with pytest.raises(MipError, match="at least two patients"):
            calibrated(with_lesions, without)
