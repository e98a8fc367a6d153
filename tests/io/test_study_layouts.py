"""Finding studies: both layouts, names, patients, and what only looks like a study."""

import errno
import os
from pathlib import Path

import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.study_layouts import case_name, find_studies, scan_tree

FIRST = "03-23-2003-NA-PET-CT Ganzkoerper  primaer mit KM-04689"
SECOND = "11-09-2004-NA-PET-CT Ganzkoerper  primaer mit KM-11223"


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def study(folder: Path, names=("SUV.nii.gz", "CTres.nii.gz", "SEG.nii.gz")) -> Path:
    touch(*(folder / name for name in names))
    return folder


@pytest.mark.parametrize(
    ("patient", "name", "expected"),
    [
        ("PETCT_0011f3deaf", FIRST, "PETCT_0011f3deaf_03-23-2003_04689"),
        ("psma_95b833d65be26d2f", "2018-04-16", "psma_95b833d65be26d2f_2018-04-16"),
        ("PETCT_a", "first scan (2)", "PETCT_a_first_scan_2"),
        ("", "only.study", "only_study"),
    ],
)
def test_case_names_are_short_and_safe(patient, name, expected):
    assert case_name(patient, name) == expected
    assert "__" not in expected


def test_tcia_tree_with_spaces_and_several_studies_of_a_patient(tmp_path):
    one = study(tmp_path / "PETCT_aa" / FIRST)
    two = study(tmp_path / "PETCT_aa" / SECOND, ("SUV.nii.gz", "SEG.nii.gz"))
    three = study(tmp_path / "PETCT_bb" / FIRST, ("SUV.nii.gz",))
    found = scan_tree(tmp_path)
    assert (found.layout, found.problems, found.warnings) == ("tcia", (), ())
    assert [(s.case, s.patient) for s in found.studies] == [
        ("PETCT_aa_03-23-2003_04689", "PETCT_aa"),
        ("PETCT_aa_11-09-2004_11223", "PETCT_aa"),
        ("PETCT_bb_03-23-2003_04689", "PETCT_bb"),
    ]
    assert [s.suv for s in found.studies] == [p / "SUV.nii.gz" for p in (one, two, three)]
    assert [s.ct is None for s in found.studies] == [False, True, True]
    assert [s.seg is None for s in found.studies] == [False, False, True]


def test_the_patient_folder_and_the_study_folder_can_be_named_too(tmp_path, monkeypatch):
    folder = study(tmp_path / "PETCT_aa" / FIRST)
    (whole,) = find_studies(tmp_path)
    (patient,) = find_studies(tmp_path / "PETCT_aa")
    assert (patient.case, patient.patient) == (whole.case, whole.patient)
    monkeypatch.chdir(folder)
    (here,) = find_studies(".")
    assert here.case == "03-23-2003_04689"
    assert here.suv.samefile(whole.suv)


def test_a_petct_folder_is_the_patient_however_deep_the_study_lies(tmp_path):
    study(tmp_path / "FDG" / "PETCT_aa" / "one" / "nifti")
    study(tmp_path / "FDG" / "PETCT_aa" / "two" / "nifti")
    study(tmp_path / "FDG" / "PETCT_bb" / "one" / "nifti")
    found = find_studies(tmp_path)
    assert [s.patient for s in found] == ["PETCT_aa", "PETCT_aa", "PETCT_bb"]
    assert [s.case for s in found] == ["PETCT_aa_one_nifti", "PETCT_aa_two_nifti"] + [
        "PETCT_bb_one_nifti"
    ]


def test_studies_without_a_patient_folder_are_asked_about(tmp_path):
    study(tmp_path / "Hansen")
    study(tmp_path / "Olsen")
    found = scan_tree(tmp_path)
    assert [(s.case, s.patient) for s in found.studies] == [
        ("Hansen", "Hansen"),
        ("Olsen", "Olsen"),
    ]
    assert found.grouping.line.startswith("2 studies of 2 patients, by the names of the folders")
    assert "--assume_one_study_per_patient" in found.grouping.question
    with pytest.raises(MipError, match="no name says which of them are of one patient"):
        found.grouping.require_answer()


def test_a_study_without_its_suv_is_a_problem_not_a_study(tmp_path):
    study(tmp_path / "PETCT_aa" / "good")
    study(tmp_path / "PETCT_aa" / "small letters", ("suv.nii.gz", "SEG.nii.gz"))
    study(tmp_path / "PETCT_bb" / "bare", ("CTres.nii.gz",))
    found = scan_tree(tmp_path)
    assert [s.case for s in found.studies] == ["PETCT_aa_good"]
    (small, small_reason), (bare, bare_reason) = found.problems
    assert small == tmp_path / "PETCT_aa" / "small letters" / "SUV.nii.gz"
    assert "rename suv.nii.gz" in small_reason
    assert bare == tmp_path / "PETCT_bb" / "bare" / "SUV.nii.gz"
    assert "no such file" in bare_reason


def test_nnunet_style_release(tmp_path):
    images, labels = tmp_path / "imagesTr", tmp_path / "labelsTr"
    raws = [f"fdg_0011f3deaf_{FIRST}", f"fdg_0011f3deaf_{SECOND}", "psma_95b8_2018-04-16"]
    for raw in raws:
        touch(images / f"{raw}_0000.nii.gz", images / f"{raw}_0001.nii.gz")
    touch(labels / f"{raws[0]}.nii.gz")
    found = scan_tree(tmp_path)
    assert (found.layout, found.problems, found.warnings) == ("nnunet", (), ())
    assert [(s.case, s.patient) for s in found.studies] == [
        ("fdg_0011f3deaf_03-23-2003_04689", "fdg_0011f3deaf"),
        ("fdg_0011f3deaf_11-09-2004_11223", "fdg_0011f3deaf"),
        ("psma_95b8_2018-04-16", "psma_95b8"),
    ]
    first = found.studies[0]
    assert first.suv.name.endswith("_0001.nii.gz")
    assert first.ct.name.endswith("_0000.nii.gz")
    assert first.seg == labels / f"{raws[0]}.nii.gz"
    assert found.studies[1].seg is None


