"""PET series of a DICOM study as a SUV volume, and its CT in HU on the same grid."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.conventions import AIR_HU
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.choice import Choice, choose_ct, choose_pet, named_series, pet_series
from nnunetv2_mip.io.dicom.find_series import Series, find_series, sort_slices
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.dicom.pixels import read_values
from nnunetv2_mip.io.dicom.series import Slices
from nnunetv2_mip.io.dicom.suv import suv_factors
from nnunetv2_mip.io.resampling import resample_to_grid
from nnunetv2_mip.io.volumes import Volume, without_negative
from nnunetv2_mip.wording import counted

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class DicomStudy:
    """The series of one study that are read, as one scan of its folder found them.

    Attributes:
        folder: holds the study.
        pet: its PET series.
        ct: the CT series of the same study and frame of reference with the most slices (usable
            ones first), or None.
        options: what the user says of it.
        warnings, ct_warnings: lines for the user about the choice of the PET, and of the CT.
    """

    folder: Path
    pet: Series
    ct: Series | None
    options: DicomOptions = FROM_HEADERS
    warnings: tuple[str, ...] = ()
    ct_warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class DicomPet:
    """A PET series as SUV, and the headers that a DICOM object refers to.

    Attributes:
        suv: SUV (body weight), float32; its path is the folder.
        study: the series it was made from, and its CT.
        files: one a slice, in the order of the slice axis of `suv.grid`.
        headers: pydicom data sets of these files without pixels, in the same order.
        warnings: lines for the user.
    """

    suv: Volume
    study: DicomStudy
    files: tuple[Path, ...]
    headers: tuple["Dataset", ...]
    warnings: tuple[str, ...]


def find_dicom_study(folder: Path | str, options: DicomOptions = FROM_HEADERS) -> DicomStudy:
    """The one study in a folder (searched with the folders in it).

    Of several PET series one is chosen (see `choice`). Other series and other files in the folder
    do not matter.

    Args:
        folder: holds one study.
        options: what the user says of the study.

    Raises:
        MipError: pydicom is not installed; no PET series, or several that could be meant.
    """
    folder = Path(folder)
    found = find_series(folder)
    pets = pet_series(found, folder)
    if options.series:
        named = named_series(pets, folder, options.series)
        if len(named) > 1:
            raise MipError(f"{folder}: --series names {len(named)} series; one is read here")
        return _study_of(Choice(named[0]), found, folder, options)
    if len({item.study_uid for item in pets}) > 1:
        there = "; ".join(item.describe() for item in pets)
        raise MipError(
            f"{folder}: holds PET series of several studies; give the folder of one, or name the "
            f"series with --series UID: {there}"
        )
    return _study_of(choose_pet(pets, folder), found, folder, options)


def find_dicom_studies(
    folder: Path | str, options: DicomOptions = FROM_HEADERS
) -> list[DicomStudy]:
    """All studies with a PET series in a folder, each with the folder that its PET lies in.

    Args:
        folder, options: as of `find_dicom_study`; `series` leaves the others out, and may name
            several of one study.

    Raises:
        MipError: as `find_dicom_study`, of one of the studies; a weight, dose or injection of
            several studies.
    """
    folder = Path(folder)
    found = find_series(folder)
    pets = pet_series(found, folder)
    if options.series:
        chosen = [Choice(item) for item in named_series(pets, folder, options.series)]
    else:
        studies = sorted({item.study_uid for item in pets})
        chosen = [
            choose_pet([item for item in pets if item.study_uid == uid], folder) for uid in studies
        ]
    options.require_one_study(len({choice.series.study_uid for choice in chosen}), folder)
    if len(chosen) == 1:
        return [_study_of(chosen[0], found, folder, options)]
    return [
        _study_of(
            choice,
            found,
            Path(os.path.commonpath([path.parent for path in choice.series.files])),
            options,
        )
        for choice in chosen
    ]


def _study_of(
    choice: Choice, found: Sequence[Series], folder: Path, options: DicomOptions
) -> DicomStudy:
    pet = choice.series
    fitting = [
        item
        for item in found
        if item.modality == "CT"
        and item.is_volume
        and item.study_uid == pet.study_uid
        and item.frame_uid == pet.frame_uid
    ]
    ct = choose_ct(fitting, folder)
    if ct is None:
        return DicomStudy(folder, pet, None, options, choice.warnings)
    return DicomStudy(folder, pet, ct.series, options, choice.warnings, ct.warnings)


def read_dicom_pet(
    source: DicomStudy | Path | str, options: DicomOptions = FROM_HEADERS
) -> DicomPet:
    """SUV by body weight of the PET series of a study.

    Args:
        source: series that were found, or a folder to be searched.
        options: as of `find_dicom_study`, of a folder.

    Raises:
        MipError: as `find_dicom_study`, of a folder; missing or doubled slices; a tag that SUV
            needs is missing (names file and tag).
    """
    study = source if isinstance(source, DicomStudy) else find_dicom_study(source, options)
    folder, chosen = study.folder, study.pet
    slices = sort_slices(chosen)
    warnings = (*study.warnings, *slices.warnings, *_incomplete(slices))
    # The factors first: a missing tag is found before the pixels are read.
    factors, more = suv_factors(slices, study.options)
    array = read_values(slices)
    array *= factors.astype(np.float32)[:, None, None]
    # Some reconstructions leave small negative values in air; no ray and no lesion has them.
    array, told = without_negative(array, folder, float(array.min()))
    if not array.max() > 0:
        raise MipError(f"{folder}: the PET series {chosen.describe()} is empty (no value above 0)")
    suv = np.ascontiguousarray(slices.grid.to_canonical(array))
    volume = Volume(suv, slices.grid, folder)
    return DicomPet(volume, study, slices.files, slices.headers, (*warnings, *more, *told))


def _incomplete(slices: Slices) -> list[str]:
    """A line when the header promises more slices (some at an end are not seen by the gaps)."""
    try:
        promised = int(slices.headers[0].get("NumberOfSlices") or 0)
    except (TypeError, ValueError):
        return []
    if promised <= len(slices.files):
        return []
    return [
        f"{slices.files[0]}: its series has {counted(promised, 'slice')} by its header, "
        f"{len(slices.files)} "
        "are there; was it copied whole?"
    ]


def read_dicom_ct(pet: DicomPet) -> Volume | None:
    """The CT that belongs to a PET series, in HU on the grid of the PET (linear, air outside).

    Returns:
        float32 volume on `pet.suv.grid`, or None where the study has no such CT.

    Raises:
        MipError: the CT cannot be stacked or decoded (see `io.dicom.series`).
    """
    series = pet.study.ct
    if series is None:
        return None
    slices = sort_slices(series)
    hounsfield = slices.grid.to_canonical(read_values(slices))
    ct = Volume(hounsfield, slices.grid, pet.study.folder)
    return resample_to_grid(ct, pet.suv.grid, AIR_HU)
