"""PET/CT studies of a folder: any tree of studies, and autoPET's nnU-Net-style release."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import archives_hint, cannot_read, is_hidden
from nnunetv2_mip.io.case_names import (
    case_name,
    case_name_of_folders,
    distinct_names,
    keeps_letters,
    shortened,
)
from nnunetv2_mip.io.dicom.choice import options_of_folders
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.folder_patients import (
    Owner,
    is_marked,
    owner_in_release,
    owners_by_folders,
)
from nnunetv2_mip.io.folder_words import TCIA_SERIES
from nnunetv2_mip.io.patients import (
    ONE_PATIENT,
    Grouping,
    PatientOptions,
    StudyPlace,
    give_patients,
)
from nnunetv2_mip.io.study_trees import CT_NAME, SEG_NAME, SUV_NAME, FoundStudy, studies_in_tree

__all__ = ["CT_NAME", "SEG_NAME", "SUV_NAME", "case_name"]
# Of nnU-Net data sets.
IMAGES_FOLDER, LABELS_FOLDER = "imagesTr", "labelsTr"
EXPECTED = (
    f"expected <patient>/<study>/{SUV_NAME} with {SEG_NAME} (TCIA: PETCT_*/<study>), a study's "
    f"DICOM PET with {SEG_NAME}, or with the DICOM SEG or RTSTRUCT that refers to it, or "
    f"{IMAGES_FOLDER}/<case>_0000.nii.gz (CT) and _0001.nii.gz (SUV) with {LABELS_FOLDER} "
    "(nnU-Net style)"
)


class NoStudy(MipError):
    """Error: a folder without a study of either layout."""


@dataclass(frozen=True)
class StudyFiles:
    """Files of one study; `ct` and `seg` are None where absent.

    Attributes:
        case: name of the case, safe for nnU-Net.
        patient: all studies of one patient share this.
        suv: SUV volume, or the folder of the DICOM study.
        ct: CT volume on the grid of the SUV.
        seg: lesion mask: a volume, or a DICOM SEG or RTSTRUCT file.
        original: path of the study in its tree, where `case` lacks letters of it.
        no_seg: why `seg` is None where the study has masks.
        series: SeriesInstanceUID of the PET that a DICOM `seg` refers to, or None.
        options: of `suv`, where that is a folder with DICOM.
    """

    case: str
    patient: str
    suv: Path
    ct: Path | None
    seg: Path | None
    original: str | None = None
    no_seg: str | None = None
    series: str | None = None
    options: DicomOptions = FROM_HEADERS

    @property
    def files(self) -> tuple[Path, ...]:
        """Files and folders that are read."""
        return tuple(path for path in (self.suv, self.ct, self.seg) if path is not None)


@dataclass(frozen=True)
class StudyTree:
    """Studies of a folder.

    Attributes:
        layout: `tcia` (a tree of folders) or `nnunet`.
        studies: in a fixed order (by case name).
        problems: (folder or file, reason) of each incomplete study.
        warnings: lines for the user.
        grouping: how the studies were given to patients.
    """

    layout: str
    studies: tuple[StudyFiles, ...]
    problems: tuple[tuple[Path, str], ...]
    warnings: tuple[str, ...] = ()
    grouping: Grouping = field(default_factory=Grouping)


def with_dicom_options(found: StudyTree, options: DicomOptions, tree: Path | str) -> StudyTree:
    """The same studies; those of DICOM are read with these options.

    Raises:
        MipError: options, but no DICOM study; a weight, dose or injection for several studies.
    """
    if not options:
        return found
    series = [study for study in found.studies if study.suv.is_dir()]
    own = options_of_folders(options, [study.suv for study in series], tree)
    return replace(
        found,
        studies=tuple(
            replace(study, options=own[study.suv]) if study.suv in own else study
            for study in found.studies
        ),
    )


def find_studies(tree: Path | str, patients: PatientOptions | None = None) -> list[StudyFiles]:
    """Studies of a folder in either layout (see `scan_tree`)."""
    return list(scan_tree(tree, patients).studies)


def scan_tree(
    tree: Path | str,
    patients: PatientOptions | None = None,
    dicom_alone: bool = True,
    needs_suv: bool = True,
) -> StudyTree:
    """Layout and studies of a folder.

    - a tree, at any depth: `<patient>/<study>/{SUV,CTres,SEG}.nii.gz` (TCIA: `PETCT_<id>`);
      instead of SUV.nii.gz the study's folder may hold its DICOM series, and instead of
      SEG.nii.gz a DICOM SEG or RTSTRUCT (`suv` is then the folder of the study);
    - nnU-Net-style release (autoPET III): `imagesTr/<tracer>_<patient>_<date>_0000.nii.gz` (CT)
      and `_0001.nii.gz` (SUV), `labelsTr/<…>.nii.gz`.

    Args:
        tree: the folder.
        patients: what the user says of the patients.
        dicom_alone: whether a tree without any SUV.nii.gz and SEG.nii.gz is one of studies.
        needs_suv: whether a study of a tree must have its PET; else its lesion mask is enough.

    Raises:
        MipError: no such folder, or no study in it (then `NoStudy`).
    """
    tree = Path(tree)
    if not tree.is_dir():
        reason = "is a file, a folder is needed" if tree.exists() else "no such folder"
        raise MipError(f"{tree}: {reason}")
    patients = patients or PatientOptions()
    if (tree / IMAGES_FOLDER).is_dir():
        found = _scan_nnunet(tree, patients)
    else:
        # Folder names matter here, and "." has none.
        tree = tree.resolve()
        content = studies_in_tree(tree, dicom_alone, needs_suv)
        studies, grouping = _named(tree, content.studies, patients)
        ordered = tuple(sorted(studies, key=lambda study: study.case))
        found = StudyTree("tcia", ordered, content.problems, content.warnings, grouping)
    if not found.studies and not found.problems:
        raise NoStudy(f"{tree}: no study found; {EXPECTED}{archives_hint(tree)}")
    return found


def folder_cases(
    tree: Path, folders: Sequence[Path], uids: Sequence[str]
) -> list[tuple[str, str | None]]:
    """Case names of DICOM studies in a tree, each with the path that the name lacks letters of.

    The rule is that of `scan_tree`. A single study is called like the tree, unless its folders name
    the patient for certain.

    Args:
        tree: the folder that was searched.
        folders: of each study.
        uids: StudyInstanceUID of each study.
    """
    found = [FoundStudy(path.resolve(), path, uid=uid) for path, uid in zip(folders, uids)]
    # The patients do not matter here: no header is read for them.
    studies, _ = _named(tree.resolve(), found, PatientOptions(assume=ONE_PATIENT))
    return [(study.case, study.original) for study in studies]


def _named(
    tree: Path, found: Sequence[FoundStudy], options: PatientOptions
) -> tuple[list[StudyFiles], Grouping]:
    """Studies with the names of their cases and their patients, in the same order."""
    paths = [_parts(tree, study.folder, is_dicom=bool(study.uid)) for study in found]
    owners, doubt = owners_by_folders(paths)
    named = [
        _case_of_path(tree, study, parts, owner, alone=len(found) == 1)
        for study, parts, owner in zip(found, paths, owners)
    ]
    # UIDs tell two studies in one folder apart.
    keys = ["/".join((*parts, study.uid)) for study, parts in zip(found, paths)]
    cases = distinct_names([name for name, _ in named], keys)
    ask_headers = options == PatientOptions()
    places = [
        StudyPlace(
            case, parts, owner, study.patient_id() if ask_headers and not owner.certain else ""
        )
        for study, case, parts, owner in zip(found, cases, paths, owners)
    ]
    patients, grouping = give_patients(places, tree, options, doubt)
    studies = []
    for study, case, (name, folders), parts, patient in zip(found, cases, named, paths, patients):
        exact = case == name and all(map(keeps_letters, folders))
        studies.append(
            StudyFiles(
                case=case,
                patient=patient,
                suv=study.suv,
                ct=study.ct,
                seg=study.seg,
                original=None if exact else "/".join(parts),
                no_seg=study.no_seg,
                series=study.series,
            )
        )
    return studies, grouping


def _scan_nnunet(tree: Path, options: PatientOptions) -> StudyTree:
    images, labels = tree / IMAGES_FOLDER, tree / LABELS_FOLDER
    problems: list[tuple[Path, str]] = []
    names = _names_in(images)
    label_names = _names_in(labels) if labels.is_dir() else set()
    raw_cases = []
    for raw in sorted({re.sub(r"_\d{4}\.nii\.gz$", "", name) for name in names}):
        if raw in names:
            problems.append((images / raw, "has no channel number (_0000 CT, _0001 SUV)"))
        elif f"{raw}_0001.nii.gz" not in names:
            missing = images / f"{raw}_0001.nii.gz"
            problems.append((missing, "no such file; the SUV is channel 0001, the CT channel 0000"))
        else:
            raw_cases.append(raw)
    named = []
    for raw in raw_cases:
        # <tracer>_<patient>_<study>: the first two parts are one patient.
        parts = raw.split("_", 2)
        whole = ["_".join(parts[:2]), parts[2]] if len(parts) == 3 else [raw]
        named.append(case_name_of_folders(whole))
    cases = distinct_names(named, raw_cases)
    places = [
        StudyPlace(case, (raw,), owner_in_release(raw)) for case, raw in zip(cases, raw_cases)
    ]
    patients, grouping = give_patients(places, tree, options)
    orphans = sorted(label_names - {f"{raw}.nii.gz" for raw in raw_cases})
    lines = tuple(f"{labels / name}: is the mask of no image in {images}" for name in orphans)
    studies = []
    for raw, case, name, patient in zip(raw_cases, cases, named, patients):
        suv, ct, seg = f"{raw}_0001.nii.gz", f"{raw}_0000.nii.gz", f"{raw}.nii.gz"
        studies.append(
            StudyFiles(
                case=case,
                patient=patient,
                suv=images / suv,
                ct=images / ct if ct in names else None,
                seg=labels / seg if seg in label_names else None,
                original=None if case == name and keeps_letters(raw) else raw,
            )
        )
    ordered = tuple(sorted(studies, key=lambda study: study.case))
    return StudyTree("nnunet", ordered, tuple(problems), lines, grouping)


def _names_in(folder: Path) -> set[str]:
    """Names of the NIfTI files in a folder.

    Raises:
        MipError: it may not be read.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise MipError(f"{folder}: {cannot_read(error)}") from None
    return {name for name in names if name.endswith(".nii.gz") and not is_hidden(name)}


def _parts(tree: Path, folder: Path, is_dicom: bool) -> tuple[str, ...]:
    """Folders of a study below its tree, with the tree where it is itself a patient's or study's.

    The folder of a series of a TCIA download is none of a study.
    """
    parts = folder.relative_to(tree).parts
    if is_dicom:
        # Below the folder of a study lie those of its series, whatever they are called.
        inner = [index for index, part in enumerate(parts) if shortened(part) != part]
        parts = parts[: inner[0] + 1] if inner else parts
    if parts and TCIA_SERIES.match(parts[-1]):
        parts = parts[:-1]
    if not parts or is_marked(tree.name):
        parts = (tree.name, *parts)
    return parts


def _case_of_path(
    tree: Path, study: FoundStudy, parts: tuple[str, ...], owner: Owner, alone: bool
) -> tuple[str, tuple[str, ...]]:
    """Case name of a study, and the folders that it is made of."""
    if not owner.certain:
        if alone and study.uid:
            # One DICOM study: called like the folder that was given.
            parts = (tree.name,)
        return case_name_of_folders(parts), parts
    patient, rest = parts[owner.first], parts[owner.first + 1 :]
    names = (patient, "_".join(rest)) if rest else (patient,)
    return case_name_of_folders(names), names
