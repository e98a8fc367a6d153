"""Fusion rule `explain`: agreement with the views, views with errors, order and threads."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import (
    NODES_SHAPE,
    dice,
    nodes,
    views_of,
)

from nnunetv2_mip.fusion.backprojection import backproject
from nnunetv2_mip.fusion.fuse import fuse
from nnunetv2_mip.fusion.rules import FusionRule
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.projection import project_mask

EXPLAIN = FusionRule("explain")


@pytest.mark.parametrize("count", [2, 4, 12])
def test_it_stays_in_the_hull_of_true_views_and_is_closer_to_the_truth(count):
    gains = []
    for seed in range(4):
        volume, mask = nodes(seed)
        geometry, stack = views_of(volume, mask, count)
        hull = backproject(stack, geometry, "hull") > 0.5
        found = fuse(stack, geometry, EXPLAIN, volume.array).astype(bool)
        assert not (found & ~hull).any()
        gains.append(dice(found, mask) - dice(hull, mask))
    assert min(gains) >= 0
    assert np.mean(gains) > 0.01


def test_marks_of_true_views_stay_explained():
    volume, mask = nodes(3)
    geometry, stack = views_of(volume, mask)
    found = fuse(stack, geometry, EXPLAIN, volume.array)
    # No false pixel, and hardly one that is no longer hit.
    again = project_mask(found, geometry)
    assert (again <= stack).all()
    assert again.sum() >= 0.97 * stack.sum()


@pytest.mark.parametrize("error", ["an empty view", "a false blob", "a wide view", "a tight view"])
def test_one_wrong_view_of_twelve_costs_little(error):
    from scipy import ndimage

    losses, of_hull = [], []
    for seed in range(3):
        volume, mask = nodes(seed)
        geometry, stack = views_of(volume, mask)
        whole = dice(fuse(stack, geometry, EXPLAIN, volume.array), mask)
        wrong = stack.copy()
        if error == "an empty view":
            wrong[4] = 0
        elif error == "a false blob":
            wrong[4, 3:9, 8:14] = 1
        elif error == "a wide view":
            wrong[4] = ndimage.binary_dilation(wrong[4])
        else:
            wrong[4] = ndimage.binary_erosion(wrong[4])
        losses.append(whole - dice(fuse(wrong, geometry, EXPLAIN, volume.array), mask))
        of_hull.append(dice(backproject(wrong, geometry, "hull") > 0.5, mask))
    assert np.mean(losses) < 0.03
    if error == "an empty view":
        assert max(of_hull) == 0


def test_without_uptake_contrast_the_views_decide():
    volume, mask = nodes(1, hot=1.0)
    geometry, stack = views_of(volume, mask)
    hull = backproject(stack, geometry, "hull") > 0.5
    found = fuse(stack, geometry, EXPLAIN, volume.array)
    assert dice(found, mask) >= dice(hull, mask) - 0.01
    # And without any SUV.
    blind = fuse(stack, geometry, EXPLAIN)
    assert dice(blind, mask) >= dice(hull, mask) - 0.01


@pytest.mark.slow
@given(seed=st.integers(0, 2**16), flips=st.tuples(*[st.booleans()] * 2))
@settings(max_examples=8, deadline=None)
def test_the_order_of_the_views_and_mirrored_patients_do_not_matter(seed, flips):
    volume, mask = nodes(seed % 7)
    angles = view_angles(8)
    geometry, stack = views_of(volume, mask, 8)
    rng = np.random.default_rng(seed)
    noisy = np.clip(stack * rng.uniform(0.6, 1.0, (8, 1, 1)), 0, 1).astype(np.float32)
    noisy[rng.integers(8)] = 0
    found = fuse(noisy, geometry, EXPLAIN, volume.array)
    order = rng.permutation(8)
    turned = ViewGeometry.for_volume(volume, [angles[number] for number in order])
    again = fuse(noisy[order], turned, EXPLAIN, volume.array)
    # Sums over the views are rounded in another order: a voxel at the limit may change sides.
    assert dice(found, again) > 0.995
    # Head to feet and left to right: a left-right mirrored patient is seen at mirrored angles.
    head, side = flips
    suv = volume.array[:: -1 if head else 1, :, :: -1 if side else 1]
    other = Volume(np.ascontiguousarray(suv), volume.grid, Path("mirrored"))
    mirrored = ViewGeometry.for_volume(other, [-angle if side else angle for angle in angles])
    views = noisy[:, :: -1 if head else 1, :: -1 if side else 1]
    back = fuse(np.ascontiguousarray(views), mirrored, EXPLAIN, other.array)
    back = back[:: -1 if head else 1, :, :: -1 if side else 1]
    assert dice(found, back) > 0.97


@pytest.mark.parametrize("with_suv", [True, False])
def test_empty_views_give_an_empty_mask(with_suv):
    volume, mask = nodes()
    geometry, stack = views_of(volume, mask)
    found = fuse(0 * stack, geometry, EXPLAIN, volume.array if with_suv else None)
    assert found.shape == NODES_SHAPE and found.dtype == np.uint8
    assert not found.any()


def test_full_views_and_one_view_are_served():
    volume, mask = nodes()
    geometry, stack = views_of(volume, mask)
    found = fuse(np.ones_like(stack), geometry, EXPLAIN, volume.array)
    assert found.shape == NODES_SHAPE
    geometry, stack = views_of(volume, mask, 1)
    found = fuse(stack, geometry, EXPLAIN, volume.array).astype(bool)
    assert (found & mask).any()
    assert (project_mask(found, geometry) <= stack).all()


def test_threads_do_not_change_the_answer():
    import numba

    volume, mask = nodes(2)
    geometry, stack = views_of(volume, mask)
    stack[3] = 0
    answers = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        answers.append(fuse(stack, geometry, EXPLAIN, volume.array))
    np.testing.assert_array_equal(*answers)
