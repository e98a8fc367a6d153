"""Projector of SUV and masks, against slow references in float64."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import (
    resampled_maximum,
    sizes,
    spacings,
    volume_of,
)

from nnunetv2_mip.fusion.backprojection import backproject
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.projection import project, project_mask


@given(
    size=sizes,
    spacing=spacings,
    angles=st.lists(st.floats(-360, 360), min_size=1, max_size=4),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_views_equal_resample_then_max(size, spacing, angles, seed):
    array = np.random.default_rng(seed).exponential(3.0, size).astype(np.float32)
    volume = volume_of(array, spacing)
    geometry = ViewGeometry.for_volume(volume, angles)
    found = project(volume.array, geometry, depth=True)
    expected, depths = resampled_maximum(volume, geometry)
    assert found.suv.shape == geometry.stack_shape
    assert np.abs(found.suv - expected).max() < 1e-4
    hit = expected > 0
    assert np.isnan(found.depth_mm[~hit]).all()
    # Where two samples are as good as equal either may win.
    differs = np.abs(found.depth_mm - depths) > geometry.bin_mm + 1e-4
    # One pixel is more than 2 % of the smallest views.
    assert (differs & hit).sum() <= max(1, 0.02 * hit.size)


@pytest.mark.parametrize("size", [(64, 33, 70), (65, 70, 30), (130, 64, 66)])
def test_views_of_more_than_one_slab_and_tile_equal_resample_then_max(size):
    rng = np.random.default_rng(sum(size))
    # Hot spots in air: most tiles are skipped.
    array = rng.exponential(0.01, size) + 9 * (rng.random(size) < 1e-3)
    volume = volume_of(array, (2.0, 1.1, 1.7))
    geometry = ViewGeometry.for_volume(volume, [0.0, 31.0, 90.0, 133.0, 250.0], body_suv=0.0)
    found = project(volume.array, geometry, depth=True)
    expected, depths = resampled_maximum(volume, geometry)
    assert np.abs(found.suv - expected).max() < 1e-4
    differs = np.abs(found.depth_mm - depths) > geometry.bin_mm + 1e-4
    assert (differs & (expected > 0)).mean() < 0.02


@pytest.mark.parametrize("size", [(5, 8, 8), (5, 9, 9), (7, 8, 11), (4, 11, 8)])
def test_0_degrees_is_the_plain_maximum_along_y(size):
    array = np.random.default_rng(1).random(size).astype(np.float32)
    volume = volume_of(array)
    geometry = ViewGeometry.for_volume(volume, [0.0, 90.0])
    views = project(volume.array, geometry).suv
    margin = (geometry.columns - size[2]) // 2
    # Row 0 at the head (largest z); the patient's left (largest x) on the right.
    assert np.array_equal(views[0][:, margin : margin + size[2]], array.max(1)[::-1])
    if size[1] == size[2]:
        # At 90° the detector runs along +y.
        assert np.array_equal(views[1][:, margin : margin + size[1]], array.max(2)[::-1])


def test_a_point_is_seen_where_the_geometry_says():
    array = np.zeros((6, 21, 21), np.float32)
    array[4, 13, 16] = 7.0  # z 4, y +3, x +6 from the centre
    volume = volume_of(array, (2.0, 1.0, 1.0))
    geometry = ViewGeometry.for_volume(volume, [0.0, 90.0, 180.0])
    found = project(volume.array, geometry, depth=True)
    middle = (geometry.columns - 1) // 2
    for view, (column, depth) in enumerate([(6, 3.0), (3, -6.0), (-6, -3.0)]):
        row = 6 - 1 - 4
        assert found.suv[view, row, middle + column] == pytest.approx(7.0)
        assert found.depth_mm[view, row, middle + column] == pytest.approx(depth)


@given(size=sizes, spacing=spacings, angle=st.floats(0, 180), seed=st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_half_a_turn_is_the_mirror_image(size, spacing, angle, seed):
    volume = volume_of(np.random.default_rng(seed).random(size), spacing)
    geometry = ViewGeometry.for_volume(volume, [angle, angle + 180])
    views = project(volume.array, geometry).suv
    assert np.abs(views[0] - views[1][:, ::-1]).max() < 1e-4


@given(size=sizes, spacing=spacings, angle=st.floats(0, 360), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_a_mask_pixel_is_hit_exactly_when_its_ray_crosses_a_voxel(size, spacing, angle, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(size) < 0.05
    mask[0, 0, 0] = True
    # A bright frame makes the views as wide as the volume.
    volume = volume_of(np.ones(size), spacing)
    geometry = ViewGeometry.for_volume(volume, [angle])
    found = project_mask(mask, geometry)[0][::-1]
    _, sy, sx = spacing
    _, ny, nx = size
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    u = (np.arange(geometry.columns) - (geometry.columns - 1) / 2) * geometry.bin_mm
    expected = np.zeros_like(found)
    for z, y, x in np.argwhere(mask):
        corners = [
            ((x - (nx - 1) / 2 + dx) * sx * cos + (y - (ny - 1) / 2 + dy) * sy * sin)
            for dx in (-0.5, 0.5)
            for dy in (-0.5, 0.5)
        ]
        slack = 1e-6 * geometry.bin_mm
        hit = (u >= min(corners) + slack) & (u <= max(corners) - slack)
        if not hit.any():
            # Exactly between two rays: both count.
            hit = (u >= min(corners) - slack) & (u <= max(corners) + slack)
        expected[z] |= hit
    assert np.array_equal(found, expected)
    # Every voxel is seen by at least one ray.
    assert np.array_equal(found.any(1), mask.any((1, 2)))


def test_an_empty_volume_gives_empty_views():
    array = np.zeros((3, 6, 6), np.float32)
    geometry = ViewGeometry.for_volume(volume_of(array), [0.0, 30.0])
    found = project(array, geometry, depth=True)
    assert found.suv.max() == 0
    assert np.isnan(found.depth_mm).all()
    assert project_mask(array > 0, geometry).sum() == 0


def test_a_volume_of_another_shape_is_refused():
    geometry = ViewGeometry.for_volume(volume_of(np.ones((3, 5, 7))), [0.0])
    with pytest.raises(ValueError, match="not on the grid"):
        project(np.ones((3, 5, 6), np.float32), geometry)


def test_of_equal_samples_the_nearest_to_the_centre_wins():
    array = np.zeros((2, 21, 21), np.float32)
    array[0, 3], array[0, 12] = 2, 2
    array[1, 5], array[1, 17] = 2, 2
    geometry = ViewGeometry.for_volume(volume_of(array), [0.0])
    depth = project(array, geometry, depth=True).depth_mm[0]
    middle = geometry.columns // 2
    # Row 0 is slice 1.
    assert depth[1, middle] == 2
    assert depth[0, middle] == -5


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("pixel_mm, bins", [(None, 1), (4.0, 1), (2.0, 2), (1.4, 3), (9.0, 1)])
def test_the_detector_is_as_fine_as_the_pixels_asked_for(size, pixel_mm, bins):
    rng = np.random.default_rng(size)
    array = rng.uniform(1, 5, (3, 8, size)).astype(np.float32)
    volume = volume_of(array, (5.0, 4.0, 4.0))
    geometry = ViewGeometry.for_volume(volume, [0.0, 40.0], pixel_mm)
    assert geometry.bin_mm == pytest.approx(4.0 / bins)
    found = project(array, geometry).suv
    places = (np.arange(geometry.columns) - (geometry.columns - 1) / 2) / bins + (size - 1) / 2
    on_voxels = np.isclose(places, np.round(places)) & (places > -0.1) & (places < size - 0.9)
    if bins % 2:
        # Rays through the middles of voxels are among them: there the view is the plain maximum.
        assert on_voxels.sum() == size
        np.testing.assert_array_equal(found[0][:, on_voxels], array.max(axis=1)[::-1])
    # A mask has no gaps where two of its voxels meet, and comes back.
    mask = np.zeros(array.shape, bool)
    mask[1, 2:4, 2:5] = True
    views = project_mask(mask, geometry)
    for row in views[:, 1]:
        assert (np.diff(np.flatnonzero(row)) == 1).all()
    assert views[0].sum() == 3 * bins
    assert (backproject(views, geometry, "hull")[mask] == 1).all()
