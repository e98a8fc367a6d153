"""Features of regions by hand, the classifier that removes regions, the threshold of views."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.fusion.fuse import fuse, moved_threshold
from nnunetv2_mip.fusion.region_classifier import LIMIT, RegionClassifier
from nnunetv2_mip.fusion.region_features import FEATURES, RegionContext, region_features
from nnunetv2_mip.fusion.rules import FusionRule
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.projection import project, project_mask

SHAPE, SPACING = (40, 48, 48), (4.0, 4.0, 4.0)
Z, Y, X = np.indices(SHAPE)
BODY = (Y - 23.5) ** 2 + (X - 23.5) ** 2 < 20**2


def ball(z: float, y: float, x: float, radius: float) -> np.ndarray:
    return (Z - z) ** 2 + (Y - y) ** 2 + (X - x) ** 2 <= radius**2


def context_of(suv: np.ndarray, marked: np.ndarray) -> RegionContext:
    """Context whose views are the perfect projections of a mask."""
    grid = SourceGrid(SHAPE[::-1], SPACING[::-1], (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    suv = suv.astype(np.float32)
    geometry = ViewGeometry.for_volume(Volume(suv, grid, Path("scene")), view_angles(8))
    views = project_mask(marked, geometry).astype(np.float32)
    return RegionContext(suv, views, project(suv, geometry).suv, geometry)


def rows_of(mask: np.ndarray, suv: np.ndarray, marked: np.ndarray | None = None) -> list[dict]:
    """Features of the regions, in the order of their first voxels, by name."""
    _, found = region_features(mask, context_of(suv, mask if marked is None else marked))
    return [dict(zip(FEATURES, row.tolist())) for row in found]


def test_a_ball_in_the_middle():
    lesion = ball(20, 23.5, 23.5, 4)
    (row,) = rows_of(lesion, np.where(lesion, 8.0, BODY * 1.0))
    assert row["log_volume_ml"] == pytest.approx(math.log(lesion.sum() * 0.064), abs=1e-4)
    assert row["log_contrast"] == pytest.approx(row["log_suv_max"], abs=0.01)
    assert math.exp(row["log_suv_max"]) == pytest.approx(8, abs=0.1)
    assert abs(row["log_elongation"]) < 0.15 and abs(row["log_flatness"]) < 0.15
    assert row["lateral"] < 0.03 and row["front_to_back"] == pytest.approx(0.5, abs=0.03)
    assert row["height"] == pytest.approx(20 / 39, abs=0.01)
    assert row["probability_peak"] == 1 and row["probability_spread"] < 0.1
    assert row["visibility"] == pytest.approx(1, abs=1e-5)
    assert row["log_regions"] == 0 and row["log_other_volume_ml"] == 0
    # In the middle it is its own mirror image.
    assert row["partner_uptake"] == pytest.approx(1, abs=0.1)


def test_a_thin_line_along_the_body_goes_on_beyond_its_region():
    line = (np.abs(Y - 30) < 1.5) & (np.abs(X - 30) < 1.5) & (Z >= 10) & (Z < 36)
    part = line & (Z >= 16) & (Z < 26)
    (row,) = rows_of(part, np.where(line, 6.0, BODY * 0.8))
    assert row["along_body"] > 0.99 and row["log_elongation"] > 1
    # Six slices below, ten above, of 4 mm each; followed for at most 40 mm.
    assert row["goes_on_shorter_mm"] == pytest.approx(24, abs=4)
    assert row["goes_on_longer_mm"] == pytest.approx(40)
    (whole,) = rows_of(line, np.where(line, 6.0, BODY * 0.8))
    assert whole["goes_on_longer_mm"] <= 4


def test_partner_on_the_other_side_and_something_hotter_beside():
    left, right = ball(20, 23, 12, 2.5), ball(20, 23, 35, 2.5)
    alone = np.where(left, 6.0, BODY * 1.0)
    (row,) = rows_of(left, alone)
    assert row["partner_uptake"] < 0.25
    assert row["log_hotter_beside"] < 0
    (row,) = rows_of(left, np.where(right, 6.0, alone))
    assert row["partner_uptake"] > 0.8
    beside = ball(20, 23, 16.5, 1.5)
    (row,) = rows_of(left, np.where(beside & ~left, 30.0, alone))
    assert row["log_hotter_beside"] > 0.5


def test_views_that_do_not_mark_a_region_are_told():
    lesion = ball(20, 30, 15, 3)
    suv = np.where(lesion, 8.0, BODY * 1.0)
    context = context_of(suv, lesion)
    half = context.views.copy()
    half[::2] = 0
    _, full = region_features(lesion, context)
    _, found = region_features(lesion, replace(context, views=half))
    full, found = (dict(zip(FEATURES, rows[0].tolist())) for rows in (full, found))
    assert full["probability_least_view"] == 1 and found["probability_least_view"] == 0
    assert found["probability_peak"] == pytest.approx(full["probability_peak"] / 2)
    assert found["probability_spread"] > full["probability_spread"] + 0.2


def test_no_region_and_regions_of_one_voxel_at_the_border():
    context = context_of(BODY * 1.0, np.zeros(SHAPE, bool))
    regions, found = region_features(np.zeros(SHAPE, np.uint8), context)
    assert not regions.any() and found.shape == (0, len(FEATURES))
    corner = np.zeros(SHAPE, bool)
    corner[0, 0, 0] = corner[-1, -1, -1] = True
    _, found = region_features(corner, context_of(BODY * 1.0, corner))
    assert found.shape == (2, len(FEATURES)) and np.isfinite(found).all()


def classifier(**changes) -> RegionClassifier:
    numbers = {
        "features": ("log_volume_ml", "log_regions"),
        "mean": (1.0, 0.0),
        "scale": (2.0, 1.0),
        "weights": (3.0, 0.0),
        "bias": -1.0,
        "threshold": 0.5,
    }
    return RegionClassifier(**{**numbers, **changes})


def test_probabilities_by_hand():
    rows = np.zeros((3, len(FEATURES)))
    # Standardised 1, 0 and beyond the limit.
    rows[:, FEATURES.index("log_volume_ml")] = (3.0, 1.0, 1e6)
    expected = [1 / (1 + math.exp(-odds)) for odds in (3 - 1, -1, 3 * LIMIT - 1)]
    assert classifier().probabilities(rows) == pytest.approx(expected)


def test_products_of_features_by_hand():
    rows = np.zeros((1, len(FEATURES)))
    rows[0, FEATURES.index("log_volume_ml")] = 5.0
    rows[0, FEATURES.index("log_regions")] = -1.0
    # Standardised 2 and -1: products 4, -2, 1.
    odds = 3 * 2 - 1 + 0.1 * 4 + 0.2 * -2 + 0.3 * 1
    found = classifier(products=(0.1, 0.2, 0.3)).probabilities(rows)
    assert found == pytest.approx([1 / (1 + math.exp(-odds))])


def test_regions_below_the_threshold_go_and_leniency_brings_them_back():
    large, small = ball(20, 23.5, 14, 5), ball(20, 23.5, 34, 1)
    mask = large | small
    context = context_of(np.where(mask, 6.0, BODY * 1.0), mask)
    judge = classifier()
    np.testing.assert_array_equal(judge.keep_lesions(mask, context), large)
    np.testing.assert_array_equal(judge.keep_lesions(mask, context, leniency=0.0), mask)
    _, rows = region_features(mask, context)
    weak = float(judge.probabilities(rows).min())
    for leniency, expected in ((weak / 0.5 * 0.99, mask), (weak / 0.5 * 1.01, large)):
        np.testing.assert_array_equal(judge.keep_lesions(mask, context, leniency), expected)
    empty = np.zeros(SHAPE, np.uint8)
    assert not judge.keep_lesions(empty, context).any()


def test_the_classifier_is_kept_in_the_file(tmp_path):
    config = InferenceConfig(regions=classifier())
    config.save(tmp_path)
    assert InferenceConfig.load(tmp_path) == config


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"features": ("log_volume_ml", "colour")}, "unknown feature 'colour'"),
        (
            {"features": (), "mean": (), "scale": (), "weights": ()},
            "features must name at least one",
        ),
        ({"mean": (1.0,)}, "mean must be a list, one entry a feature"),
        ({"weights": 3}, "weights must be a list"),
        ({"products": (1.0,)}, "products must be a list of 3 numbers, or empty"),
        ({"scale": (0.0, 1.0)}, "scale must be above 0"),
        ({"bias": math.nan}, "must be numbers"),
        ({"threshold": 1.5}, "threshold 1.5 must lie in"),
    ],
)
def test_a_classifier_that_cannot_be_is_refused(changes, words):
    with pytest.raises(MipError, match=words):
        classifier(**changes)


@given(
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20),
    st.floats(0.05, 0.95),
    st.floats(0.05, 0.95),
)
def test_a_moved_threshold_keeps_the_order_and_the_side(values, before, after):
    probability = np.sort(np.array(values, np.float32))
    moved = moved_threshold(probability, before, after)
    assert (np.diff(moved) >= -1e-6).all()
    assert moved.min() >= 0 and moved.max() <= 1 + 1e-6
    far = np.abs(probability - before) > 1e-3
    np.testing.assert_array_equal((moved >= after)[far], (probability >= before)[far])


def test_the_threshold_of_views_decides_what_explain_takes_for_marked():
    lesion = ball(20, 26, 20, 4)
    suv = np.where(lesion, 3.0, BODY * 1.0)
    context = context_of(suv, lesion)
    faint = context.views * np.float32(0.4)
    arguments = (context.geometry,)
    shared = {"suv": context.suv, "suv_views": context.suv_views}
    assert not fuse(faint, *arguments, FusionRule(), **shared).any()
    found = fuse(faint, *arguments, FusionRule(view_threshold=0.3), **shared) > 0
    assert 2 * (found & lesion).sum() / (found.sum() + lesion.sum()) > 0.9
