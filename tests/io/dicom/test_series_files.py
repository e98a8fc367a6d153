"""Files of a series as archives and old software write them: meta information, pixels, UIDs."""

import shutil

import imagecodecs
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402

from nnunetv2_mip.io.dicom.pet import read_dicom_pet  # noqa: E402


def _rewrite(paths, implicit: bool, little: bool, meta: bool = False) -> None:
    """Write files again without preamble, or with meta information without transfer syntax."""
    for path in paths:
        data = pydicom.dcmread(path)
        if not little:
            data.PixelData = np.frombuffer(data.PixelData, "<i2").astype(">i2").tobytes()
        bare = Dataset(data)
        if meta:
            bare.file_meta = FileMetaDataset()
            bare.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
            bare.preamble = b"\0" * 128
        pydicom.dcmwrite(
            path, bare, implicit_vr=implicit, little_endian=little, enforce_file_format=False
        )


@pytest.mark.parametrize("suffix", [".dcm", ""])
@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_files_without_preamble(
    implicit, little, suffix, tmp_path, write_series, assert_suv, known
):
    paths = write_series(tmp_path)
    _rewrite(paths, implicit, little)
    assert paths[0].read_bytes()[128:132] != b"DICM"
    for path in paths:
        path.rename(path.with_suffix(suffix))
    assert_suv(tmp_path, known.one_half_life)


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_transfer_syntax(implicit, tmp_path, write_series, assert_suv, known):
    _rewrite(write_series(tmp_path), implicit, True, meta=True)
    assert_suv(tmp_path, known.one_half_life)


def test_other_files_that_start_like_an_element_do_not_matter(
    tmp_path, write_series, assert_suv, known
):
    write_series(tmp_path)
    (tmp_path / "numbers.bin").write_bytes(b"\x08\0\x05\0\x04\0\0\0" + b"\xff" * 400)
    (tmp_path / "text").write_bytes(b"\0\x08\0\0ABCDEFGH")
    (tmp_path / "empty").write_bytes(b"")
    assert_suv(tmp_path, known.one_half_life)


def _compress(paths, encode, syntax: str) -> None:
    for path in paths:
        data = pydicom.dcmread(path)
        data.PixelData = encapsulate([encode(data.pixel_array)])
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(path)


def _lossless(values) -> bytes:
    return imagecodecs.ljpeg_encode(np.ascontiguousarray(values).view(np.uint16), bitspersample=16)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"])
@pytest.mark.parametrize("representation", [0, 1])
def test_lossless_jpeg_gives_the_values_of_plain_files(
    representation, syntax, tmp_path, write_series, known
):
    shape = (4, 16, 18)
    values = np.random.default_rng(3).integers(-300 * representation, 20000, shape)

    def edit(data, _):
        data.PixelRepresentation = representation

    plain, jpeg = tmp_path / "plain", tmp_path / "jpeg"
    write_series(plain, stored=values, edit=edit)
    paths = write_series(jpeg, stored=values, edit=edit)
    _compress(paths, _lossless, syntax)
    found = read_dicom_pet(jpeg)
    expected = read_dicom_pet(plain)
    assert np.array_equal(found.suv.array, expected.suv.array)
    # Of the values below 0 alone.
    assert len(found.warnings) == representation
    assert [line.replace(str(jpeg), str(plain)) for line in found.warnings] == [*expected.warnings]


def test_jpeg_without_a_transfer_syntax_is_recognised(tmp_path, write_series, known):
    values = np.random.default_rng(3).integers(0, 20000, (4, 16, 18))
    write_series(tmp_path / "plain", stored=values)
    paths = write_series(tmp_path / "jpeg", stored=values)
    _compress(paths, _lossless, "1.2.840.10008.1.2.4.70")
    for path in paths:
        data = pydicom.dcmread(path)
        data.file_meta = FileMetaDataset()
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        pydicom.dcmwrite(
            path, data, implicit_vr=False, little_endian=True, enforce_file_format=False
        )
    found = read_dicom_pet(tmp_path / "jpeg").suv.array
    assert np.array_equal(found, read_dicom_pet(tmp_path / "plain").suv.array)


def test_lossy_jpeg_is_read_and_said(tmp_path, write_series):
    values = np.full((4, 16, 16), 100)
    values[:, 4:12, 4:12] = 200

    def edit(data, _):
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation = 7, 0
        pixels = np.frombuffer(data.PixelData, np.int16).astype(np.uint8)
        data.PixelData = pixels.tobytes()

    plain = tmp_path / "plain"
    write_series(plain, stored=values, edit=edit)
    paths = write_series(tmp_path / "jpeg", stored=values, edit=edit)
    _compress(paths, lambda v: imagecodecs.jpeg8_encode(v, level=98), "1.2.840.10008.1.2.4.50")
    found = read_dicom_pet(tmp_path / "jpeg")
    np.testing.assert_allclose(found.suv.array, read_dicom_pet(plain).suv.array, rtol=0.05)
    assert "compressed with loss" in found.warnings[0]


