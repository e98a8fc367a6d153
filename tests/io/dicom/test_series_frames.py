"""Multi-frame PET and CT: enhanced, and converted from single-frame files."""

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, generate_uid  # noqa: E402

from nnunetv2_mip.io.dicom.pet import read_dicom_pet  # noqa: E402
from nnunetv2_mip.io.read_study import read_study  # noqa: E402

ENHANCED_PET = "1.2.840.10008.5.1.4.1.1.130"


def _convert(paths, target, kind) -> None:
    """Legacy converted enhanced file of single-frame files, by highdicom."""
    target.parent.mkdir(parents=True, exist_ok=True)
    kind(
        [pydicom.dcmread(path) for path in paths],
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
    ).save_as(target)


@pytest.mark.parametrize("units", ["BQML", "GML"])
def test_a_converted_pet_is_its_single_frame_files(units, tmp_path, write_series, known):
    def edit(data, index):
        data.AccessionNumber, data.StudyID, data.SeriesNumber = "", "", 1
        data.PatientBirthDate, data.PatientSex, data.Manufacturer = "", "O", "none"
        data.PatientName = "Phantom^One"
        data.ReferringPhysicianName = ""

    paths = write_series(tmp_path / "classic", edit=edit, Units=units)
    target = tmp_path / "enhanced" / "e.dcm"
    _convert(paths[::-1], target, highdicom.legacy.LegacyConvertedEnhancedPETImage)
    single, multi = read_dicom_pet(tmp_path / "classic"), read_dicom_pet(target.parent)
    assert np.array_equal(multi.suv.array, single.suv.array)
    assert multi.suv.grid == single.suv.grid
    assert multi.warnings == single.warnings == ()
    assert [str(h.ImagePositionPatient[2]) for h in multi.headers] == [
        str(h.ImagePositionPatient[2]) for h in single.headers
    ]


def test_a_converted_ct_is_its_single_frame_files(tmp_path, write_series, write_ct, known):
    write_series(tmp_path / "a" / "pet")
    write_ct(tmp_path / "a" / "ct", RescaleType="HU", KVP="120", PatientBirthDate="")
    paths = sorted((tmp_path / "a" / "ct").iterdir())
    for path in paths:
        data = pydicom.dcmread(path)
        data.AccessionNumber, data.StudyID, data.SeriesNumber = "", "", 1
        data.PatientBirthDate, data.PatientSex, data.Manufacturer = "", "O", "none"
        data.PatientName = "Phantom^One"
        data.ReferringPhysicianName = ""
        data.save_as(path)
    write_series(tmp_path / "b" / "pet")
    _convert(paths, tmp_path / "b" / "ct.dcm", highdicom.legacy.LegacyConvertedEnhancedCTImage)
    single = read_study(tmp_path / "a", wants_ct=True)
    multi = read_study(tmp_path / "b", wants_ct=True)
    assert np.array_equal(multi.ct.array, single.ct.array)


def _item(**values) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _enhanced(known, code: str, mapped: bool) -> Dataset:
    """Enhanced PET of the known values, frames from the head to the feet.

    Args:
        code: unit of the values.
        mapped: whether the real world value mapping scales them, not Rescale Slope.
    """
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = ENHANCED_PET
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.FrameOfReferenceUID, data.Modality = generate_uid(), "PT"
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.DecayCorrected = data.AttenuationCorrected = "YES"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.NumberOfFrames, data.Rows, data.Columns = known.shape
    spacing = _item(PixelSpacing=list(known.spacing_mm[1:]), SliceThickness="3")
    turned = _item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    data.SharedFunctionalGroupsSequence = [
        _item(PixelMeasuresSequence=[spacing], PlaneOrientationSequence=[turned])
    ]
    unit = _item(CodeValue=code, CodingSchemeDesignator="UCUM", CodeMeaning=code)
    groups = []
    order = range(known.shape[0])[::-1]
    for index in order:
        x, y, z = known.lowest_mm
        slope = 0.001 * (index + 1)
        groups.append(
            _item(
                PlanePositionSequence=[
                    _item(ImagePositionPatient=[x, y, z + known.spacing_mm[0] * index])
                ],
                PixelValueTransformationSequence=[
                    _item(
                        RescaleSlope="1" if mapped else f"{slope:g}",
                        RescaleIntercept="0",
                        RescaleType="US",
                    )
                ],
                RealWorldValueMappingSequence=[
                    _item(
                        RealWorldValueSlope=slope,
                        RealWorldValueIntercept=0.0,
                        MeasurementUnitsCodeSequence=[unit],
                    )
                ],
                PETFrameTypeSequence=[_item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])],
            )
        )
    data.PerFrameFunctionalGroupsSequence = groups
    data.PixelData = known.stored[::-1].astype(np.uint16).tobytes()
    return data


@pytest.mark.parametrize("mapped", [True, False])
def test_an_enhanced_pet_in_suv(mapped, tmp_path, known):
    data = _enhanced(known, "g/ml{SUVbw}", mapped)
    data.save_as(tmp_path / "e", enforce_file_format=True)
    pet = read_dicom_pet(tmp_path)
    expected = known.stored * 0.001 * np.arange(1, 5)[:, None, None]
    np.testing.assert_allclose(pet.suv.array, expected, rtol=1e-6)
    assert pet.suv.spacing_mm == known.spacing_mm
    assert pet.suv.grid.origin == known.lowest_mm


def test_frames_without_positions_are_refused(tmp_path, known, refused):
    data = _enhanced(known, "g/ml{SUVbw}", False)
    del data.PerFrameFunctionalGroupsSequence
    data.save_as(tmp_path / "e.dcm", enforce_file_format=True)
    assert "multi-frame DICOM file without a position" in refused(tmp_path)


def test_frames_of_several_times_are_refused(tmp_path, known, refused):
    data = _enhanced(known, "g/ml{SUVbw}", False)
    data.PerFrameFunctionalGroupsSequence[
        0
    ].PlanePositionSequence = data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    data.save_as(tmp_path / "e.dcm", enforce_file_format=True)
    assert "one time frame" in refused(tmp_path)
