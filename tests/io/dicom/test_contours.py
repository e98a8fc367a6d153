"""Outlines of masks, and masks of closed polygons."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.path import Path

from nnunetv2_mip.io.dicom.contours import INSET, filled, outlines, union

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


def square(low: float, high: float) -> np.ndarray:
    """Polygon of a square along the diagonal of the image."""
    return np.array([[low, low], [low, high], [high, high], [high, low]], float)


@given(MASKS)
def test_outlines_give_the_mask_again(mask):
    polygons = outlines(mask)
    for xor in (False, True):
        assert np.array_equal(union(polygons, mask.shape, xor), mask)


@given(MASKS)
@settings(max_examples=50)
def test_another_filling_gives_the_mask_too(mask):
    grid = np.stack(np.meshgrid(*map(np.arange, mask.shape), indexing="ij"), -1).reshape(-1, 2)
    found = np.zeros(mask.size, int)
    for polygon in outlines(mask):
        found += Path(polygon).contains_points(grid)
    assert np.array_equal(found.reshape(mask.shape), mask)


@given(MASKS)
@settings(max_examples=50)
def test_points_rounded_to_pixels_are_pixels_of_the_mask(mask):
    """As programs that draw outlines in whole pixels (OpenCV) round them."""
    for polygon in outlines(mask):
        assert mask[tuple(np.rint(polygon).astype(int).T)].all()


def test_the_outline_of_one_pixel_is_its_border():
    (polygon,) = outlines(np.array([[0, 0, 0], [0, 1, 0]]))
    side = 0.5 - INSET
    corners = {
        (1 - side, 1 - side),
        (1 - side, 1 + side),
        (1 + side, 1 + side),
        (1 + side, 1 - side),
    }
    assert {tuple(np.round(point, 9)) for point in polygon} == corners
    assert len(polygon) == 4


@pytest.mark.parametrize(
    "picture,parts",
    [(["##", "##"], 1), (["#.", ".#"], 2), (["###", "#.#", "###"], 1), (["...", "..."], 0)],
)
def test_parts_that_meet_at_a_corner_are_apart_and_holes_belong_to_their_part(picture, parts):
    mask = np.array([list(row) for row in picture]) == "#"
    assert len(outlines(mask)) == parts


def test_an_island_in_a_hole_is_a_part_of_its_own():
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    assert len(outlines(mask)) == 2


def test_centres_on_an_outline_are_inside():
    """rt-utils and others outline the centres of the outermost pixels."""
    expected = np.zeros((6, 6), bool)
    expected[1:5, 1:5] = True
    assert np.array_equal(union([square(1, 4)], (6, 6), False), expected)
    assert np.array_equal(union([square(1, 4)[::-1]], (6, 6), False), expected)


def test_a_contour_within_another_is_a_hole_and_its_own_contour_is_not():
    hole = union([square(0.5, 7.5), square(2.5, 5.5)], (9, 9), False)
    assert hole.sum() == 49 - 9
    assert not hole[3:6, 3:6].any()
    island = union([square(3.5, 4.5), square(0.5, 7.5), square(2.5, 5.5)], (9, 9), False)
    assert island.sum() == 49 - 9 + 1


def test_contours_that_overlap_are_joined_and_a_second_copy_counts_once():
    first, second = square(0.5, 4.5), square(2.5, 6.5)
    assert union([first, second], (9, 9), False).sum() == 16 + 16 - 4
    assert union([first, second], (9, 9), True).sum() == 16 + 16 - 8
    assert union([first, first], (9, 9), False).sum() == 16
    assert not union([first, first], (9, 9), True).any()


def test_a_polygon_may_leave_the_image():
    inside, border = filled(square(-3.5, 1.5), (4, 3))
    assert np.array_equal(np.argwhere(inside), [[0, 0], [0, 1], [1, 0], [1, 1]])
    assert not border.any()
    assert not filled(square(10, 20), (4, 3))[0].any()
