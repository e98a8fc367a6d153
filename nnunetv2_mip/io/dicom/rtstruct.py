"""DICOM structure set (RTSTRUCT) of lesions: one ROI each, closed contours on the PET's slices.

rt-utils and its kin need OpenCV and exchange the two sizes of a pixel, so that contours lie wrong
where pixels are not square. The contours here run along the borders of the pixels, and any program
that fills them by pixel centres gets the mask again.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

import nnunetv2_mip
from nnunetv2_mip.io.dicom.contours import outlines
from nnunetv2_mip.io.dicom.pet import DicomPet
from nnunetv2_mip.io.dicom.source_headers import SourceHeaders, quiet_pydicom

if TYPE_CHECKING:
    from pydicom import Dataset

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
_SERIES_NUMBER = 9002
# Distinct on grey, one lesion after the other.
_COLOURS = ((255, 64, 64), (255, 176, 0), (255, 255, 64), (64, 224, 64), (64, 200, 255))
_COPIED = (
    "SpecificCharacterSet",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "FrameOfReferenceUID",
)


def rtstruct(
    numbers: np.ndarray, rows: Sequence[Mapping], pet: DicomPet, sources: SourceHeaders
) -> "Dataset":
    """RTSTRUCT of lesions.

    Without lesions there is one ROI without contours, as the standard wants one at least.

    Args:
        numbers: (z, y, x) number of the lesion at each voxel, 0 outside; canonical axes.
        rows: of the lesion table; row n is lesion n + 1.
        pet: the series of the mask.
        sources: its headers (`source_headers`).

    Raises:
        ValueError: `numbers` has another shape than the series.
    """
    if numbers.shape != pet.suv.array.shape:
        raise ValueError(f"mask {numbers.shape} does not lie on the series {pet.suv.array.shape}")
    stack = np.ascontiguousarray(pet.suv.grid.from_canonical(numbers))
    with quiet_pydicom():
        return _structure_set(stack, rows, sources)


def _structure_set(stack: np.ndarray, rows: Sequence[Mapping], sources: SourceHeaders) -> "Dataset":
    """Data set of the RTSTRUCT; `stack` is (slices, rows, columns) in the order of the headers."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    now = datetime.now()
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    data = Dataset()
    for keyword in _COPIED:
        if keyword in sources.first:
            data.add(sources.first[keyword])
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = data.SOPClassUID = UID(RTSTRUCT_CLASS)
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.file_meta = meta
    data.InstanceCreationDate, data.InstanceCreationTime = date, time
    data.Modality, data.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    data.SeriesNumber, data.InstanceNumber = _SERIES_NUMBER, 1
    data.SeriesDescription = "Lesions (MIP)"
    data.OperatorsName = ""
    data.Manufacturer = data.ManufacturerModelName = "nnunetv2_mip"
    data.SoftwareVersions, data.DeviceSerialNumber = nnunetv2_mip.__version__, "1"
    data.PositionReferenceIndicator = ""
    data.StructureSetLabel, data.StructureSetName = "LESIONS", "Lesions of the PET"
    data.StructureSetDate, data.StructureSetTime = date, time
    data.ApprovalStatus = "UNAPPROVED"
    data.ReferencedFrameOfReferenceSequence = [_frame_of_reference(sources)]
    places = _contours(stack, len(rows))
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    data.RTROIObservationsSequence = []
    for number, row in enumerate(rows or [{}], start=1):
        name = f"Lesion {number}" if rows else "Lesion"
        roi = Dataset()
        roi.ROINumber, roi.ROIName = number, name
        roi.ReferencedFrameOfReferenceUID = sources.first.FrameOfReferenceUID
        roi.ROIDescription = _description(row)
        if row:
            roi.ROIVolume = f"{row['volume_ml']:.10g}"
        roi.ROIGenerationAlgorithm = "AUTOMATIC"
        data.StructureSetROISequence.append(roi)
        contour = Dataset()
        contour.ReferencedROINumber = number
        contour.ROIDisplayColor = list(_COLOURS[(number - 1) % len(_COLOURS)])
        if row:
            contour.ContourSequence = [
                _contour(points, sources.slices[index], count)
                for count, (index, points) in enumerate(places[number], start=1)
            ]
        data.ROIContourSequence.append(contour)
        observation = Dataset()
        observation.ObservationNumber = observation.ReferencedROINumber = number
        observation.ROIObservationLabel = name
        observation.RTROIInterpretedType = observation.ROIInterpreter = ""
        data.RTROIObservationsSequence.append(observation)
    return data


def _description(row: Mapping) -> str:
    """Numbers of a lesion, for people."""
    if not row:
        return "no lesion found"
    parts = [f"{row['volume_ml']:.2f} ml"]
    if row.get("suv_max") is not None:
        parts.append(f"SUVmax {row['suv_max']:.2f}, SUVmean {row['suv_mean']:.2f}")
        parts.append(f"TLG {row['tlg']:.2f} g")
    return ", ".join(parts)


def _contours(stack: np.ndarray, count: int) -> dict[int, list[tuple[int, np.ndarray]]]:
    """Lesion number → (slice, polygon) of each of its contours."""
    found: dict[int, list[tuple[int, np.ndarray]]] = {n: [] for n in range(1, count + 1)}
    for index, numbers in enumerate(stack):
        for number in np.unique(numbers[numbers > 0]):
            inside = numbers == number
            low = np.argwhere(inside).min(axis=0)
            high = np.argwhere(inside).max(axis=0) + 1
            for points in outlines(inside[low[0] : high[0], low[1] : high[1]]):
                found[int(number)].append((index, points + low))
    return found


def _contour(points: np.ndarray, source: "Dataset", number: int) -> "Dataset":
    """Item of the Contour Sequence: a polygon (row, column) on the slice of a header."""
    from pydicom import Dataset

    cosines = np.array(source.ImageOrientationPatient, float)
    rows_mm, columns_mm = (float(value) for value in source.PixelSpacing)
    place = np.array(source.ImagePositionPatient, float)
    place = place + points[:, 1:] * columns_mm * cosines[:3] + points[:, :1] * rows_mm * cosines[3:]
    item = Dataset()
    item.ContourImageSequence = [_reference(source)]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    item.ContourNumber = number
    item.ContourData = [f"{value:.5f}" for value in place.ravel()]
    return item


def _frame_of_reference(sources: SourceHeaders) -> "Dataset":
    """Item of the Referenced Frame of Reference Sequence: the series and its slices."""
    from pydicom import Dataset

    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = sources.first.SeriesInstanceUID
    series.ContourImageSequence = [_reference(source) for source in sources.slices]
    study.ReferencedSOPClassUID = _STUDY_CLASS
    study.ReferencedSOPInstanceUID = sources.first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = sources.first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _reference(source: "Dataset") -> "Dataset":
    from pydicom import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item
