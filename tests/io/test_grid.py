"""Grids compared by the place of their voxels, and what a message says of their difference."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import AXIS_CODES
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.nifti_forms import NiftiForms

SIZE, SPACING, ORIGIN = (5, 6, 7), (2.0, 3.0, 4.0), (-10.0, 20.0, -300.0)
LPS = SourceGrid(SIZE, SPACING, ORIGIN, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def stored_as(code: str, grid: SourceGrid = LPS) -> SourceGrid:
    """The same voxels, stored along other axes."""
    image = sitk.Image(list(grid.size), sitk.sitkUInt8)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    return SourceGrid.of_image(sitk.DICOMOrient(image, code))


@pytest.mark.parametrize("code", AXIS_CODES)
def test_the_same_voxels_in_another_order_are_the_same_grid(code):
    stored = stored_as(code)
    assert stored.axis_codes == code
    assert stored.same_as(LPS) and LPS.same_as(stored)
    assert stored.farthest_corner_mm(LPS) < 1e-9


@given(
    code=st.sampled_from(AXIS_CODES),
    axis=st.integers(0, 2),
    what=st.sampled_from(["origin", "size", "spacing"]),
)
@settings(max_examples=80, deadline=None)
def test_other_voxels_are_another_grid_and_the_message_tells_them_apart(code, axis, what):
    change = {"origin": 0.5, "size": 1, "spacing": 0.01}[what]
    parts = {"origin": ORIGIN, "size": SIZE, "spacing": SPACING}
    parts[what] = tuple(v + change * (n == axis) for n, v in enumerate(parts[what]))
    other = stored_as(code, SourceGrid(**parts, direction=LPS.direction))
    assert not other.same_as(LPS) and not LPS.same_as(other)
    told = other.difference(LPS)
    assert told == told.strip()
    for part in told.split(", axes")[0].removeprefix(f"axes {code} against LPS, ").split(" mm, "):
        left, right = part.removesuffix(" mm").split(" against ")
        assert left.removesuffix(" mm") != right
    word = {"origin": "first voxel at", "size": " voxels", "spacing": "voxels of"}[what]
    assert word in told


def test_a_difference_of_direction_alone_is_named():
    mirrored = SourceGrid(SIZE, SPACING, ORIGIN, (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    assert not mirrored.same_as(LPS)
    assert mirrored.difference(LPS) == (
        "axes RPS against LPS, first voxel at (-18, 20, -300) mm against first voxel at "
        "(-10, 20, -300) mm"
    )


def test_small_differences_are_told_with_enough_digits():
    near = SourceGrid(SIZE, SPACING, (-10.0, 20.0, -300.03), LPS.direction)
    assert not near.same_as(LPS)
    assert near.difference(LPS) == (
        "first voxel at (-10, 20, -300.03) mm against first voxel at (-10, 20, -300) mm"
    )


def test_a_hundredth_of_a_voxel_is_no_difference():
    near = SourceGrid(SIZE, SPACING, (-10.0, 20.0, -299.985), LPS.direction)
    assert near.same_as(LPS)
    assert not SourceGrid(SIZE, SPACING, (-10.0, 20.0, -299.97), LPS.direction).same_as(LPS)


def test_another_unit_and_odd_nifti_fields_come_back_from_json():
    forms = NiftiForms(0, 2, (1.0, 4.0, 0.0, 3.0), (0.0,) * 3, (float("nan"),) * 3, (1.0,) * 12, 1)
    grid = LPS.in_unit(1000.0)
    grid = SourceGrid(grid.size, grid.spacing, grid.origin, grid.direction, grid.unit_mm, forms)
    again = SourceGrid.from_dict(json.loads(json.dumps(grid.to_dict(), allow_nan=False)))
    assert again == grid and again.unit_mm == 1000
    assert again.forms.sform_code == 2 and np.isnan(again.forms.qoffset).all()
    assert again.as_stored().spacing == SPACING
    # A grid that its header tells whole has the same entries as ever.
    assert set(LPS.to_dict()) == {"size", "spacing", "origin", "direction"}
