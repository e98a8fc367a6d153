"""Refinement of masks by clicks: growth, removal, and the properties that always hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.fusion.click_refinement import with_clicks
from nnunetv2_mip.io.clicks import Clicks

MM = (4.0, 4.0, 4.0)


def two_spots() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Uptake of two balls that touch, warm background about them, and the mask of each."""
    axes = np.ogrid[:40, :40, :40]
    balls = []
    for centre in (14, 25):
        square = sum((axis - place) ** 2 for axis, place in zip(axes, (20, 20, centre)))
        balls.append(square)
    suv = 1 + 6 * np.exp(-balls[0] / 20) + 9 * np.exp(-balls[1] / 20)
    return suv.astype(np.float32), balls[0] < 30, balls[1] < 30


def test_no_clicks_leave_a_mask_alone():
    suv, left, _ = two_spots()
    mask = left.astype(np.uint8)
    assert np.array_equal(with_clicks(mask, suv, Clicks(), MM), mask)


def test_a_tumour_click_finds_a_missed_lesion_and_no_more():
    suv, left, right = two_spots()
    mask = right.astype(np.uint8)
    # The other lesion is a wall that a background click holds.
    found = with_clicks(mask, suv, Clicks(((20, 20, 14),), ((20, 20, 25),)), MM)
    assert found[20, 20, 14] == 1 and found[20, 20, 25] == 0
    # Its core, and nothing beyond it.
    assert found[20, 20, 11:18].all() and found[left].sum() == found.sum()


def test_a_background_click_takes_one_of_two_that_touch():
    suv, left, right = two_spots()
    mask = (left | right).astype(np.uint8)
    alone = with_clicks(mask, suv, Clicks(background=((20, 20, 25),)), MM)
    assert not alone[right & ~left].any()
    both = with_clicks(mask, suv, Clicks(((20, 20, 14),), ((20, 20, 25),)), MM)
    assert dice(both, left.astype(np.uint8)) > 0.9
    # The border lies in the valley between them.
    assert both[20, 20, 10:18].all() and not both[20, 20, 21:].any()


def test_a_background_click_at_the_rim_leaves_the_core():
    suv, _, right = two_spots()
    found = with_clicks(right.astype(np.uint8), suv, Clicks(background=((20, 20, 30),)), MM)
    assert found[20, 20, 30] == 0 and found[20, 20, 25] == 1
    assert 0 < found.sum() < right.sum()


def test_clicks_where_there_is_nothing_to_grow():
    suv = np.zeros((12, 12, 12), np.float32)
    found = with_clicks(np.zeros(suv.shape, np.uint8), suv, Clicks(((0, 0, 0), (5, 5, 5))), MM)
    assert found[0, 0, 0] == found[5, 5, 5] == 1
    # A ball about each click and no more.
    assert found.sum() <= 4 + 7


def test_a_lesion_does_not_grow_into_something_hotter_that_it_touches():
    suv = np.full((40, 40, 60), 1.0, np.float32)
    lesion, organ, bridge = (np.zeros(suv.shape, bool) for _ in range(3))
    lesion[17:23, 17:23, 10:16], organ[17:23, 17:23, 20:24] = True, True
    bridge[19:21, 19:21, 16:20] = True
    # At the level where the lesion ends, 1 + 0.45 (8 - 1) = 4.15, the bridge joins both.
    suv[lesion], suv[organ], suv[bridge] = 8.0, 14.0, 5.0
    empty, click = np.zeros(suv.shape, np.uint8), Clicks(((20, 20, 12),))
    found = with_clicks(empty, suv, click, MM).astype(bool)
    assert (found & ~bridge == lesion).all()
    # A neighbour that is no hotter cannot be told from a part of the lesion.
    suv[organ] = 8.0
    assert with_clicks(empty, suv, click, MM)[organ].all()


def test_the_middle_of_a_large_even_tumour_grows_as_far_as_a_click_speaks():
    suv = np.full((60, 60, 60), 3.0, np.float32)
    suv[:26] = 0.5
    found = with_clicks(np.zeros(suv.shape, np.uint8), suv, Clicks(((30, 30, 30),)), MM)
    ball = sum((axis - 30.0) ** 2 for axis in np.ogrid[:60, :60, :60]) * 16
    assert found[26:][ball[26:] <= 36**2].all() and not found[ball > 50**2].any()
    assert not found[:26].any()


VOXELS = st.tuples(*[st.integers(8, 31)] * 3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(VOXELS, st.booleans()), max_size=6), VOXELS, st.integers(0, 3))
@pytest.mark.slow
def test_clicks_hold_and_the_mask_is_monotone(made, more, which):
    suv, left, right = two_spots()
    mask = (left * (which & 1) | right * (which >> 1)).astype(np.uint8)
    kinds = dict(made)
    kinds.pop(more, None)

    def found(places: dict) -> np.ndarray:
        tumour, background = (
            tuple(v for v, kind in places.items() if kind is wanted) for wanted in (True, False)
        )
        out = with_clicks(mask, suv, Clicks(tumour, background), MM)
        assert all(out[v] == 1 for v in tumour) and all(out[v] == 0 for v in background)
        return out

    before = found(kinds)
    assert (found({**kinds, more: True}) >= before).all()
    assert (found({**kinds, more: False}) <= before).all()
