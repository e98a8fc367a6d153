"""Trees of DICOM studies, as TCIA delivers them: PET, and the SEG or RTSTRUCT that refers to it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import run

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("nnunetv2_mip.io.dicom.masks")

import pydicom
from pydicom.uid import generate_uid

from nnunetv2_mip.commands import convert_autopet, evaluate
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.find_inputs import find_jobs
from nnunetv2_mip.io.dicom.options import DicomOptions
from nnunetv2_mip.io.dicom.pet import find_dicom_study, read_dicom_pet
from nnunetv2_mip.io.dicom.seg import write_dicom_seg
from nnunetv2_mip.io.study_layouts import find_studies, scan_tree
from nnunetv2_mip.io.volumes import write_volume

STUDY = "03-23-2003-NA-PET-CT Ganzkoerper  primaer mit KM-04689"
CASE = "PETCT_a_03-23-2003_04689"


@pytest.fixture
def download(tmp_path, write_pet, write_ct):
    """TCIA folder of a study with two PET series and a CT, and the SEG of the first."""
    study = tmp_path / "tree" / "PETCT_a" / STUDY
    uids = {"StudyInstanceUID": "1.2.3.4", "FrameOfReferenceUID": "1.2.3.5"}
    write_pet(study / "1.000000-PET AC-1", **uids)
    write_pet(study / "2.000000-PET PSF-2", **uids)
    write_ct(study / "3.000000-CT-3", **uids)
    pet = read_dicom_pet(study / "1.000000-PET AC-1")
    (study / "300.000000-Segmentation-9").mkdir()
    write_dicom_seg(pet.suv.array > 5, pet, study / "300.000000-Segmentation-9" / "1-1.dcm")
    return study


def series_of(folder: Path) -> str:
    return str(pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID)


def refer_to(path: Path, series: str | None) -> None:
    """Let a SEG refer to another series."""
    seg = pydicom.dcmread(path)
    seg.SOPInstanceUID = seg.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    if series is None:
        del seg.ReferencedSeriesSequence
    else:
        seg.ReferencedSeriesSequence[0].SeriesInstanceUID = series
    seg.save_as(path)


def test_a_download_is_a_study_with_its_mask(download):
    (study,) = find_studies(download.parents[1])
    assert (study.case, study.patient) == (CASE, "PETCT_a")
    assert (study.suv, study.ct) == (download, None)
    assert study.seg == download / "300.000000-Segmentation-9" / "1-1.dcm"
    # Of two PET series the one that the mask refers to.
    assert study.series == series_of(download / "1.000000-PET AC-1")
    (alone,) = find_studies(download)
    assert alone.case == "03-23-2003_04689"


def test_it_converts_and_scores_as_with_a_nifti_mask(tmp_path, monkeypatch, download):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    tree = download.parents[1]
    assert run(convert_autopet, "-i", tree, "-d", 7, "--views", 2, "--channels", "suv,ct") == 0
    options = DicomOptions((series_of(download / "1.000000-PET AC-1"),))
    pet = read_dicom_pet(find_dicom_study(download, options))
    mask = (pet.suv.array > 5).astype(np.uint8)
    summary = json.loads((tmp_path / "raw/Dataset007_AutoPETMIP/conversion.json").read_text())
    lesion_ml = mask.sum() * pet.suv.grid.voxel_ml
    assert summary["lesion_ml"] == pytest.approx(lesion_ml, abs=0.01)

    write_volume(mask, pet.suv.grid, tmp_path / "predicted" / f"{CASE}.nii.gz")
    report = tmp_path / "m.json"
    assert run(evaluate, "-p", tmp_path / "predicted", "-g", tree, "-o", report) == 0
    scores = json.loads(report.read_text())["cases"][CASE]
    assert scores["dice"] == 1.0


def test_two_masks_that_could_be_meant_are_named(download):
    other = download / "301.000000-Segmentation-8"
    shutil.copytree(download / "300.000000-Segmentation-9", other)
    refer_to(other / "1-1.dcm", series_of(download / "1.000000-PET AC-1"))
    (study,) = find_studies(download.parents[1])
    assert study.seg is None
    assert "2 masks of its PET" in study.no_seg
    assert str(other / "1-1.dcm") in study.no_seg
    # One that was drawn on the CT gives way.
    refer_to(other / "1-1.dcm", series_of(download / "3.000000-CT-3"))
    (study,) = find_studies(download.parents[1])
    assert study.seg == download / "300.000000-Segmentation-9" / "1-1.dcm"


def test_a_mask_that_names_no_series_is_that_of_its_study(download):
    seg = download / "300.000000-Segmentation-9" / "1-1.dcm"
    refer_to(seg, None)
    (study,) = find_studies(download.parents[1])
    assert (study.seg, study.series) == (seg, None)


def test_a_mask_without_its_pet_is_a_problem(download):
    for name in ("1.000000-PET AC-1", "2.000000-PET PSF-2"):
        shutil.rmtree(download / name)
    ((path, reason),) = scan_tree(download.parents[1]).problems
    assert path.name == "1-1.dcm"
    assert "refers to a PET series that is not in the folder" in reason


def test_two_studies_in_one_folder_are_two_cases(tmp_path, write_pet):
    for name in "ab":
        study = {"StudyInstanceUID": generate_uid(), "PatientID": f"X{name}"}
        folder = write_pet(tmp_path / name, **study)
        pet = read_dicom_pet(folder)
        (tmp_path / "tree").mkdir(exist_ok=True)
        write_dicom_seg(pet.suv.array > 5, pet, tmp_path / "tree" / f"{name}_seg.dcm")
        for path in folder.iterdir():
            path.rename(tmp_path / "tree" / f"{name}_{path.name}")
    found = scan_tree(tmp_path / "tree")
    assert len({study.case for study in found.studies}) == 2
    assert sorted(study.patient for study in found.studies) == ["Xa", "Xb"]
    assert found.grouping.question == ""
    by_name = {study.seg.name[0]: study.series for study in found.studies}
    headers = {path.name[0]: pydicom.dcmread(path) for path in (tmp_path / "tree").glob("*_IM*")}
    assert by_name == {name: header.SeriesInstanceUID for name, header in headers.items()}


def test_dicom_beside_the_volumes_made_of_it_is_no_second_study(tmp_path, write_pet):
    tree = tmp_path / "tree"
    write_pet(tree / "P1" / "2001-01-01" / "dicom", PatientID="X1")
    write_pet(tree / "P2" / "2001-01-01" / "dicom", PatientID="X2")
    nifti = tree / "P1" / "2001-01-01" / "nifti"
    nifti.mkdir()
    for name in ("SUV.nii.gz", "SEG.nii.gz"):
        (nifti / name).touch()
    found = scan_tree(tree)
    assert [(s.suv.name, s.seg is None) for s in found.studies] == [
        ("SUV.nii.gz", False),
        ("dicom", True),
    ]
    assert re.search("1 DICOM study without lesion mask .*P1", found.warnings[0])


def test_the_line_of_an_empty_folder_says_what_would_do(tmp_path):
    with pytest.raises(MipError, match="no study found") as caught:
        scan_tree(tmp_path)
    for word in ("SUV.nii.gz", "SEG.nii.gz", "DICOM SEG or RTSTRUCT", "imagesTr"):
        assert word in str(caught.value)


@pytest.mark.parametrize("patients", [1, 2])
def test_masks_are_named_as_the_conversion_names_the_studies(patients, tmp_path, write_series):
    tree = tmp_path / "tree"
    for number in range(patients):
        study = tree / f"PETCT_{number}" / f"01-01-2001-NA-PET CT-1234{number}"
        uid = generate_uid()
        write_series(study / "PET_AC", StudyInstanceUID=uid)
    jobs = find_jobs(tree, tmp_path / "out")
    for study in list(tree.glob("*/*")):
        # Its content does not matter for the name.
        (study / "SEG.nii.gz").write_bytes(b"")
    assert [job.case for job in jobs] == [study.case for study in find_studies(tree)]
    assert jobs[0].case == "PETCT_0_01-01-2001_12340"
