"""DICOM objects of a predicted mask: SEG, RTSTRUCT and SR, in files beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.frame_references import refer_to_frames
from nnunetv2_mip.io.dicom.measurement_report import measurement_report
from nnunetv2_mip.io.dicom.options import DICOM_OBJECTS
from nnunetv2_mip.io.dicom.pet import DicomPet
from nnunetv2_mip.io.dicom.rtstruct import rtstruct
from nnunetv2_mip.io.dicom.seg import dicom_seg, import_highdicom, save_object
from nnunetv2_mip.io.dicom.source_headers import source_headers

# Kind of object → what is added to the name of the mask.
ENDINGS = {"seg": ".dcm", "rtstruct": "_rtstruct.dcm", "sr": "_sr.dcm"}


def require_libraries(kinds: Sequence[str]) -> None:
    """Raise MipError where a library for these objects is missing: before the work, not after."""
    if set(kinds) & {"seg", "sr"}:
        import_highdicom()


def object_paths(folder: Path, case: str, kinds: Sequence[str]) -> dict[str, Path]:
    """Kind → file of the objects of a case; an SR brings the SEG that it refers to."""
    wanted = {*kinds, "seg"} if "sr" in kinds else set(kinds)
    return {kind: folder / f"{case}{ENDINGS[kind]}" for kind in DICOM_OBJECTS if kind in wanted}


def write_dicom_objects(
    numbers: np.ndarray,
    rows: Sequence[Mapping],
    pet: DicomPet,
    paths: Mapping[str, Path],
) -> tuple[str, ...]:
    """Write the objects of a mask.

    With an SR each lesion is a segment of the SEG, to which its measurements refer. Else the SEG
    has one segment.

    Args:
        numbers: (z, y, x) number of the lesion at each voxel, 0 outside; canonical axes.
        rows: of the lesion table; row n is lesion n + 1.
        pet: the series of the mask, from `read_dicom_pet`.
        paths: from `object_paths`.

    Returns:
        Lines for the user.

    Raises:
        MipError: a library is missing, or the series lacks what an object must refer to.
    """
    sources = source_headers(pet)
    objects: dict[str, Any] = {}
    if "seg" in paths:
        objects["seg"] = dicom_seg(numbers, pet, sources, len(rows) if "sr" in paths else None)
    try:
        if "rtstruct" in paths:
            objects["rtstruct"] = rtstruct(numbers, rows, pet, sources)
        if "sr" in paths:
            objects["sr"] = measurement_report(rows, objects["seg"], sources)
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise MipError(
            f"{pet.files[0]}: no RTSTRUCT or SR can refer to this series: {reason}"
        ) from None
    for kind, data in objects.items():
        refer_to_frames(data, sources.frames)
        save_object(data, paths[kind])
    return sources.warnings
