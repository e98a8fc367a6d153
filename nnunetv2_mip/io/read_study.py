"""A PET study in canonical axes, read once: SUV, CT and lesion mask on one grid."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.masks import is_dicom_file, read_dicom_mask, read_dicom_mask_on
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.dicom.pet import (
    DicomPet,
    DicomStudy,
    read_dicom_ct,
    read_dicom_pet,
)
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.study_layouts import StudyFiles
from nnunetv2_mip.io.volumes import (
    Volume,
    read_mask,
    read_suv,
    read_volume,
    require_same_grid,
    suv_warning,
)
from nnunetv2_mip.parallel import threads_beside


@dataclass(frozen=True)
class Study:
    """A PET study: volumes (z, y, x) in canonical axes on one grid.

    Attributes:
        suv: SUV, float32.
        ct: HU; None where there is none, or it was not asked for.
        seg: lesion mask of 0 and 1, uint8; None likewise.
        warnings: lines for the user.
        dicom: the PET series that the SUV was computed from, for objects that refer to it; None of
            files.
    """

    suv: Volume
    ct: Volume | None = None
    seg: Volume | None = None
    warnings: tuple[str, ...] = ()
    dicom: DicomPet | None = None

    @property
    def grid(self) -> SourceGrid:
        """The grid of the PET as its file has it."""
        return self.suv.grid

    @property
    def lesion_mask(self) -> np.ndarray:
        """Lesion mask (z, y, x) uint8; MipError where the study was read without one."""
        if self.seg is None:
            raise MipError(f"{self.source}: its study has no lesion mask (SEG)")
        return self.seg.array

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(z, y, x) in mm."""
        return self.suv.spacing_mm

    @property
    def source(self) -> Path:
        """The file or folder that the PET was read from."""
        return self.suv.path


def read_study(
    source: Path | str | DicomStudy,
    ct: Path | str | None = None,
    seg: Path | str | None = None,
    *,
    wants_ct: bool = False,
    options: DicomOptions = FROM_HEADERS,
) -> Study:
    """Read a study.

    Args:
        source: SUV volume (NIfTI, MHA, NRRD), a folder with the DICOM series of one study, or
            series that were found already.
        ct: file of the CT on the grid of the PET. Without it, the CT series of a DICOM study is
            resampled to that grid.
        seg: file of the lesion mask on the same grid; read while the PET is. It may be a DICOM SEG
            or RTSTRUCT, of the place of the PET.
        wants_ct: whether the CT is read.
        options: of a folder with DICOM.

    Raises:
        MipError: `options` for a file; as `volumes.read_suv`, `volumes.read_mask` and `read_ct`;
            of DICOM as `io.dicom.pet.find_dicom_study`, `read_dicom_pet` and `read_dicom_ct`.
    """
    if seg is None:
        return _read_images(source, ct, wants_ct, options)
    if is_dicom_file(seg):
        study, lines = _read_images(source, ct, wants_ct, options), list[str]()
        if study.dicom is not None:
            mask = read_dicom_mask(seg, study.dicom, lines.append)
        else:
            mask = read_dicom_mask_on(seg, study.grid, lines.append)
        return replace(study, seg=mask, warnings=(*study.warnings, *lines))
    with threads_beside(1) as beside:
        # Inflating leaves the other cores idle.
        later = beside.submit(read_mask, seg)
        study = _read_images(source, ct, wants_ct, options)
        mask = later.result()
    require_same_grid(mask, study.suv)
    return replace(study, seg=mask, warnings=(*study.warnings, *new_warnings(mask, study.suv)))


def read_study_files(files: StudyFiles, *, wants_ct: bool = False) -> Study:
    """Read a study of a tree: of several DICOM PET series the one that its mask refers to.

    Raises:
        MipError: as `read_study`.
    """
    options = files.options
    if files.series is not None and not options.series:
        options = replace(options, series=(files.series,))
    return read_study(files.suv, files.ct, files.seg, wants_ct=wants_ct, options=options)


def _read_images(
    source: Path | str | DicomStudy, ct: Path | str | None, wants_ct: bool, options: DicomOptions
) -> Study:
    pet: DicomPet | None = None
    lines: tuple[str, ...] = ()
    if isinstance(source, DicomStudy) or Path(source).is_dir():
        pet = read_dicom_pet(source, options)
        suv, lines = pet.suv, pet.warnings
    else:
        options.require_dicom(source)
        suv = read_suv(source)
    unit = suv_warning(suv)
    warnings = (*lines, *suv.warnings, *((unit,) if unit else ()))
    if not wants_ct:
        return Study(suv, warnings=warnings, dicom=pet)
    found: Volume | None = None
    if ct is not None:
        found = read_ct(ct, like=suv)
        warnings = (*warnings, *new_warnings(found, suv))
    elif pet is not None:
        found = read_dicom_ct(pet)
        warnings = (*warnings, *pet.study.ct_warnings)
    return Study(suv, found, warnings=warnings, dicom=pet)


def new_warnings(volume: Volume, other: Volume) -> tuple[str, ...]:
    """Warnings of a volume, without those that another one has too: headers are often alike."""
    known = {line.removeprefix(f"{other.path}: ") for line in other.warnings}
    return tuple(
        line for line in volume.warnings if line.removeprefix(f"{volume.path}: ") not in known
    )


def read_ct(path: Path | str, like: Volume) -> Volume:
    """Read a CT in HU on the grid of a PET.

    Raises:
        MipError: as `volumes.read_volume`; also another grid, or NaN or infinite values.
    """
    return ct_of_volume(read_volume(path), like)


def ct_of_volume(ct: Volume, like: Volume) -> Volume:
    """The volume, after a check that it is a CT on the grid of a PET.

    Raises:
        MipError: another grid, or NaN or infinite values.
    """
    require_same_grid(ct, like)
    if np.issubdtype(ct.array.dtype, np.floating) and not np.isfinite(ct.array).all():
        raise MipError(
            f"{ct.path}: contains NaN or infinite values; a CT must be finite everywhere"
        )
    return ct
