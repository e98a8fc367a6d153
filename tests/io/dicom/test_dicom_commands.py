"""Commands on DICOM folders: predict with SEG, project, fuse, conversion to a data set."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import assert_refused, run

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from nnunetv2_mip import Predictor  # noqa: E402
from nnunetv2_mip.commands import convert_autopet, fuse, predict, project  # noqa: E402
from nnunetv2_mip.errors import MipError  # noqa: E402
from nnunetv2_mip.fusion.rules import FusionRule  # noqa: E402
from nnunetv2_mip.inference.find_inputs import find_jobs  # noqa: E402
from nnunetv2_mip.io.dicom.masks import read_dicom_mask  # noqa: E402
from nnunetv2_mip.io.dicom.options import DicomOptions  # noqa: E402
from nnunetv2_mip.io.dicom.pet import read_dicom_ct, read_dicom_pet  # noqa: E402
from nnunetv2_mip.io.volumes import read_mask, write_volume  # noqa: E402
from nnunetv2_mip.views.geometry import ViewGeometry  # noqa: E402


def names_in(folder: Path) -> set[str]:
    """Files below a folder, without the lesion tables and pictures beside masks."""
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    return {name for name in found if not name.endswith(("_lesions.csv", "_mip.gif"))}


@pytest.fixture
def eager(tiny_model, tmp_path, write_pet) -> tuple:
    """Options of predict: the tiny model, with a threshold that half of the series exceeds."""
    from nnunetv2_mip.inference.predictor import MIPPredictor
    from nnunetv2_mip.io.read_study import read_study

    predictor = MIPPredictor.from_model_folder(tiny_model, device="cpu")
    predictor = predictor.override(tta=False, views=2, fusion=FusionRule("max"))
    found = predictor.predict_study(
        read_study(write_pet(tmp_path / "usual")), with_probability=True
    )
    folder = tmp_path / "eager"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("validation", "*.png"))
    config = json.loads((folder / "inference.json").read_text())
    config["fusion"] = {
        "rule": "max",
        "threshold": float(np.median(found.probability)),
    }
    (folder / "inference.json").write_text(json.dumps(config))
    return "-m", folder, "-device", "cpu", "--disable_tta", "--views", 2


@pytest.mark.slow
def test_predict_on_dicom_is_predict_on_its_suv_and_a_seg(
    eager, tmp_path, capsys, write_pet, mask_of_dicom
):
    source = write_pet(tmp_path / "PET 7", names="down")
    pet = read_dicom_pet(source)
    write_volume(pet.suv.array, pet.suv.grid, tmp_path / "pet.nii.gz")
    assert run(predict, "-i", source, "-o", tmp_path / "out", *eager) == 0
    assert "1 mask written" in capsys.readouterr().out
    assert names_in(tmp_path / "out") == {"PET_7.nii.gz", "PET_7.dcm"}
    found = Predictor(eager[1], device="cpu", tta=False, views=2).predict(source)
    np.testing.assert_array_equal(
        found.canonical_mask, read_mask(tmp_path / "out" / "PET_7.nii.gz").array
    )
    assert run(predict, "-i", tmp_path / "pet.nii.gz", "-o", tmp_path / "m.nii.gz", *eager) == 0
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "PET_7.nii.gz")))
    from_file = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.nii.gz")))
    assert mask.any()
    assert not mask.all()
    assert np.array_equal(mask, from_file)
    seg = pydicom.dcmread(tmp_path / "out" / "PET_7.dcm")
    assert np.array_equal(mask_of_dicom(seg, pet), pet.suv.grid.to_canonical(mask))


@pytest.mark.slow
def test_predict_on_several_dicom_studies(eager, tmp_path, capsys, write_pet):
    write_pet(tmp_path / "in" / "ann" / "pet")
    write_pet(tmp_path / "in" / "bob")
    assert run(predict, "-i", tmp_path / "in", "-o", tmp_path / "out", *eager) == 0
    assert "2 masks written" in capsys.readouterr().out
    expected = {"ann_pet.nii.gz", "ann_pet.dcm", "bob.nii.gz", "bob.dcm"}
    assert names_in(tmp_path / "out") == expected


def test_jobs_of_dicom_folders(tmp_path, monkeypatch, write_pet):
    source = write_pet(tmp_path / "in" / "ann")
    (job,) = find_jobs(source, tmp_path / "out")
    assert (job.kind, job.case, job.source) == ("dicom", "ann", source)
    assert job.dicom.pet.uid == read_dicom_pet(source).study.pet.uid
    monkeypatch.chdir(source)
    (job,) = find_jobs(".", tmp_path / "out")
    assert job.target == tmp_path / "out" / "ann.nii.gz"
    write_pet(tmp_path / "in" / "bob")
    ann, bob = find_jobs(tmp_path / "in", tmp_path / "out")
    assert (ann.source, bob.source) == (source, tmp_path / "in" / "bob")
    (one,) = find_jobs(tmp_path / "in", tmp_path / "out", DicomOptions(series=(bob.dicom.pet.uid,)))
    assert one.dicom.pet.uid == bob.dicom.pet.uid


@pytest.mark.parametrize(
    ("make", "output", "named"),
    [
        (lambda folder, write_pet: None, "pet", "choose another -o"),
        (lambda folder, write_pet: None, "mask.dcm", "-o must be a folder"),
        (lambda folder, write_pet: (folder / "a.png").write_bytes(b""), "out", "PNGs and DICOM"),
        (
            lambda folder, write_pet: (folder / "a.nii.gz").write_bytes(b""),
            "out",
            "volumes and DICOM",
        ),
        (
            lambda folder, write_pet: write_pet(folder / "2", StudyInstanceUID="1.2.3"),
            "out",
            "be meant",
        ),
    ],
)
def test_dicom_folders_that_cannot_be_served(make, output, named, tmp_path, write_pet):
    source = write_pet(tmp_path / "pet", StudyInstanceUID="1.2.3")
    make(source, write_pet)
    with pytest.raises(MipError, match=named):
        find_jobs(source, tmp_path / output)


def test_a_single_dicom_file_is_answered_with_its_folder(tmp_path, write_pet):
    source = write_pet(tmp_path / "pet")
    (source / "IM0000").rename(source / "a.dcm")
    with pytest.raises(MipError, match="give the folder"):
        find_jobs(source / "a.dcm", tmp_path / "out")


@pytest.mark.slow
def test_a_missing_tag_ends_predict_with_one_line(eager, tmp_path, capsys, write_pet):
    source = write_pet(tmp_path / "pet", Units=None)
    assert run(predict, "-i", source, "-o", tmp_path / "out", *eager) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "Units (0054,1001)" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_series_that_no_seg_can_refer_to_still_gives_a_mask(eager, tmp_path, capsys, write_pet):
    source = write_pet(tmp_path / "pet", SOPInstanceUID=None)
    assert run(predict, "-i", source, "-o", tmp_path / "out", *eager) == 0
    assert "no object can refer to it" in capsys.readouterr().err
    assert names_in(tmp_path / "out") == {"pet.nii.gz"}


@pytest.mark.slow
def test_predict_writes_the_objects_that_are_asked_for(eager, tmp_path, capsys, write_pet):
    source = write_pet(tmp_path / "pet", FrameOfReferenceUID=None)
    options = ("-i", source, "-o", tmp_path / "out", *eager, "--dicom")
    assert run(predict, *options, "rtstruct") == 0
    assert "lacks Frame of Reference UID (0020,0052)" in capsys.readouterr().err
    assert names_in(tmp_path / "out") == {"pet.nii.gz", "pet_rtstruct.dcm"}
    assert run(predict, *options, "seg", "rtstruct", "sr") == 0
    names = {"pet.nii.gz", "pet.dcm", "pet_rtstruct.dcm", "pet_sr.dcm"}
    assert names_in(tmp_path / "out") == names
    pet = read_dicom_pet(source)
    mask = read_mask(tmp_path / "out" / "pet.nii.gz").array
    for name in ("pet.dcm", "pet_rtstruct.dcm"):
        assert np.array_equal(read_dicom_mask(tmp_path / "out" / name, pet).array, mask)


def test_objects_of_what_is_no_dicom_are_refused(tmp_path, capsys, tiny_model, write_pet):
    pet = read_dicom_pet(write_pet(tmp_path / "pet"))
    write_volume(pet.suv.array, pet.suv.grid, tmp_path / "pet.nii.gz")
    options = ("-o", tmp_path / "m.nii.gz", "-m", tiny_model, "--dicom", "sr")
    assert_refused(
        capsys, "holds no DICOM series", predict, "-i", tmp_path / "pet.nii.gz", *options
    )


@pytest.mark.slow
def test_without_highdicom_nothing_is_predicted(eager, tmp_path, capsys, monkeypatch, write_pet):
    source = write_pet(tmp_path / "pet")
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    assert run(predict, "-i", source, "-o", tmp_path / "out", *eager) == 2
    assert "nnunetv2-mip[dicom]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_project_takes_a_dicom_folder(tmp_path, write_pet):
    source = write_pet(tmp_path / "pet", names="down")
    pet = read_dicom_pet(source)
    write_volume(pet.suv.array, pet.suv.grid, tmp_path / "pet.nii.gz")
    for name, given in (("dicom", source), ("file", tmp_path / "pet.nii.gz")):
        assert run(project, "-i", given, "-o", tmp_path / name, "--views", 3) == 0
    views = [
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name / "suv.nii.gz")))
        for name in ("dicom", "file")
    ]
    assert views[0].max() == pytest.approx(7)
    np.testing.assert_allclose(*views, atol=1e-6)
    geometry = ViewGeometry.load(tmp_path / "dicom" / "geometry.json")
    assert geometry.source == "pet"


def convert(tree: Path, raw: Path, monkeypatch, *options: str) -> Path:
    """Data set of a tree, made by the command."""
    monkeypatch.setenv("nnUNet_raw", str(raw))
    with pytest.raises(SystemExit) as ended:
        convert_autopet.main(["-i", str(tree), "-d", "7", "--views", "3", *options])
    assert ended.value.code == 0
    return raw / "Dataset007_AutoPETMIP"


def test_a_tree_of_dicom_studies_converts_as_the_same_volumes_do(
    tmp_path, monkeypatch, write_series, write_ct
):
    dicom, nifti = (tmp_path / kind / "PETCT_a" / "study" for kind in ("dicom", "nifti"))
    write_series(dicom / "pet")
    write_ct(dicom / "ct")
    pet = read_dicom_pet(dicom)
    ct = read_dicom_ct(pet)
    mask = pet.suv.array > np.percentile(pet.suv.array, 90)
    for study in (dicom, nifti):
        write_volume(mask.astype(np.uint8), pet.suv.grid, study / "SEG.nii.gz")
    write_volume(pet.suv.array, pet.suv.grid, nifti / "SUV.nii.gz")
    write_volume(ct.array, ct.grid, nifti / "CTres.nii.gz")
    found = [
        convert(tmp_path / kind, tmp_path / f"raw_{kind}", monkeypatch, "--channels", "suv,ct")
        for kind in ("dicom", "nifti")
    ]
    stacks = sorted(path.relative_to(found[0]) for path in found[0].rglob("*.nii.gz"))
    assert len(stacks) == 3
    for stack in stacks:
        assert (found[0] / stack).read_bytes() == (found[1] / stack).read_bytes()


def test_a_dicom_study_without_the_wanted_ct(tmp_path, monkeypatch, capsys, write_series, known):
    study = tmp_path / "tree" / "PETCT_a" / "study"
    write_series(study / "pet")
    pet = read_dicom_pet(study)
    write_volume(np.ones(known.shape, np.uint8), pet.suv.grid, study / "SEG.nii.gz")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    with pytest.raises(SystemExit) as ended:
        convert_autopet.main(["-i", str(tmp_path / "tree"), "-d", "7", "--channels", "suv,ct"])
    assert ended.value.code == 2
    assert "the channel ct needs the CT" in capsys.readouterr().err


def test_fusing_with_a_dicom_series(tmp_path, monkeypatch, write_series):
    write_series(tmp_path / "pet")
    pet = read_dicom_pet(tmp_path / "pet")
    mask = (pet.suv.array > np.median(pet.suv.array)).astype(np.uint8)
    write_volume(mask, pet.suv.grid, tmp_path / "seg.nii.gz")
    commands = (
        (project, ["-i", "pet", "-o", "views", "--seg", "seg.nii.gz", "--views", "5"]),
        (fuse, ["-i", "views", "-o", "mask.nii.gz", "--suv", "pet", "--rule", "visibility"]),
    )
    for command, options in commands:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            command.main(options)
        assert ended.value.code == 0
    assert read_mask(tmp_path / "mask.nii.gz", like=pet.suv).array.any()
