"""Clicks: the file, and what they make of a mask."""

import json
from pathlib import Path

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.fusion.click_refinement import with_clicks
from nnunetv2_mip.io.clicks import Clicks, read_clicks, write_clicks
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.phantom.clicks import corrective_clicks, preset_clicks
from nnunetv2_mip.phantom.subject import simulate_subject

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
# x runs to the right, y to the front; z is as it is.
FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
# The file's axes are z, x, y.
TURNED = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
MM = (4.0, 4.0, 4.0)


def grid(direction=IDENTITY) -> SourceGrid:
    return SourceGrid((10, 12, 14), (2.0, 2.0, 3.0), (0.0, 0.0, 0.0), direction)


def write(path: Path, *points: tuple) -> Path:
    found = [{"point": list(place), "name": name} for place, name in points]
    version = {"major": 1, "minor": 0}
    path.write_text(json.dumps({"version": version, "type": "Multiple points", "points": found}))
    return path


@pytest.mark.parametrize("direction", [IDENTITY, FLIPPED, TURNED])
def test_a_click_is_the_voxel_of_the_file(tmp_path, direction):
    there = grid(direction)
    array = np.arange(10 * 12 * 14).reshape(14, 12, 10)
    path = write(tmp_path / "clicks.json", ((2, 3, 4), "tumor"), ((9, 11, 0), "background"))
    clicks = read_clicks(path, there)
    canonical = there.to_canonical(array)
    assert canonical[clicks.tumour[0]] == array[4, 3, 2]
    assert canonical[clicks.background[0]] == array[0, 11, 9]
    write_clicks(clicks, there, tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text())["points"] == [
        {"point": [2, 3, 4], "name": "tumor"},
        {"point": [9, 11, 0], "name": "background"},
    ]


def test_the_first_step_has_no_points(tmp_path):
    assert not read_clicks(write(tmp_path / "clicks.json"), grid())


def test_between_voxels_the_nearest_counts(tmp_path):
    path = write(tmp_path / "clicks.json", ((2.4, 3.5, -0.5), "tumor"))
    assert read_clicks(path, grid()).tumour == ((0, 4, 2),)


def test_contradictory_clicks_are_told_and_the_later_stands(tmp_path):
    told = []
    path = write(
        tmp_path / "clicks.json",
        ((2, 3, 4), "tumor"),
        ((5, 5, 5), "tumor"),
        ((2, 3, 4), "background"),
        ((5, 5, 5), "tumor"),
    )
    clicks = read_clicks(path, grid(), told.append)
    assert clicks == Clicks(tumour=((5, 5, 5),), background=((4, 3, 2),))
    assert len(told) == 1
    assert "click 3 (background) at voxel 2, 3, 4 contradicts" in told[0]


def test_a_click_outside_is_left_out(tmp_path):
    told = []
    path = write(tmp_path / "clicks.json", ((10, 3, 4), "tumor"), ((0, -1, 0), "background"))
    assert not read_clicks(path, grid(), told.append)
    assert len(told) == 2 and "outside of the image of 10 x 12 x 14 voxels" in told[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is not a file of clicks"),
        ('{"points": null}', "is not a file of clicks"),
        ('{"type": "2D bounding box", "points": []}', "is not a file of clicks"),
        ('{"points": [7]}', "click 1: its name"),
        ('{"points": [{"point": [1, 2, 3], "name": "tumour"}]}', "click 1: its name"),
        ('{"points": [{"point": [1, 2, 3], "name": ["tumor"]}]}', "click 1: its name"),
        ('{"points": [{"point": [1, 2], "name": "tumor"}]}', r"\[x, y, z\] in voxels"),
        ('{"points": [{"point": [1, 2, NaN], "name": "tumor"}]}', r"\[x, y, z\] in voxels"),
        ('{"points": [{"point": [1, 2, 1e400], "name": "tumor"}]}', r"\[x, y, z\] in voxels"),
        ('{"points": [{"point": [1, 2, "3"], "name": "tumor"}]}', r"\[x, y, z\] in voxels"),
    ],
)
def test_other_files_are_refused(tmp_path, content, reason):
    path = tmp_path / "clicks.json"
    path.write_text(content)
    with pytest.raises(MipError, match=reason) as refused:
        read_clicks(path, grid())
    assert str(path) in str(refused.value)


