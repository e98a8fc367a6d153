"""DICOM segmentation (SEG) of a lesion mask, which refers to its PET series.

Needs highdicom, which the `dicom` extra installs; it is imported when it is used.
"""

from pathlib import Path
from typing import Any

import numpy as np

import nnunetv2_mip
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.io.dicom.pet import DicomPet
from nnunetv2_mip.io.dicom.source_headers import quiet_pydicom, source_headers

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


def write_dicom_seg(mask: np.ndarray, pet: DicomPet, path: Path | str) -> None:
    """Write a mask as DICOM SEG: one binary segment, coded as neoplasm, found by an algorithm.

    An empty mask gives a SEG with all its frames, all zero: it shows that nothing was found.

    Args:
        mask: (z, y, x), canonical axes, not 0 is lesion; shape of `pet.suv`.
        pet: the series of the mask, from `read_dicom_pet`.
        path: file to write, whole or not at all.

    Raises:
        MipError: highdicom is not installed, or the series lacks what a SEG must refer to.
        ValueError: `mask` has another shape than the series.
    """
    if mask.shape != pet.suv.array.shape:
        raise ValueError(f"mask {mask.shape} does not lie on the series {pet.suv.array.shape}")
    highdicom = import_highdicom()
    from pydicom.sr.codedict import codes

    name, version = "nnunetv2_mip", nnunetv2_mip.__version__
    segment = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=SEGMENT_LABEL,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=name, version=version, family=codes.DCM.ArtificialIntelligence
        ),
        tracking_uid=highdicom.UID(),
        tracking_id=SEGMENT_LABEL,
    )
    sources = source_headers(pet)
    frames = np.ascontiguousarray(pet.suv.grid.from_canonical(mask != 0)).astype(np.uint8)
    try:
        # highdicom warns of an empty mask.
        with quiet_pydicom():
            seg = highdicom.seg.Segmentation(
                source_images=sources.slices,
                pixel_array=frames,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[segment],
                series_instance_uid=highdicom.UID(),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer=name,
                manufacturer_model_name=name,
                software_versions=version,
                device_serial_number="1",
                content_label="LESION",
                content_description="Tumour mask from rotating MIPs",
                series_description="Tumour mask (MIP)",
                omit_empty_frames=bool(frames.any()),
            )
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise MipError(
            f"{pet.files[0]}: no DICOM SEG can refer to this series: {' '.join(str(error).split())}"
        ) from None
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        seg.save_as(partial)
