"""Scores of a classification: by hand, against scikit-learn, and their intervals."""

import math

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

from nnunetv2_mip.classification.metrics import (
    auroc,
    binary_scores,
    calibration_error,
    scores_with_intervals,
)


def test_auroc_by_hand():
    # Positives 0.9 and 0.4, negatives 0.5 and 0.1: three of four pairs in order.
    assert auroc([True, True, False, False], [0.9, 0.4, 0.5, 0.1]) == 0.75
    # A tie counts half: pairs (0.5, 0.5) and (0.5, 0.1).
    assert auroc([True, False, False], [0.5, 0.5, 0.1]) == 0.75
    assert auroc([True, False], [0.1, 0.9]) == 0.0
    assert math.isnan(auroc([True, True], [0.1, 0.9]))


def test_scores_by_hand():
    # 3 hits, 1 miss, 2 alarms, 4 quiet.
    truth = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    said = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]
    scores = binary_scores(truth, np.asarray(said, float), said)
    assert scores["precision"] == 3 / 5
    assert scores["recall"] == 3 / 4
    assert scores["specificity"] == 4 / 6
    assert scores["accuracy"] == 7 / 10
    assert scores["f1"] == pytest.approx(2 * 0.6 * 0.75 / (0.6 + 0.75))
    assert scores["brier"] == pytest.approx(0.3)
    nothing = binary_scores([1, 0], [0.1, 0.1], [0, 0])
    assert math.isnan(nothing["precision"])
    assert nothing["f1"] == 0


def test_calibration_error_by_hand():
    # Bin 0.2: mean 0.2, one of five positive; bin 0.9: said 0.9, half of two.
    probabilities = [0.25] * 5 + [0.95] * 2
    truth = [1, 0, 0, 0, 0, 1, 0]
    assert calibration_error(truth, probabilities) == pytest.approx((0.25 + 0.9) / 7)


def test_intervals_are_over_patients():
    # Two patients a class whose fifty cases all agree: far wider than a hundred patients.
    truth = np.repeat([1, 1, 0, 0], 50)
    said = np.repeat([1, 0, 0, 0], 50)
    few = np.repeat(["a", "b", "c", "d"], 50)
    many = np.arange(200).astype(str)
    wide = scores_with_intervals(truth, said, said, few, draws=300)["recall"]
    narrow = scores_with_intervals(truth, said, said, many, draws=300)["recall"]
    assert wide["value"] == narrow["value"] == 0.5
    assert (wide["low"], wide["high"]) == (0.0, 1.0)
    assert 0.3 < narrow["low"] < 0.45 < 0.55 < narrow["high"] < 0.7
    alone = scores_with_intervals([1, 0], [0.9, 0.1], [1, 0], ["a", "b"])["auroc"]
    assert alone["value"] == 1
    assert math.isnan(alone["low"])


def test_equals_scikit_learn():
    rng = np.random.default_rng(0)
    for decimals in (1, 2, 16):
        truth = rng.random(80) < 0.4
        probabilities = np.round(0.6 * rng.random(80) + 0.4 * truth * rng.random(80), decimals)
        decisions = probabilities >= 0.4
        found = binary_scores(truth, probabilities, decisions)
        expected = {
            "auroc": sklearn.metrics.roc_auc_score(truth, probabilities),
            "accuracy": sklearn.metrics.accuracy_score(truth, decisions),
            "precision": sklearn.metrics.precision_score(truth, decisions),
            "recall": sklearn.metrics.recall_score(truth, decisions),
            "specificity": sklearn.metrics.recall_score(~truth, ~decisions),
            "f1": sklearn.metrics.f1_score(truth, decisions),
            "brier": sklearn.metrics.brier_score_loss(truth, probabilities),
        }
        assert found == pytest.approx(expected, abs=1e-12)


def test_calibration_error_rests_on_the_calibration_curve_of_scikit_learn():
    rng = np.random.default_rng(1)
    probabilities = rng.random(300)
    truth = rng.random(300) < probabilities**2
    shares, means = sklearn.calibration.calibration_curve(truth, probabilities, n_bins=10)
    counts = np.histogram(probabilities, np.linspace(0, 1, 11))[0]
    expected = (np.abs(shares - means) * counts[counts > 0]).sum() / 300
    assert calibration_error(truth, probabilities) == pytest.approx(expected, abs=1e-12)
