"""autoPET studies to a data set of views: content, splits, resuming, broken studies."""

import functools
import json
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import run as run_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunetv2_mip.commands import convert_autopet as command
from nnunetv2_mip.dataset_conversion import autopet, raw_dataset
from nnunetv2_mip.dataset_conversion.conversion_plan import Case, ConversionPlan
from nnunetv2_mip.dataset_conversion.raw_dataset import build_raw_dataset
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.nnunet.splits import check_splits
from nnunetv2_mip.views.geometry import ViewGeometry

SHAPE = (10, 12, 12)
NAME = "Dataset501_AutoPETMIP"


def write(array: np.ndarray, path: Path, spacing=(4.0, 4.0, 5.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


def arrays(seed: int, lesion: bool, shape=SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """A body of SUV 0.5 to 1.5 in air, with a lesion of SUV 8, and the lesion's mask."""
    rng = np.random.default_rng(seed)
    suv, seg = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    inside = (slice(None), slice(2, -2), slice(2, -2))
    suv[inside] = rng.uniform(0.5, 1.5, suv[inside].shape)
    if lesion:
        z, y, x = (int(rng.integers(2, size - 3)) for size in shape)
        seg[z : z + 2, y : y + 2, x : x + 2] = 1
        suv[seg == 1] = 8
    return suv, seg


def write_study(folder: Path, seed: int = 0, lesion: bool = True, shape=SHAPE) -> Path:
    suv, seg = arrays(seed, lesion, shape)
    write(suv, folder / "SUV.nii.gz")
    write(seg, folder / "SEG.nii.gz")
    return folder


def small_tree(tree: Path) -> Path:
    """Three patients: two studies, one study, one healthy study."""
    write_study(tree / "PETCT_a" / "first study", 0)
    write_study(tree / "PETCT_a" / "second study", 1, lesion=False)
    write_study(tree / "PETCT_b" / "first study", 2)
    write_study(tree / "PETCT_c" / "first study", 3, lesion=False)
    return tree


run = partial(run_command, command)


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_tree_becomes_a_data_set(tmp_path, raw, capsys):
    tree = small_tree(tmp_path / "tree")
    assert run("-i", tree, "-d", 501, "--views", 4) == 0
    out = capsys.readouterr().out
    assert "4 cases of 3 patients, 2 with lesions, 0 left out" in out
    assert "nnUNetv2_mip_plan_and_preprocess -d 501" in out
    assert [path.name for path in raw.iterdir()] == [NAME]
    folder = raw / NAME
    cases = ["PETCT_a_first_study", "PETCT_a_second_study"] + [
        "PETCT_b_first_study",
        "PETCT_c_first_study",
    ]
    expected = {"conversion.json", "dataset.json", "splits_final.json"}
    expected |= {f"imagesTr/{case}_0000.nii.gz" for case in cases}
    expected |= {f"imagesTr/{case}_geometry.json" for case in cases}
    expected |= {f"imagesTr/{case}_lesions.json" for case in cases}
    expected |= {f"labelsTr/{case}.nii.gz" for case in cases}
    assert set(content(folder)) == expected

    dataset = json.loads((folder / "dataset.json").read_text())
    mip = dataset.pop("mip")
    assert dataset == {
        "channel_names": {"0": "suv"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
        "name": NAME,
    }
    assert mip["patients"] == {case: case[:7] for case in cases}
    assert mip["has_lesion"] == dict(zip(cases, (True, False, True, False)))
    assert (mip["source"], mip["channels"], mip["labels"]) == ("autopet", ["suv"], "projected")
    assert (mip["views"], mip["window_suv"], mip["pixel_mm"]) == (4, 10.0, None)
    check_splits(json.loads((folder / "splits_final.json").read_text()), mip["patients"], cases)


def test_views_are_levels_of_suv_and_the_front_view_is_the_plain_maximum(tmp_path, raw):
    write_study(tmp_path / "tree" / "PETCT_a" / "s", seed=5)
    suv, seg = arrays(5, True)
    assert run("-i", tmp_path / "tree", "-d", 501, "--views", 4, "--window", 5) == 0
    folder = raw / NAME
    image = sitk.ReadImage(str(folder / "imagesTr" / "PETCT_a_s_0000.nii.gz"))
    label = sitk.ReadImage(str(folder / "labelsTr" / "PETCT_a_s.nii.gz"))
    stack, mask = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(label)
    assert stack.dtype == mask.dtype == np.uint8
    assert stack.shape == mask.shape
    assert stack.shape[:2] == (4, SHAPE[0])
    assert image.GetSpacing() == label.GetSpacing() == (4.0, 5.0, 1000.0)

    def about_the_middle(front):
        """The front view, cut or padded with air to the width of the stack."""
        side = (stack.shape[2] - front.shape[1]) // 2
        return np.pad(front, ((0, 0), (side, side))) if side >= 0 else front[:, -side:side]

    levels = np.rint(np.clip(suv.max(axis=1), 0, 5) * 51).astype(np.uint8)
    assert levels.max() == 255
    # The file is stored in LPS, z towards the head: row 0 of a view is the last slice.
    assert np.array_equal(stack[0], about_the_middle(levels)[::-1])
    assert np.array_equal(mask[0], about_the_middle(seg.max(axis=1))[::-1])
    assert set(np.unique(mask)) == {0, 1}
    assert all(view.any() for view in mask)

    geometry = ViewGeometry.load(folder / "imagesTr" / "PETCT_a_s_geometry.json")
    assert geometry.stack_shape == stack.shape
    assert geometry.angles_deg == (0.0, 45.0, 90.0, 135.0)
    assert (geometry.window_suv, geometry.source) == (5.0, "SUV.nii.gz")
    body = stack[stack > 2].astype(float)
    intensity = json.loads((folder / "dataset.json").read_text())["mip"]["intensity"]["suv"]
    assert intensity["mean"] == pytest.approx(body.mean(), abs=1e-3)
    assert intensity["std"] == pytest.approx(body.std(), abs=1e-3)


def test_the_nnunet_style_release_gives_the_same_stacks(tmp_path, raw, monkeypatch):
    write_study(tmp_path / "tree" / "PETCT_a" / "2001-01-01", 3)
    suv, seg = arrays(3, True)
    write(np.full(SHAPE, -900, np.int16), tmp_path / "rel/imagesTr/PETCT_a_2001-01-01_0000.nii.gz")
    write(suv, tmp_path / "rel/imagesTr/PETCT_a_2001-01-01_0001.nii.gz")
    write(seg, tmp_path / "rel/labelsTr/PETCT_a_2001-01-01.nii.gz")
    assert run("-i", tmp_path / "tree", "-d", 501, "--views", 3) == 0
    assert run("-i", tmp_path / "rel", "-d", 502, "--views", 3) == 0
    case = "PETCT_a_2001-01-01"
    for name in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz"):
        one = raw / NAME / name
        two = raw / "Dataset502_AutoPETMIP" / name
        assert one.read_bytes() == two.read_bytes()


def test_values_that_are_not_suv_are_warned_about_and_noted(tmp_path, raw, capsys):
    folder = write_study(tmp_path / "tree" / "PETCT_a" / "s")
    write(arrays(0, True)[0] * 5000, folder / "SUV.nii.gz")
    assert run("-i", tmp_path / "tree", "-d", 501, "--views", 2) == 0
    warned = capsys.readouterr().err
    assert "SUV.nii.gz" in warned
    assert "Bq/ml" in warned
    summary = json.loads((raw / NAME / "conversion.json").read_text())
    assert "Bq/ml" in summary["warnings"][0]


@pytest.mark.slow
def test_two_processes_give_the_same_bytes_as_one(tmp_path, raw, monkeypatch):
    tree = small_tree(tmp_path / "tree")
    assert run("-i", tree, "-d", 501, "--views", 3, "-np", 1) == 0
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "other"))
    assert run("-i", tree, "-d", 501, "--views", 3, "-np", 2) == 0
    assert content(raw / NAME) == content(tmp_path / "other" / NAME)


def broken_after(count: int):
    """convert_study, but Ctrl-C is pressed in the middle of a later study."""
    calls = Counter()
    convert_study = autopet.convert_study

    def convert(payload, paths):
        calls["all"] += 1
        record = convert_study(payload, paths)
        if calls["all"] > count:
            paths.label.unlink()
            raise KeyboardInterrupt
        return record

    return convert


def test_an_interrupted_conversion_is_finished_with_the_same_bytes(
    tmp_path, raw, monkeypatch, capsys
):
    tree = small_tree(tmp_path / "tree")
    arguments = ("-i", tree, "-d", 501, "--views", 3)
    with monkeypatch.context() as patch:
        patch.setattr(autopet, "convert_study", broken_after(2))
        assert run(*arguments) == 130
    assert "interrupted" in capsys.readouterr().err
    (partial,) = raw.iterdir()
    assert partial.name == f".{NAME}.partial"
    assert len(list((partial / "records").iterdir())) == 2
    # What a killed process leaves behind must not get into the data set.
    (partial / "imagesTr" / ".99.partial.PETCT_c_first_study_0000.nii.gz").write_bytes(b"half")
    done = {path: path.stat().st_mtime_ns for path in (partial / "records").iterdir()}

    for other in (("--views", 4), ("--window", 5)):
        assert run(*arguments, *other) == 2
        line = capsys.readouterr().err
        assert str(partial) in line
        assert "other settings" in line
    copy = shutil.copytree(tree, tmp_path / "copy")
    assert run("-i", copy, *arguments[2:]) == 2
    assert "another folder" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in done} == done

    calls = Counter()
    real = autopet.convert_study

    def counting(payload, paths):
        calls[paths.case] += 1
        return real(payload, paths)

    with monkeypatch.context() as patch:
        patch.setattr(autopet, "convert_study", counting)
        assert run(*arguments) == 0
    assert sum(calls.values()) == 2
    assert [path.name for path in raw.iterdir()] == [NAME]
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "undisturbed"))
    assert run(*arguments) == 0
    assert content(raw / NAME) == content(tmp_path / "undisturbed" / NAME)


