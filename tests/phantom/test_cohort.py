"""Phantoms: reproducible, in range, in the autoPET layout, of moderate difficulty."""

import json
from collections import Counter

import numpy as np
import pytest

from nnunetv2_mip.commands.phantom import main
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.volumes import read_mask, read_suv, read_volume, suv_warning
from nnunetv2_mip.phantom.cohort import write_cohort, write_study
from nnunetv2_mip.phantom.lesions import PATTERN_BLOCK, RARE_PATTERNS, disease_pattern
from nnunetv2_mip.phantom.shapes import Canvas, Ellipsoid, Tube, rotation
from nnunetv2_mip.phantom.subject import body_index, folder_names, simulate_subject

COARSE_MM = 8.0


@pytest.fixture(scope="module")
def studies():
    """Twelve subjects (four healthy) on a coarse grid."""
    return [simulate_subject(11, index, COARSE_MM) for index in range(12)]


def test_a_subject_is_a_function_of_seed_and_index(studies):
    again = simulate_subject(11, 4, COARSE_MM)
    for name in ("suv", "ct", "seg", "body"):
        assert np.array_equal(getattr(again, name), getattr(studies[4], name))
    assert (again.grid, again.lesions, again.study) == (
        studies[4].grid,
        studies[4].lesions,
        studies[4].study,
    )
    other = simulate_subject(12, 4, COARSE_MM)
    assert other.suv.shape != again.suv.shape or not np.array_equal(other.suv, again.suv)


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
        air = study.suv[~study.body]
        assert np.median(air) < 0.05 and air.std() > 0
        assert study.ct.min() >= -1024
        assert np.median(study.ct[~study.body]) < -900
        assert 40 < study.body.sum() * study.grid.voxel_ml / 1000 < 160  # litres


def test_lesions_lie_in_the_body_and_are_described(studies):
    kinds = Counter()
    for study in studies:
        assert set(np.unique(study.seg)) <= {0, 1}
        assert not (study.seg.astype(bool) & ~study.body).any()
        assert bool(study.seg.any()) == (study.pattern != "healthy") == bool(study.lesions)
        total = sum(lesion["volume_ml"] for lesion in study.lesions)
        assert total == pytest.approx(study.seg.sum() * study.grid.voxel_ml, abs=0.01)
        if study.lesions:
            hottest = max(lesion["suv_max"] for lesion in study.lesions)
            assert hottest == pytest.approx(study.suv[study.seg > 0].max(), abs=0.01)
        kinds.update(lesion["kind"] for lesion in study.lesions)
    assert len(kinds) >= 5


@pytest.mark.slow
def test_organs_take_up_what_they_should():
    study = simulate_subject(11, 1, 4.0)
    brain = study.suv[-30:][study.body[-30:]]
    assert np.percentile(brain, 90) > 5
    soft = study.suv[study.body & (study.ct > 80) & (study.ct < 130) & (study.seg == 0)]
    assert 1.2 < np.median(soft) < 3.2  # contrast-filled organs: liver, spleen, heart
    lung = study.suv[study.body & (study.ct < -700)]
    assert 0.15 < np.median(lung) < 0.7


def test_one_in_three_is_healthy_and_every_deck_holds_the_same_mixture():
    for seed in range(40):
        patterns = [disease_pattern(seed, index) for index in range(24)]
        for start in range(0, 24, 3):
            assert patterns[start : start + 3].count("healthy") == 1
        for start in (0, 12):
            cards = [p for p in patterns[start : start + 12] if p != "healthy"]
            cards = ["rare" if p in RARE_PATTERNS else p for p in cards]
            assert sorted(cards) == sorted(PATTERN_BLOCK)
    positions = {disease_pattern(seed, 0) == "healthy" for seed in range(40)}
    assert positions == {True, False}


@pytest.mark.slow
def test_hidden_lesions_exist_and_are_covered_in_some_view():
    for index in range(200):
        if disease_pattern(5, index) == "hidden":
            break
    study = simulate_subject(5, index, 4.0)
    assert {lesion["kind"] for lesion in study.lesions} == {"hidden"}
    seg = study.seg.astype(bool)
    share = []
    for axis in (1, 2):
        lesion = np.where(seg, study.suv, 0).max(axis)
        whole = study.suv.max(axis)
        share.append(np.mean((lesion >= whole - 1e-6)[seg.any(axis)]))
    # In at least one of the two main views something brighter covers most of it.
    assert min(share) < 0.6


def test_a_second_study_has_the_same_body_and_another_scan():
    index = next(k for k in range(100) if body_index(7, k) != k)
    assert body_index(7, index) == index - 1
    assert body_index(7, index - 1) == index - 1
    first, second = folder_names(7, index - 1), folder_names(7, index)
    assert first[0] == second[0] and first[1] != second[1]
    assert len({folder_names(7, k) for k in range(300)}) == 300
    assert 0.05 < np.mean([body_index(7, k) != k for k in range(400)]) < 0.2


