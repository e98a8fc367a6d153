"""Uploads that are unsafe: files that name other files, exaggerate their size, or inflate."""

import gzip
import io
import shutil
import tracemalloc
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.service.settings import Settings
from nnunetv2_mip.service.uploads import read_upload
from nnunetv2_mip.views.geometry import ViewGeometry

SHAPE = (6, 5, 4)


def image(spacing: float = 4.0) -> sitk.Image:
    found = sitk.GetImageFromArray(np.ones(SHAPE, np.float32))
    found.SetSpacing((spacing,) * 3)
    return found


def read(path, **limits):
    return read_upload(path, path.name, False, Settings(**limits))


@pytest.fixture
def secret(tmp_path):
    """File outside the upload, of the size of the voxels."""
    path = tmp_path / "elsewhere" / "secret"
    path.parent.mkdir()
    np.full(SHAPE, 3, np.float32).tofile(path)
    return path


META = "ObjectType = Image\nNDims = 3\nDimSize = 4 5 6\nElementType = MET_FLOAT\n"
NRRD = "NRRD0004\ntype: float\ndimension: 3\nsizes: 4 5 6\nencoding: raw\nendian: little\n"


@pytest.mark.parametrize(
    "name, header",
    [
        ("a.mha", META + "ElementDataFile = {}\n"),
        ("a.mha", META + "ElementDataFile: {}\nElementDataFile = LOCAL\n"),
        ("a.mha", META + "Comment = ElementDataFile = LOCAL\nElementDataFile = {}\n"),
        ("a.mha", META + "ElementDataFile = LIST\n{}\n"),
        ("a.mhd", META + "ElementDataFile = {}\n"),
        ("a.nrrd", NRRD + "data file: {}\n\n"),
        ("a.nrrd", NRRD + "Data File: {}\n\n"),
        ("a.nrrd", NRRD + "datafile: {}\n"),
        ("a.nrrd", NRRD + "# " + "x" * 70_000 + "\ndata file: {}\n\n"),
    ],
)
def test_no_upload_reads_another_file(tmp_path, secret, name, header):
    path = tmp_path / name
    path.write_text(header.format(secret))
    with pytest.raises(MipError, match=rf"^{name}: keeps its voxels in another file"):
        read(path)


def test_a_format_that_names_other_files_is_not_read_under_an_accepted_suffix(tmp_path):
    path = tmp_path / "a.hdf5"
    sitk.WriteImage(image(), str(path))
    for name in ("a.nrrd", "a.nii", "a.mha"):
        other = path.rename(tmp_path / name)
        with pytest.raises(MipError, match=f"^{name}: "):
            read(other)
        other.rename(path)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("packed", [True, False])
def test_whole_files_are_read(tmp_path, name, packed):
    path = tmp_path / name
    sitk.WriteImage(image(), str(path), useCompression=packed)
    assert (read(path).study.suv.array == 1).all()


def test_a_stream_is_inflated_no_further_than_its_header_says(tmp_path):
    plain, path = tmp_path / "a.nii", tmp_path / "b.nii.gz"
    sitk.WriteImage(image(), str(plain))
    path.write_bytes(gzip.compress(plain.read_bytes() + bytes(2**26), 1))
    read(path)
    tracemalloc.start()
    assert (read(path).study.suv.array == 1).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_voxels_of_several_values_and_wide_ones_count_as_more(tmp_path):
    path = tmp_path / "a.mha"
    many = sitk.GetImageFromArray(np.ones((*SHAPE, 50), np.float32), isVector=True)
    sitk.WriteImage(many, str(path))
    with pytest.raises(MipError, match="120 voxels of 50 x 4 bytes, at most 1000"):
        read(path, max_voxels=1000)
    sitk.WriteImage(sitk.Cast(image(), sitk.sitkFloat64), str(path))
    with pytest.raises(MipError, match="120 voxels of 1 x 8 bytes, at most 200"):
        read(path, max_voxels=200)
    assert read(path, max_voxels=240).study is not None


