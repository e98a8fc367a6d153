"""Projection geometry: angles, size of the detector, body box, files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import resampled_maximum, sizes, volume_of

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.views.geometry import ViewGeometry, image_geometry, view_angles
from nnunetv2_mip.views.projection import project


def test_columns_cover_the_body_at_every_angle_and_no_more():
    array = np.zeros((4, 101, 101), np.float32)
    array[:, 50, 40:61] = 1.0  # radius 10 about the centre
    geometry = ViewGeometry.for_volume(volume_of(array), view_angles(12))
    assert 21 <= geometry.columns <= 27
    views = project(array, geometry).suv
    assert views[:, :, 0].max() == 0
    assert views[:, :, -1].max() == 0
    assert views.max() == pytest.approx(1.0)


def test_view_angles_cover_the_arc_without_its_end():
    assert view_angles(4) == (0.0, 45.0, 90.0, 135.0)
    assert view_angles(2, arc_deg=90, start_deg=-30) == (-30.0, 15.0)
    with pytest.raises(MipError, match="at least one"):
        view_angles(0)


def test_geometry_files_come_back_and_are_checked(tmp_path):
    geometry = ViewGeometry.for_volume(volume_of(np.ones((3, 5, 7)), (3, 2, 1)), view_angles(5))
    geometry.with_window(12.0).save(tmp_path / "geometry.json")
    assert ViewGeometry.load(tmp_path / "geometry.json") == geometry.with_window(12.0)
    content = geometry.to_dict()
    for change, message in [
        ({"format_version": 99}, "newer"),
        ({"columns": None}, "not a view geometry"),
    ]:
        with pytest.raises(MipError, match=message):
            ViewGeometry.from_dict({**content, **change}, "g.json")
    with pytest.raises(MipError, match="single image"):
        ViewGeometry.from_dict(image_geometry("a.png", 2.0), "g.json")


def test_noise_in_the_air_does_not_widen_the_views():
    rng = np.random.default_rng(0)
    body = np.zeros((200, 40, 40), np.float32)
    body[:, 15:25, 12:28] = 1
    noisy = np.where(rng.random(body.shape) < 0.002, np.float32(0.3), body)
    assert (noisy.max(axis=0) > 0.1).mean() > 0.4
    plain, widened = (ViewGeometry.for_volume(volume_of(a), [0.0]) for a in (body, noisy))
    assert plain.columns == widened.columns < 30
    # An arm that is in a few slices only is body.
    body[50:60, 20, 2] = 1
    assert ViewGeometry.for_volume(volume_of(body), [0.0]).columns > 36


@given(size=sizes, seed=st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_the_body_box_holds_all_that_could_win(size, seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    array = np.zeros(size, np.float32)
    low = [rng.integers(0, n) for n in size]
    box = tuple(slice(a, rng.integers(a, n) + 1) for a, n in zip(low, size))
    array[box] = rng.exponential(1.0, array[box].shape) + 0.01
    geometry = ViewGeometry.for_volume(volume_of(array), [10.0, 75.0])
    assert geometry.body_box == tuple((part.start, part.stop - 1) for part in box)
    expected, _ = resampled_maximum(volume_of(array), geometry)
    assert np.abs(project(array, geometry).suv - expected).max() < 1e-4
    path = tmp_path_factory.mktemp("geometry") / "geometry.json"
    geometry.save(path)
    assert ViewGeometry.load(path) == geometry


def test_a_volume_without_values_has_no_body_box():
    geometry = ViewGeometry.for_volume(volume_of(np.zeros((3, 4, 5))), [0.0, 30.0])
    assert geometry.body_box is None
    found = project(np.zeros((3, 4, 5), np.float32), geometry, depth=True)
    assert not found.suv.any()
    assert np.isnan(found.depth_mm).all()
