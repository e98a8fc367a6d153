"""Patients of studies: by folders, by DICOM headers, by what the user says."""

from pathlib import Path

import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.folder_words import Kind, kind_of, patient_in_name
from nnunetv2_mip.io.patients import ONE_PATIENT, ONE_STUDY_PER_PATIENT, PatientOptions
from nnunetv2_mip.io.study_layouts import scan_tree


def tree_of(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).mkdir(parents=True)
        for name in ("SUV.nii.gz", "SEG.nii.gz"):
            (folder / path / name).touch()
    return folder


def patients_in(tree: Path, options: PatientOptions | None = None) -> list[str]:
    """Patients in the order of the paths."""
    studies = sorted(scan_tree(tree, options).studies, key=lambda study: study.suv)
    return [study.patient for study in studies]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            Kind.STUDY,
            "2001-01-01|20010101|01.02.2003|2003|baseline|Follow Up 2|ses-01|visit2|scan_b|t1|d28|"
            "C2D1|1.2.840.113654.2.55|03-23-2003-NA-PET-CT Ganzkoerper  primaer mit KM-04689|"
            "first study|Study_20010101_12|post-treatment",
        ),
        (Kind.CONTENT, "PET|PET-CT|suv|pet1|CT 2|NIfTI|dicom|fdg|PSMA|1.000000-PET AC-1"),
        (Kind.CENTRE, "centreA|Center 2|site-01|Hospital_B"),
        (Kind.GROUP, "train|Test|controls|patients|Lung Cancer"),
        (Kind.PATIENT, "P1|P 1|sub-01|PETCT_aa|patient_001|Case 12|pt07"),
        (
            Kind.UNKNOWN,
            "A|Hansen|患者一|0011f3deaf|NSCLC-001|12345|basel|petra|unicorn|clinical|postal",
        ),
    ],
)
def test_names_have_meanings(kind, names):
    for name in names.split("|"):
        assert kind_of(name) is kind, name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("P1_baseline", ("P1", True)),
        ("NSCLC-001_2001-01-01_PET", ("NSCLC-001", True)),
        ("2001-01-01_P1", ("P1", True)),
        ("患者一-visit 2", ("患者一", True)),
        ("P1_1", ("P1", True)),
        ("P1_PET", ("P1", False)),
        ("STS_001", ("STS_001", False)),
        ("patient_001", ("patient_001", False)),
        ("baseline", ("baseline", False)),
    ],
)
def test_names_of_studies_hold_patients(name, expected):
    assert patient_in_name(name) == expected


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ("N-01/2001-01-01/PET N-01/2002-02-02/PET N-02/2003-03-03/PET", "N-01 N-01 N-02"),
        ("P1/baseline/PET P1/followup/PET P2/baseline/PET", "P1 P1 P2"),
        ("sub-01/ses-01/pet sub-01/ses-02/pet sub-02/ses-01/pet", "sub-01 sub-01 sub-02"),
        ("raw/sub-01/ses-01/pet raw/sub-01/ses-02/pet raw/sub-02/pet", "sub-01 sub-01 sub-02"),
        ("centreA/P1/t1 centreA/P1/t2 centreB/P1/t1", "centreA_P1 centreA_P1 centreB_P1"),
        ("Oslo/Hansen/2001 Oslo/Hansen/2002 Oslo/Olsen/2001", "Hansen Hansen Olsen"),
        ("baseline/P1 baseline/P2 followup/P1", "P1 P2 P1"),
        ("fdg/P1/x fdg/P2/x psma/P1/x", "P1 P2 P1"),
        ("P1_baseline P1_followup P2_baseline", "P1 P1 P2"),
        ("train/P1/PET train/P2/2001 train/P2/2002", "P1 P2 P2"),
        ("A/1 A/2 B/1", "A A B"),
        ("baseline/1 followup/1 baseline/2", "1 1 2"),
        ("患者一/初诊 患者二/初诊", "患者一 患者二"),
        ("FDG/PETCT_aa/x PSMA/PETCT_aa/x PSMA/PETCT_bb/x", "PETCT_aa PETCT_aa PETCT_bb"),
        ("centre/PETCT_aa centre/PETCT_bb", "PETCT_aa PETCT_bb"),
        ("Mueller/Staging Mueller/Restaging Schmidt/Staging", "Mueller Mueller Schmidt"),
        ("Hansen/WB4711 Hansen/WB4712 Olsen/WB4713", "Hansen Hansen Olsen"),
    ],
)
def test_the_level_above_the_studies_is_the_patient(tmp_path, paths, expected):
    paths, expected = paths.split(), expected.split()
    tree = tree_of(tmp_path / "tree", *paths)
    found = scan_tree(tree)
    by_path = {s.suv.parent.relative_to(tree).as_posix(): s.patient for s in found.studies}
    assert by_path == dict(zip(paths, expected))
    assert found.grouping.question == ""
    certain = any(mark in paths[0] for mark in ("PETCT_", "sub-"))
    assert bool(found.grouping.line) is not certain


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        ("A B C", "no name says which of them are of one patient"),
        ("STS_001 STS_002", "no name says"),
        ("A/x B/y C/z", "no name says"),
        ("2001-01-01 2002-01-01", "all of one patient (tree;"),
        ("P1/2001-01-01 P1/2002-01-01", "all of one patient (P1;"),
        ("eins/Hansen eins/Olsen zwei/Hansen zwei/Olsen", "either could be the patients"),
        ("A/x A/y A/z B/x", "either could be the patients"),
        ("P1/t1 P1/t2 2001-01-01 2002-01-01", "2 of 4 studies lie in no patient's folder"),
    ],
)
def test_what_no_name_tells_is_asked(tmp_path, paths, reason):
    grouping = scan_tree(tree_of(tmp_path / "tree", *paths.split())).grouping
    assert reason in grouping.question
    assert "--patients" in grouping.question


