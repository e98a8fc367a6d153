"""DICOM series made for the tests: PET in Bq/ml with known SUV, PET in GML, and CT."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.pet import DicomPet, read_dicom_pet

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

PET_SOP, CT_SOP = "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.2"
STUDY, FRAME = "1.2.826.0.1.3680043.8.498.11", "1.2.826.0.1.3680043.8.498.12"
SHAPE = (4, 3, 5)
SPACING = (3.0, 2.0, 2.5)
LOWEST = (-10.0, 20.0, -100.0)
SLOPES = (0.5, 1.0, 2.0, 4.0)
# 70 kg, 350 MBq: 0.0002 SUV per Bq/ml at injection, and one half-life later 0.0004.
AT_INJECTION, ONE_HALF_LIFE = 0.0002, 0.0004
STORED = np.arange(60).reshape(SHAPE) + 7
GML_SHAPE = (14, 12, 16)
# Exact in the single precision of a NIfTI header, so that both ways give the same bits.
ROW_MM, COLUMN_MM, SLICE_MM = 4.0, 4.125, 5.0
ORIGIN = np.array([-31.5, 12.25, 100.125])
GML_SLOPE = 0.001


@dataclass(frozen=True)
class Known:
    """Known values of the series of `write_series`.

    Attributes:
        shape, spacing_mm: (z, y, x).
        lowest_mm: (x, y, z) of the first pixel of the lowest slice.
        stored: pixel values, (z, y, x).
        at_injection, one_half_life: SUV per Bq/ml at the injection, and 110 minutes later.
    """

    shape: tuple[int, int, int] = SHAPE
    spacing_mm: tuple[float, float, float] = SPACING
    lowest_mm: tuple[float, float, float] = LOWEST
    at_injection: float = AT_INJECTION
    one_half_life: float = ONE_HALF_LIFE

    @property
    def stored(self) -> np.ndarray:
        return STORED.copy()


@pytest.fixture(scope="session")
def known() -> Known:
    """Known values of the series of `write_series`."""
    return Known()


def _tracer(**changes) -> "Dataset":
    """Item of the injection: 350 MBq of fluorine-18 at 10:00."""
    from pydicom.dataset import Dataset

    item = Dataset()
    values = {
        "RadiopharmaceuticalStartTime": "100000.00",
        "RadionuclideTotalDose": "350000000",
        "RadionuclideHalfLife": "6600",
        **changes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(item, keyword, value)
    return item


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}{minutes % 60:02d}00.00"


def _header(index: int, uid: str, **changes) -> "FileDataset":
    """Slice `index` of a series that is corrected to one half-life (110 min) after injection."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = changes.get("SOPClassUID", PET_SOP)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    values = {
        "SOPClassUID": PET_SOP,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": uid,
        "FrameOfReferenceUID": FRAME,
        "Modality": "PT",
        "SeriesDescription": "PET AC",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "PatientID": "phantom",
        "PatientName": "Phantom",
        "StudyDate": "20200115",
        "StudyTime": "100000",
        "SeriesDate": "20200115",
        "SeriesTime": "115000.00",
        "AcquisitionDate": "20200115",
        # Beds one after the other; only the series time counts.
        "AcquisitionTime": _clock(11 * 60 + 50 + 3 * index),
        "ActualFrameDuration": "240000",
        "PatientWeight": "70",
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["DECY", "ATTN", "SCAT"],
        "RadiopharmaceuticalInformationSequence": [_tracer()],
        "InstanceNumber": index + 1,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [LOWEST[0], LOWEST[1], LOWEST[2] + SPACING[0] * index],
        "PixelSpacing": list(SPACING[1:]),
        "SliceThickness": str(SPACING[0]),
        "RescaleIntercept": "0",
        "RescaleSlope": str(SLOPES[index % 4]),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        **changes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(data, keyword, value)
    return data


def _write_series(folder: Path, count: int = 4, stored=None, edit=None, **changes) -> list[Path]:
    """Files of a series; names do not follow positions, `edit(header, index)` is called last."""
    from pydicom.uid import generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    uid = changes.pop("SeriesInstanceUID", None) or generate_uid()
    stored = STORED if stored is None else stored
    paths = []
    for index in range(count):
        data = _header(index, uid, **changes)
        pixels = np.ascontiguousarray(stored[index % len(stored)], np.int16)
        data.Rows, data.Columns = pixels.shape
        data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
        data["PixelData"].VR = "OW"
        if edit is not None:
            edit(data, index)
        paths.append(folder / f"{(index * 7 + 3) % 11:02d}_{uid[-8:]}.dcm")
        data.save_as(paths[-1])
    return paths


def _write_ct(folder: Path, level=lambda z: 10 * z, count: int = 12, **changes) -> None:
    """CT of slices 1 mm apart, whose HU depend on z."""

    def edit(data, index):
        z = LOWEST[2] - 1.5 + index
        data.ImagePositionPatient = [-20, 10, z]
        data.PixelData = np.full((40, 40), level(z) + 1024, np.int16).tobytes()
        data.RescaleSlope, data.RescaleIntercept = "1", "-1024"

    options = {"Modality": "CT", "SOPClassUID": CT_SOP, "PixelSpacing": [1, 1], **changes}
    _write_series(folder, count, np.zeros((1, 40, 40)), edit, **options)


