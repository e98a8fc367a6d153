"""Phantoms around organ label maps: organs, uptake, lesions, cohorts and the command."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_mip.commands.phantom import main
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.volumes import read_suv, read_volume, suv_warning
from nnunetv2_mip.phantom.body import Anatomy
from nnunetv2_mip.phantom.cohort import write_cohort
from nnunetv2_mip.phantom.distance_field import DistanceField
from nnunetv2_mip.phantom.fitted_frame import fit_frame
from nnunetv2_mip.phantom.label_maps import (
    find_organ_maps,
)
from nnunetv2_mip.phantom.lesions import disease_pattern, draw_lesions
from nnunetv2_mip.phantom.mapped_organs import LIVER_SUV
from nnunetv2_mip.phantom.scanner import canvas_for, paint_anatomy
from nnunetv2_mip.phantom.shapes import Ellipsoid
from nnunetv2_mip.phantom.subject import body_index, simulate_subject

# Each body around organ maps takes a second or more.
pytestmark = pytest.mark.slow

COARSE_MM = 8.0


@pytest.fixture(scope="module")
def studies(maps):
    """Seven subjects (two or three healthy) on a coarse grid."""
    return [simulate_subject(21, index, COARSE_MM, maps) for index in range(7)]


def test_a_subject_is_a_function_of_seed_index_and_maps(studies, maps):
    again = simulate_subject(21, 4, COARSE_MM, maps)
    for name in ("suv", "ct", "seg", "body"):
        assert np.array_equal(getattr(again, name), getattr(studies[4], name))
    assert (again.lesions, again.organ_map) == (studies[4].lesions, studies[4].organ_map)
    other = simulate_subject(22, 4, COARSE_MM, maps)
    assert other.suv.shape != again.suv.shape or not np.array_equal(other.suv, again.suv)


def test_a_cohort_has_the_same_bytes_whatever_the_number_of_workers(tmp_path, folder, maps):
    alone = write_cohort(tmp_path / "alone", 4, 21, 12.0, organs=maps)
    shared = write_cohort(tmp_path / "shared", 4, 21, 12.0, processes=2, organs=maps)
    # Also where the maps lie elsewhere.
    moved = shutil.copytree(folder, tmp_path / "moved")
    elsewhere = write_cohort(tmp_path / "else", 2, 21, 12.0, organs=find_organ_maps([moved]))
    files = sorted(p.relative_to(alone) for p in alone.rglob("*.*") if p.is_file())
    assert len(files) == 4 * 3 + 1
    for file in files:
        assert (alone / file).read_bytes() == (shared / file).read_bytes()
    volumes = sorted(elsewhere.rglob("*.nii.gz"))
    assert len(volumes) == 2 * 3
    for file in volumes:
        assert file.read_bytes() == (alone / file.relative_to(elsewhere)).read_bytes()
    cohort = json.loads((alone / "cohort.json").read_text("utf-8"))
    assert {study["organ_map"] for study in cohort["studies"]} == {"a.nii.gz", "b.nii.gz"}
    assert cohort["mapped_version"] >= 1


def test_arrays_types_and_ranges(studies):
    for study in studies:
        assert study.suv.shape == study.ct.shape == study.seg.shape == study.grid.shape_zyx
        assert (study.suv.dtype, study.ct.dtype, study.seg.dtype) == (
            np.float32,
            np.int16,
            np.uint8,
        )
        assert study.suv.min() >= 0 and np.isfinite(study.suv).all()
        assert 5 < study.suv.max() < 60
        assert 0.3 < np.median(study.suv[study.body]) < 1.2
        assert np.median(study.suv[~study.body]) < 0.05
        assert np.median(study.ct[~study.body]) < -900
        assert 35 < study.body.sum() * study.grid.voxel_ml / 1000 < 130  # litres


def test_organs_keep_their_place_lie_in_the_body_and_look_right_on_ct(maps, anatomy_of):
    for index in (0, 1, 2):
        anatomy = anatomy_of(21, index, maps)
        canvas = canvas_for(anatomy, COARSE_MM)
        body, _ = paint_anatomy(canvas, anatomy, np.random.default_rng(0))
        for name, low, high in (("liver", 60, 130), ("lung", -900, -600), ("spleen", 60, 130)):
            (organ,) = anatomy.solids(name)
            box, filled = canvas.occupancy([organ.grown(-4)])
            assert filled.sum() > 10
            assert low < np.median(canvas.hu[box][filled > 0.9]) < high
            box, filled = canvas.occupancy([organ.grown(4)])
            assert body[box][filled > 0.9].all()
        liver, spleen, lung, brain, bladder = (
            anatomy.solids(name)[0].points.mean(0)
            for name in ("liver", "spleen", "lung", "brain", "bladder")
        )
        assert liver[0] < -20 and spleen[0] > 50  # never mirrored
        assert bladder[2] < liver[2] < lung[2] < brain[2]


def test_uptake_of_organs_follows_the_published_distribution(maps, anatomy_of):
    means = []
    for index in range(0, 32, 4):
        study, anatomy = simulate_subject(5, index, COARSE_MM, maps), anatomy_of(5, index, maps)
        (organ,) = anatomy.solids("liver")
        box, filled = canvas_for(anatomy, COARSE_MM).occupancy([organ.grown(-12)])
        inner = (filled > 0.9) & (study.seg[box] == 0)
        if study.pattern in ("healthy", "lung cancer", "bone metastases"):
            means.append(float(study.suv[box][inner].mean()))
        lung_box, lung = canvas_for(anatomy, COARSE_MM).occupancy(
            [anatomy.solids("lung")[0].grown(-14)]
        )
        air = study.suv[lung_box][(lung > 0.9) & (study.seg[lung_box] == 0)]
        assert 0.25 < np.median(air) < 0.65
    mean, spread = LIVER_SUV
    assert len(means) >= 4
    # Cut at two deviations; 4 % for the texture and for what spills in and out.
    assert all(0.96 * (mean - 2 * spread) < m < 1.04 * (mean + 2 * spread) for m in means)
    assert abs(np.mean(means) - mean) < 3 * spread / np.sqrt(len(means))
    assert np.std(means) > 0.05


def test_lesions_lie_in_the_body_on_their_uptake_and_are_described(studies):
    here, shifted = [], []
    for study in studies:
        assert not (study.seg.astype(bool) & ~study.body).any()
        assert bool(study.seg.any()) == (study.pattern != "healthy") == bool(study.lesions)
        total = sum(lesion["volume_ml"] for lesion in study.lesions)
        assert total == pytest.approx(study.seg.sum() * study.grid.voxel_ml, abs=0.01)
        if not study.lesions:
            continue
        seg = study.seg.astype(bool)
        here.append(study.suv[seg].mean())
        shifted.append(
            [study.suv[np.roll(seg, step, axis)].mean() for axis in range(3) for step in (-2, 2)]
        )
        for lesion in study.lesions:
            offset = np.array(lesion["centre_mm"]) - np.array(study.grid.origin)
            z, y, x = np.rint(offset / COARSE_MM).astype(int)[::-1]
            near = tuple(slice(max(0, c - 3), c + 4) for c in (z, y, x))
            assert seg[near].any()
    # A mask shifted by two voxels along any axis misses the uptake.
    assert len(here) >= 4
    assert (np.mean(shifted, axis=0) < 0.75 * np.mean(here)).all()


def test_hidden_lesions_lie_beside_hot_organs(maps, anatomy_of):
    near = []
    for index in range(80):
        if disease_pattern(3, index) != "hidden":
            continue
        study, anatomy = simulate_subject(3, index, COARSE_MM, maps), anatomy_of(3, index, maps)
        names = ("bladder", "heart", "kidney", "brain", "liver", "spleen")
        organs = [solid for name in names for solid in anatomy.solids(name)]
        canvas = canvas_for(anatomy, COARSE_MM)
        seg = np.argwhere(study.seg)[:, ::-1] * COARSE_MM + np.array(canvas.corner)
        near.append(min(float(np.min(organ.distance(*seg.T))) for organ in organs))
        assert {lesion["kind"] for lesion in study.lesions} == {"hidden"}
        sites = {lesion["site"].split()[0] for lesion in study.lesions}
        assert sites <= {"beside", "behind", "above"}
    assert len(near) >= 1 and max(near) < 20


def test_no_threshold_separates_lesions(studies):
    thresholds = np.r_[np.arange(1.5, 10, 0.5), np.arange(10, 25, 2.0)]
    dice = []
    for study in studies:
        seg = study.seg > 0
        if seg.any():
            hits = np.array(
                [[(study.suv[seg] > t).sum(), (study.suv > t).sum()] for t in thresholds]
            )
            dice.append(2 * hits[:, 0] / (hits[:, 1] + seg.sum()))
    assert np.mean(dice, axis=0).max() < 0.5


def test_the_anatomy_does_not_depend_on_the_spacing(maps):
    coarse, fine = (simulate_subject(21, 2, mm, maps) for mm in (10.0, 6.0))
    volumes = [s.body.sum() * s.grid.voxel_ml for s in (coarse, fine)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.03)


def test_a_second_study_has_the_same_body_and_another_scan(maps, anatomy_of):
    index = next(k for k in range(100) if body_index(7, k) != k)
    first, second = anatomy_of(7, index - 1, maps), anatomy_of(7, index, maps)
    for name in ("liver", "brain", "lung"):
        assert np.array_equal(first.solids(name)[0].field, second.solids(name)[0].field)
    suv = [next(p.suv for p in a.parts if p.name == "liver") for a in (first, second)]
    assert suv[0] != suv[1]


def test_a_bad_map_is_found_before_the_work_begins(tmp_path, folder):
    place = shutil.copytree(folder, tmp_path / "maps")
    (place / "b.nii.gz").write_bytes((place / "b.nii.gz").read_bytes()[:900])
    seen = []

    def count(entries, total):
        for entry in entries:
            seen.append(entry)
            yield entry

    with pytest.raises(MipError, match=r"b\.nii\.gz.*copy it again"):
        write_cohort(tmp_path / "out", 4, 0, 12.0, count, organs=find_organ_maps([place]))
    assert not seen and [p.name for p in tmp_path.iterdir()] == ["maps"]


def test_command_writes_a_cohort_and_leaves_nothing_after_an_error(tmp_path, folder, capsys):
    out = tmp_path / "out"
    arguments = ["-o", str(out), "-n", "2", "--spacing", "12", "--organs"]
    with pytest.raises(SystemExit) as done:
        main([*arguments, str(folder)])
    assert done.value.code == 0
    assert "organs of 2 label maps" in capsys.readouterr().out
    suv = read_suv(next(out.rglob("SUV.nii.gz")))
    assert suv_warning(suv) is None
    assert read_volume(next(out.rglob("CTres.nii.gz"))).array.dtype == np.int16
    shutil.rmtree(out)
    (tmp_path / "maps").mkdir()
    shutil.copy(folder / "a.nii.gz", tmp_path / "maps")
    with pytest.raises(SystemExit) as done:
        main([*arguments, str(tmp_path / "maps")])
    assert done.value.code == 2
    error = capsys.readouterr().err
    assert "a.nii.gz" in error and "names.json" in error and "Traceback" not in error
    assert [p.name for p in tmp_path.iterdir()] == ["maps"]


def test_the_frame_meets_its_landmarks_and_can_be_inverted(maps, anatomy_of):
    anatomy = anatomy_of(21, 0, maps)
    names = ("bladder", "kidney", "lung", "brain", "liver")
    points = {name: anatomy.solids(name)[0].points for name in names}
    frame = fit_frame(points, brain_is_cut=False)
    assert frame.at(0, 0, 419)[2] == pytest.approx(points["kidney"][:, 2].mean(), abs=25)
    assert frame.at(0, 0, 636)[2] == pytest.approx(points["lung"][:, 2].mean(), abs=1)
    nominal = np.array([[30.0, -20, 200], [-80, 10, 640], [0, 0, 1000]])
    here = np.array([frame.at(*p) for p in nominal])
    assert np.allclose(frame.nominal(here), nominal, atol=1e-6)


def test_real_maps_make_plausible_bodies(anatomy_of):
    data = os.environ.get("NNUNETV2_MIP_TEST_DATA")
    if not data:
        pytest.skip("NNUNETV2_MIP_TEST_DATA is not set")
    folder = Path(data) / "organ_maps"
    if not folder.is_dir():
        pytest.skip(f"{folder}: real organ label maps are not there")
    maps = find_organ_maps([folder])
    for index in range(0, len(maps.files), 3):
        if body_index(2, index) != index:
            continue
        anatomy = anatomy_of(2, index, maps)
        canvas = canvas_for(anatomy, 10.0)
        box, filled = canvas.occupancy(anatomy.outline)
        body = np.zeros(canvas.shape, bool)
        body[box] = filled > 0.5
        assert 25 < body.sum() / 1000 < 130  # litres; one of the maps is of a small, thin person
        for name in ("liver", "spleen", "lung", "kidney", "bladder"):
            points = anatomy.solids(name)[0].points
            place = np.rint((points - canvas.corner) / 10.0).astype(int)[:, ::-1]
            place = place[((place >= 0) & (place < canvas.shape)).all(1)]
            assert body[tuple(place.T)].mean() > 0.99, (index, name)
    for index in (1, 5):
        study = simulate_subject(2, index, COARSE_MM, maps)
        assert study.organ_map.startswith("fdg_")
        assert not (study.seg.astype(bool) & ~study.body).any()


def test_lung_without_free_place_holds_the_lesion_at_its_centre():
    lung = DistanceField.of_mask(np.ones((20, 20, 20), bool), (0.0, 0.0, 0.0), (4.0, 4.0, 4.0))
    anatomy = Anatomy()
    anatomy.add("lung", lung)
    anatomy.add("liver", Ellipsoid((38.0, 38.0, 38.0), (200.0, 200.0, 200.0)))
    (lesion,) = draw_lesions("lung nodule", anatomy, np.random.default_rng(0))
    assert lesion.blobs[0].centre == lung.centre
    assert np.abs(np.array(lung.centre) - 38).max() <= 4
