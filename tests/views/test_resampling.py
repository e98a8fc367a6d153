"""Square pixels: place and size of structures, and the way back to the volume."""

import numpy as np
import pytest
from simulated import occluded_study, volume_of

from nnunetv2_mip.fusion.backprojection import backproject
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.projection import project as project_volume
from nnunetv2_mip.views.projection import project_mask
from nnunetv2_mip.views.resampling import to_detector, to_pixels, view_shape


def test_pixels_of_the_detectors_own_size_change_nothing():
    suv, _, seg = occluded_study()
    geometry = ViewGeometry.for_volume(volume_of(suv, (4.0, 4.0, 4.0)), view_angles(3))
    views = project_volume(suv, geometry).suv
    assert np.array_equal(to_pixels(views, geometry, 4.0), views)
    labels = project_mask(seg, geometry)
    assert np.array_equal(to_pixels(labels, geometry, 4.0, nearest=True), labels)
    assert to_pixels(views, geometry, None) is views


def test_pixels_keep_the_place_and_the_size_of_things():
    suv = np.zeros((40, 31, 31), np.float32)
    suv[:, 2:-2, 2:-2] = 1
    suv[8:20, 10:20, 12:24] = 5
    geometry = ViewGeometry.for_volume(volume_of(suv, (5.0, 4.0, 4.0)), (0.0,))
    views = project_volume(suv, geometry).suv
    for pixel in (2.0, 3.3, 7.0):
        got = to_pixels(views, geometry, pixel)
        assert got.shape == view_shape(geometry, pixel)
        assert got.shape[1:] == (
            round(40 * 5 / pixel), round(geometry.columns * 4 / pixel)
        )  # fmt: skip
        assert got.max() == pytest.approx(5)
        # Area above half the height, and its middle, in mm.
        hot, before = got[0] > 3, views[0] > 3
        assert hot.sum() * pixel**2 == pytest.approx(before.sum() * 20, rel=0.06 * pixel)
        for axis, step in ((0, 5.0), (1, 4.0)):
            middle = np.argwhere(hot)[:, axis].mean() - (hot.shape[axis] - 1) / 2
            expected = np.argwhere(before)[:, axis].mean() - (before.shape[axis] - 1) / 2
            assert middle * pixel == pytest.approx(expected * step, abs=pixel / 2)


def test_fusion_goes_back_from_pixels_to_the_volume():
    _, _, seg = occluded_study()
    body = np.ones(seg.shape, np.float32)
    geometry = ViewGeometry.for_volume(volume_of(body, (5.0, 4.0, 4.0)), view_angles(24))
    views = project_mask(seg, geometry).astype(np.float32)
    plain = backproject(views, geometry, "hull") >= 0.5
    fine = to_detector(to_pixels(views, geometry, 2.0), geometry, 2.0)
    again = backproject(fine, geometry, "hull") >= 0.5
    dice = 2 * (plain & again).sum() / (plain.sum() + again.sum())
    assert dice > 0.95
    with pytest.raises(ValueError, match="views"):
        to_detector(views, geometry, 2.0)
