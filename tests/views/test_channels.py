"""Channels of views: levels of SUV, CT and depth, and the values at the ray maximum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import occluded_study, volume_of

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.views.channels import make_views, sample_at_depth
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.intensity import ct_levels_from_hu, levels_from_depth, levels_from_suv
from nnunetv2_mip.views.projection import project as project_volume


def test_ct_and_depth_have_fixed_levels():
    assert ct_levels_from_hu(np.array([-3000, -1000, 0, 1000, 5000])).tolist() == [
        0,
        0,
        128,
        255,
        255,
    ]
    depth = np.array([np.nan, -900, -350, 0, 350, 900], np.float32)
    assert levels_from_depth(depth).tolist() == [0, 1, 1, 128, 255, 255]


def test_channels_hold_suv_ct_and_depth_of_the_winner():
    suv = np.zeros((3, 9, 7), np.float32)
    suv[:, 2:7, 1:6] = 1
    suv[1, 4, 2] = 5
    ct = np.arange(suv.size, dtype=np.int16).reshape(suv.shape)
    volume = volume_of(suv, (5.0, 4.0, 4.0))
    geometry = ViewGeometry.for_volume(volume, (0.0, 90.0))
    views = make_views(suv, ct, geometry, ("suv", "ct", "depth"), 10.0)
    assert views.levels.shape == (3, *geometry.stack_shape)
    assert np.array_equal(views.levels[0], levels_from_suv(views.suv, 10.0))
    side = (geometry.columns - 7) // 2
    # x = 2 is column 2 of the front view; y = 4 is the middle of the side view. z = 1 is row 1.
    assert views.suv[0, 1, side + 2] == views.suv[1, 1, (geometry.columns - 1) // 2] == 5
    assert views.ct_hu[0, 1, side + 2] == ct[1, 4, 2]
    assert views.ct_hu[1, 1, (geometry.columns - 1) // 2] == ct[1, 4, 2]
    # Depth runs along (−sin, cos): at 0° y = 4 is the centre, at 90° x = 2 lies one voxel beyond.
    assert views.depth_mm[0, 1, side + 2] == 0
    assert views.depth_mm[1, 1, (geometry.columns - 1) // 2] == 4
    air = views.suv == 0
    assert air.any()
    assert (views.levels[1][air] == 0).all()
    assert (views.levels[2][air] == 0).all()
    assert (views.levels[2][~air] > 0).all()


@settings(max_examples=15, deadline=None)
@given(angle=st.floats(0, 180), seed=st.integers(0, 1000))
def test_sampling_the_suv_itself_where_it_wins_gives_the_maximum(angle, seed):
    suv = np.random.default_rng(seed).uniform(0.1, 9, (4, 9, 12)).astype(np.float32)
    geometry = ViewGeometry.for_volume(volume_of(suv, (3.0, 2.0, 2.7)), (angle,))
    found = project_volume(suv, geometry, depth=True)
    again = sample_at_depth(suv, found.depth_mm, geometry, outside=0.0)
    assert again == pytest.approx(found.suv, abs=2e-3)


def test_channels_that_cannot_be_made_are_refused():
    suv, ct, _ = occluded_study()
    geometry = ViewGeometry.for_volume(volume_of(suv, (5.0, 4.0, 4.0)), (0.0,))
    with pytest.raises(MipError, match=r"SUV\.nii\.gz: the channel ct needs the CT.*--ct"):
        make_views(suv, None, geometry, ("suv", "ct"), 10.0)
    for channels in ((), ("ct",), ("suv", "mr"), ("suv", "suv")):
        with pytest.raises(MipError, match="choose suv first"):
            make_views(suv, ct, geometry, channels, 10.0)
    with pytest.raises(ValueError, match="grid"):
        make_views(suv, ct[1:], geometry, ("suv", "ct"), 10.0)
