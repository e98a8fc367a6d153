"""DICOM SEG of a mask, read back voxel by voxel."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

from nnunetv2_mip.errors import MipError  # noqa: E402
from nnunetv2_mip.io.dicom.pet import read_dicom_pet  # noqa: E402
from nnunetv2_mip.io.dicom.seg import write_dicom_seg  # noqa: E402
from nnunetv2_mip.io.volumes import read_suv, write_volume  # noqa: E402

# Image Orientation (Patient) of head first and feet first, supine and prone.
ORIENTATIONS = {
    "head first": [1, 0, 0, 0, 1, 0],
    "head first, prone": [-1, 0, 0, 0, -1, 0],
    "feet first": [-1, 0, 0, 0, 1, 0],
    "coronal slices": [1, 0, 0, 0, 0, -1],
}


@pytest.mark.parametrize("names", ["up", "down"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_seg_holds_the_mask_voxel_by_voxel(
    name, names, tmp_path, write_pet, mask_of_dicom, some_mask
):
    pet = read_dicom_pet(write_pet(tmp_path / "pet", ORIENTATIONS[name], names))
    mask = some_mask(pet)
    write_dicom_seg(mask, pet, tmp_path / "out" / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "out" / "seg.dcm")
    assert np.array_equal(mask_of_dicom(seg, pet), mask)
    # In patient space too, by highdicom's own reader: every lesion voxel at its millimetre.
    volume = highdicom.seg.segread(tmp_path / "out" / "seg.dcm").get_volume(combine_segments=True)
    found = volume.map_indices_to_reference(np.argwhere(volume.array > 0))
    # Through NIfTI, the other answer of predict.
    write_volume(mask, pet.suv.grid, tmp_path / "mask.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    voxels = np.argwhere(sitk.GetArrayFromImage(image))[:, ::-1]
    expected = np.array([image.TransformIndexToPhysicalPoint([int(i) for i in v]) for v in voxels])
    order = np.lexsort(np.round(found, 2).T), np.lexsort(np.round(expected, 2).T)
    np.testing.assert_allclose(found[order[0]], expected[order[1]], atol=1e-3)


def test_the_seg_refers_to_the_series_and_says_what_made_it(tmp_path, write_pet, some_mask):
    pet = read_dicom_pet(write_pet(tmp_path / "pet"))
    write_dicom_seg(some_mask(pet), pet, tmp_path / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    source = pet.headers[0]
    assert seg.SOPClassUID == pydicom.uid.SegmentationStorage
    assert (seg.Modality, seg.SegmentationType) == ("SEG", "BINARY")
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert seg[keyword].value == source[keyword].value
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID != seg.SeriesInstanceUID
    (segment,) = seg.SegmentSequence
    assert segment.SegmentLabel == "Lesion"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert segment.TrackingID
    assert segment.TrackingUID.is_valid
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "nnunetv2_mip"


def test_an_empty_mask_gives_a_seg_of_zeros(tmp_path, write_pet):
    pet = read_dicom_pet(write_pet(tmp_path / "pet"))
    write_dicom_seg(np.zeros(pet.suv.array.shape, np.uint8), pet, tmp_path / "seg.dcm")
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert seg.NumberOfFrames == len(pet.headers)
    assert not seg.pixel_array.any()


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, write_pet, some_mask):
    pet = read_dicom_pet(write_pet(tmp_path / "pet"))
    uid, pet.headers[0].SOPInstanceUID = pet.headers[0].SOPInstanceUID, ""
    with pytest.raises(MipError, match="SOP Instance UID"):
        write_dicom_seg(some_mask(pet), pet, tmp_path / "out" / "seg.dcm")
    assert not (tmp_path / "out").exists()
    pet.headers[0].SOPInstanceUID = uid
    with pytest.raises(ValueError, match="does not lie on"):
        write_dicom_seg(np.zeros((2, 2, 2), np.uint8), pet, tmp_path / "out" / "seg.dcm")
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(MipError, match=r'pip install "nnunetv2-mip\[dicom\]"'):
        write_dicom_seg(some_mask(pet), pet, tmp_path / "out" / "seg.dcm")


def test_a_real_series_and_its_mask(tmp_path, mask_of_dicom):
    data = os.environ.get("NNUNETV2_MIP_TEST_DATA")
    if not data:
        pytest.skip("NNUNETV2_MIP_TEST_DATA is not set")
    folder = Path(data) / "petct" / "STS_001"
    pet = read_dicom_pet(folder / "dicom")
    mask = (read_suv(folder / "SEG.nii.gz").array > 0).astype(np.uint8)
    write_dicom_seg(mask, pet, tmp_path / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert np.array_equal(mask_of_dicom(seg, pet), mask)
    assert seg.NumberOfFrames < 140
