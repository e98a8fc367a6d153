"""Outlines that follow the uptake: spoiled regions of known bodies, faint and hollow ones."""

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunetv2_mip.fusion.outlines import INWARDS_MM, OUTWARDS_MM, moved_outlines

SPACING = (4.0, 3.0, 3.0)
SHAPE = (30, 44, 44)
Z, Y, X = (n * step for n, step in zip(np.indices(SHAPE), SPACING))


def ball(radius_mm: float, z=58.0, y=64.0, x=64.0) -> np.ndarray:
    return (Z - z) ** 2 + (Y - y) ** 2 + (X - x) ** 2 <= radius_mm**2


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def scanned(suv: np.ndarray) -> np.ndarray:
    """SUV as a scanner of 6 mm resolution shows it."""
    return ndimage.gaussian_filter(suv.astype(np.float32), [6 / 2.355 / s for s in SPACING])


@pytest.mark.parametrize("radius_mm", [9.0, 16.0, 30.0])
@pytest.mark.parametrize("off_mm", [-4.0, 5.0])
def test_a_region_too_tight_or_too_loose_finds_its_border(radius_mm, off_mm):
    truth = ball(radius_mm)
    suv = scanned(np.where(truth, 6.0, 1.0))
    found = ball(radius_mm + off_mm)
    moved = moved_outlines(found, suv, SPACING, 0.45)
    assert dice(moved, truth) > dice(found, truth)
    assert dice(moved, truth) > 0.9


def test_a_faint_part_keeps_its_own_border():
    hot, faint = ball(14.0, x=46.0), ball(16.0, x=76.0)
    suv = scanned(np.where(hot, 12.0, np.where(faint, 3.0, 1.0)))
    moved = moved_outlines(hot | faint, suv, SPACING, 0.4)
    # Of the faint part, what lies away from the hot one.
    away = faint & (X > 70)
    assert (moved & away).sum() > 0.85 * away.sum()


def test_a_cold_centre_stays_and_holes_are_filled():
    whole, centre = ball(30.0), ball(14.0)
    suv = scanned(np.where(centre, 1.0, np.where(whole, 5.0, 1.0)))
    for found in (whole, whole & ~centre):
        moved = moved_outlines(found, suv, SPACING, 0.4)
        assert (moved & centre).sum() == centre.sum()
        assert dice(moved, whole) > 0.9


def test_two_regions_stay_two_and_none_takes_the_other():
    left, right = ball(9.0, x=50.0), ball(9.0, x=72.0)
    suv = scanned(np.where(left | right, 6.0, 1.0))
    moved = moved_outlines(ball(6.0, x=50.0) | ball(6.0, x=72.0), suv, SPACING, 0.3)
    assert cc3d.connected_components(moved, connectivity=18).max() == 2
    assert dice(moved, left | right) > 0.85


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), share=st.floats(0.05, 0.95))
def test_outlines_move_by_a_few_millimetres_at_most(seed, share):
    rng = np.random.default_rng(seed)
    shape = (10, 14, 14)
    suv = ndimage.gaussian_filter(rng.random(shape).astype(np.float32) * 8, 1)
    mask = ndimage.binary_opening(rng.random(shape) < 0.5)
    if not mask.any():
        mask[4:6, 5:8, 5:8] = True
    moved = moved_outlines(mask, suv, SPACING, share)
    assert moved.any() and moved.dtype == bool
    away = ndimage.distance_transform_edt(~mask, sampling=SPACING)
    closed = ndimage.binary_fill_holes(away <= OUTWARDS_MM)
    assert closed[moved].all()
    deep = ndimage.distance_transform_edt(mask, sampling=SPACING) > INWARDS_MM
    assert moved[deep].all()
    regions = cc3d.connected_components(mask, connectivity=18)
    assert set(np.unique(regions[moved])) - {0} == set(np.unique(regions)) - {0}
