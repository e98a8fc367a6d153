"""Random trees of studies: patients stay together, names are distinct, nothing is dropped."""

import re
import unicodedata
from pathlib import Path

import pydicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunetv2_mip.files import is_hidden
from nnunetv2_mip.io.folder_words import Kind, kind_of, patient_in_name
from nnunetv2_mip.io.study_layouts import StudyTree, scan_tree
from nnunetv2_mip.nnunet.splits import check_splits, patient_grouped_splits

TIMES = ("baseline", "followup", "2001-01-01", "20020202", "ses-03", "visit 4", "t5")
SCRIPTS = "abzXY09éøß-_ .'患者初诊Ждמش한🎉ก"


def is_plain(name: str) -> bool:
    """Whether a name can be a folder, is not hidden, and has no other meaning than itself."""
    fits = bool(name.strip(" ")) and name not in (".", "..") and not is_hidden(name)
    return (
        fits
        and kind_of(name) in (Kind.UNKNOWN, Kind.PATIENT)
        and patient_in_name(name) == (name, False)
        and not name.startswith(("sub-", "PETCT_"))
    )


PLAIN = st.one_of(
    st.text(SCRIPTS, min_size=1, max_size=8),
    st.sampled_from(["P1", "P 1", "P_1", "P-1", "p1", "NSCLC-001", "...", "x" * 120]),
).filter(is_plain)
# A study that is called like a patient cannot be told from one.
STUDIES = PLAIN.filter(lambda name: kind_of(name) is Kind.UNKNOWN)


@st.composite
def trees(draw) -> tuple[dict[tuple[str, ...], str], dict[tuple[str, ...], str]]:
    """Path of each study → patient, and path → PatientID of its DICOM (or none: NIfTI)."""
    layout = draw(
        st.sampled_from(
            ["patient/time", "patient/time/PET", "patient/any", "centre", "time/patient", "bids"]
            + ["tcia", "flat", "one level", "root", "dicom"]
        )
    )
    people = draw(st.lists(PLAIN, min_size=1, max_size=4, unique_by=unicode_key))
    patient_of: dict[tuple[str, ...], str] = {}
    identity: dict[tuple[str, ...], str] = {}
    for number, person in enumerate(people):
        times = draw(st.lists(st.sampled_from(TIMES), min_size=1, max_size=3, unique=True))
        centre = f"centre{'AB'[number % 2]}"
        for index, time in enumerate(times):
            path: tuple[str, ...] = {
                "patient/time": (person, time),
                "patient/time/PET": (person, time, "PET"),
                "patient/any": (person, draw(STUDIES) if layout == "patient/any" else ""),
                "centre": (centre, person, time),
                "time/patient": (time, person),
                "bids": (f"sub-{number:02d}", f"ses-{index}", "pet"),
                "tcia": (f"PETCT_{number:04x}", f"0{index + 1}-01-2001-NA-PET CT-{index}"),
                "flat": (f"P{number}_{time}",),
                "one level": (draw(PLAIN) if layout == "one level" else "",),
                "root": ("data", person, time),
                "dicom": (f"{number}{index}",),
            }[layout]
            patient_of.setdefault(path, f"{centre}/{person}")
            if layout == "dicom":
                identity[path] = f"{number} {person[:20]}"
    return patient_of, identity


def unicode_key(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def make(tree: Path, patient_of: dict, identity: dict) -> None:
    for number, path in enumerate(patient_of):
        folder = tree.joinpath(*path)
        folder.mkdir(parents=True)
        (folder / "SEG.nii.gz").touch()
        (folder / "._SUV.nii.gz").touch()
        if path not in identity:
            (folder / "SUV.nii.gz").touch()
            continue
        header = pydicom.Dataset()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.SpecificCharacterSet = "ISO_IR 192"
        header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.128", f"1.2.{number}"
        header.Modality, header.PatientID = "PT", identity[path]
        header.save_as(folder / "1.dcm", enforce_file_format=True)


def check(found: StudyTree, patient_of: dict, tree: Path) -> None:
    cases = [study.case for study in found.studies]
    assert len(set(cases)) == len(cases)
    assert all(re.fullmatch(r"[A-Za-z0-9-][A-Za-z0-9_-]*", case) for case in cases)
    folders = [s.suv if s.suv.is_dir() else s.suv.parent for s in found.studies]
    assert sorted(folder.relative_to(tree).parts for folder in folders) == sorted(patient_of)
    assert found.problems == ()
    if found.grouping.question:
        return
    given_to: dict[str, str] = {}
    for study, folder in zip(found.studies, folders):
        person = patient_of[folder.relative_to(tree).parts]
        assert given_to.setdefault(person, study.patient) == study.patient
    # So the folds of the data set keep them together too.
    patients = {study.case: study.patient for study in found.studies}
    splits = patient_grouped_splits(patients, dict.fromkeys(patients, True))
    if splits:
        check_splits(splits, patients, cases)


@given(tree=trees())
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_patients_never_cross_folds_and_no_study_is_lost(tree, tmp_path_factory):
    patient_of, identity = tree
    folder = (tmp_path_factory.mktemp("random") / "tree").resolve()
    make(folder, patient_of, identity)
    check(scan_tree(folder), patient_of, folder)