def test_the_user_says_who_the_patients_are(tmp_path):
    tree = tree_of(tmp_path / "tree", "A/x", "A/y", "B-7/z")
    assert patients_in(tree, PatientOptions(regex=r"/([xy]|z)$")) == ["x", "y", "z"]
    assert patients_in(tree, PatientOptions(regex="^[AB]")) == ["A", "A", "B"]
    one = patients_in(tree, PatientOptions(assume=ONE_PATIENT))
    assert one == ["tree"] * 3
    own = patients_in(tree, PatientOptions(assume=ONE_STUDY_PER_PATIENT))
    assert own == ["A_x", "A_y", "B-7_z"]
    table = tmp_path / "patients.csv"
    # By case or by path, with a byte order mark as Excel writes it.
    table.write_text("\ufeffcase,patient\nA_x,anna\nA/y,bea\nB-7_z,anna\n", "utf-8")
    assert patients_in(tree, PatientOptions(table=table)) == ["anna", "bea", "anna"]
    assert scan_tree(tree, PatientOptions(table=table)).grouping.question == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PatientOptions(regex="("), "no regular expression"),
        (PatientOptions(regex="^(A)"), "finds no patient in B/z"),
        (PatientOptions(table=Path("short.csv")), "names no patient of 1 case: B_z"),
        (PatientOptions(table=Path("two.csv")), "gives A_x to a and to b"),
        (PatientOptions(table=Path("other.csv")), "needs the columns case,patient"),
        (PatientOptions(table=Path("missing.csv")), "no such file"),
    ],
)
def test_answers_that_leave_a_study_out_are_refused(tmp_path, monkeypatch, options, message):
    tree = tree_of(tmp_path / "tree", "A/x", "B/z")
    monkeypatch.chdir(tmp_path)
    Path("short.csv").write_text("case,patient\nA_x,a\nB_z,\n")
    Path("two.csv").write_text("case,patient\nA_x,a\nA_x,b\n")
    Path("other.csv").write_text("study;patient\nA_x;a\n")
    with pytest.raises(MipError, match=message):
        scan_tree(tree, options)


def dicom_tree(folder: Path, **patient_ids: str) -> Path:
    """Studies `<key>` (with / for __) of one header each, with SEG.nii.gz."""
    pydicom = pytest.importorskip("pydicom")
    for number, (path, patient) in enumerate(patient_ids.items()):
        place = folder / path.replace("__", "/")
        place.mkdir(parents=True)
        (place / "SEG.nii.gz").touch()
        header = pydicom.Dataset()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
        header.SOPInstanceUID, header.Modality = f"1.2.{number}", "PT"
        header.StudyInstanceUID = header.SeriesInstanceUID = f"1.3.{number}"
        header.PatientID = patient
        header.save_as(place / "1.dcm", enforce_file_format=True)
    return folder


def test_patient_id_of_the_headers_tells_the_patients(tmp_path):
    tree = dicom_tree(tmp_path / "tree", a="X1", b="X1", c="X2")
    found = scan_tree(tree)
    assert [s.patient for s in found.studies] == ["X1", "X1", "X2"]
    assert (found.grouping.line, found.grouping.question) == ("", "")


def test_headers_join_what_folders_tell_apart_and_folders_what_headers_do(tmp_path):
    tree = dicom_tree(tmp_path / "tree", P1__t1="X1", P1__t2="X2", P2__t1="X3", P3__t1="X3")
    patients = [s.patient for s in scan_tree(tree).studies]
    assert patients[0] == patients[1]
    assert patients[2] == patients[3] == "X3"


def test_one_identity_in_all_headers_tells_nothing(tmp_path):
    found = scan_tree(dicom_tree(tmp_path / "tree", P1__t1="P", P1__t2="P", P2__t1="P"))
    assert [s.patient for s in found.studies] == ["P1", "P1", "P2"]
    assert "PatientID is P in all" in found.grouping.warnings[0]
    assert found.grouping.question == ""
    flat = scan_tree(dicom_tree(tmp_path / "flat", a="P", b="P"))
    assert "no name says" in flat.grouping.question
    anonymous = scan_tree(dicom_tree(tmp_path / "none", a="ANONYMOUS", b="ANONYMOUS"))
    assert "no name says" in anonymous.grouping.question


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_of_any_spreadsheet_is_read(separator, tmp_path):
    table = tmp_path / "patients.csv"
    rows = [("Case", "Patient"), ("a_1", "P1"), ("b_1", "P1")]
    table.write_bytes("\r\n".join(separator.join(row) for row in rows).encode("utf-8-sig"))
    for name in "ab":
        (tmp_path / "tree" / name / "1").mkdir(parents=True)
        (tmp_path / "tree" / name / "1" / "SUV.nii.gz").touch()
    found = scan_tree(tmp_path / "tree", PatientOptions(table=table))
    assert [study.patient for study in found.studies] == ["P1", "P1"]


def test_a_table_with_other_columns_names_them(tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text("study;person\na_1;P1\n")
    (tmp_path / "tree" / "a" / "1").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "1" / "SUV.nii.gz").touch()
    with pytest.raises(MipError, match=r"it has study, person, and 1 row$"):
        scan_tree(tmp_path / "tree", PatientOptions(table=table))
