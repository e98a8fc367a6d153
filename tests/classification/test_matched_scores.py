"""Scores of pairs of equal size."""

import numpy as np
import pytest

from nnunetv2_mip.classification.matched_scores import matched_pairs, matched_scores
from nnunetv2_mip.classification.metrics import (
    auroc,
)
from nnunetv2_mip.errors import MipError


def test_matched_pairs_have_one_size_bin_and_no_case_twice():
    rng = np.random.default_rng(0)
    truth = rng.random(80) < 0.4
    sizes = rng.uniform(800, 1200, 80)
    pairs = matched_pairs(truth, sizes, 40, rng)
    assert truth[pairs[:, 0]].all()
    assert not truth[pairs[:, 1]].any()
    assert (sizes[pairs] // 40 == sizes[pairs[:, :1]] // 40).all()
    assert len(set(pairs.ravel())) == pairs.size
    with pytest.raises(MipError, match="width"):
        matched_pairs(truth, sizes, 0, rng)


def test_matching_takes_a_height_classifier_its_score():
    # Tall images are positive; among images of equal height nothing is told apart.
    heights = np.array([500] * 10 + [900] * 30 + [500] * 30 + [900] * 10)
    truth = np.array([1] * 40 + [0] * 40)
    probability = heights / 1000
    said = heights > 700
    assert auroc(truth, probability) == 0.75
    matched = matched_scores(truth, probability, said, heights, 40, matchings=20)
    assert matched["pairs"] == 20
    assert matched["left_out"] == 20
    assert matched["scores"]["auroc"]["value"] == 0.5
    with pytest.raises(MipError, match="partner"):
        matched_scores([1, 0], [0.5, 0.5], [1, 1], [100, 900], 40)
