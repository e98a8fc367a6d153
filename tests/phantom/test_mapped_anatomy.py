"""Phantoms around organ label maps: real shapes, known uptake, lesions beside hot organs."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_mip.commands.phantom import main
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.volumes import read_suv, read_volume, suv_warning
from nnunetv2_mip.phantom.cohort import write_cohort
from nnunetv2_mip.phantom.distance_field import DistanceField, Intersection, pushed_out
from nnunetv2_mip.phantom.fitted_frame import fit_frame
from nnunetv2_mip.phantom.label_maps import (
    AUTOPET3_NAMES,
    choose_map,
    find_organ_maps,
    organ_of,
    read_organ_map,
)
from nnunetv2_mip.phantom.lesions import disease_pattern
from nnunetv2_mip.phantom.mapped_anatomy import build_mapped_anatomy
from nnunetv2_mip.phantom.mapped_organs import LIVER_SUV
from nnunetv2_mip.phantom.scanner import canvas_for, paint_anatomy
from nnunetv2_mip.phantom.shapes import Deformation, Ellipsoid
from nnunetv2_mip.phantom.subject import body_index, simulate_subject

COARSE_MM = 8.0
# Organs of a made-up person: centre and semi-axes in mm (x left, y back, z head).
SHAPES = {
    "liver": [((-70, 0, 520), (72, 70, 75))],
    "spleen": [((105, 40, 520), (28, 40, 52))],
    "kidney_left": [((62, 45, 445), (27, 25, 52))],
    "kidney_right": [((-62, 45, 430), (27, 25, 52))],
    "urinary_bladder": [((3, -20, 200), (42, 36, 28))],
    "lungs": [((-85, 5, 665), (56, 80, 118)), ((85, 5, 665), (54, 80, 118))],
    "brain": [((4, -8, 985), (66, 80, 62))],
    "heart": [((30, -35, 610), (55, 45, 50))],
    "stomach": [((60, -20, 525), (36, 38, 40))],
}  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(SHAPES, start=20)}


def write_map(path: Path, numbers: dict[str, int], shift_mm: float = 0.0, leave=()) -> Path:
    """A label map on a grid whose y axis points to the front, as autoPET's do."""
    spacing = (5.0, 5.0, 6.0)
    shape = (190, 72, 72)
    z, y, x = np.indices(shape, np.float32)
    x, y, z = (x - 35.5) * 5.0 - shift_mm, (y - 35.5) * 5.0, z * 6.0 - 40
    labels = np.zeros(shape, np.uint8)
    for name, solids in SHAPES.items():
        if name in leave:
            continue
        for centre, semi in solids:
            grid = zip((x, y, z), centre, semi)
            labels[sum(((c - o) / s) ** 2 for c, o, s in grid) <= 1] = numbers[name]
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels[:, ::-1]))
    image.SetSpacing(spacing)
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((-177.5, 177.5, -40))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two label maps and the file that names their numbers."""
    folder = tmp_path_factory.mktemp("maps")
    write_map(folder / "a.nii.gz", NUMBERS)
    write_map(folder / "b.nii.gz", NUMBERS, shift_mm=12.0, leave=("stomach",))
    names = {str(number): name for name, number in NUMBERS.items()} | {"0": "background"}
    (folder / "names.json").write_text(json.dumps(names), "utf-8")
    return folder


@pytest.fixture(scope="module")
def maps(folder):
    return find_organ_maps([folder])


@pytest.fixture(scope="module")
def studies(maps):
    return [simulate_subject(21, index, COARSE_MM, maps) for index in range(7)]


def anatomy_of(seed: int, index: int, maps):
    """The anatomy that `simulate_subject` draws."""
    owner = body_index(seed, index)
    found = read_organ_map(choose_map(maps, seed, owner), maps)
    body, scan = np.random.default_rng([seed, 0, owner]), np.random.default_rng([seed, 1, index])
    return build_mapped_anatomy(found, body, scan, "prostate" in maps.organs)


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


def test_organs_keep_their_place_lie_in_the_body_and_look_right_on_ct(maps):
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


def test_uptake_of_organs_follows_the_published_distribution(maps):
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


def test_hidden_lesions_lie_beside_hot_organs(maps):
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


def test_every_map_is_used_before_one_is_used_again(maps):
    files = [choose_map(maps, 4, owner).name for owner in range(40)]
    assert all({files[k], files[k + 1]} == {"a.nii.gz", "b.nii.gz"} for k in range(0, 40, 2))
    assert len({tuple(files[k : k + 2]) for k in range(0, 40, 2)}) == 2


def test_a_second_study_has_the_same_body_and_another_scan(maps):
    index = next(k for k in range(100) if body_index(7, k) != k)
    first, second = anatomy_of(7, index - 1, maps), anatomy_of(7, index, maps)
    for name in ("liver", "brain", "lung"):
        assert np.array_equal(first.solids(name)[0].field, second.solids(name)[0].field)
    suv = [next(p.suv for p in a.parts if p.name == "liver") for a in (first, second)]
    assert suv[0] != suv[1]


@pytest.mark.parametrize(
    ("name", "organ"),
    [
        ("kidney_left", "kidney"),
        ("Lung_upper_lobe_right", "lung"),
        ("urinary_bladder", "bladder"),
        ("heart_myocardium", "heart"),
        ("head glands", "gland"),
        ("parotid_gland_left", "gland"),
        ("lungs", "lung"),
        ("aorta", None),
        ("background", None),
    ],
)
def test_names_are_read_in_many_spellings(name, organ):
    assert organ_of(name) == organ


def test_names_may_be_given_either_way_or_as_nnunet_writes_them(tmp_path, maps):
    write_map(tmp_path / "a.nii.gz", NUMBERS)
    for file, content in (
        ("names.json", NUMBERS),
        ("dataset.json", {"labels": {"background": 0, **NUMBERS}, "channel_names": {"0": "CT"}}),
    ):
        path = tmp_path / file
        path.write_text(json.dumps(content), "utf-8")
        found = find_organ_maps([tmp_path / "a.nii.gz"])
        assert dict(found.names) == dict(maps.names) and not found.assumed
        path.unlink()


def test_without_names_autopet_numbers_are_taken_where_the_organs_fit(tmp_path):
    numbers = {organ_of(name): name for name in SHAPES}
    autopet = {name: next(n for n, o in AUTOPET3_NAMES.items() if o == organ_of(name))
               for name in SHAPES}  # fmt: skip
    assert len(numbers) == 8
    write_map(tmp_path / "right" / "a.nii.gz", autopet)
    found = find_organ_maps([tmp_path / "right"])
    assert found.assumed
    read = read_organ_map(found.files[0], found)
    assert set(read.masks) == set(numbers)
    # The same organs under other numbers: the bladder above the lungs.
    swapped = autopet | {"lungs": 4, "urinary_bladder": 5}
    write_map(tmp_path / "wrong" / "a.nii.gz", swapped)
    found = find_organ_maps([tmp_path / "wrong"])
    with pytest.raises(MipError, match=r"wrong.a\.nii\.gz.*names\.json"):
        read_organ_map(found.files[0], found)
    write_map(tmp_path / "other" / "a.nii.gz", NUMBERS)
    found = find_organ_maps([tmp_path / "other"])
    with pytest.raises(MipError, match=r"names\.json"):
        read_organ_map(found.files[0], found)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ('{"1": "aorta"}', "names none of the organs"),
        ("[1, 2]", "does not name the organs"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_names_that_help_nobody_are_refused(tmp_path, names, message):
    write_map(tmp_path / "a.nii.gz", NUMBERS)
    (tmp_path / "names.json").write_text(names, "utf-8")
    with pytest.raises(MipError, match=message):
        find_organ_maps([tmp_path])


def test_maps_that_cannot_be_used_are_refused(tmp_path, folder, maps):
    with pytest.raises(MipError, match="no such file"):
        find_organ_maps([tmp_path / "nowhere"])
    with pytest.raises(MipError, match="holds no label map"):
        find_organ_maps([tmp_path])
    with pytest.raises(MipError, match="is no label map"):
        find_organ_maps([folder / "names.json"])
    write_map(tmp_path / "other" / "c.nii.gz", NUMBERS)
    (tmp_path / "other" / "names.json").write_text('{"1": "liver"}', "utf-8")
    with pytest.raises(MipError, match="number their organs differently"):
        find_organ_maps([folder, tmp_path / "other"])
    headless = write_map(
        tmp_path / "few.nii.gz", NUMBERS, leave=("kidney_left", "kidney_right", "brain", "lungs")
    )
    with pytest.raises(MipError, match=r"few\.nii\.gz: shows bladder of .* two are needed"):
        read_organ_map(headless, maps)
    image = sitk.Cast(sitk.ReadImage(str(folder / "a.nii.gz")), sitk.sitkFloat32) * 0.37
    sitk.WriteImage(image, str(tmp_path / "float.nii.gz"))
    with pytest.raises(MipError, match="not whole numbers"):
        read_organ_map(tmp_path / "float.nii.gz", maps)


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


def test_the_frame_meets_its_landmarks_and_can_be_inverted(maps):
    anatomy = anatomy_of(21, 0, maps)
    names = ("bladder", "kidney", "lung", "brain", "liver")
    points = {name: anatomy.solids(name)[0].points for name in names}
    frame = fit_frame(points, brain_is_cut=False)
    assert frame.at(0, 0, 419)[2] == pytest.approx(points["kidney"][:, 2].mean(), abs=25)
    assert frame.at(0, 0, 636)[2] == pytest.approx(points["lung"][:, 2].mean(), abs=1)
    nominal = np.array([[30.0, -20, 200], [-80, 10, 640], [0, 0, 1000]])
    here = np.array([frame.at(*p) for p in nominal])
    assert np.allclose(frame.nominal(here), nominal, atol=1e-6)


def test_real_maps_make_plausible_bodies():
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
