"""Files of a reader's clicks: axes, contradictions, files that are refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.clicks import Clicks, read_clicks, write_clicks
from nnunetv2_mip.io.grid import SourceGrid

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
# x runs to the right, y to the front; z is as it is.
FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
# The file's axes are z, x, y.
TURNED = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)


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


FORMS = [
    '{"tumor": [[2, 3, 4], [5, 5, 5]], "background": [[9, 11, 0]]}',
    '{"tumor": [[2.0, 3.0, 4.0], [5, 5, 5]], "background": [[9, 11, 0]], "case": "x", "n": 3}',
    '{"Tumor": [{"point": [2, 3, 4]}, {"point": [5, 5, 5]}], "BACKGROUND": [[9, 11, 0]]}',
    '{"points": [{"point": [2, 3, 4], "name": "TUMOR"}, {"point": [5, 5, 5], "name": " Tumor"}, '
    '{"point": [9, 11, 0], "name": "Background"}]}',
    '[{"point": [2, 3, 4], "name": "tumor"}, {"point": [5, 5, 5], "name": "tumor"}, '
    '{"point": [9, 11, 0], "name": "background"}]',
]


@pytest.mark.parametrize("content", FORMS)
@pytest.mark.parametrize("direction", [IDENTITY, FLIPPED, TURNED])
def test_every_form_of_the_challenges_is_read(tmp_path, content, direction):
    path = tmp_path / "clicks.json"
    path.write_text(content)
    there = grid(direction)
    assert read_clicks(path, there) == Clicks(
        (there.to_canonical_index((2, 3, 4)), there.to_canonical_index((5, 5, 5))),
        (there.to_canonical_index((9, 11, 0)),),
    )


def test_training_clicks_may_be_none(tmp_path):
    path = tmp_path / "clicks.json"
    for content in ('{"tumor": [], "background": []}', '{"tumor": []}'):
        path.write_text(content)
        assert not read_clicks(path, grid())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is not a file of clicks"),
        ('{"points": null}', "is not a file of clicks"),
        ('{"type": "2D bounding box", "points": []}', "is not a file of clicks"),
        ('{"tumor": 3}', "is not a file of clicks; expected is"),
        ('{"lesion": [[1, 2, 3]]}', r'"tumor": \[\[x, y, z\], ...\], "background"'),
        ('{"tumor": [[1, 2]]}', r"click 1 \(tumor\): \[x, y, z\] in voxels"),
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