def test_nnunet_style_names_that_cannot_be_used(tmp_path):
    images = tmp_path / "imagesTr"
    touch(images / "fdg_a_1_0000.nii.gz", images / "fdg_b_1.nii.gz", images / "lone_0001.nii.gz")
    found = scan_tree(tmp_path)
    assert [path for path, _ in found.problems] == [
        images / "fdg_a_1_0001.nii.gz",
        images / "fdg_b_1.nii.gz",
    ]
    assert "SUV is channel 0001" in found.problems[0][1]
    assert "no channel number" in found.problems[1][1]
    assert [(s.case, s.patient) for s in found.studies] == [("lone", "lone")]
    assert found.grouping.question == ""


def test_folders_without_studies_are_refused(tmp_path):
    with pytest.raises(MipError, match="no such folder"):
        scan_tree(tmp_path / "nowhere")
    with pytest.raises(MipError, match="no study found"):
        scan_tree(tmp_path)
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(MipError, match="no study found"):
        scan_tree(tmp_path)


def test_studies_whose_names_are_cleaned_to_one_get_a_hash_each(tmp_path):
    study(tmp_path / "PETCT_aa" / "scan 1")
    study(tmp_path / "PETCT_aa" / "scan.1")
    study(tmp_path / "PETCT_aa" / "scan 2")
    found = find_studies(tmp_path)
    assert len({s.case for s in found}) == 3
    assert all(s.case.startswith("PETCT_aa_scan_1_") for s in found[:2])
    assert {s.original for s in found[:2]} == {"PETCT_aa/scan 1", "PETCT_aa/scan.1"}
    # A name that is like no other stays as it was.
    assert (found[2].case, found[2].original) == ("PETCT_aa_scan_2", None)


def test_hidden_files_are_no_studies_and_hidden_folders_are_said(tmp_path):
    study(tmp_path / "PETCT_aa" / "one")
    study(tmp_path / ".trash" / "PETCT_aa" / "two")
    touch(tmp_path / "PETCT_aa" / "one" / "._SUV.nii.gz", tmp_path / ".DS_Store")
    found = scan_tree(tmp_path)
    assert [s.case for s in found.studies] == ["PETCT_aa_one"]
    assert f"{tmp_path / '.trash'}: is hidden" in found.warnings[0]
    # The one that is named is read.
    assert [s.case for s in find_studies(tmp_path / ".trash")] == ["PETCT_aa_two"]


def test_hidden_files_of_a_release_are_no_cases(tmp_path):
    for raw in ("fdg_a_2001-01-01", "fdg_b_2001-01-01"):
        touch(
            tmp_path / "imagesTr" / f"{raw}_0001.nii.gz",
            tmp_path / "imagesTr" / f"._{raw}_0001.nii.gz",
            tmp_path / "labelsTr" / f"{raw}.nii.gz",
            tmp_path / "labelsTr" / f"._{raw}.nii.gz",
        )
    found = scan_tree(tmp_path)
    assert found.problems == ()
    assert [s.case for s in found.studies] == ["fdg_a_2001-01-01", "fdg_b_2001-01-01"]


def test_a_folder_that_may_not_be_read_is_a_problem(tmp_path, monkeypatch):
    study(tmp_path / "PETCT_aa" / "one")
    denied = study(tmp_path / "PETCT_bb" / "two")
    scandir = os.scandir

    def refusing(path):
        if Path(path) == denied:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    # Root may read everything, so the system's answer is imitated.
    monkeypatch.setattr(os, "scandir", refusing)
    found = scan_tree(tmp_path)
    assert [s.case for s in found.studies] == ["PETCT_aa_one"]
    ((path, reason),) = found.problems
    assert path == denied
    assert "permission denied" in reason


def test_a_mask_of_no_image_in_a_release_is_told(tmp_path):
    touch(
        tmp_path / "imagesTr" / "fdg_a_2001-01-01_0001.nii.gz",
        tmp_path / "labelsTr" / "fdg_a_2001-01-01.nii.gz",
        tmp_path / "labelsTr" / "fdg_b_2001-01-01.nii.gz",
    )
    found = scan_tree(tmp_path)
    assert [study.case for study in found.studies] == ["fdg_a_2001-01-01"]
    (line,) = found.warnings
    assert "fdg_b_2001-01-01.nii.gz: is the mask of no image" in line


def test_derivatives_of_a_bids_tree_are_no_studies_and_said(tmp_path):
    for place in ("sub-1/ses-1/pet", "sub-2/ses-1/pet", "derivatives/suv/sub-1/ses-1/pet"):
        study(tmp_path / place)
    found = scan_tree(tmp_path)
    assert len(found.studies) == 2
    assert any("derivatives: BIDS derivatives, 3 files left out" in w for w in found.warnings)
    # Alone they are what was asked for.
    assert len(scan_tree(tmp_path / "derivatives").studies) == 1


def test_a_zip_in_a_tree_is_named(tmp_path):
    (tmp_path / "PETCT_1.zip").write_bytes(b"PK\3\4")
    with pytest.raises(MipError, match=r"there is PETCT_1\.zip: unpack it"):
        scan_tree(tmp_path)
