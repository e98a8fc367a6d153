"""Studies in a tree of folders: NIfTI volumes, DICOM series beside them, and DICOM alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import files_below
from nnunetv2_mip.io.dicom.series import dicom_files
from nnunetv2_mip.io.dicom.trees import DicomTreeStudy, dicom_studies, patient_id_of
from nnunetv2_mip.io.folder_words import Kind, kind_of
from nnunetv2_mip.wording import counted

SUV_NAME, CT_NAME, SEG_NAME = "SUV.nii.gz", "CTres.nii.gz", "SEG.nii.gz"
_SMALL_NAMES = (SUV_NAME.lower(), SEG_NAME.lower())
# Copies of files and of data sets' histories; no studies.
_NO_DATA = (".git", ".datalad", ".svn", ".dvc")


@dataclass(frozen=True)
class FoundStudy:
    """Study in a tree.

    Attributes:
        folder: its place in the tree.
        suv: SUV volume, or the folder of the DICOM study.
        ct, seg: files, or None.
        uid: StudyInstanceUID of a study of DICOM files alone, else empty.
        dicom: DICOM file of the study, or None.
        no_seg: why `seg` is None where the study has masks.
        series: SeriesInstanceUID of the PET that `seg` refers to, or None.
    """

    folder: Path
    suv: Path
    ct: Path | None = None
    seg: Path | None = None
    uid: str = ""
    dicom: Path | None = None
    no_seg: str | None = None
    series: str | None = None

    def patient_id(self) -> str:
        """PatientID of the DICOM files in the study's folder; empty where there are none."""
        file = self.dicom
        if file is None:
            file = next(dicom_files(self.folder), None)
        return "" if file is None else patient_id_of(file)


@dataclass(frozen=True)
class TreeContent:
    """Content of a tree: studies, and what is said of the rest (see `study_layouts.StudyTree`)."""

    studies: tuple[FoundStudy, ...]
    problems: tuple[tuple[Path, str], ...]
    warnings: tuple[str, ...]


def studies_in_tree(tree: Path, dicom_alone: bool = True, needs_suv: bool = True) -> TreeContent:
    """Studies of a tree that exists.

    Args:
        tree: absolute path.
        dicom_alone: whether a tree of DICOM files without any of the named volumes is looked at.
        needs_suv: whether a study without PET is a problem; else its lesion mask is enough.
    """
    problems: list[tuple[Path, str]] = []
    hidden: list[Path] = []
    files = list(files_below(tree, problems, hidden))
    problems = [(path, f"{reason}; the studies in it are not known") for path, reason in problems]
    files, derived = _without_derivatives(tree, files)
    warnings = [*_hidden_studies(hidden), *derived]
    folders = _study_folders(files)
    studies = []
    for folder in sorted(folders):
        study, problem = _volume_study(folder, needs_suv)
        if study is not None:
            studies.append(study)
        if problem is not None:
            problems.append(problem)
    if folders or dicom_alone:
        found = dicom_studies(_dicom_outside(files, folders), problems)
        alone, same = _apart(found, folders, tree)
        studies += [_dicom_study(study) for study in alone]
        if same:
            warnings.append(
                f"{tree}: {counted(len(same), 'DICOM study')} without lesion mask (first: "
                f"{same[0].folder}), beside the folders of {SUV_NAME}, taken for the same studies"
            )
    return TreeContent(tuple(studies), tuple(problems), tuple(warnings))