def test_a_study_removed_before_the_second_run_leaves_nothing(tmp_path, raw, monkeypatch):
    tree = small_tree(tmp_path / "tree")
    arguments = ("-i", tree, "-d", 501, "--views", 3)
    with monkeypatch.context() as patch:
        patch.setattr(autopet, "convert_study", broken_after(2))
        assert run(*arguments) == 130
    shutil.rmtree(tree / "PETCT_a" / "first study")
    assert run(*arguments) == 0
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "undisturbed"))
    assert run(*arguments) == 0
    assert content(raw / NAME) == content(tmp_path / "undisturbed" / NAME)


def test_a_broken_study_stops_at_the_end_and_is_repaired_or_left_out(tmp_path, raw, capsys):
    tree = small_tree(tmp_path / "tree")
    broken = tree / "PETCT_b" / "first study" / "SUV.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    (tree / "PETCT_c" / "first study" / "SEG.nii.gz").unlink()
    arguments = ("-i", tree, "-d", 501, "--views", 3)
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "2 of 4 cases cannot be converted" in err
    assert str(broken) in out + err
    (partial,) = raw.iterdir()
    assert partial.name == f".{NAME}.partial"
    left = {path.name for path in (partial / "imagesTr").iterdir()}
    assert left == {
        f"PETCT_a_{which}_study_{end}"
        for which in ("first", "second")
        for end in ("0000.nii.gz", "geometry.json", "lesions.json")
    }

    assert run(*arguments, "--skip_broken") == 0
    out, err = capsys.readouterr()
    assert "2 left out" in out
    assert str(broken) in err
    summary = json.loads((raw / NAME / "conversion.json").read_text())
    assert (summary["converted"], summary["patients"]) == (2, 1)
    assert {Path(s["reason"].split(":")[0]).name for s in summary["skipped"]} == {
        "SUV.nii.gz",
        "its study has no lesion mask (SEG); training needs one",
    }
    mip = json.loads((raw / NAME / "dataset.json").read_text())["mip"]
    assert set(mip["patients"]) == {"PETCT_a_first_study", "PETCT_a_second_study"}

    shutil.rmtree(raw / NAME)
    assert run(*arguments) == 2
    broken.write_bytes(whole)
    write(arrays(3, False)[1], tree / "PETCT_c" / "first study" / "SEG.nii.gz")
    assert run(*arguments) == 0
    assert json.loads((raw / NAME / "dataset.json").read_text())["numTraining"] == 4


