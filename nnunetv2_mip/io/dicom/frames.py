"""Frames of multi-frame DICOM (enhanced and legacy converted PET and CT) as headers of slices.

A multi-frame file keeps what differs from frame to frame in functional groups (PS3.3 C.7.6.16).
They are written into one header a frame, with the tags of single-frame files, so that all later
steps see slices.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.series import values_of

if TYPE_CHECKING:
    from pydicom import Dataset

# Functional groups whose tags are those of a single-frame file.
_FLAT_GROUPS = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
    "FrameContentSequence",
    "PETFrameTypeSequence",
    "CTFrameTypeSequence",
)
_KEPT_GROUPS = ("RealWorldValueMappingSequence",)
_LEFT_OUT = (
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "NumberOfFrames",
    "DimensionIndexSequence",
)
# Tags of enhanced files, and their names in single-frame files.
_RENAMED = {
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
    "FrameAcquisitionDuration": "ActualFrameDuration",
    "FrameType": "ImageType",
}
_CORRECTIONS = {
    "DecayCorrected": "DECY",
    "AttenuationCorrected": "ATTN",
    "ScatterCorrected": "SCAT",
    "DeadTimeCorrected": "DTIM",
    "RandomsCorrected": "RAN",
}
_UNITS = ("BQML", "GML", "CNTS", "CM2ML")
# PS3.16, CID 84; the other kinds of SUV are told by the code itself.
_UNITS_OF_CODES = {"Bq/ml": "BQML", "g/ml{SUVbw}": "GML"}


def is_multiframe(header: "Dataset") -> bool:
    """Whether a file holds frames with functional groups, or more than one frame."""
    return (
        "PerFrameFunctionalGroupsSequence" in header or int(header.get("NumberOfFrames") or 1) > 1
    )


def frame_headers(header: "Dataset", path: Path) -> list["Dataset"]:
    """Headers of all frames of a multi-frame file, with the tags of single-frame files.

    Raises:
        MipError: the frames have no functional groups of their own.
    """
    from pydicom import Dataset

    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    if len(per_frame) != int(header.get("NumberOfFrames") or 1):
        raise MipError(
            f"{path}: is a multi-frame DICOM file without a position for each frame; export the "
            "series as one file a slice"
        )
    common = Dataset()
    left_out = {*_LEFT_OUT}
    for element in header:
        if element.keyword not in left_out:
            common.add(element)
    for group in header.get("SharedFunctionalGroupsSequence") or []:
        _flatten(group, common)
    headers = []
    for group in per_frame:
        frame = Dataset()
        frame.update(common)
        _flatten(group, frame)
        _rename(frame)
        headers.append(frame)
    return headers


def _flatten(groups: "Dataset", frame: "Dataset") -> None:
    """Write the functional groups of one item into the header of a frame."""
    for keyword in _FLAT_GROUPS:
        items = groups.get(keyword) or []
        if items:
            frame.update(items[0])
    for keyword in _KEPT_GROUPS:
        if groups.get(keyword):
            frame.add(groups[keyword])


def _rename(frame: "Dataset") -> None:
    """Give a frame the tags of a single-frame file."""
    for keyword, plain in _RENAMED.items():
        if frame.get(keyword) and (plain not in frame or plain == "AcquisitionDateTime"):
            setattr(frame, plain, frame[keyword].value)
    if not values_of(frame, "CorrectedImage"):
        known = [name for name in _CORRECTIONS if frame.get(name)]
        if known:
            frame.CorrectedImage = [_CORRECTIONS[k] for k in known if frame.get(k) == "YES"]
    if not frame.get("Units"):
        _take_units(frame)


def _take_units(frame: "Dataset") -> None:
    """Units by Rescale Type; else scale the values by the real world value mapping."""
    units = str(frame.get("RescaleType") or "").upper()
    if units in _UNITS:
        frame.Units = units
        return
    for mapping in frame.get("RealWorldValueMappingSequence") or []:
        codes = mapping.get("MeasurementUnitsCodeSequence") or []
        if not codes or "RealWorldValueSlope" not in mapping:
            continue
        code = str(codes[0].get("CodeValue") or "")
        if code in _UNITS_OF_CODES:
            frame.Units = _UNITS_OF_CODES[code]
        # It maps stored values, as Rescale Slope does; others of the frame do not count.
        frame.RescaleSlope = f"{float(mapping.RealWorldValueSlope):.10g}"
        frame.RescaleIntercept = f"{float(mapping.get('RealWorldValueIntercept') or 0):.10g}"
        frame.RealWorldValueMappingSequence = [mapping]
        return
