"""PET/CT studies of a folder: autoPET's TCIA tree and the nnU-Net-style release."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import files_below
from nnunetv2_mip.io.dicom.choice import options_of_folders
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.dicom.series import dicom_files

SUV_NAME, CT_NAME, SEG_NAME = "SUV.nii.gz", "CTres.nii.gz", "SEG.nii.gz"
# Of nnU-Net data sets.
IMAGES_FOLDER, LABELS_FOLDER = "imagesTr", "labelsTr"
_TCIA_STUDY = re.compile(r"^(\d{2}-\d{2}-\d{4}|\d{4}-\d{2}-\d{2})\b.*-(\d+)$")


class NoStudy(MipError):
    """Error: a folder without a study of either layout."""


@dataclass(frozen=True)
class StudyFiles:
    """Files of one study; `ct` and `seg` are None where absent.

    Attributes:
        case: name of the case, safe for nnU-Net.
        patient: all studies of one patient share this.
        options: of `suv`, where that is a folder with DICOM.
    """

    case: str
    patient: str
    suv: Path
    ct: Path | None
    seg: Path | None
    options: DicomOptions = FROM_HEADERS


@dataclass(frozen=True)
class StudyTree:
    """Studies of a folder.

    Attributes:
        layout: `tcia` or `nnunet`.
        studies: in a fixed order (by case name).
        problems: (folder or file, reason) of each incomplete study.
        warnings: lines for the user.
    """

    layout: str
    studies: tuple[StudyFiles, ...]
    problems: tuple[tuple[Path, str], ...]
    warnings: tuple[str, ...] = ()


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


def find_studies(tree: Path | str) -> list[StudyFiles]:
    """Studies of a folder in either layout (see `scan_tree`)."""
    return list(scan_tree(tree).studies)


def scan_tree(tree: Path | str) -> StudyTree:
    """Layout and studies of a folder.

    - TCIA: `PETCT_<id>/<study with spaces>/{SUV,CTres,SEG}.nii.gz`, at any depth; instead of
      SUV.nii.gz the study's folder may hold its DICOM series (`suv` is then that folder);
    - nnU-Net-style release (autoPET III): `imagesTr/<tracer>_<patient>_<date>_0000.nii.gz` (CT)
      and `_0001.nii.gz` (SUV), `labelsTr/<…>.nii.gz`.

    Raises:
        MipError: no such folder, or no study in it (then `NoStudy`).
    """
    tree = Path(tree)
    if not tree.is_dir():
        reason = "is a file, a folder is needed" if tree.exists() else "no such folder"
        raise MipError(f"{tree}: {reason}")
    found = _scan_nnunet(tree) if (tree / IMAGES_FOLDER).is_dir() else _scan_tcia(tree)
    if not found.studies and not found.problems:
        raise NoStudy(
            f"{tree}: no study found; expected PETCT_*/<study>/{SUV_NAME} (TCIA) or "
            "imagesTr/<case>_0000.nii.gz and _0001.nii.gz with labelsTr (nnU-Net style)"
        )
    twice = [case for case, count in Counter(s.case for s in found.studies).items() if count > 1]
    if twice:
        raise MipError(f"{tree}: two studies get the same case name {twice[0]}; rename one")
    return found


def case_name(patient: str, study: str) -> str:
    """nnU-Net case name of a patient's and a study's folder (spaces, dots, … removed).

    `PETCT_0011f3deaf`, `03-23-2003-NA-PET-CT Ganzkoerper  primaer mit KM-04689` →
    `PETCT_0011f3deaf_03-23-2003_04689`.
    """
    match = _TCIA_STUDY.match(study)
    short = "_".join(match.groups()) if match else study
    name = re.sub(r"[^A-Za-z0-9-]+", "_", f"{patient}_{short}" if patient else short)
    return name.strip("_")


def _scan_tcia(tree: Path) -> StudyTree:
    # Folder names matter here, and "." has none.
    tree = tree.resolve()
    studies, problems, lone = [], [], []
    known = {SUV_NAME, CT_NAME, SEG_NAME}
    folders = {
        path.parent
        for path in files_below(tree)
        if path.name in known or path.name.lower() in {"suv.nii.gz", "seg.nii.gz"}
    }
    for folder in sorted(folders):
        suv, ct, seg = (folder / name for name in (SUV_NAME, CT_NAME, SEG_NAME))
        names = {path.name for path in folder.iterdir()}
        if SUV_NAME not in names and next(dicom_files(folder), None):
            suv = folder
        elif SUV_NAME not in names:
            near = [name for name in sorted(names) if name.lower() == SUV_NAME.lower()]
            hint = f"rename {near[0]}" if near else "add it (or the DICOM series of the study)"
            problems.append((suv, f"no such file; {hint}"))
            continue
        inside = folder != tree and (folder.parent != tree or tree.name.startswith("PETCT_"))
        if not inside and folder != tree and not folder.name.startswith("PETCT_"):
            lone.append(folder.name)
        # A PETCT_* folder above is the patient, however deep the study lies in it.
        above = [p for p in folder.parents if p.name.startswith("PETCT_")]
        above = [p for p in above if p == tree or tree in p.parents]
        home = above[0] if above else folder.parent
        patient = home.name if inside else folder.name
        study = "_".join(folder.relative_to(home).parts)
        studies.append(
            StudyFiles(
                case=case_name(patient if inside else "", study),
                patient=patient,
                suv=suv,
                ct=ct if ct.name in names else None,
                seg=seg if seg.name in names else None,
            )
        )
    warnings: tuple[str, ...] = ()
    if lone:
        warnings = (
            f"{tree}: {len(lone)} studies (first: {lone[0]}) lie in no patient folder; "
            "each counts as a patient of its own",
        )
    ordered = tuple(sorted(studies, key=lambda study: study.case))
    return StudyTree("tcia", ordered, tuple(problems), warnings)


def _scan_nnunet(tree: Path) -> StudyTree:
    images, labels = tree / IMAGES_FOLDER, tree / LABELS_FOLDER
    studies, problems, unnamed = [], [], []
    names = {path.name for path in images.glob("*.nii.gz")}
    raw_cases = sorted({re.sub(r"_\d{4}\.nii\.gz$", "", name) for name in names})
    for raw in raw_cases:
        if raw in names:
            problems.append((images / raw, "has no channel number (_0000 CT, _0001 SUV)"))
            continue
        suv, ct, seg = (
            images / f"{raw}_0001.nii.gz",
            images / f"{raw}_0000.nii.gz",
            labels / f"{raw}.nii.gz",
        )
        if suv.name not in names:
            problems.append((suv, "no such file; the SUV is channel 0001, the CT channel 0000"))
            continue
        # <tracer>_<patient>_<study>: the first two parts are one patient.
        parts = raw.split("_", 2)
        patient = "_".join(parts[:2]) if len(parts) == 3 else raw
        if len(parts) != 3:
            unnamed.append(raw)
        studies.append(
            StudyFiles(
                case=case_name(patient, parts[2]) if len(parts) == 3 else case_name("", raw),
                patient=patient,
                suv=suv,
                ct=ct if ct.name in names else None,
                seg=seg if seg.is_file() else None,
            )
        )
    warnings: tuple[str, ...] = ()
    if unnamed:
        warnings = (
            f"{images}: {len(unnamed)} cases (first: {unnamed[0]}) are not named "
            "<tracer>_<patient>_<study>; each counts as a patient of its own",
        )
    ordered = tuple(sorted(studies, key=lambda study: study.case))
    return StudyTree("nnunet", ordered, tuple(problems), warnings)
