"""Baseline features of height and margins."""

import numpy as np

from nnunetv2_mip.classification.baselines import height_features, margin_features


def test_baseline_features_hold_nothing_of_the_inside_of_the_body():
    levels = np.zeros((1, 60, 50), np.uint8)
    levels[:, 3:58, 10:40] = 90
    hot = levels.copy()
    hot[:, 20:30, 20:30] = 91
    lower = np.pad(levels, ((0, 0), (0, 7), (0, 0)))
    mm = (2.0, 2.0)
    assert np.array_equal(height_features(levels, mm), height_features(hot, mm))
    assert not np.array_equal(height_features(levels, mm), height_features(lower, mm))
    empty = margin_features(levels, mm)[0, 0, -13:]
    assert list(empty[:8]) == [0, 0, 0, 0, 3, 2, 10, 10]
    assert margin_features(lower, mm)[0, 0, -13:][5] == 9
