"""Bootstrap: intervals of means, and the draws they rest on."""

import math

import numpy as np
import pytest

from nnunetv2_mip.evaluation.bootstrap import (
    interval_over_cases,
    interval_over_groups,
    percentile_interval,
    resample,
)


def test_holds_the_mean_and_is_reproducible():
    values = list(np.linspace(0.2, 0.9, 30))
    low, high = interval_over_cases(values, seed=3)
    assert low < np.mean(values) < high
    # Close to the normal interval of so even a sample.
    half = 1.96 * np.std(values) / np.sqrt(len(values))
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert (low, high) == interval_over_cases(values, seed=3)
    assert (low, high) != interval_over_cases(values, seed=4)


def test_nan_is_left_out():
    assert interval_over_cases([0.5, math.nan, 0.7]) == interval_over_cases([0.5, 0.7])


@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan]])
def test_too_few_cases(values):
    assert all(math.isnan(bound) for bound in interval_over_cases(values))


def test_groups_are_drawn_as_a_whole():
    # Two patients: every draw is the mean of either, or of both.
    low, high = interval_over_groups([[0.1] * 10, [0.9]])
    assert (low, high) == (pytest.approx(0.1), 0.9)
    # Each value on its own is an interval over cases, up to the last bits of its ends.
    values = [0.1, 0.5, 0.7, 0.2]
    alone = interval_over_groups([[value] for value in values], seed=1)
    assert alone == pytest.approx(interval_over_cases(values, seed=1), abs=1e-12)
    assert all(math.isnan(bound) for bound in interval_over_groups([[0.1, 0.9]]))


def test_a_draw_takes_of_every_stratum_as_many_units_as_it_has():
    generator = np.random.default_rng(0)
    strata = [np.arange(5), np.arange(100, 140)]
    draws = [resample(strata, generator) for _ in range(50)]
    for drawn in draws:
        assert len(drawn) == 45
        assert (drawn[:5] < 5).all() and (drawn[5:] >= 100).all()
    # With replacement, and every unit has its chance.
    assert any(len(set(drawn.tolist())) < 45 for drawn in draws)
    assert set(np.concatenate(draws).tolist()) == set(np.concatenate(strata).tolist())
    # Rows of a table stay together.
    pairs = np.array([[1, 10], [2, 20], [3, 30]])
    assert (resample([pairs], generator) @ [10, -1] == 0).all()


def test_interval_between_percentiles_by_hand():
    assert percentile_interval([*range(101), math.nan], tail=0.1) == (10, 90)
    assert all(math.isnan(bound) for bound in percentile_interval([0.5, math.nan]))