def test_damaged_jpeg_is_named(tmp_path, write_series, refused):
    paths = write_series(tmp_path, stored=np.ones((4, 16, 18)))
    _compress(paths, lambda values: _lossless(values)[:30], "1.2.840.10008.1.2.4.70")
    assert "the pixels cannot be decoded" in refused(tmp_path)


def test_one_wrong_uid_in_all_slices_loses_none(tmp_path, write_series, assert_suv, known):
    paths = write_series(tmp_path, SOPInstanceUID="1.2.3.4")
    (tmp_path / "copy.dcm").write_bytes(paths[2].read_bytes())
    assert_suv(tmp_path, known.one_half_life)


def _rounded(data, index):
    data.ImagePositionPatient[2] = float(round(-100 + 3.27 * index))


def test_positions_rounded_to_whole_mm(tmp_path, write_series, refused):
    """A stated distance that fits explains unequal gaps; without one, a slice may be missing."""
    stated = {"SliceThickness": "3.27"}
    write_series(tmp_path / "stated", 12, edit=_rounded, **stated)
    pet = read_dicom_pet(tmp_path / "stated")
    assert pet.suv.spacing_mm[0] == 3.27
    assert "rounded to whole mm" in pet.warnings[0]
    paths = write_series(tmp_path / "lost", 12, edit=_rounded, **stated)
    paths[5].unlink()
    assert "a slice is missing" in refused(tmp_path / "lost")
    write_series(tmp_path / "unstated", 12, edit=_rounded)
    assert "mm apart" in refused(tmp_path / "unstated")


@pytest.mark.parametrize("bytes_left", [0, 500])
def test_a_cut_file_at_the_end_is_no_slice_less(bytes_left, tmp_path, write_series, refused):
    last = write_series(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:bytes_left])
    line = refused(tmp_path)
    assert line.startswith(f"{last}: is no whole DICOM file")
    assert "copy it again, or remove it" in line


def test_a_page_that_was_saved_as_a_slice_is_named(tmp_path, write_series, refused):
    write_series(tmp_path)
    (tmp_path / "999.dcm").write_text("<html>not found</html>" * 20)
    assert "999.dcm: is no whole DICOM file" in refused(tmp_path)


def test_broken_files_in_other_folders_do_not_matter(tmp_path, write_series, assert_suv, known):
    write_series(tmp_path / "pet")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "page.dcm").write_text("<html>report</html>" * 20)
    assert_suv(tmp_path, known.one_half_life)


@pytest.mark.parametrize("padding", [32767, -32768])
def test_padding_counts_as_no_uptake(padding, tmp_path, write_series, known):
    stored = np.random.default_rng(1).integers(1, 20000, (4, 16, 18))
    inside = np.ones(stored.shape, bool)
    inside[:, :3] = False

    def edit(data, _):
        data.PixelRepresentation = 1
        data.add_new((0x0028, 0x0120), "SS", padding)

    write_series(tmp_path / "plain", stored=np.where(inside, stored, 0))
    write_series(tmp_path / "padded", stored=np.where(inside, stored, padding), edit=edit)
    padded = read_dicom_pet(tmp_path / "padded")
    np.testing.assert_array_equal(padded.suv.array, read_dicom_pet(tmp_path / "plain").suv.array)
    assert padded.warnings == ()


@pytest.mark.parametrize("representation", [0, 1])
def test_pixels_that_do_not_end_the_file_are_read_too(
    representation, tmp_path, write_series, known
):
    stored = np.random.default_rng(2).integers(0, 30000, (4, 16, 18))
    write_series(tmp_path / "plain", stored=stored)

    def edit(data, _):
        data.PixelRepresentation = representation
        # Data Set Trailing Padding.
        data.add_new((0xFFFC, 0xFFFC), "OB", b"\0" * 10)

    write_series(tmp_path / "padded", stored=stored, edit=edit)
    found = [read_dicom_pet(tmp_path / name).suv.array for name in ("plain", "padded")]
    np.testing.assert_array_equal(*found)


def test_copies_of_a_slice_that_differ_are_named(
    tmp_path, write_series, assert_suv, refused, known
):
    paths = write_series(tmp_path / "export")
    again = [shutil.copy(path, tmp_path / f"copy_{path.name}") for path in paths]
    assert_suv(tmp_path, known.one_half_life)
    for path in again:
        data = pydicom.dcmread(path)
        data.PatientName = "Anonymous"
        data.save_as(path)
    assert_suv(tmp_path, known.one_half_life)
    data.PatientWeight = "140"
    data.save_as(path)
    line = refused(tmp_path)
    assert "is the same slice as" in line
    assert "Patient's Weight (0010,1030)" in line
    data = pydicom.dcmread(paths[-1])
    data.PixelData = bytes(len(data.PixelData))
    data.save_as(path)
    assert "Pixel Data (7FE0,0010); remove one of the two" in refused(tmp_path)


def test_a_folder_with_an_archive_says_so(tmp_path, refused):
    (tmp_path / "pet.zip").write_bytes(b"PK\3\4")
    assert "there is pet.zip: unpack it" in refused(tmp_path)
