"""Voxels of NIfTI files: every number type and byte order, as nibabel reads them."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.nifti import read_nifti_voxels
from nnunetv2_mip.io.volumes import read_volume

nibabel = pytest.importorskip("nibabel")

NUMBERS = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")


def write(
    path: Path, dtype: str, order: str = "<", scale: tuple[float, float] | None = None
) -> np.ndarray:
    """The voxels (k, j, i) of a file written by nibabel, as nibabel reads it."""
    stored = np.arange(24).reshape(2, 3, 4).astype(np.dtype(dtype).newbyteorder(order))
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(stored.dtype)
    image = nibabel.Nifti1Image(stored, np.eye(4), header)
    if scale:
        image.header.set_slope_inter(*scale)
    nibabel.save(image, path)
    return nibabel.load(path).get_fdata().transpose()


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_any_number_type_in_any_byte_order(dtype, order, ending, tmp_path):
    path = tmp_path / f"v{ending}"
    expected = write(path, dtype, order)
    found = read_nifti_voxels(path)
    assert found.dtype == np.dtype(dtype).newbyteorder(order)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("order", "<>")
def test_the_scale_of_the_header_is_applied(order, tmp_path):
    expected = write(tmp_path / "v.nii.gz", "i2", order, (0.25, -3.0))
    found = read_nifti_voxels(tmp_path / "v.nii.gz")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_other_formats_are_left_to_itk(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 3, 4), "c8"), np.eye(4)), tmp_path / "wave.nii")
    assert read_nifti_voxels(tmp_path / "wave.nii") is None


def test_a_place_of_the_voxels_that_cannot_be_is_refused(tmp_path):
    path = tmp_path / "v.nii"
    write(path, "i2")
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    with pytest.raises(MipError, match="its voxels begin at byte nan"):
        read_nifti_voxels(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_missing_bytes_are_counted(ending, tmp_path):
    path = tmp_path / f"v{ending}"
    write(tmp_path / "whole.nii", "i2")
    content = (tmp_path / "whole.nii").read_bytes()[:-5]
    path.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
    with pytest.raises(MipError, match="5 bytes are missing"):
        read_nifti_voxels(path)


def test_bytes_behind_the_voxels_are_left_alone(tmp_path):
    expected = write(tmp_path / "whole.nii", "f4")
    content = (tmp_path / "whole.nii").read_bytes() + bytes(1000)
    (tmp_path / "more.nii.gz").write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(read_nifti_voxels(tmp_path / "more.nii.gz"), expected)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_name_that_lies_about_compression_is_named(ending, tmp_path):
    path = tmp_path / f"x{ending}"
    write(path, "f4")
    content = path.read_bytes()
    wrong = gzip.compress(content) if ending == ".nii" else gzip.decompress(content)
    path.write_bytes(wrong)
    other = "x.nii.gz" if ending == ".nii" else "x.nii"
    with pytest.raises(MipError, match=rf"gzipped; rename it to {other}$"):
        read_nifti_voxels(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>login</html>" * 50, r"neither gzipped nor NIfTI \(it begins with b'<htm'\)"),
        (b"PK\3\4" * 200, "is a zip archive; unpack it"),
    ],
)
def test_another_file_under_the_name_of_a_nifti_is_told(content, said, tmp_path):
    path = tmp_path / "x.nii.gz"
    path.write_bytes(content)
    with pytest.raises(MipError, match=said):
        read_volume(path)


def test_a_zip_archive_is_named(tmp_path):
    path = tmp_path / "pet.zip"
    path.write_bytes(b"PK\3\4" + b"\0" * 400)
    with pytest.raises(MipError, match="is a zip archive; unpack it"):
        read_volume(path)
