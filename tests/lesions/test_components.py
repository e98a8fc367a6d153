"""Connected lesions: connectivity, centres, detection, small components."""

import numpy as np
import pytest

from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.lesions.components import (
    detected,
    lesion_centres_mm,
    lesion_voxels,
    remove_small_components,
)


def test_voxels_that_share_an_edge_are_one_lesion_and_a_corner_parts_them():
    seg = np.zeros((4, 4, 4), np.uint8)
    seg[0, 0, 0] = seg[0, 1, 1] = seg[1, 2, 2] = 1
    zyx, starts = lesion_voxels(seg)
    assert starts.tolist() == [0, 2, 3]
    assert zyx.tolist() == [[0, 0, 0], [0, 1, 1], [1, 2, 2]]


def test_a_mask_without_lesions_has_no_voxels():
    zyx, starts = lesion_voxels(np.zeros((2, 3, 4), np.uint8))
    assert zyx.shape == (0, 3)
    assert starts.tolist() == [0]


def test_centres_are_physical_positions_of_the_file():
    seg = np.zeros((4, 5, 6), np.uint8)
    seg[0, 0, 0:2] = seg[3, 4, 5] = 1
    # File axes along the patient's axes, then with the file's x to the patient's right.
    for sign, xs in ((1.0, (1.0, 10.0)), (-1.0, (-9.0, 0.0))):
        direction = (sign, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        grid = SourceGrid((6, 5, 4), (2.0, 3.0, 5.0), (0.0, 20.0, 30.0), direction)
        centres = lesion_centres_mm(*lesion_voxels(seg), grid)
        assert centres == pytest.approx(np.array([[xs[0], 20, 30], [xs[1], 32, 45]]))


@pytest.mark.parametrize(
    ("min_overlap", "expected"),
    [
        (0.0, [False, True, True, True]),
        (0.3, [False, False, True, True]),
        (1.0, [False] * 3 + [True]),
    ],
)
def test_a_lesion_is_detected_from_the_least_overlap_on(min_overlap, expected):
    sizes, overlaps = np.array([10, 10, 10, 10]), np.array([0, 1, 3, 10])
    assert detected(sizes, overlaps, min_overlap).tolist() == expected


def test_small_components_are_removed_and_corners_connect():
    mask = np.zeros((5, 8), bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = True
    mask[0, 6:] = True
    assert np.array_equal(remove_small_components(mask, 1), mask)
    assert remove_small_components(mask, 3).sum() == 3
    assert not remove_small_components(mask, 4).any()
