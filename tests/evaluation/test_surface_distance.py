"""HD95 by hand and against MONAI."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_mip.evaluation.case_scores import volume_scores
from nnunetv2_mip.evaluation.surface_distance import hd95


def blob(shape, low, high) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high))] = True
    return mask


def test_a_shift_is_its_own_distance():
    first = blob((20, 20, 20), (5, 5, 5), (9, 9, 9))
    for axis, mm in enumerate((3.0, 2.0, 1.5)):
        moved = np.roll(first, 4, axis)
        # Only the far face is 4 away; the centile lies in it, as it holds over 5 % of the surface.
        assert hd95(first, moved, (3.0, 2.0, 1.5)) == pytest.approx(4 * mm)
    assert hd95(first, first, (1, 1, 1)) == 0


def test_two_points():
    first, second = np.zeros((2, 5, 5), bool)
    first[0, 0] = second[3, 4] = True
    assert hd95(first, second, (1, 1)) == 5
    assert hd95(first, second, (2, 1)) == pytest.approx(math.hypot(6, 4))


def test_no_distance_to_nothing():
    some, none = np.ones((3, 3, 3), bool), np.zeros((3, 3, 3), bool)
    for pair in ((some, none), (none, some), (none, none)):
        assert math.isnan(hd95(*pair, (1, 1, 1)))
        assert math.isnan(volume_scores(*pair, (1.0, 1.0, 1.0)).hd95_mm)


def test_a_far_speck_of_less_than_a_twentieth_does_not_count():
    truth = blob((40, 40, 40), (5, 5, 5), (15, 15, 15))
    prediction = truth.copy()
    prediction[35, 35, 35] = True
    assert hd95(prediction, truth, (1, 1, 1)) == 0


@given(
    seed=st.integers(0, 2**16),
    shape=st.tuples(*[st.integers(3, 12)] * 3),
    spacing=st.tuples(*[st.floats(0.5, 5)] * 3),
)
@settings(max_examples=30, deadline=None)
@pytest.mark.slow
def test_equals_monai(seed, shape, spacing):
    monai = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    masks = rng.random((2, *shape)) < rng.uniform(0.05, 0.9)
    if not masks[0].any() or not masks[1].any():
        return
    first, second = (torch.from_numpy(mask[None, None]) for mask in masks)
    expected = monai.compute_hausdorff_distance(
        first, second, include_background=True, percentile=95, spacing=list(spacing)
    )
    assert hd95(*masks, spacing) == pytest.approx(float(expected), rel=1e-5)
    assert hd95(*masks[::-1], spacing) == hd95(*masks, spacing)
