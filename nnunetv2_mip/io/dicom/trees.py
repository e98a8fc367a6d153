"""DICOM studies in a tree of folders: PET, and the masks (SEG, RTSTRUCT) that refer to it.

Needs pydicom, as `io.dicom.series`.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import cannot_read
from nnunetv2_mip.io.dicom.series import import_pydicom

MASK_MODALITIES = ("SEG", "RTSTRUCT")
_TAGS = ("StudyInstanceUID", "SeriesInstanceUID", "Modality")


@dataclass(frozen=True)
class DicomTreeStudy:
    """DICOM study with PET.

    Attributes:
        uid: StudyInstanceUID.
        folder: holds its images and masks, or its PET alone where other studies lie there too.
        pet_folder: holds the PET files, or those of `series`.
        pet_file: one of them.
        masks: SEG and RTSTRUCT files that can be meant as its lesion mask.
        series: SeriesInstanceUID of the PET that these refer to, if they name one, else None.
    """

    uid: str
    folder: Path
    pet_folder: Path
    pet_file: Path
    masks: tuple[Path, ...]
    series: str | None = None


@dataclass
class _Found:
    """Files of a study by what they are."""

    pet: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    others: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    series: list[str] = field(default_factory=list)


def dicom_studies(files: Iterable[Path], problems: list[tuple[Path, str]]) -> list[DicomTreeStudy]:
    """Studies with PET among DICOM files, by StudyInstanceUID.

    A mask belongs to the study whose PET series it refers to, else to the study that it is of.

    Args:
        files: DICOM files.
        problems: receives (file, reason) of files that cannot be read, and of masks without PET.

    Raises:
        MipError: pydicom is not installed.
    """
    studies: dict[str, _Found] = defaultdict(_Found)
    masks: list[tuple[Path, str]] = []
    for path in files:
        header = _header(path, _TAGS, problems)
        if header is None:
            continue
        uid, modality = str(header.get("StudyInstanceUID", "")), str(header.get("Modality", ""))
        if modality == "PT":
            studies[uid].pet[str(header.get("SeriesInstanceUID", ""))].append(path)
        elif modality in MASK_MODALITIES:
            masks.append((path, uid))
        else:
            studies[uid].others.append(path)
    _assign_masks(masks, studies, problems)
    with_pet = {uid: found for uid, found in studies.items() if found.pet}
    pet_files = {uid: [p for s in found.pet.values() for p in s] for uid, found in with_pet.items()}
    found_studies = []
    for uid, found in with_pet.items():
        series = found.series[0] if len(found.series) == 1 else None
        pet_folder = _common_folder(pet_files[uid] if series is None else found.pet[series])
        whole = _common_folder([*pet_files[uid], *found.others, *found.masks])
        shared = any(
            path.is_relative_to(whole)
            for other, paths in pet_files.items()
            if other != uid
            for path in paths[:1]
        )
        found_studies.append(
            DicomTreeStudy(
                uid=uid,
                folder=pet_folder if shared else whole,
                pet_folder=pet_folder,
                pet_file=pet_files[uid][0],
                masks=tuple(found.masks),
                series=series,
            )
        )
    return found_studies


def patient_id_of(path: Path) -> str:
    """PatientID of a DICOM file; empty where it has none, or cannot be read."""
    try:
        header = _header(path, ("PatientID",), [])
    except MipError:
        # Without pydicom the folders are all there is.
        return ""
    with warnings.catch_warnings():
        # Values that are longer than DICOM allows are identities all the same.
        warnings.simplefilter("ignore")
        return "" if header is None else str(header.get("PatientID") or "").strip()


def _assign_masks(
    masks: Sequence[tuple[Path, str]],
    studies: dict[str, _Found],
    problems: list[tuple[Path, str]],
) -> None:
    """Add each mask to the study of its PET; those of another series give way to those of PET."""
    if not masks:
        return
    from nnunetv2_mip.io.dicom.masks import mask_reference

    study_of_pet = {series: uid for uid, found in studies.items() for series in found.pet}
    indirect: dict[str, list[Path]] = defaultdict(list)
    for path, own in masks:
        try:
            _, series, study = mask_reference(path)
        except MipError as error:
            problems.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        named = [uid for uid in series if uid in study_of_pet]
        home = next((uid for uid in (own, study) if uid in studies and studies[uid].pet), None)
        if named:
            found = studies[study_of_pet[named[0]]]
            found.masks.append(path)
            found.series += [uid for uid in named if uid not in found.series]
        elif home is not None:
            indirect[home].append(path)
        else:
            problems.append((path, "refers to a PET series that is not in the folder; add it"))
    for uid, found in studies.items():
        found.masks = found.masks or indirect[uid]


def _common_folder(files: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in files]))


def _header(path: Path, tags: Sequence[str], problems: list[tuple[Path, str]]) -> Any | None:
    """Data set of these tags; None, with its problem, where the file cannot be read."""
    pydicom = import_pydicom()
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(tags))
    except OSError as error:
        problems.append((path, cannot_read(error)))
    except Exception as error:  # pydicom raises many kinds on a damaged file
        problems.append((path, f"cannot be read as DICOM (damaged?): {error}"))
    return None