def _bq_per_ml() -> np.ndarray:
    """Activity of the series, (z, y, x)."""
    return STORED * np.array(SLOPES)[:, None, None]


def _assert_suv(folder: Path, factor: float | np.ndarray, **options) -> None:
    """Assert that the SUV of a series is its activity times `factor`."""
    suv = read_dicom_pet(folder, **options).suv.array
    assert suv.dtype == np.float32
    np.testing.assert_allclose(suv, _bq_per_ml() * factor, rtol=1e-6)


def _refused(folder: Path, **options) -> str:
    """Error line of a series that is refused; it names the folder."""
    with pytest.raises(MipError) as caught:
        read_dicom_pet(folder, **options)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def _uptake() -> np.ndarray:
    """SUV of the GML series (z, y, x): a body with one hot lesion."""
    suv = np.full(GML_SHAPE, 0.2)
    suv[:, 2:-2, 2:-2] = np.random.default_rng(1).uniform(0.6, 1.6, (GML_SHAPE[0], 8, 12))
    suv[4:8, 4:8, 9:13] = 7
    return suv


def _write_pet(folder: Path, cosines=(1, 0, 0, 0, 1, 0), names="up", **changes) -> Path:
    """A GML series; its slices are the first axis of `_uptake()` along the slice normal.

    Args:
        cosines: Image Orientation (Patient).
        names: `up` or `down`, the order of file names and instance numbers along the normal.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    stored = np.round(_uptake() / GML_SLOPE).astype(np.int16)
    series, study, frame = (generate_uid() for _ in range(3))
    normal = np.cross(cosines[:3], cosines[3:])
    for index, pixels in enumerate(stored):
        number = index if names == "up" else len(stored) - 1 - index
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        values = {
            "SOPClassUID": meta.MediaStorageSOPClassUID,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "FrameOfReferenceUID": frame,
            "Modality": "PT",
            "PatientID": "phantom-1",
            "PatientName": "Phantom^One",
            "InstanceNumber": number + 1,
            "ImageOrientationPatient": list(cosines),
            "ImagePositionPatient": [float(v) for v in ORIGIN + normal * SLICE_MM * index],
            "PixelSpacing": [ROW_MM, COLUMN_MM],
            "SliceThickness": str(SLICE_MM),
            "CorrectedImage": ["DECY", "ATTN"],
            "Units": "GML",
            "RescaleIntercept": "0",
            "RescaleSlope": str(GML_SLOPE),
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            **changes,
        }
        for keyword, value in values.items():
            if value is not None:
                setattr(data, keyword, value)
        data.PixelData = pixels.tobytes()
        data["PixelData"].VR = "OW"
        data.save_as(folder / f"IM{number:04d}")
    return folder


def _mask_of_dicom(seg: "Dataset", pet: DicomPet) -> np.ndarray:
    """Mask (z, y, x) of a SEG as a viewer shows it: each frame on the image that it refers to."""
    slots = {str(h.SOPInstanceUID): index for index, h in enumerate(pet.headers)}
    positions = [np.array(h.ImagePositionPatient, float) for h in pet.headers]
    stack = np.zeros(pet.suv.grid.size[::-1], np.uint8)
    frames = np.atleast_3d(seg.pixel_array)
    if seg.NumberOfFrames == 1:
        frames = seg.pixel_array[None]
    for pixels, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        index = slots[str(source.ReferencedSOPInstanceUID)]
        at = groups.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(np.array(at, float), positions[index])
        stack[index] = pixels
    return pet.suv.grid.to_canonical(stack)


def _some_mask(pet: DicomPet) -> np.ndarray:
    """Mask that is asymmetric along every axis, so that a flip is noticed."""
    mask = np.zeros(pet.suv.array.shape, np.uint8)
    mask[1:4, 2:5, 3:9] = 1
    mask[-2, 1, -1] = 1
    return mask


@pytest.fixture(scope="session")
def tracer() -> Callable:
    """Maker of the item of an injection: `tracer(**changes)`."""
    return _tracer


@pytest.fixture(scope="session")
def write_series() -> Callable:
    """Writer of a PET series in Bq/ml: `write_series(folder, count, stored, edit, **changes)`."""
    return _write_series


@pytest.fixture(scope="session")
def write_ct() -> Callable:
    """Writer of a CT series: `write_ct(folder, level, count, **changes)`."""
    return _write_ct


@pytest.fixture(scope="session")
def assert_suv() -> Callable:
    """Comparison with hand-computed SUV: `assert_suv(folder, factor, **options)`."""
    return _assert_suv


@pytest.fixture(scope="session")
def refused() -> Callable:
    """Error line of a refused series: `refused(folder, **options)`."""
    return _refused


@pytest.fixture(scope="session")
def write_pet() -> Callable:
    """Writer of a PET series in GML: `write_pet(folder, cosines, names, **changes)`."""
    return _write_pet


@pytest.fixture(scope="session")
def mask_of_dicom() -> Callable:
    """Mask in a DICOM SEG: `mask_of_dicom(seg, pet)`."""
    return _mask_of_dicom


@pytest.fixture(scope="session")
def some_mask() -> Callable:
    """Mask on a series: `some_mask(pet)`."""
    return _some_mask
