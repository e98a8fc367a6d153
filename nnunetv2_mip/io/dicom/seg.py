"""DICOM segmentation (SEG) of lesions, which refers to its PET series.

Needs highdicom, which the `dicom` extra installs; it is imported when it is used.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import nnunetv2_mip
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.io.dicom.frame_references import refer_to_frames
from nnunetv2_mip.io.dicom.pet import DicomPet
from nnunetv2_mip.io.dicom.source_headers import SourceHeaders, quiet_pydicom, source_headers

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

SEG_SUFFIX = ".dcm"
SEGMENT_LABEL = "Lesion"
# Far above the numbers of scanners, so that viewers list the SEG after the images.
_SERIES_NUMBER = 9001


def import_highdicom() -> Any:
    """Module highdicom; MipError with the remedy where it is not installed."""
    try:
        import highdicom
    except ImportError:
        raise MipError(
            'DICOM SEG needs highdicom, which is not installed: pip install "nnunetv2-mip[dicom]"'
        ) from None
    return highdicom


def new_instance(series_number: int) -> dict[str, Any]:
    """UIDs and equipment of a new object, alone in its series, as highdicom's classes take them."""
    highdicom = import_highdicom()
    return {
        "series_instance_uid": highdicom.UID(),
        "series_number": series_number,
        "sop_instance_uid": highdicom.UID(),
        "instance_number": 1,
        "manufacturer": "nnunetv2_mip",
        "manufacturer_model_name": "nnunetv2_mip",
        "software_versions": nnunetv2_mip.__version__,
        "device_serial_number": "1",
    }


def write_dicom_seg(mask: np.ndarray, pet: DicomPet, path: Path | str) -> tuple[str, ...]:
    """Write a mask as DICOM SEG of one segment (see `dicom_seg`).

    Args:
        mask: (z, y, x), canonical axes, not 0 is lesion; shape of `pet.suv`.
        pet: the series of the mask, from `read_dicom_pet`.
        path: file to write, whole or not at all.

    Returns:
        Lines for the user.

    Raises:
        MipError, ValueError: as `dicom_seg`.
    """
    import_highdicom()
    sources = source_headers(pet)
    seg = dicom_seg(mask != 0, pet, sources)
    refer_to_frames(seg, sources.frames)
    save_object(seg, path)
    return sources.warnings


def dicom_seg(
    numbers: np.ndarray, pet: DicomPet, sources: SourceHeaders, segments: int | None = None
) -> "Segmentation":
    """DICOM SEG of lesions: binary segments, coded as neoplasm, found by an algorithm.

    An empty mask gives a SEG with all its frames, all zero: it shows that nothing was found.

    Args:
        numbers: (z, y, x), canonical axes, not 0 is lesion; shape of `pet.suv`.
        pet: the series of the mask, from `read_dicom_pet`.
        sources: its headers (`source_headers`).
        segments: how many lesions `numbers` counts, to be one segment each; None or 0: one segment
            of all.

    Raises:
        MipError: highdicom is not installed, or the series lacks what a SEG must refer to.
        ValueError: `numbers` has another shape than the series.
    """
    if numbers.shape != pet.suv.array.shape:
        raise ValueError(f"mask {numbers.shape} does not lie on the series {pet.suv.array.shape}")
    highdicom = import_highdicom()
    labels = [f"{SEGMENT_LABEL} {n}" for n in range(1, segments + 1)] if segments else []
    wanted = numbers if labels else numbers != 0
    kind = np.uint16 if len(labels) > 255 else np.uint8
    frames = np.ascontiguousarray(pet.suv.grid.from_canonical(wanted)).astype(kind)
    try:
        # highdicom warns of an empty mask.
        with quiet_pydicom():
            return highdicom.seg.Segmentation(
                source_images=sources.slices,
                pixel_array=frames,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    _segment(number, label)
                    for number, label in enumerate(labels or [SEGMENT_LABEL], start=1)
                ],
                **new_instance(_SERIES_NUMBER),
                content_label="LESION",
                content_description="Tumour mask from rotating MIPs",
                series_description="Tumour mask (MIP)",
                omit_empty_frames=bool(frames.any()),
            )
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise MipError(
            f"{pet.files[0]}: no DICOM SEG can refer to this series: {' '.join(str(error).split())}"
        ) from None


def _segment(number: int, label: str) -> Any:
    """Description of a segment."""
    highdicom = import_highdicom()
    from pydicom.sr.codedict import codes

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="nnunetv2_mip",
            version=nnunetv2_mip.__version__,
            family=codes.DCM.ArtificialIntelligence,
        ),
        tracking_uid=highdicom.UID(),
        tracking_id=label,
    )


def save_object(data: Any, path: Path | str) -> None:
    """Write a DICOM object, whole or not at all; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with quiet_pydicom(), atomic_path(path) as partial:
        data.save_as(partial, enforce_file_format=True)
