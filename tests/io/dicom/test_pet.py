"""PET and CT of a DICOM study: choice of the series, values and grids."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")
from pydicom.uid import generate_uid

from nnunetv2_mip.io.dicom.options import DicomOptions
from nnunetv2_mip.io.dicom.pet import read_dicom_ct, read_dicom_pet
from nnunetv2_mip.io.read_study import read_study
from nnunetv2_mip.io.volumes import read_suv, write_volume


def test_slices_are_sorted_scaled_and_decayed_to_the_series_time(
    tmp_path, write_series, assert_suv, known
):
    write_series(tmp_path)
    assert_suv(tmp_path, known.one_half_life)
    pet = read_dicom_pet(tmp_path)
    assert pet.warnings == ()
    assert pet.suv.spacing_mm == known.spacing_mm
    assert pet.suv.grid.origin == known.lowest_mm
    assert [h.InstanceNumber for h in pet.headers] == [1, 2, 3, 4]


def test_small_negative_values_become_zero(tmp_path, write_series, refused, known):
    write_series(tmp_path, stored=known.stored - 20)
    assert read_dicom_pet(tmp_path).suv.array.min() == 0
    write_series(tmp_path / "empty", stored=np.zeros(known.shape))
    assert "is empty" in refused(tmp_path / "empty")


def test_noise_around_0_is_told_and_other_negative_values_are_refused(
    tmp_path, write_series, refused
):
    stored = np.arange(60).reshape(4, 3, 5)
    write_series(tmp_path / "noise", stored=stored - 10)
    found = read_dicom_pet(tmp_path / "noise")
    assert found.suv.array.min() == 0
    assert ["10 voxels are below 0" in line for line in found.warnings] == [True]
    write_series(tmp_path / "ct", stored=stored - 40)
    assert "is not SUV" in refused(tmp_path / "ct")


def test_the_attenuation_corrected_and_longest_series_is_taken(
    tmp_path, write_series, assert_suv, refused, known
):
    chosen = generate_uid()
    write_series(tmp_path / "ac", SeriesInstanceUID=chosen)
    write_series(tmp_path / "nac", count=9, CorrectedImage=["DECY"])
    write_series(tmp_path / "head", count=3)
    assert read_dicom_pet(tmp_path).study.pet.uid == chosen
    twin = generate_uid()
    write_series(tmp_path / "other", SeriesInstanceUID=twin, PatientWeight="140")
    message = refused(tmp_path)
    assert chosen in message
    assert twin in message
    assert_suv(tmp_path, 2 * known.one_half_life, options=DicomOptions((twin,)))
    assert "1.2.3" in refused(tmp_path, options=DicomOptions(("1.2.3",)))


def test_two_studies_are_not_guessed_between(tmp_path, write_series, refused):
    write_series(tmp_path / "long")
    write_series(tmp_path / "short", count=3, StudyInstanceUID=generate_uid())
    assert "several studies" in refused(tmp_path)


def test_ct_comes_in_hu_on_the_grid_of_the_pet(tmp_path, write_series, write_ct, known):
    write_series(tmp_path / "pet")
    assert read_dicom_ct(read_dicom_pet(tmp_path)) is None
    write_ct(tmp_path / "ct", count=9)
    write_ct(tmp_path / "scout", count=20, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_ct(tmp_path / "elsewhere", count=20, FrameOfReferenceUID=generate_uid())
    pet = read_dicom_pet(tmp_path)
    ct = read_dicom_ct(pet)
    assert ct.grid == pet.suv.grid
    assert ct.array.shape == known.shape
    # z is -100, -97, -94, -91; the slices of the CT lie between, up to -93.5.
    expected = np.array([-1000, -970, -940, -1000], np.float32)
    np.testing.assert_allclose(ct.array, np.broadcast_to(expected[:, None, None], known.shape))


def test_no_pet_in_the_folder(tmp_path, write_ct, refused):
    assert "no DICOM series at all" in refused(tmp_path)
    write_ct(tmp_path / "ct")
    assert "there is: CT" in refused(tmp_path)
    assert "no such folder" in refused(tmp_path / "nowhere")


def test_a_study_reads_the_same_from_files_and_from_a_folder(tmp_path, write_series):
    write_series(tmp_path / "dicom", SeriesTime="170000")
    from_dicom = read_study(tmp_path / "dicom")
    assert "the series time 17:00:00 is later" in from_dicom.warnings[0]
    write_volume(from_dicom.suv.array, from_dicom.grid, tmp_path / "suv.nii.gz")
    from_file = read_study(tmp_path / "suv.nii.gz")
    assert from_file.dicom is None and from_dicom.dicom.suv is from_dicom.suv
    np.testing.assert_array_equal(from_dicom.suv.array, from_file.suv.array)


def test_a_real_series():
    data = os.environ.get("NNUNETV2_MIP_TEST_DATA")
    if not data:
        pytest.skip("NNUNETV2_MIP_TEST_DATA is not set")
    folder = Path(data) / "petct" / "STS_001"
    pet = read_dicom_pet(folder / "dicom")
    expected = read_suv(folder / "SUV.nii.gz")
    assert pet.warnings == ()
    assert pet.suv.grid.same_as(expected.grid)
    assert np.abs(pet.suv.array - expected.array).max() < 0.01
