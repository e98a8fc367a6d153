"""Slices of a DICOM series: order, geometry, missing and damaged files."""

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("pydicom")
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.pet import read_dicom_pet
from nnunetv2_mip.io.volumes import write_volume


def test_a_missing_slice_and_a_doubled_one(tmp_path, write_series, refused):
    paths = write_series(tmp_path / "gap", count=6)
    paths[3].unlink()
    message = refused(tmp_path / "gap")
    assert "a slice is missing" in message
    assert str(paths[2]) in message
    uid = generate_uid()
    write_series(tmp_path / "twice", SeriesInstanceUID=uid)
    write_series(tmp_path / "twice" / "again", SeriesInstanceUID=uid)
    assert "same series" in refused(tmp_path / "twice")
    for path in write_series(tmp_path / "one", count=2)[1:]:
        path.unlink()
    assert "only slice" in refused(tmp_path / "one")


def test_a_slice_missing_at_an_end_is_told(tmp_path, write_series):
    paths = write_series(tmp_path, NumberOfSlices=4)
    assert read_dicom_pet(tmp_path).warnings == ()
    paths[3].unlink()
    (line,) = read_dicom_pet(tmp_path).warnings
    assert "4 slices by its header, 3" in line


def test_rounded_positions_are_one_spacing(tmp_path, write_series, known):
    def edit(data, index):
        data.ImagePositionPatient[2] = known.lowest_mm[2] + 3 * index + (0.08 if index == 1 else 0)

    write_series(tmp_path, edit=edit)
    assert read_dicom_pet(tmp_path).suv.spacing_mm == known.spacing_mm


def test_tilted_and_mixed_slices_are_refused(tmp_path, write_series, refused):
    def shift(data, index):
        data.ImagePositionPatient[0] += 2.0 * index

    write_series(tmp_path / "tilt", edit=shift)
    assert "sideways" in refused(tmp_path / "tilt")

    def widen(data, index):
        data.PixelSpacing = [2, 2.5 + 0.5 * (index == 3)]

    write_series(tmp_path / "mixed", edit=widen)
    assert "pixel spacing" in refused(tmp_path / "mixed")


@pytest.mark.parametrize(
    "cosines",
    [[-1, 0, 0, 0, -1, 0], [1, 0, 0, 0, -1, 0], [0, 1, 0, 0, 0, -1], [0, 0, -1, 1, 0, 0]],
)
def test_any_axis_order_agrees_with_itk(cosines, tmp_path, write_series, known):
    normal = np.cross(cosines[:3], cosines[3:])

    def edit(data, index):
        data.ImagePositionPatient = [float(v) for v in known.lowest_mm + normal * 3.0 * index]

    paths = write_series(tmp_path, edit=edit, ImageOrientationPatient=cosines, Units="GML")
    suv = read_dicom_pet(tmp_path).suv
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    image = sitk.DICOMOrient(reader.Execute(), "LPS")
    np.testing.assert_allclose(suv.array, sitk.GetArrayFromImage(image), rtol=1e-6)
    write_volume(suv.array, suv.grid, tmp_path / "suv.nii.gz")
    back = sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / "suv.nii.gz")), "LPS")
    assert np.allclose(back.GetOrigin(), image.GetOrigin())
    assert np.allclose(back.GetSpacing(), image.GetSpacing())


def test_other_files_and_copies_do_not_matter(tmp_path, write_series, assert_suv, known):
    paths = write_series(tmp_path / "deep" / "er")
    (tmp_path / "copy.dcm").write_bytes(paths[1].read_bytes())
    paths[2].rename(tmp_path / "IM0002")
    (tmp_path / "readme.txt").write_text("not an image")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "._hidden.dcm").write_bytes(b"junk")
    assert_suv(tmp_path, known.one_half_life)


def test_damaged_files_are_named(tmp_path, write_series, refused):
    paths = write_series(tmp_path)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:-10])
    assert str(paths[1]) in refused(tmp_path)


def test_a_file_compressed_as_a_whole_is_refused_before_it_is_unpacked(
    tmp_path, monkeypatch, write_series, refused
):
    def deflate(data, _):
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    paths = write_series(tmp_path / "pet", edit=deflate)
    monkeypatch.setattr("pydicom.filereader.zlib.decompress", None)
    message = refused(tmp_path / "pet")
    assert any(path.name in message for path in paths)
    assert "Deflated" in message and "dcmconv" in message


def test_without_pydicom_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    (tmp_path / "a.dcm").write_bytes(b"anything")
    with pytest.raises(MipError, match=r'pip install "nnunetv2-mip\[dicom\]"'):
        read_dicom_pet(tmp_path)
