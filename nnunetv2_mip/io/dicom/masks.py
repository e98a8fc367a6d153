"""Lesion masks in DICOM objects: SEG and RTSTRUCT, on the grid of a PET."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.pet import DicomPet
from nnunetv2_mip.io.dicom.read_rtstruct import rtstruct_mask
from nnunetv2_mip.io.dicom.read_seg import seg_mask
from nnunetv2_mip.io.dicom.series import import_pydicom
from nnunetv2_mip.io.dicom.source_headers import quiet_pydicom
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

MASK_MODALITIES = ("SEG", "RTSTRUCT")
DICOM_SUFFIX = ".dcm"


class MaskReference(NamedTuple):
    """What a DICOM object says of the images that it was drawn on.

    Attributes:
        modality: `SEG` or `RTSTRUCT`; of other files theirs.
        series: SeriesInstanceUIDs that it refers to; empty where it names none.
        study: its StudyInstanceUID.
    """

    modality: str
    series: tuple[str, ...]
    study: str


def is_dicom_file(path: Path | str) -> bool:
    """Whether a file is DICOM, by its name or its first bytes: then a mask is SEG or RTSTRUCT."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM" or path.suffix.lower() == DICOM_SUFFIX
    except OSError:
        return False


def mask_reference(path: Path | str) -> MaskReference:
    """Modality of a DICOM object, the series that it refers to, and its study.

    Raises:
        MipError: the file cannot be read as DICOM.
    """
    path = Path(path)
    with quiet_pydicom():
        data = _read(path, pixels=False)
        return MaskReference(
            str(data.get("Modality") or ""),
            tuple(dict.fromkeys(_referenced_series(data))),
            str(data.get("StudyInstanceUID") or ""),
        )


def read_dicom_mask(
    path: Path | str, pet: DicomPet, warn: Callable[[str], None] | None = None
) -> Volume:
    """Lesion mask of a SEG or RTSTRUCT on the grid of a PET series.

    Args:
        path: the file.
        pet: series that the mask belongs to.
        warn: gets lines for the user.

    Returns:
        0 and 1, uint8; `grid` is that of the PET.

    Raises:
        MipError: the file cannot be read, holds no lesions by name, or lies elsewhere than the PET.
    """
    path = Path(path)
    with quiet_pydicom():
        data = _read(path)
        _require_same_place(data, path, pet)
        mask = _mask(data, pet.suv.grid, path, warn, pet)
    return Volume(mask, pet.suv.grid, path)


def read_dicom_mask_on(
    path: Path | str, grid: SourceGrid, warn: Callable[[str], None] | None = None
) -> Volume:
    """Lesion mask of a SEG or RTSTRUCT on the grid of a volume that is no DICOM.

    Args:
        path: the file.
        grid: in the same patient coordinates; a file that is no DICOM cannot say so.
        warn: gets lines for the user.

    Raises:
        MipError: as `read_dicom_mask`.
    """
    path = Path(path)
    with quiet_pydicom():
        return Volume(_mask(_read(path), grid, path, warn), grid, path)


def _mask(
    data: "Dataset",
    grid: SourceGrid,
    path: Path,
    warn: Callable[[str], None] | None,
    pet: DicomPet | None = None,
) -> np.ndarray:
    modality, tell = str(data.get("Modality") or "no modality"), warn or (lambda line: None)
    if modality == "SEG":
        return seg_mask(data, grid, path, tell, pet)
    if modality == "RTSTRUCT":
        return rtstruct_mask(data, grid, path, tell)
    raise MipError(f"{path}: is DICOM of modality {modality}; a mask is SEG or RTSTRUCT")


def _read(path: Path, pixels: bool = True) -> "Dataset":
    pydicom = import_pydicom()
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if not path.is_file():
        raise MipError(f"{path}: no such file")
    try:
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    except Exception:  # no meta information, or a damaged one: reading the file gives the error
        syntax = None
    # It may be of any size unpacked, and pydicom sets no limit.
    if syntax == DeflatedExplicitVRLittleEndian:
        raise MipError(
            f"{path}: is compressed as a whole (Deflated Explicit VR), which is not read: convert "
            "it, for example with dcmconv +te"
        )
    try:
        data = pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)
        # Without it, any file passes for an empty data set.
        if not data.get("SOPClassUID"):
            raise ValueError("no SOP Class UID")
        return data
    except Exception as error:  # pydicom raises many kinds on a damaged file
        raise MipError(f"{path}: cannot be read as DICOM (damaged?): {error}") from None


def _referenced_series(data: "Dataset") -> Iterator[str]:
    """SeriesInstanceUIDs that a SEG or RTSTRUCT names."""
    others = data.get("StudiesContainingOtherReferencedInstancesSequence") or []
    for holder in (data, *others):
        for item in holder.get("ReferencedSeriesSequence") or []:
            yield str(item.get("SeriesInstanceUID") or "")
    for frame in data.get("ReferencedFrameOfReferenceSequence") or []:
        yield from _series_of_frame(frame)


def _series_of_frame(frame: "Dataset") -> Iterator[str]:
    """SeriesInstanceUIDs that an RTSTRUCT names in one frame of reference."""
    for study in frame.get("RTReferencedStudySequence") or []:
        for item in study.get("RTReferencedSeriesSequence") or []:
            yield str(item.get("SeriesInstanceUID") or "")


def _frames_of_reference(data: "Dataset") -> set[str]:
    """FrameOfReferenceUIDs in which a SEG, or the ROIs of an RTSTRUCT, lie."""
    rois = data.get("StructureSetROISequence") or []
    found = {str(item.get("ReferencedFrameOfReferenceUID") or "") for item in rois} - {""}
    return found or {str(data.get("FrameOfReferenceUID") or "")} - {""}


def _require_same_place(data: "Dataset", path: Path, pet: DicomPet) -> None:
    """Raise MipError where a mask lies in another frame of reference than the PET."""
    series, frames = pet.study.pet, _frames_of_reference(data)
    named = series.uid in _referenced_series(data)
    fitting = {series.frame_uid}
    for item in data.get("ReferencedFrameOfReferenceSequence") or []:
        if series.uid in _series_of_frame(item):
            fitting.add(str(item.get("FrameOfReferenceUID") or ""))
    is_rtstruct = "StructureSetROISequence" in data
    if frames and series.frame_uid and not (named and not is_rtstruct):
        if not frames <= fitting:
            raise MipError(
                f"{path}: lies in another frame of reference than the PET series "
                f"{series.describe()} and does not refer to it; is it of another study?"
            )
        return
    study = str(data.get("StudyInstanceUID") or "")
    if not named and study and series.study_uid and study != series.study_uid:
        raise MipError(
            f"{path}: names no frame of reference, and is of another study than the PET series "
            f"{series.describe()}"
        )