def test_a_finished_case_whose_mask_was_repaired_is_converted_again(tmp_path, raw, capsys):
    tree = small_tree(tmp_path / "tree")
    broken = tree / "PETCT_b" / "first study" / "SEG.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:40])
    arguments = ("-i", tree, "-d", 501, "--views", 3)
    assert run(*arguments) == 2
    (partial,) = raw.iterdir()
    records = {path: path.stat().st_mtime_ns for path in (partial / "records").iterdir()}
    assert len(records) == 3
    repaired = tree / "PETCT_a" / "first study" / "SEG.nii.gz"
    other = np.zeros(SHAPE, np.uint8)
    other[2:6, 3:9, 3:9] = 1
    write(other, repaired)
    # The same content at another time is no change; another size of a large file is one.
    (tree / "PETCT_c" / "first study" / "SEG.nii.gz").touch()
    broken.write_bytes(whole)
    capsys.readouterr()
    assert run(*arguments) == 0
    said = capsys.readouterr().err
    assert f"PETCT_a_first_study: {repaired} changed since; converted again" in said
    assert "PETCT_c" not in said
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setenv("nnUNet_raw", str(tmp_path / "undisturbed"))
        assert run(*arguments) == 0
    assert content(raw / NAME) == content(tmp_path / "undisturbed" / NAME)