def two_spots() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Uptake of two balls that touch, warm background about them, and the mask of each."""
    axes = np.ogrid[:40, :40, :40]
    balls = []
    for centre in (14, 25):
        square = sum((axis - place) ** 2 for axis, place in zip(axes, (20, 20, centre)))
        balls.append(square)
    suv = 1 + 6 * np.exp(-balls[0] / 20) + 9 * np.exp(-balls[1] / 20)
    return suv.astype(np.float32), balls[0] < 30, balls[1] < 30


def test_no_clicks_leave_a_mask_alone():
    suv, left, _ = two_spots()
    mask = left.astype(np.uint8)
    assert np.array_equal(with_clicks(mask, suv, Clicks(), MM), mask)


def test_a_tumour_click_finds_a_missed_lesion_and_no_more():
    suv, left, right = two_spots()
    mask = right.astype(np.uint8)
    # The other lesion is a wall that a background click holds.
    found = with_clicks(mask, suv, Clicks(((20, 20, 14),), ((20, 20, 25),)), MM)
    assert found[20, 20, 14] == 1 and found[20, 20, 25] == 0
    # Its core, and nothing beyond it.
    assert found[20, 20, 11:18].all() and found[left].sum() == found.sum()


def test_a_background_click_takes_one_of_two_that_touch():
    suv, left, right = two_spots()
    mask = (left | right).astype(np.uint8)
    alone = with_clicks(mask, suv, Clicks(background=((20, 20, 25),)), MM)
    assert not alone[right & ~left].any()
    both = with_clicks(mask, suv, Clicks(((20, 20, 14),), ((20, 20, 25),)), MM)
    assert dice(both, left.astype(np.uint8)) > 0.9
    # The border lies in the valley between them.
    assert both[20, 20, 10:18].all() and not both[20, 20, 21:].any()


def test_a_background_click_at_the_rim_leaves_the_core():
    suv, _, right = two_spots()
    found = with_clicks(right.astype(np.uint8), suv, Clicks(background=((20, 20, 30),)), MM)
    assert found[20, 20, 30] == 0 and found[20, 20, 25] == 1
    assert 0 < found.sum() < right.sum()


def test_clicks_where_there_is_nothing_to_grow():
    suv = np.zeros((12, 12, 12), np.float32)
    found = with_clicks(np.zeros(suv.shape, np.uint8), suv, Clicks(((0, 0, 0), (5, 5, 5))), MM)
    assert found[0, 0, 0] == found[5, 5, 5] == 1
    # A ball about each click and no more.
    assert found.sum() <= 4 + 7


def test_a_lesion_does_not_grow_into_something_hotter_that_it_touches():
    suv = np.full((40, 40, 60), 1.0, np.float32)
    lesion, organ, bridge = (np.zeros(suv.shape, bool) for _ in range(3))
    lesion[17:23, 17:23, 10:16], organ[17:23, 17:23, 20:24] = True, True
    bridge[19:21, 19:21, 16:20] = True
    # At the level where the lesion ends, 1 + 0.45 (8 - 1) = 4.15, the bridge joins both.
    suv[lesion], suv[organ], suv[bridge] = 8.0, 14.0, 5.0
    empty, click = np.zeros(suv.shape, np.uint8), Clicks(((20, 20, 12),))
    found = with_clicks(empty, suv, click, MM).astype(bool)
    assert (found & ~bridge == lesion).all()
    # A neighbour that is no hotter cannot be told from a part of the lesion.
    suv[organ] = 8.0
    assert with_clicks(empty, suv, click, MM)[organ].all()


def test_the_middle_of_a_large_even_tumour_grows_as_far_as_a_click_speaks():
    suv = np.full((60, 60, 60), 3.0, np.float32)
    suv[:26] = 0.5
    found = with_clicks(np.zeros(suv.shape, np.uint8), suv, Clicks(((30, 30, 30),)), MM)
    ball = sum((axis - 30.0) ** 2 for axis in np.ogrid[:60, :60, :60]) * 16
    assert found[26:][ball[26:] <= 36**2].all() and not found[ball > 50**2].any()
    assert not found[:26].any()


VOXELS = st.tuples(*[st.integers(8, 31)] * 3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(VOXELS, st.booleans()), max_size=6), VOXELS, st.integers(0, 3))
def test_clicks_hold_and_the_mask_is_monotone(made, more, which):
    suv, left, right = two_spots()
    mask = (left * (which & 1) | right * (which >> 1)).astype(np.uint8)
    kinds = dict(made)
    kinds.pop(more, None)

    def found(places: dict) -> np.ndarray:
        tumour, background = (
            tuple(v for v, kind in places.items() if kind is wanted) for wanted in (True, False)
        )
        out = with_clicks(mask, suv, Clicks(tumour, background), MM)
        assert all(out[v] == 1 for v in tumour) and all(out[v] == 0 for v in background)
        return out

    before = found(kinds)
    assert (found({**kinds, more: True}) >= before).all()
    assert (found({**kinds, more: False}) <= before).all()


def test_simulated_clicks_know_the_truth():
    study = simulate_subject(8, 4, 8.0)
    mm = study.grid.spacing_zyx
    clicks = preset_clicks(study.suv, study.seg, mm, 6)
    assert len(clicks.tumour) == len(clicks.background) == 6
    assert all(study.seg[v] == 1 for v in clicks.tumour)
    assert all(study.seg[v] == 0 for v in clicks.background)
    fewer = preset_clicks(study.suv, study.seg, mm, 2)
    assert (fewer.tumour, fewer.background) == (clicks.tumour[:2], clicks.background[:2])
    mask = np.zeros_like(study.seg)
    mask[clicks.background[0]] = 1
    more = corrective_clicks(mask, study.seg, mm, Clicks())
    assert more == Clicks(clicks.tumour[:1], clicks.background[:1])
    assert not preset_clicks(study.suv, np.zeros_like(study.seg), mm, 2).tumour


def test_on_simulated_patients_clicks_help_on_average():
    """A small copy of benchmarks/core/clicks.py: organs marked, every other lesion missed."""
    scores = []
    for index in (0, 2, 4, 5, 7, 8):
        study = simulate_subject(8, index, 8.0)
        mm, truth = study.grid.spacing_zyx, study.seg
        hot = (study.suv > 10) & (truth == 0)
        lesions = cc3d.connected_components(truth, connectivity=18)
        mask = (hot | (lesions % 2 == 1)).astype(np.uint8)
        row = []
        for count in (0, 1, 3, 6):
            clicks = preset_clicks(study.suv, truth, mm, count)
            found = with_clicks(mask, study.suv, clicks, mm)
            assert all(found[v] == 1 for v in clicks.tumour)
            assert all(found[v] == 0 for v in clicks.background)
            row.append(dice(found, truth))
        scores.append(row)
    mean = np.mean(scores, axis=0)
    assert (np.diff(mean) > 0).all(), mean
    assert mean[-1] > 2 * mean[0], mean
