"""One door for PET: a SUV file or a DICOM folder, the answer is the same kind of volume."""

from collections.abc import Callable
from pathlib import Path

from nnunetv2_mip.volumes import Volume, read_suv


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
    from nnunetv2_mip.dicom_pet import read_dicom_pet

    pet = read_dicom_pet(path, series)
    for line in pet.warnings:
        if warn is not None:
            warn(line)
    return pet.suv