def test_patients_that_no_name_tells_are_asked_for(tmp_path, raw, capsys):
    for name in ("Hansen", "Olsen", "Hansen again"):
        write_study(tmp_path / "tree" / name)
    arguments = ("-i", tmp_path / "tree", "-d", 501, "--views", 1)
    assert run(*arguments) == 2
    assert "--assume_one_study_per_patient" in capsys.readouterr().err
    assert not raw.exists() or list(raw.iterdir()) == []
    assert run(*arguments, "--patient_regex", "^([A-Z][a-z]+)") == 0
    assert "3 studies of 2 patients, by --patient_regex" in capsys.readouterr().out
    mip = json.loads((raw / NAME / "dataset.json").read_text())["mip"]
    assert set(mip["patients"].values()) == {"Hansen", "Olsen"}
    assert run("-i", tmp_path / "tree", "-d", 502, "--views", 1, "--assume_one_patient") == 0


def test_names_of_other_scripts_are_recorded(tmp_path, raw):
    write_study(tmp_path / "tree" / "患者一" / "初诊", 1)
    write_study(tmp_path / "tree" / "患者二" / "初诊", 2)
    assert run("-i", tmp_path / "tree", "-d", 501, "--views", 1) == 0
    cases = json.loads((raw / NAME / "conversion.json").read_text("utf-8"))["cases"]
    assert {case: record["original"] for case, record in cases.items()} == {
        "e2efe9ef_7ca44cea": "患者一/初诊",
        "db0ad3fe_7ca44cea": "患者二/初诊",
    }
    assert (raw / NAME / "imagesTr" / "e2efe9ef_7ca44cea_0000.nii.gz").is_file()
    patients = json.loads((raw / NAME / "dataset.json").read_text("utf-8"))["mip"]["patients"]
    assert set(patients.values()) == {"患者一", "患者二"}


def convert_by_name(calls: list, payload, paths) -> dict:
    """A converter of tiny text files; the case whose payload is `bad` fails half-way."""
    calls.append(paths.case)
    for path in (paths.channel(0), paths.label, paths.geometry):
        path.write_text(paths.case)
    if payload == "bad":
        raise MipError(f"{paths.case}/file: is bad")
    return {"has_lesion": True, "body": {"suv": [1, 10, 100]}}


def plan_of(cases: list[Case], source: Path, calls: list) -> ConversionPlan:
    return ConversionPlan(
        dataset_id=501,
        name="X",
        cases=cases,
        convert=functools.partial(convert_by_name, calls),
        settings={},
        mip={"channels": ["suv"]},
        source=source,
    )


def test_a_broken_case_takes_no_file_of_a_case_whose_name_begins_like_its_own(tmp_path, raw):
    cases = [Case("p_1", "p", "good"), Case("p_0001", "p", "good"), Case("p", "p", "bad")]
    result = build_raw_dataset(plan_of(cases, tmp_path, []), skip_broken=True)
    files = {name for name in content(result.folder) if "Tr" in name}
    assert files == {
        f"{place}{case}{end}"
        for case in ("p_1", "p_0001")
        for place, end in (
            ("imagesTr/", "_0000.nii.gz"),
            ("imagesTr/", "_geometry.json"),
            ("labelsTr/", ".nii.gz"),
        )
    }


