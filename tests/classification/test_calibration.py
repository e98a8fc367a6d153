"""Calibration: sigmoid, threshold, several scorers as one."""

import numpy as np
import pytest

from nnunetv2_mip.classification.calibration import (
    Platt,
    best_threshold,
    calibrate_jointly,
    fit_platt,
    mean_log_odds,
)
from nnunetv2_mip.classification.metrics import (
    auroc,
    calibration_error,
)
from nnunetv2_mip.errors import MipError


def test_platt_is_a_sigmoid():
    assert Platt(1.0, 0.0)(0.0) == 0.5


def test_platt_gives_the_frequencies_back():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, 4000)
    truth = rng.random(4000) < 1 / (1 + np.exp(-(0.5 * scores - 1)))
    platt = fit_platt(scores, truth)
    assert platt.slope == pytest.approx(0.5, abs=0.06)
    assert platt.offset == pytest.approx(-1, abs=0.12)
    # A score that says the opposite is not turned round.
    assert fit_platt(-scores, truth).slope == 0
    with pytest.raises(MipError, match="without"):
        fit_platt([1.0, 2.0], [True, True])


def test_threshold_of_the_best_expected_f1():
    # By hand: with the first three called, 2 · 2.0 / (3 + 2.1) is more than 2 · 1.5 / (2 + 2.1).
    assert best_threshold([0.9, 0.6, 0.5, 0.1], [1, 1, 0, 0]) == pytest.approx(0.3)
    # Only the number of cases with lesions matters.
    assert best_threshold([0.9, 0.6, 0.5, 0.1], [0, 1, 0, 1]) == pytest.approx(0.3)
    # Equal probabilities cannot be told apart by a threshold.
    assert best_threshold([0.8, 0.5, 0.5, 0.2], [1, 1, 0, 0]) == pytest.approx(0.35)
    with pytest.raises(MipError, match="without"):
        best_threshold([0.9, 0.6], [1, 1])


def test_the_threshold_is_half_of_the_best_f1():
    rng = np.random.default_rng(0)
    probabilities = rng.beta(0.4, 1.0, 20000)
    truth = rng.random(20000) < probabilities
    for balanced in (False, True):
        # The truth itself gives the same, from so many cases.
        weight = np.where(truth, 1.0, truth.sum() / (~truth).sum() if balanced else 1.0)

        def f1(threshold: float, weight=weight) -> float:
            said = probabilities >= threshold
            return 2 * (said & truth).sum() / (weight[said].sum() + truth.sum())

        threshold = best_threshold(probabilities, truth, balanced)
        assert f1(threshold) > max(f1(t) for t in np.linspace(0.05, 0.95, 91)) - 0.003
        if not balanced:
            assert threshold == pytest.approx(f1(threshold) / 2, abs=0.02)


def test_log_odds_are_averaged_after_their_own_sigmoids():
    # By hand: 1 · 3 + 0 and 2 · 0.5 - 2.
    assert mean_log_odds([Platt(1.0, 0.0), Platt(2.0, -2.0)], [3.0, 0.5]) == pytest.approx(1.0)


def test_two_scorers_are_better_as_one():
    rng = np.random.default_rng(0)
    truth = np.arange(4000) % 2 == 0
    # The same skill, other errors; on scales that have nothing in common.
    one, other = (truth + rng.normal(0, 1, 4000) for _ in range(2))
    scorers = [one, 50 * other - 7]
    joined = calibrate_jointly(scorers, truth)
    together = mean_log_odds(joined.parts, scorers)
    alone, both = auroc(truth, one), auroc(truth, together)
    # Two independent measurements of the same spread: d' grows by the square root of two.
    assert alone == pytest.approx(0.760, abs=0.015)
    assert both == pytest.approx(0.841, abs=0.015)
    assert calibration_error(truth, joined.calibration.platt(together)) < 0.02
    # What is known of half of them alone is calibrated on that half.
    half = np.where(np.arange(4000) < 2000, one, np.nan)
    part = calibrate_jointly([half, scorers[1]], truth)
    same = calibrate_jointly([one[:2000], scorers[1][:2000]], truth[:2000])
    assert part.parts[0] == same.parts[0]
    assert part.parts[1] == joined.parts[1]
