"""Inputs of a prediction: the images, stacks, volumes and DICOM studies of a path."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import archives_hint
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.folder_layout import FolderContent, Layout, recognise
from nnunetv2_mip.io.png import PNG_SUFFIX
from nnunetv2_mip.io.study_layouts import (
    NoStudy,
    StudyTree,
    folder_cases,
    scan_tree,
    with_dicom_options,
)
from nnunetv2_mip.io.volumes import check_written, has_suffix
from nnunetv2_mip.views.stack_files import FILE_ENDING, case_of_channel_file, is_stack_file

if TYPE_CHECKING:
    from nnunetv2_mip.io.dicom.pet import DicomStudy

# Kinds of `Job` that are projected on views.
VOLUMES = ("volume", "dicom")
# Folder of the masks of inputs that are listed without an output; nothing is written there.
_NO_OUTPUT = Path(".no_output_of_nnunetv2_mip")


@dataclass(frozen=True)
class Job:
    """One input and the file of its mask.

    Attributes:
        kind: `png`, `stack`, `volume` or `dicom`.
        case: name of the case.
        source: file to read; of `dicom` the folder.
        target: file to write.
        dicom: of `dicom` the series that were found, else None.
        ct: of `volume` the CT on the same grid, or None.
        clicks: of `volume` the file of a reader's clicks, or None.
        original: path of the study in its tree, where `case` lacks letters of it.
        options: of `volume`, where `source` is a folder with DICOM.
    """

    kind: str
    case: str
    source: Path
    target: Path
    dicom: "DicomStudy | None" = None
    ct: Path | None = None
    clicks: Path | None = None
    original: str | None = None
    options: DicomOptions = FROM_HEADERS


def find_jobs(
    source: Path | str,
    output: Path | str,
    options: DicomOptions = FROM_HEADERS,
    ct: Path | str | None = None,
    clicks: Path | str | None = None,
) -> list[Job]:
    """Inputs of a path, each with the file of its mask.

    Args:
        source: a PNG, a folder of PNGs, a stack, a SUV volume (NIfTI, MHA, NRRD), a folder of
            stacks or volumes, an autoPET tree, or a folder with DICOM PET (one study or more).
        output: a file where the input is one file and `output` has its kind of suffix, else a
            folder.
        options: of DICOM; `series` leaves the others out.
        ct: CT on the grid of a single SUV volume; the studies of a tree have their own.
        clicks: file of a reader's clicks (see `clicks`) on a single SUV volume.

    Raises:
        MipError: nothing that can be predicted, a study without SUV, or a mask that would replace
            an input or another mask.
    """
    jobs = _chosen_jobs(Path(source), Path(output), options, ct, clicks)
    sources = {job.source.resolve() for job in jobs}
    sources |= {job.ct.resolve() for job in jobs if job.ct is not None}
    targets: dict[Path, Job] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in sources:
            raise MipError(f"{job.target}: is an input and would be replaced; choose another -o")
        if target in targets:
            raise MipError(
                f"{job.source}: would get the same mask file as {targets[target].source}; "
                "rename one (channels of one case: the model takes one, give that alone)"
            )
        targets[target] = job
    return jobs


def find_inputs(
    source: Path | str,
    options: DicomOptions = FROM_HEADERS,
    ct: Path | str | None = None,
    clicks: Path | str | None = None,
) -> list[Job]:
    """Inputs of a path of which nothing is to be written: their `target` is of no use.

    Args:
        source, options, ct, clicks: as of `find_jobs`.

    Raises:
        MipError: nothing that can be predicted, or a study without SUV.
    """
    return _chosen_jobs(Path(source), _NO_OUTPUT, options, ct, clicks)


def _chosen_jobs(
    source: Path,
    output: Path,
    options: DicomOptions,
    ct: Path | str | None,
    clicks: Path | str | None,
) -> list[Job]:
    """Jobs with what the user chose for them."""
    jobs = _list_jobs(source, output, options)
    if not any(job.kind == "dicom" or job.source.is_dir() for job in jobs):
        options.require_dicom(source)
    for option, path in (("ct", ct), ("clicks", clicks)):
        if path is None:
            continue
        if len(jobs) != 1 or jobs[0].kind != "volume":
            raise MipError(f"--{option} {path}: belongs to a single SUV volume; {source} is none")
        change: dict[str, Any] = {option: Path(path)}
        jobs = [replace(jobs[0], **change)]
    return jobs


def _list_jobs(source: Path, output: Path, options: DicomOptions) -> list[Job]:
    if source.is_file():
        return [_file_job(source, output)]
    if not source.is_dir():
        raise MipError(f"{source}: no such file or folder")
    if output.is_file() or has_suffix(output, (PNG_SUFFIX, *VOLUME_SUFFIXES)):
        raise MipError(f"{output}: the input is a folder, so -o must be one too")
    content = recognise(source)
    pngs, volumes = content.pngs, content.volumes
    if pngs and volumes:
        raise MipError(f"{source}: holds PNGs and volumes; put them into folders of their own")
    if (pngs or volumes) and content.holds_dicom(recursive=False):
        kind = "PNGs" if pngs else "volumes"
        raise MipError(f"{source}: holds {kind} and DICOM; put them into folders of their own")
    if content.layout is Layout.FILES:
        return [_file_job(path, output) for path in (*pngs, *volumes)]
    found = _scan_studies(content)
    if found is None:
        return _dicom_jobs(source, output, options)
    for path, reason in found.problems:
        raise MipError(f"{path}: {reason}")
    found = with_dicom_options(found, options, source)
    return [
        Job(
            "volume",
            study.case,
            study.suv,
            output / f"{study.case}{FILE_ENDING}",
            ct=study.ct,
            original=study.original,
            options=study.options,
        )
        for study in found.studies
    ]


def _scan_studies(content: FolderContent) -> StudyTree | None:
    """Studies of an autoPET tree, or None where the folder holds DICOM instead."""
    try:
        return scan_tree(content.folder, dicom_alone=False)
    except NoStudy:
        if content.holds_dicom():
            return None
        raise MipError(
            f"{content.folder}: holds nothing to predict; expected PNGs (no JPEGs), stacks of "
            "views, SUV volumes (.nii.gz, .mha, .nrrd), an autoPET tree, or DICOM PET"
            + archives_hint(content.folder)
        ) from None


def _dicom_jobs(source: Path, output: Path, options: DicomOptions) -> list[Job]:
    """One job a study, named like the folder, or of several studies like the folder of each."""
    from nnunetv2_mip.io.dicom.pet import find_dicom_studies
    from nnunetv2_mip.io.dicom.seg import SEG_SUFFIX

    if output.resolve() == source.resolve():
        raise MipError(f"{output}: holds the DICOM input; choose another -o")
    if has_suffix(output, (SEG_SUFFIX,)):
        raise MipError(f"{output}: of DICOM come a NIfTI and a SEG file, so -o must be a folder")
    studies = find_dicom_studies(source, options)
    # The folder of a single study is the whole source; the name is that of its PET's folders.
    own = [Path(os.path.commonpath([path.parent for path in s.pet.files])) for s in studies]
    folders = {folder: study.pet.study_uid for folder, study in zip(own, studies)}
    cases = folder_cases(source, list(folders), list(folders.values()))
    of_folder = dict(zip(folders, cases))
    names = _distinct_cases([of_folder[folder][0] for folder in own], studies)
    jobs = []
    for study, folder, case in zip(studies, own, names):
        target, original = output / f"{case}{FILE_ENDING}", of_folder[folder][1]
        jobs.append(Job("dicom", case, study.folder, target, dicom=study, original=original))
    return sorted(jobs, key=lambda job: job.case)


def _distinct_cases(folders: Sequence[str], studies: Sequence["DicomStudy"]) -> list[str]:
    """Names of the cases of DICOM studies, made of their folders.

    Studies of one folder have their date in the name; where that is the same or absent, the UID of
    the series, which never collides.
    """
    names = list(folders)
    for folder, count in Counter(folders).items():
        mine = [index for index, own in enumerate(folders) if own == folder]
        dates = [studies[index].pet.study_date for index in mine]
        is_clear = len(set(dates)) == count and all(dates)
        for index, date in zip(mine, dates):
            if count > 1:
                own = date if is_clear else studies[index].pet.uid.replace(".", "-")
                names[index] = f"{folder}_{own}"
    return names


def _file_job(source: Path, output: Path) -> Job:
    if source.suffix.lower() == PNG_SUFFIX:
        kind, case, ending = "png", source.stem, PNG_SUFFIX
    elif has_suffix(source, VOLUME_SUFFIXES):
        kind = "stack" if is_stack_file(source) else "volume"
        ending = next(s for s in VOLUME_SUFFIXES if source.name.lower().endswith(s))
        case = source.name[: -len(ending)]
        # A header whose voxels lie in another file; answers are one file each.
        ending = ending.replace(".mhd", ".mha")
        if kind == "stack":
            case = case_of_channel_file(source)
    else:
        raise MipError(
            f"{source}: unknown kind of file; PNG, NIfTI, MHA or NRRD is expected "
            "(of a DICOM series give the folder)"
        )
    if kind != "png":
        check_written(output)
    own = (PNG_SUFFIX,) if kind == "png" else VOLUME_SUFFIXES
    is_file = has_suffix(output, own) and not output.is_dir()
    if not is_file and not output.is_dir() and has_suffix(output, (PNG_SUFFIX, *VOLUME_SUFFIXES)):
        raise MipError(f"{output}: the answer to {source.name} is of type {' or '.join(own)}")
    if not is_file and output.is_file():
        raise MipError(f"{output}: is a file of unknown type; -o is a folder, or a {own[0]} file")
    return Job(kind, case, source, output if is_file else output / f"{case}{ending}")
