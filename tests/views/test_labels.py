"""Label views: scenes made by hand, and a slow reference that follows the definition."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.labels import label_views
from nnunetv2_mip.views.projection import project, project_mask
from nnunetv2_mip.views.settings import OcclusionSettings

IDENTITY = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
WINDOW = 10.0
# Every visible pixel counts, whatever the size of its fragment.
PIXELWISE = OcclusionSettings(visible_share=1.0, fragment_mm=0, gradient=0)


def geometry_of(suv: np.ndarray, angles, spacing_zyx=(1.0, 1.0, 1.0)) -> ViewGeometry:
    grid = SourceGrid(suv.shape[::-1], spacing_zyx[::-1], (10.0, 20.0, 30.0), IDENTITY)
    return ViewGeometry.for_volume(Volume(suv, grid, Path("suv.nii.gz")), angles, body_suv=-1)


def look(seg, suv, angles, spacing_zyx=(1.0, 1.0, 1.0), settings=PIXELWISE):
    geometry = geometry_of(suv, angles, spacing_zyx)
    views = project(suv, geometry).suv
    return label_views(seg, suv, views, geometry, WINDOW, settings), geometry


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A body of SUV 1 with a lesion of SUV 4, 6 high, 4 deep, 8 wide, in its middle."""
    suv = np.full((20, 40, 40), 1, np.float32)
    seg = np.zeros(suv.shape, np.uint8)
    seg[7:13, 18:22, 16:24] = 1
    suv[seg == 1] = 4
    return suv, seg


def test_a_lesion_before_colder_tissue_is_wholly_visible():
    suv, seg = scene()
    found, geometry = look(seg, suv, (0.0, 45.0, 90.0), settings=OcclusionSettings())
    assert found.in_no_view == []
    assert found.lesions[0].visible_share[0] == found.lesions[0].visible_share[2] == 1.0
    projected = project_mask(seg, geometry)
    for mode in ("projected", "visible", "ignore"):
        assert np.array_equal(found.label(mode), projected)


def test_a_lesion_behind_a_hot_slab_is_hidden_where_the_slab_is_in_the_way():
    suv, seg = scene()
    suv[:, 30:32, :] = 9
    # At 90° the slab is seen edge on, beside the lesion.
    found, geometry = look(seg, suv, (0.0, 90.0))
    assert found.lesions[0].visible_share == (0.0, 1.0)
    assert found.lesions[0].labelled == (False, True)
    projected = project_mask(seg, geometry)
    assert projected[0].sum() == 6 * 8
    assert not found.label("visible")[0].any()
    assert np.array_equal(found.label("ignore")[0], projected[0] * 2)
    assert np.array_equal(found.label("ignore")[1], projected[1])
    assert np.array_equal(found.label("projected"), projected)
    assert found.in_no_view == []


def test_a_lesion_in_a_hot_shell_is_seen_in_no_view():
    suv, seg = scene()
    y, x = np.mgrid[:40, :40] - 19.5
    suv[:, np.hypot(y, x) > 15] = 9
    found, geometry = look(seg, suv, (0.0, 30.0, 60.0, 90.0, 120.0, 150.0))
    assert found.in_no_view == [1]
    assert found.table(geometry)["seen_in_no_view"] == [1]
    assert set(np.unique(found.label("ignore"))) == {0, 2}


def test_half_hidden_lesion_keeps_its_visible_half_unless_the_share_suffices():
    suv, seg = scene()
    suv[:, 30:32, 20:] = 9
    found, geometry = look(seg, suv, (0.0,))
    column = (geometry.columns - 40) // 2
    lesion = slice(7, 13), slice(column + 16, column + 24)
    assert found.lesions[0].visible_share == (0.5,)
    expected = np.zeros(geometry.stack_shape[1:], np.uint8)
    expected[lesion] = [1, 1, 1, 1, 2, 2, 2, 2]
    assert np.array_equal(found.label("ignore")[0], expected)
    kept, _ = look(seg, suv, (0.0,), settings=OcclusionSettings(visible_share=0.5))
    assert (kept.label("visible")[0][lesion] == 1).all()


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        # The visible half has 6 × 4 = 24 pixels of 1 mm.
        (OcclusionSettings(0.75, 24.0, 0.0), True),
        (OcclusionSettings(0.75, 24.5, 0.0), False),
        # Sobel of its outline: 10 pixels see a step of 0.3 (8 of them 4 × 0.3 or more), and the
        # step to the slab: the mean lies between 0.1 and 2.
        (OcclusionSettings(0.75, 24.0, 0.1), True),
        (OcclusionSettings(0.75, 24.0, 2.0), False),
    ],
)
def test_fragments_must_be_large_and_have_an_edge(settings, kept):
    suv, seg = scene()
    suv[:, 30:32, 20:] = 9
    found, _ = look(seg, suv, (0.0,), settings=settings)
    assert found.label("visible").any() == kept
    assert found.lesions[0].labelled == (kept,)
    assert found.label("ignore")[0].astype(bool).sum() == 48


