"""Solids of any shape: distances, bounds, random points, and points moved out of organs."""

import numpy as np
import pytest

from nnunetv2_mip.phantom.distance_field import DistanceField, Intersection, pushed_out
from nnunetv2_mip.phantom.shapes import Deformation, Ellipsoid


def test_a_distance_field_is_the_solid_of_its_mask():
    ball = Ellipsoid((3.0, -4.0, 10.0), (30.0, 22.0, 26.0))
    corner, spacing = (-60.0, -60.0, -50.0), (2.0, 2.0, 3.0)
    axes = [c + s * np.arange(n) for c, s, n in zip(corner, spacing, (62, 60, 42))]
    x, y, z = axes[0][None, None, :], axes[1][None, :, None], axes[2][:, None, None]
    field = DistanceField.of_mask(ball.distance(x, y, z) < 0, corner, spacing)
    spots = np.random.default_rng(0).uniform(-45, 45, (400, 3)) + [3, -4, 10]
    near = np.abs(field.distance(*spots.T)) < 25
    assert near.sum() > 50
    surface = np.array([(33.0, -4, 10), (3, 18, 10), (3, -4, 36), (-27, -4, 10)])
    assert np.abs(field.distance(*surface.T)).max() < 1.6
    assert field.distance(*surface.T + 0) == pytest.approx(
        field.grown(5).distance(*surface.T) + 5, abs=1e-4
    )
    low, high = field.bounds()
    assert (low <= [-27, -26, -16]).all() and (high >= [33, 18, 36]).all()
    assert (low > [-40, -40, -30]).all() and (high < [46, 31, 50]).all()
    deformed = DistanceField(
        field.field, field.corner, field.spacing,
        (Deformation.draw(np.random.default_rng(1), 2.0, 90.0),),
    )  # fmt: skip
    rng = np.random.default_rng(2)
    points = np.array([deformed.random_point(rng, 0.8) for _ in range(60)])
    assert (deformed.distance(*points.T) < 1).all()
    assert points.std(0).min() > 4
    half = Intersection([field, Ellipsoid((3.0, -4.0, 40.0), (60.0, 60.0, 30.0))])
    assert float(half.distance(*np.array([[3.0], [-4], [-5]]))[0]) > 5
    assert float(half.distance(*np.array([[3.0], [-4], [20]]))[0]) < -5


def test_points_are_pushed_out_of_organs():
    ball = Ellipsoid((0.0, 0.0, 0.0), (30.0, 30.0, 30.0))
    moved = pushed_out((10.0, 2.0, 0.0), [ball], 6.0)
    assert float(ball.distance(*map(np.array, moved))) >= 5
    assert moved[0] > abs(moved[1])
    assert pushed_out((50.0, 0.0, 0.0), [ball], 6.0) == (50.0, 0.0, 0.0)