@pytest.mark.parametrize("spacing", [(3000, 3000, 3000), (2900, 1, 1), (0.0005, 500, 4)])
def test_views_that_would_fill_the_memory_are_refused(tmp_path, spacing):
    picture = image()
    picture.SetSpacing(spacing)
    sitk.WriteImage(picture, str(tmp_path / "a.nii"))
    with pytest.raises(MipError, match=r"check the spacing in its header|which no PET has"):
        ViewGeometry.for_volume(read(tmp_path / "a.nii").study.suv, (0.0, 90.0), pixel_mm=2.0)


def test_doubtful_images_are_told(tmp_path):
    levels = np.full((60, 50), 30, np.uint8)
    levels[10:50, 10:40] = 200
    Image.fromarray(levels).save(tmp_path / "dark.png")
    assert ["border is dark" in line for line in read(tmp_path / "dark.png").warnings] == [True]
    Image.fromarray(255 - levels).save(tmp_path / "sound.png")
    assert read(tmp_path / "sound.png").warnings == ()


def test_a_nifti_2_header_is_checked_too(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(
        nibabel.Nifti2Image(np.ones((30, 24, 40), np.float32), np.diag([4.0, 4, 3, 1])),
        tmp_path / "a.nii",
    )
    assert read(tmp_path / "a.nii").study.suv.array.shape == (40, 24, 30)
    with pytest.raises(MipError, match="28800 voxels, at most 1000"):
        read(tmp_path / "a.nii", max_voxels=1000)


def test_volumes_in_a_zip_are_not_opened(tmp_path, secret):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.mha", META + f"ElementDataFile = {secret}\n")
        archive.writestr("b.nrrd", NRRD + f"data file: {secret}\n\n")
    with pytest.raises(MipError, match=r"^a\.zip: holds no PET series"):
        read(path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_is_reported(tmp_path, kind):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", kind) as archive:
        # Compressible, so that the damage hits the compressed stream and not just its content.
        archive.writestr("a.dcm", np.random.default_rng(0).integers(0, 4, 4000, np.uint8).tobytes())
    content = bytearray(path.read_bytes())
    content[60:200] = b"\xff" * 140
    path.write_bytes(content)
    with pytest.raises(MipError, match=r"^a\.zip: cannot be unpacked"):
        read(path)


def test_a_zip_of_two_series_names_the_field_that_tells_them_apart(tmp_path):
    """The advice can be followed on the page; hidden files of macOS do not matter."""
    pytest.importorskip("pydicom")
    from nnunetv2_mip.io.dicom.options import DicomOptions

    path, uids = tmp_path / "two.zip", ("1.2.3", "1.2.4")
    with zipfile.ZipFile(path, "w") as archive:
        for level, uid in enumerate(uids, start=1):
            for index in range(3):
                archive.writestr(f"pet/{uid}/{index}.dcm", _slice(uid, index, level))
        archive.writestr("__MACOSX/pet/._0.dcm", b"\0\5\26\7" * 40)
    with pytest.raises(MipError, match="name one with Series under DICOM") as caught:
        read(path)
    assert all(uid in str(caught.value) for uid in uids)
    shutil.rmtree(f"{path}.d")
    for level, uid in enumerate(uids, start=1):
        found = read_upload(path, path.name, False, Settings(), DicomOptions((uid,)))
        assert found.study.suv.array.max() == level
        shutil.rmtree(f"{path}.d")


def test_options_of_dicom_are_refused_of_other_files(tmp_path):
    pytest.importorskip("pydicom")
    from nnunetv2_mip.io.dicom.options import DicomOptions

    path = tmp_path / "a.mha"
    sitk.WriteImage(image(), str(path))
    with pytest.raises(MipError, match="--weight_kg 70: is for DICOM"):
        read_upload(path, path.name, False, Settings(), DicomOptions(weight_kg=70.0))


def _slice(series: str, index: int, level: int) -> bytes:
    """File of a PET slice in SUV."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    values = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": series,
        "Modality": "PT",
        "Units": "GML",
        "CorrectedImage": ["DECY", "ATTN"],
        "ImagePositionPatient": [0, 0, 3 * index],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [3, 3],
        "RescaleSlope": "1",
        "RescaleIntercept": "0",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 4,
        "Columns": 4,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": np.full((4, 4), level, np.uint16).tobytes(),
    }
    for keyword, value in values.items():
        setattr(data, keyword, value)
    stream = io.BytesIO()
    data.save_as(stream)
    return stream.getvalue()