def test_size_of_a_fragment_is_pixels_times_the_edge_of_a_pixel():
    suv, seg = scene()
    suv[:, 30:32, 20:] = 9
    # 24 pixels of 4 × 1 mm count 24 × 2 mm.
    for limit, kept in ((47.9, True), (48.1, False)):
        settings = OcclusionSettings(0.75, limit, 0.0)
        found, _ = look(seg, suv, (0.0,), (4.0, 1.0, 1.0), settings)
        assert found.label("visible").any() == kept


def test_a_lesion_before_another_hides_it():
    suv = np.ones((8, 30, 20), np.float32)
    seg = np.zeros(suv.shape, np.uint8)
    seg[2:6, 4:8, 6:12] = 1
    seg[2:4, 20:24, 8:10] = 1
    suv[2:6, 4:8, 6:12] = 8
    suv[2:4, 20:24, 8:10] = 3
    found, geometry = look(seg, suv, (0.0, 90.0))
    first, second = found.lesions
    assert first.visible_share == (1.0, 1.0)
    assert second.visible_share == (0.0, 1.0)
    # A pixel that shows any lesion is lesion, also where another lies behind.
    assert set(np.unique(found.label("ignore")[0])) == {0, 1}
    assert (first.volume_ml, second.volume_ml) == pytest.approx((0.096, 0.016))
    assert (first.suv_max, second.suv_max) == (8.0, 3.0)
    assert first.centre_mm == pytest.approx((10 + 8.5, 20 + 5.5, 30 + 3.5))
    assert second.centre_mm == pytest.approx((10 + 8.5, 20 + 21.5, 30 + 2.5))
    rows = found.table(geometry)["lesions"]
    assert [row["seen_in"] for row in rows] == [[0, 1], [1]]


def test_centres_are_in_patient_space_whatever_the_axes_of_the_file():
    suv = np.ones((4, 5, 6), np.float32)
    seg = np.zeros(suv.shape, np.uint8)
    seg[3, 1, 2] = 1
    # File axes run to the feet, to the patient's right and to the front.
    direction = (0.0, -1.0, 0.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0)
    grid = SourceGrid((4, 6, 5), (2.0, 4.0, 3.0), (50.0, 60.0, 70.0), direction)
    assert grid.shape_zyx == (4, 5, 6)
    geometry = ViewGeometry.for_volume(Volume(suv, grid, Path("a.nii.gz")), (0.0,), body_suv=-1)
    views = project(suv, geometry).suv
    found = label_views(seg, suv, views, geometry, WINDOW)
    # x = 2 is file index 3 of 6 along −x, y = 1 index 3 of 5 along −y, z = 3 index 0 along −z.
    assert found.lesions[0].centre_mm == pytest.approx((50 - 3 * 4, 60 - 3 * 3, 70))


def test_no_lesion_gives_empty_labels():
    suv, _ = scene()
    found, geometry = look(np.zeros(suv.shape, np.uint8), suv, (0.0, 10.0))
    assert found.lesions == ()
    assert found.label("ignore").shape == geometry.stack_shape
    assert not found.label("projected").any()


def test_settings_and_arrays_that_make_no_sense_are_refused():
    for wrong in ({"visible_share": 1.5}, {"fragment_mm": -1}, {"gradient": math.nan}):
        with pytest.raises(MipError, match="--"):
            OcclusionSettings(**wrong)
    suv, seg = scene()
    found, geometry = look(seg, suv, (0.0,))
    with pytest.raises(ValueError, match="views"):
        label_views(seg, suv, np.zeros((2, 3, 4), np.float32), geometry, WINDOW)
    with pytest.raises(ValueError, match="mask"):
        label_views(seg[1:], suv, project(suv, geometry).suv, geometry, WINDOW)
    with pytest.raises(ValueError, match="seen"):
        found.label("seen")