def _without_derivatives(tree: Path, files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Files outside of BIDS's folders of results, and a line about those within.

    `derivatives` beside the `sub-…` folders holds further copies of their studies.
    """
    kept: list[Path] = []
    left: dict[Path, int] = {}
    in_bids: dict[Path, bool] = {}
    for path in files:
        named = (p for p in path.parents if p.name == "derivatives" and tree in p.parents)
        inner = next(named, None)
        if inner is not None and inner not in in_bids:
            in_bids[inner] = any(p.is_dir() for p in inner.parent.glob("sub-*"))
        if inner is not None and in_bids[inner]:
            left[inner] = left.get(inner, 0) + 1
        else:
            kept.append(path)
    return kept, [
        f"{folder}: BIDS derivatives, {counted(n, 'file')} left out" for folder, n in left.items()
    ]


def _study_folders(files: Sequence[Path]) -> set[Path]:
    known = {SUV_NAME, CT_NAME, SEG_NAME}
    return {p.parent for p in files if p.name in known or p.name.lower() in _SMALL_NAMES}


def _volume_study(
    folder: Path, needs_suv: bool
) -> tuple[FoundStudy | None, tuple[Path, str] | None]:
    """Study of a folder with one of the named volumes, or its problem."""
    names = {path.name for path in folder.iterdir()}
    suv, ct, seg = (folder / name for name in (SUV_NAME, CT_NAME, SEG_NAME))
    dicom = None
    if SUV_NAME not in names and not needs_suv:
        if SEG_NAME not in names:
            return None, None
    elif SUV_NAME not in names:
        try:
            dicom = next(dicom_files(folder), None)
        except MipError as error:
            return None, (folder, str(error).removeprefix(f"{folder}: "))
        if dicom is None:
            near = [name for name in sorted(names) if name.lower() == SUV_NAME.lower()]
            hint = f"rename {near[0]}" if near else "add it (or the DICOM series of the study)"
            return None, (suv, f"no such file; {hint}")
        suv = folder
    study = FoundStudy(
        folder=folder,
        suv=suv,
        ct=ct if CT_NAME in names else None,
        seg=seg if SEG_NAME in names else None,
        dicom=dicom,
    )
    return study, None


def _dicom_outside(files: Sequence[Path], folders: set[Path]) -> Iterator[Path]:
    """DICOM files that lie in no study's folder."""
    last, inside = None, False
    for path in files:
        if path.parent != last:
            last = path.parent
            inside = any(above in folders for above in (last, *last.parents))
            if not inside:
                yield from dicom_files(last, recursive=False)


def _apart(
    found: Sequence[DicomTreeStudy], folders: set[Path], tree: Path
) -> tuple[list[DicomTreeStudy], list[DicomTreeStudy]]:
    """DICOM studies of their own, and those that are the source of volumes beside them.

    `P1/dicom` beside `P1/nifti` is the same study in another format.
    """
    alone: list[DicomTreeStudy] = []
    same: list[DicomTreeStudy] = []
    for study in found:
        beside = False
        for folder in folders:
            common = [p for p in study.folder.parents if p in folder.parents]
            if not common or study.masks:
                continue
            branches = [path.relative_to(common[0]).parts[0] for path in (study.folder, folder)]
            beside = beside or all(kind_of(name) is Kind.CONTENT for name in branches)
        (same if beside else alone).append(study)
    return alone, same


def _dicom_study(study: DicomTreeStudy) -> FoundStudy:
    no_seg = None
    if len(study.masks) > 1:
        names = ", ".join(str(path) for path in study.masks)
        no_seg = (
            f"holds {len(study.masks)} masks of its PET that could be meant ({names}); leave the "
            "one with the lesions"
        )
    return FoundStudy(
        folder=study.pet_folder,
        suv=study.folder,
        seg=study.masks[0] if len(study.masks) == 1 else None,
        uid=study.uid,
        dicom=study.pet_file,
        no_seg=no_seg,
        series=study.series,
    )


def _hidden_studies(hidden: Sequence[Path]) -> Iterator[str]:
    """Lines about hidden folders with studies, which are left out."""
    for folder in hidden:
        if folder.name in _NO_DATA:
            continue
        files = files_below(folder, unreadable=[])
        if any(path.name in (SUV_NAME, SEG_NAME) for path in files):
            yield f"{folder}: is hidden, so its studies are left out; name it with -i, or rename it"
