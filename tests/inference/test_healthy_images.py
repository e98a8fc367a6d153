"""The rule for healthy images: evidence by hand, the masks it empties, its calibration."""

import math

import numpy as np
import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.healthy_calibration import (
    AREAS_MM2,
    calibrate_healthy,
    judged_image,
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


def judged(value: float, lesions: bool, name: str):
    return np.full(len(AREAS_MM2), value), lesions, name


def test_calibration_stays_below_every_image_with_lesions():
    images = [judged(-2.0 + number, True, f"p{number}") for number in range(5)]
    images += [judged(-6.0 + number, False, f"c{number}") for number in range(6)]
    found = calibrate_healthy(images, margin=0.5)
    # Lowest with lesions: -2; limit -2.5; healthy ones at -6, -5, -4, -3 lie below.
    assert found.rule == HealthyRule(AREAS_MM2[0], -2.5)
    assert (found.called_healthy, found.healthy, found.with_lesions) == (4, 6, 5)
    # Judged without itself, the image at -2 lies below the limit of the others (-1.5).
    assert found.cross_fitted[1] == 1


def test_calibration_takes_the_area_that_separates_best():
    blurred = [
        (np.array([-1.0, -1.0, -1.0]), True, "p0"),
        (np.array([-1.0, -1.0, -1.0]), True, "p1"),
        (np.array([0.0, 0.0, -4.0]), False, "c0"),
    ]
    assert calibrate_healthy(blurred).rule.area_mm2 == AREAS_MM2[2]


def test_evidence_of_an_image_and_what_calibration_needs():
    truth = np.zeros((40, 40), np.uint8)
    found, lesions, name = judged_image(image(*[0.9] * 50), truth, "c")
    assert found[0] == pytest.approx(math.log(9)) and not lesions and name == "c"
    truth[3, 3] = 1
    assert judged_image(image(), truth, "p")[1]
    for images in (
        [judged(0, True, "p0"), judged(0, False, "c")],
        [judged(0, True, "p0"), judged(0, True, "p1")],
    ):
        with pytest.raises(MipError, match="at least two patients"):
            calibrate_healthy(images)