def test_no_threshold_separates_lesions(studies):
    thresholds = np.r_[np.arange(1.5, 10, 0.5), np.arange(10, 25, 2.0)]
    overlap, predicted, true = np.zeros((3, len(thresholds)))
    for study in studies:
        seg = study.seg > 0
        true += seg.sum()
        overlap += [(study.suv[seg] > t).sum() for t in thresholds]
        predicted += [(study.suv > t).sum() for t in thresholds]
    assert (2 * overlap / (predicted + true)).max() < 0.35


def test_the_anatomy_does_not_depend_on_the_spacing():
    coarse, fine = simulate_subject(11, 2, 8.0), simulate_subject(11, 2, 5.0)
    for name in ("body", "seg"):
        volumes = [getattr(s, name).sum() * s.grid.voxel_ml for s in (coarse, fine)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.03 if name == "body" else 0.3)
    assert [x["kind"] for x in coarse.lesions][:3] == [x["kind"] for x in fine.lesions][:3]


@pytest.mark.slow
def test_cohort_layout_and_prefix_property(tmp_path, studies):
    out = write_cohort(tmp_path / "cohort", 3, 11, COARSE_MM)
    cohort = json.loads((out / "cohort.json").read_text("utf-8"))
    assert (cohort["seed"], cohort["spacing_mm"]) == (11, COARSE_MM)
    assert [study["index"] for study in cohort["studies"]] == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["cohort"]
    for entry, study in zip(cohort["studies"], studies):
        folder = out / entry["patient"] / entry["study"]
        assert folder.parent.name.startswith("PETCT_") and "Ganzkoerper  primaer" in folder.name
        assert {p.name for p in folder.iterdir()} == {"SUV.nii.gz", "CTres.nii.gz", "SEG.nii.gz"}
        suv = read_suv(folder / "SUV.nii.gz")
        assert np.array_equal(suv.array, study.suv)
        assert suv.grid.same_as(study.grid) and suv_warning(suv) is None
        assert np.array_equal(read_mask(folder / "SEG.nii.gz", suv).array, study.seg)
        assert np.array_equal(read_volume(folder / "CTres.nii.gz").array, study.ct)
        assert entry["pattern"] == study.pattern and entry["lesions"] == study.lesions
    write_study(11, 2, COARSE_MM, tmp_path / "again")
    name = cohort["studies"][2]["patient"]
    for path in (tmp_path / "again" / name).rglob("*.nii.gz"):
        twin = out / path.relative_to(tmp_path / "again")
        assert path.read_bytes() == twin.read_bytes()


@pytest.mark.slow
def test_command_writes_and_then_refuses_the_same_folder(tmp_path, capsys):
    arguments = ["-o", str(tmp_path / "out"), "-n", "2", "--spacing", "12", "-np", "2"]
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 0
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "options", [["-n", "0"], ["-n", "1", "--spacing", "0.5"], ["-n", "1", "--seed", "-1"]]
)
def test_command_refuses_impossible_options(tmp_path, options):
    with pytest.raises(SystemExit) as done:
        main(["-o", str(tmp_path / "out"), *options])
    assert done.value.code == 2
    assert not list(tmp_path.iterdir())


def test_nothing_half_written_is_left_after_an_error(tmp_path):
    def interrupted(entries, total):
        yield next(iter(entries))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cohort(tmp_path / "out", 2, 0, 12.0, interrupted)
    assert not list(tmp_path.iterdir())


def test_out_of_range_subjects_are_refused():
    with pytest.raises(MipError, match="subject -1"):
        simulate_subject(0, -1, 8.0)
    with pytest.raises(MipError, match="spacing"):
        simulate_subject(0, 0, 40.0)


@pytest.mark.parametrize(
    ("solid", "volume"),
    [
        (Ellipsoid((3, -2, 1), (20, 14, 26)), 4 / 3 * np.pi * 20 * 14 * 26),
        (Ellipsoid((3, -2, 1), (20, 14, 26), rotation(30, 40, 50)), 4 / 3 * np.pi * 20 * 14 * 26),
        (
            Tube([(0, 0, -20), (0, 0, 20)], 12.0),
            np.pi * 12**2 * 40 + 4 / 3 * np.pi * 12**3,
        ),
    ],
)
def test_solids_have_their_volume_at_any_spacing(solid, volume):
    for spacing in (2.0, 3.0):
        count = int(100 / spacing)
        canvas = Canvas((count, count, count), spacing, (-50.3, -49.1, -48.7))
        _, filled = canvas.occupancy([solid])
        assert filled.sum() * spacing**3 == pytest.approx(volume, rel=0.03)
    low, high = solid.bounds()
    assert (np.array(high) > np.array(low)).all()


def test_texture_has_unit_spread_and_does_not_depend_on_the_grid():
    fields = []
    for spacing in (8.0, 4.0):
        canvas = Canvas((int(800 / spacing), 60, 60), spacing, (-100.0, -100.0, 0.0))
        fields.append(canvas.texture(np.random.default_rng(3), 30.0))
    assert fields[0].std() == pytest.approx(1, abs=0.1)
    assert np.allclose(fields[1][::2, ::2, ::2], fields[0][:, :30, :30], atol=1e-4)