def test_two_cases_of_one_name_are_refused(tmp_path, raw):
    cases = [Case("p", "p", "good"), Case("p", "q", "good")]
    calls: list = []
    with pytest.raises(MipError, match="same case name p"):
        build_raw_dataset(plan_of(cases, tmp_path, calls))
    assert not calls
    assert not raw.exists()


def test_nothing_is_left_when_no_case_can_be_converted(tmp_path, raw):
    for skip in (False, True):
        with pytest.raises(MipError, match="p/file"):
            build_raw_dataset(plan_of([Case("p", "p", "bad")], tmp_path, []), skip_broken=skip)
        assert list(raw.iterdir()) == []


def test_a_foreign_folder_in_place_of_the_partial_one_is_no_resume(tmp_path, raw):
    stale = raw / ".Dataset501_X.partial" / raw_dataset._RECORDS
    stale.mkdir(parents=True)
    (stale / "p.json").write_text("{}")
    calls: list = []
    build_raw_dataset(plan_of([Case("p", "p", "good")], tmp_path, calls))
    assert calls == ["p"]


@st.composite
def layouts(draw) -> tuple[str, dict[str, list[bool]]]:
    """(layout, patient → per study, whether it has a lesion); some names contain each other."""
    layout = draw(st.sampled_from(["tcia", "nnunet"]))
    names = draw(
        st.lists(
            st.sampled_from(["a", "ab", "a1", "b", "11", "1", "c0ffee", "z"]),
            min_size=1,
            max_size=6,
            unique=True,
        )
    )
    return layout, {
        name: draw(st.lists(st.booleans(), min_size=1, max_size=3), label=name) for name in names
    }


@pytest.mark.slow
@given(cohort=layouts())
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_patient_is_in_two_folds(cohort, tmp_path_factory):
    layout, patients = cohort
    base = tmp_path_factory.mktemp("cohort")
    expected_patient, expected_lesion = {}, {}
    for number, (patient, studies) in enumerate(patients.items()):
        for index, lesion in enumerate(studies):
            date = f"200{index}-01-0{number + 1}"
            suv, seg = arrays(10 * number + index, lesion, (6, 8, 8))
            if layout == "tcia":
                full = f"PETCT_{patient}"
                folder = base / "tree" / full / date
                write(suv, folder / "SUV.nii.gz")
                write(seg, folder / "SEG.nii.gz")
            else:
                full = f"fdg_{patient}"
                raw_name = f"{full}_{date}"
                write(suv, base / "tree" / "imagesTr" / f"{raw_name}_0001.nii.gz")
                write(seg, base / "tree" / "labelsTr" / f"{raw_name}.nii.gz")
            expected_patient[f"{full}_{date}"] = full
            expected_lesion[f"{full}_{date}"] = lesion
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(base / "raw"))
        for variable in ("nnUNet_preprocessed", "nnUNet_results"):
            patch.delenv(variable, raising=False)
        assert run("-i", base / "tree", "-d", 501, "--views", 1) == 0
    folder = base / "raw" / NAME
    mip = json.loads((folder / "dataset.json").read_text())["mip"]
    assert mip["patients"] == expected_patient
    assert mip["has_lesion"] == expected_lesion
    splits = json.loads((folder / "splits_final.json").read_text())
    if len(patients) == 1:
        assert splits == []
        return
    assert len(splits) == min(5, len(patients))
    for fold in splits:
        train = {expected_patient[case] for case in fold["train"]}
        val = {expected_patient[case] for case in fold["val"]}
        assert not train & val
        assert sorted(fold["train"] + fold["val"]) == sorted(expected_patient)
    validated = Counter(case for fold in splits for case in fold["val"])
    assert validated == Counter(expected_patient.keys())
    # Patients with and without lesions are spread: at most one more in one fold than in another.
    sick = {expected_patient[case] for case, lesion in expected_lesion.items() if lesion}
    counts = [len({expected_patient[c] for c in fold["val"]} & sick) for fold in splits]
    assert max(counts) - min(counts) <= 1
