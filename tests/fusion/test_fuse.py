"""Fusion of views to a mask, for every rule that decides each voxel alone."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.fusion.backprojection import backproject
from nnunetv2_mip.fusion.fuse import fuse, mask_of_probability
from nnunetv2_mip.fusion.rules import VOTES, FusionRule
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.projection import project, project_mask

GRID = (12, 24, 24)


def scene(shape=GRID, spacing=(2.0, 1.0, 1.0)) -> tuple[Volume, np.ndarray]:
    """A body of SUV 1 with one lesion of SUV 6 off the centre."""
    z, y, x = np.indices(shape)
    cz, cy, cx = ((n - 1) / 2 for n in shape)
    body = (y - cy) ** 2 + (x - cx) ** 2 < (min(shape[1:]) * 0.42) ** 2
    lesion = (z - cz) ** 2 + (y - cy - 3) ** 2 + (x - cx + 4) ** 2 < 3.2**2
    suv = np.where(lesion, 6.0, np.where(body, 1.0, 0.0)).astype(np.float32)
    grid = SourceGrid(shape[::-1], spacing[::-1], (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    return Volume(suv, grid, Path("scene")), lesion


def dice(a, b):
    return 2 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


@given(
    seed=st.integers(0, 2**16),
    views=st.integers(1, 9),
    shape=st.tuples(st.integers(1, 8), st.integers(4, 12), st.integers(4, 12)),
    spacing=st.tuples(st.floats(1, 4), st.floats(1, 3), st.floats(1, 3)),
)
@settings(max_examples=40, deadline=None)
def test_the_hull_is_the_largest_mask_that_has_these_views(seed, views, shape, spacing):
    rng = np.random.default_rng(seed)
    grid = SourceGrid(shape[::-1], spacing[::-1], (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    volume = Volume(np.ones(shape, np.float32), grid, Path("v"))
    mask = rng.random(shape) < 0.1
    geometry = ViewGeometry.for_volume(volume, view_angles(views))
    stack = project_mask(mask, geometry)
    hull = backproject(stack, geometry, "hull") > 0
    assert hull[mask].all()
    np.testing.assert_array_equal(project_mask(hull, geometry), stack)
    # None of the voxels outside could be added: each would be seen where nothing is.
    outside = np.argwhere(~hull)
    for place in outside[rng.permutation(len(outside))[:5]]:
        more = hull.copy()
        more[tuple(place)] = True
        assert (project_mask(more, geometry) > stack).any()


def test_many_views_of_a_true_mask_give_it_back():
    volume, lesion = scene()
    geometry = ViewGeometry.for_volume(volume, view_angles(24))
    stack = project_mask(lesion, geometry)
    mask = fuse(stack, geometry, FusionRule("hull", 0.5))
    assert mask.dtype == np.uint8
    assert dice(mask, lesion) > 0.95


def test_rules_order_as_their_definitions_say():
    volume, _ = scene()
    geometry = ViewGeometry.for_volume(volume, view_angles(6))
    stack = np.random.default_rng(0).random(geometry.stack_shape).astype(np.float32)
    low, mean, high = (backproject(stack, geometry, rule) for rule in ("hull", "mean", "max"))
    assert (low <= mean + 1e-6).all()
    assert (mean <= high + 1e-6).all()
    seen = backproject(stack, geometry, "visibility", volume.array)
    assert (seen <= high + 1e-6).all()
    assert (seen >= low - 1e-6).all()


def test_one_view_is_smeared_along_its_rays():
    volume, _ = scene()
    geometry = ViewGeometry.for_volume(volume, [0.0])
    stack = np.random.default_rng(0).random(geometry.stack_shape).astype(np.float32)
    for rule in ("hull", "mean", "max"):
        fused = backproject(stack, geometry, rule)
        margin = (geometry.columns - GRID[2]) // 2
        expected = np.broadcast_to(
            np.pad(stack[0], ((0, 0), (2, 2)))[::-1, None, margin + 2 : margin + 2 + GRID[2]], GRID
        )
        assert np.allclose(fused, expected, atol=1e-6)


@pytest.mark.parametrize("rule", VOTES)
def test_the_order_of_the_views_does_not_matter(rule):
    volume, lesion = scene()
    angles = view_angles(7)
    geometry = ViewGeometry.for_volume(volume, angles)
    stack = project_mask(lesion, geometry).astype(np.float32)
    turned = ViewGeometry.for_volume(volume, angles[::-1])
    first = backproject(stack, geometry, rule, volume.array)
    second = backproject(stack[::-1], turned, rule, volume.array)
    assert np.allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("rule", VOTES)
def test_nothing_in_gives_nothing_and_everything_gives_everything(rule):
    volume, _ = scene()
    geometry = ViewGeometry.for_volume(volume, view_angles(5))
    nothing = np.zeros(geometry.stack_shape, np.float32)
    assert fuse(nothing, geometry, FusionRule(rule), volume.array).sum() == 0
    full = backproject(np.ones_like(nothing), geometry, rule, volume.array)
    assert full[volume.array > 0].min() > 0.999


def test_visibility_rescues_a_lesion_that_a_hot_organ_hides():
    volume, lesion = scene()
    suv = volume.array.copy()
    z, y, x = np.indices(GRID)
    organ = (z - 5.5) ** 2 + (y - 8) ** 2 + (x - 7.5) ** 2 < 3.5**2
    suv[organ & ~lesion] = 20.0
    geometry = ViewGeometry.for_volume(Volume(suv, volume.grid, Path("v")), view_angles(12))
    views = project(suv, geometry, depth=True)
    stack = project_mask(lesion, geometry).astype(np.float32)
    # What a network can know: a pixel is lesion only where the lesion wins its ray.
    lesion_views = project(np.where(lesion, suv, 0), geometry).suv
    visible = stack * (lesion_views >= views.suv * 0.9)
    plain = backproject(visible, geometry, "hull") >= 0.5
    aware = backproject(visible, geometry, "visibility", suv, views.suv) >= 0.5
    assert dice(plain, lesion) < 0.5
    assert dice(aware, lesion) > 0.6
    assert not (aware & organ & ~lesion).sum() > 0.2 * organ.sum()


def test_the_uptake_outlines_a_region_that_is_too_wide():
    volume, lesion = scene()
    z, y, x = np.indices(GRID)
    wide = (z - 5.5) ** 2 + (y - 14.5) ** 2 + (x - 7.5) ** 2 < 6**2
    probability = wide.astype(np.float32) * 0.4
    plain = mask_of_probability(probability, FusionRule(threshold=0.3), volume.array, (2, 1, 1))
    outlined = mask_of_probability(
        probability, FusionRule(threshold=0.3, uptake_share=0.4), volume.array, (2, 1, 1)
    )
    assert np.array_equal(plain > 0, wide)
    assert np.array_equal(outlined > 0, wide & lesion)
    blind = mask_of_probability(
        probability, FusionRule(threshold=0.3, uptake_share=0.4), None, (2, 1, 1)
    )
    assert np.array_equal(blind, plain)
    # A faint part far from the peak is measured against what is near it.
    suv = np.ones((1, 1, 60), np.float32)
    suv[..., :3], suv[..., 50:] = 20.0, 2.0
    row = np.ones_like(suv)
    found = mask_of_probability(row, FusionRule(uptake_share=0.4), suv, (1, 1, 1))[0, 0]
    assert found[:3].all()
    assert not found[3:15].any()
    assert found[50:].all()
    with pytest.raises(MipError, match="share"):
        FusionRule(uptake_share=1.0)


def test_small_components_are_dropped_by_volume():
    probability = np.zeros((4, 6, 6), np.float32)
    probability[0, 0, 0] = 1  # one voxel of 0.5 ml
    probability[2:, 3:5, 3:5] = 1  # eight voxels, 4 ml
    spacing = (5.0, 10.0, 10.0)
    for smallest, voxels in ((0, 9), (0.5, 9), (0.51, 8), (4.0, 8), (4.1, 0)):
        rule = FusionRule(smallest_ml=smallest)
        assert mask_of_probability(probability, rule, None, spacing).sum() == voxels


def test_given_and_computed_suv_views_agree():
    volume, lesion = scene()
    geometry = ViewGeometry.for_volume(volume, view_angles(4))
    stack = project_mask(lesion, geometry)
    views = project(volume.array, geometry).suv
    first = backproject(stack, geometry, "visibility", volume.array, views)
    assert np.array_equal(first, backproject(stack, geometry, "visibility", volume.array))


def test_what_does_not_belong_together_is_refused():
    volume, _ = scene()
    geometry = ViewGeometry.for_volume(volume, view_angles(4))
    with pytest.raises(ValueError, match="views"):
        backproject(np.zeros((3, 2, 1), np.float32), geometry)
    with pytest.raises(ValueError, match="SUV"):
        backproject(np.zeros(geometry.stack_shape, np.float32), geometry, "visibility")
    with pytest.raises(MipError, match="choose one of"):
        FusionRule("magic")
