"""One door for PET: a SUV file or a DICOM folder, the answer is the same kind of volume."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.volumes import Volume, read_suv, read_volume, require_same_grid


def read_pet(
    path: Path | str,
    series: str | None = None,
    warn: Callable[[str], None] | None = None,
) -> Volume:
    """Read a PET as SUV, (z, y, x) in canonical axes.

    Args:
        path: SUV volume (NIfTI, MHA, NRRD), or a folder with a DICOM PET series.
        series: SeriesInstanceUID where the folder has several PET series.
        warn: called with each line the user should see.

    Raises:
        MipError: as `volumes.read_suv` or `dicom_pet.read_dicom_pet`.
    """
    if not Path(path).is_dir():
        return read_suv(path)
    from nnunetv2_mip.io.dicom.pet import read_dicom_pet

    pet = read_dicom_pet(path, series)
    for line in pet.warnings:
        if warn is not None:
            warn(line)
    return pet.suv


def read_pet_and_ct(
    suv: Path, ct: Path | None, wants_ct: bool, warn: Callable[[str], None]
) -> tuple[Volume, Volume | None]:
    """Read a study: `suv` as `read_pet` takes it, and its CT if wanted.

    The CT is the file `ct`; without one, a DICOM folder is searched for the series. None where
    there is no CT.

    Raises:
        MipError: as `read_pet`, `views.read_ct` or `dicom_pet.read_dicom_ct`.
    """
    if ct is None and wants_ct and suv.is_dir():
        from nnunetv2_mip.io.dicom.pet import read_dicom_ct, read_dicom_pet

        pet = read_dicom_pet(suv)
        for line in pet.warnings:
            warn(line)
        return pet.suv, read_dicom_ct(suv, pet)
    volume = read_pet(suv, warn=warn)
    return volume, read_ct(ct, like=volume) if wants_ct and ct is not None else None


def read_ct(path: Path | str, like: Volume) -> Volume:
    """Read a CT in HU on the grid of a PET.

    Raises:
        MipError: as `volumes.read_volume`; also another grid, or NaN or infinite values.
    """
    ct = read_volume(path)
    require_same_grid(ct, like)
    if np.issubdtype(ct.array.dtype, np.floating) and not np.isfinite(ct.array).all():
        raise MipError(f"{path}: contains NaN or infinite values; a CT must be finite everywhere")
    return ct
