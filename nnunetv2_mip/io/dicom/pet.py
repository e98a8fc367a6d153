"""DICOM studies in: the PET series of a folder as a SUV volume, its CT on the same grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.series import Series, Slices, find_series, read_values, sort_slices
from nnunetv2_mip.io.dicom.suv import suv_factors
from nnunetv2_mip.io.volumes import Volume, image_on_grid

if TYPE_CHECKING:
    from pydicom import Dataset

AIR_HU = -1000.0


@dataclass(frozen=True)
class DicomPet:
    """A PET series as SUV, and what is needed to refer to it.

    Attributes:
        suv: SUV (body weight), float32; its path is the folder.
        series: the series it was made from.
        files: one a slice, in the order of the slice axis of `suv.grid`.
        headers: pydicom data sets of these files without pixels, in the same order.
        warnings: lines for the user.
    """

    suv: Volume
    series: Series
    files: tuple[Path, ...]
    headers: tuple["Dataset", ...]
    warnings: tuple[str, ...]


def read_dicom_pet(folder: Path | str, series: str | None = None) -> DicomPet:
    """Read the PET series of a folder (searched with the folders in it) as SUV by body weight.

    Of several PET series of one study the attenuation-corrected one with the most slices is
    taken. Other series and other files in the folder do not matter.

    Args:
        folder: holds one study, in one file a slice.
        series: SeriesInstanceUID of the PET series to take.

    Raises:
        MipError: pydicom is not installed; no PET series; several that could be meant; missing
            or doubled slices; a tag that SUV needs is missing (names file and tag).
    """
    folder = Path(folder)
    chosen = choose_pet(find_series(folder), folder, series)
    slices = sort_slices(chosen)
    warnings = _incomplete(slices)
    # The factors first: a missing tag is found before the pixels are read.
    factors, more = suv_factors(slices)
    array = read_values(slices)
    array *= factors.astype(np.float32)[:, None, None]
    # Some reconstructions leave small negative values in air; no ray and no lesion has them.
    np.maximum(array, 0, out=array)
    if not array.max() > 0:
        raise MipError(f"{folder}: the PET series {chosen.describe()} is empty (no value above 0)")
    suv = np.ascontiguousarray(slices.grid.to_canonical(array))
    volume = Volume(suv, slices.grid, folder)
    return DicomPet(volume, chosen, slices.files, slices.headers, (*warnings, *more))


def choose_pet(found: Sequence[Series], folder: Path, series: str | None = None) -> Series:
    """The PET series that is meant (see `read_dicom_pet`).

    Raises:
        MipError: there is none, or several could be meant; names them.
    """
    pets = [item for item in found if item.modality == "PT"]
    if not pets:
        there = ", ".join(sorted({item.modality for item in found})) or "no DICOM series at all"
        raise MipError(f"{folder}: holds no PET series (Modality PT); there is: {there}")
    if series is not None:
        named = [item for item in pets if item.uid == series]
        if not named:
            raise MipError(f"{folder}: has no PET series {series}; there is: {_list(pets)}")
        return named[0]
    if len({item.study_uid for item in pets}) > 1:
        raise MipError(
            f"{folder}: holds PET series of several studies; give the folder of one, or name the "
            f"series: {_list(pets)}"
        )
    pets.sort(key=_suitability, reverse=True)
    if len(pets) > 1 and _suitability(pets[0]) == _suitability(pets[1]):
        like = [item for item in pets if _suitability(item) == _suitability(pets[0])]
        raise MipError(
            f"{folder}: holds {len(like)} PET series that could be meant; give a folder with one "
            f"of them, or name the series: {_list(like)}"
        )
    return pets[0]


def _suitability(item: Series) -> tuple[bool, int]:
    """Attenuation corrected before not, then the longer the better."""
    return "ATTN" in item.corrections, len(item.files)


def _list(items: Sequence[Series]) -> str:
    return "; ".join(item.describe() for item in items)


def _incomplete(slices: Slices) -> list[str]:
    """A line when the header promises more slices (some at an end are not seen by the gaps)."""
    try:
        promised = int(slices.headers[0].get("NumberOfSlices") or 0)
    except (TypeError, ValueError):
        return []
    if promised <= len(slices.files):
        return []
    return [
        f"{slices.files[0]}: its series has {promised} slices by its header, {len(slices.files)} "
        "are there; was it copied whole?"
    ]


def read_dicom_ct(folder: Path | str, pet: DicomPet) -> Volume | None:
    """The CT that belongs to a PET series, in HU on the grid of the PET (linear, air outside).

    The CT series of the same study and frame of reference with the most slices is taken; scouts
    do not count.

    Returns:
        float32 volume on `pet.suv.grid`, or None where the folder has no such CT.

    Raises:
        MipError: the CT cannot be stacked or decoded (see `dicom_series`).
    """
    fitting = [
        item
        for item in find_series(folder)
        if item.modality == "CT"
        and not item.localizer
        and item.study_uid == pet.series.study_uid
        and item.frame_uid == pet.series.frame_uid
        and len(item.files) > 1
    ]
    if not fitting:
        return None
    slices = sort_slices(max(fitting, key=lambda item: len(item.files)))
    hounsfield = slices.grid.to_canonical(read_values(slices))
    target = pet.suv.grid
    resampled = sitk.Resample(
        image_on_grid(hounsfield, slices.grid),
        target.size,
        sitk.Transform(),
        sitk.sitkLinear,
        target.origin,
        target.spacing,
        target.direction,
        AIR_HU,
        sitk.sitkFloat32,
    )
    array = target.to_canonical(sitk.GetArrayFromImage(resampled))
    return Volume(np.ascontiguousarray(array), target, Path(folder))