def reference(seg, suv, geometry, rules: OcclusionSettings) -> np.ndarray:
    """Ray by ray, lesion by lesion, with the depth of the winner: 0, 1 visible, 2 occluded."""
    projection = project(suv, geometry, depth=True)
    nz, ny, nx = suv.shape
    _, sy, sx = geometry.grid.spacing_zyx
    labels, count = ndimage.label(seg, ndimage.generate_binary_structure(3, 2))
    slack = math.hypot(sy, sx) / 2
    out = np.zeros(geometry.stack_shape, np.uint8)
    for view, angle in enumerate(np.deg2rad(geometry.angles_deg)):
        cos, sin = math.cos(angle), math.sin(angle)
        half = (sx * abs(cos) + sy * abs(sin)) / 2
        scaled = np.clip(projection.suv[view] / np.float32(WINDOW), 0, 1)
        gradient = np.hypot(ndimage.sobel(scaled, 0), ndimage.sobel(scaled, 1))
        for lesion in range(1, count + 1):
            hit = np.zeros(out.shape[1:], bool)
            shown = np.zeros(out.shape[1:], bool)
            places = np.argwhere(labels == lesion)
            for row in range(nz):
                here = places[places[:, 0] == nz - 1 - row]
                y, x = (here[:, 1] - (ny - 1) / 2) * sy, (here[:, 2] - (nx - 1) / 2) * sx
                for column in range(geometry.columns):
                    u = (column - (geometry.columns - 1) / 2) * geometry.bin_mm
                    crossed = np.abs(x * cos + y * sin - u) < half
                    if crossed.any():
                        hit[row, column] = True
                        depth = (y * cos - x * sin)[crossed]
                        winner = projection.depth_mm[view, row, column]
                        shown[row, column] = depth.min() - slack <= winner <= depth.max() + slack
            if not hit.any():
                continue
            keep = hit if shown.sum() >= rules.visible_share * hit.sum() else np.zeros_like(hit)
            fragments, parts = ndimage.label(shown, np.ones((3, 3)))
            edge_mm = math.sqrt(np.prod(geometry.pixel_mm))
            for part in range(1, parts + 1):
                fragment = fragments == part
                large = fragment.sum() * edge_mm >= rules.fragment_mm
                if large and gradient[fragment].mean() > rules.gradient:
                    keep = keep | fragment
            out[view][hit & (out[view] == 0)] = 2
            out[view][keep] = 1
    return out


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(2, 6), st.integers(5, 14), st.integers(5, 14)),
    spacing=st.tuples(*[st.floats(1.0, 4.0)] * 3),
    angle=st.floats(0.3, 179.7).filter(lambda angle: abs(angle - 90) > 0.3),
    share=st.floats(0.3, 1.0),
    fragment_mm=st.floats(0, 20),
    gradient=st.floats(0, 2),
    seed=st.integers(0, 10**6),
)
def test_labels_equal_the_reference(size, spacing, angle, share, fragment_mm, gradient, seed):
    rng = np.random.default_rng(seed)
    # Continuous values: no two samples of a ray are equal, so the winner is unique.
    suv = ndimage.gaussian_filter(rng.uniform(0, 30, size).astype(np.float32), 0.7) + 0.1
    seg = (ndimage.gaussian_filter(rng.normal(size=size), 1) > 0.2).astype(np.uint8)
    rules = OcclusionSettings(share, fragment_mm, gradient)
    found, geometry = look(seg, suv, (angle,), spacing, rules)
    # One pixel whose winner lies on the edge of a lesion must not decide the whole lesion.
    assume(all(abs(lesion.visible_share[0] - share) > 0.15 for lesion in found.lesions))
    expected = reference(seg, suv, geometry, rules)
    assert np.array_equal(found.label("projected"), project_mask(seg, geometry))
    different = found.label("ignore") != expected
    # Rounding decides where a quantity meets its limit to the last digit.
    assert different.sum() <= max(1, 0.01 * (expected != 0).sum())


def test_the_cost_does_not_grow_with_the_volume():
    """Only the surroundings of the lesions are read: the rest may be anything."""
    suv, seg = scene()
    found, geometry = look(seg, suv, (0.0, 20.0, 70.0))
    views = project(suv, geometry).suv
    elsewhere = suv.copy()
    elsewhere[:, :8] = elsewhere[:, :, :6] = np.nan
    again = label_views(seg, elsewhere, views, geometry, WINDOW, PIXELWISE)
    assert np.array_equal(found.stack, again.stack)
