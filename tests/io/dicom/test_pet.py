"""DICOM PET to SUV: hand-computed values for every rule, refusals that name file and tag."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    generate_uid,
)

from nnunetv2_mip.commands import convert_autopet, fuse, project  # noqa: E402
from nnunetv2_mip.errors import MipError  # noqa: E402
from nnunetv2_mip.io.dicom.pet import read_dicom_ct, read_dicom_pet  # noqa: E402
from nnunetv2_mip.io.read_study import read_study  # noqa: E402
from nnunetv2_mip.io.volumes import read_mask, read_suv, write_volume  # noqa: E402

PET_SOP, CT_SOP = "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.2"
STUDY, FRAME = generate_uid(), generate_uid()
SHAPE = (4, 3, 5)
SPACING = (3.0, 2.0, 2.5)
LOWEST = (-10.0, 20.0, -100.0)
SLOPES = (0.5, 1.0, 2.0, 4.0)
# 70 kg, 350 MBq: 0.0002 SUV per Bq/ml at injection, and one half-life later 0.0004.
AT_INJECTION, ONE_HALF_LIFE = 0.0002, 0.0004
STORED = np.arange(60).reshape(SHAPE) + 7


def tracer(**changes) -> Dataset:
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


def clock(minutes: int) -> str:
    return f"{minutes // 60:02d}{minutes % 60:02d}00.00"


def header(index: int, uid: str, **changes) -> FileDataset:
    """Slice `index` of a series that is corrected to one half-life (110 min) after injection."""
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
        "AcquisitionTime": clock(11 * 60 + 50 + 3 * index),
        "ActualFrameDuration": "240000",
        "PatientWeight": "70",
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["DECY", "ATTN", "SCAT"],
        "RadiopharmaceuticalInformationSequence": [tracer()],
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


def write_series(folder: Path, count: int = 4, stored=None, edit=None, **changes) -> list[Path]:
    """Slices in files whose names do not follow their positions; `edit(header, index)` last."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = changes.pop("SeriesInstanceUID", None) or generate_uid()
    stored = STORED if stored is None else stored
    paths = []
    for index in range(count):
        data = header(index, uid, **changes)
        pixels = np.ascontiguousarray(stored[index % len(stored)], np.int16)
        data.Rows, data.Columns = pixels.shape
        data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
        data["PixelData"].VR = "OW"
        if edit is not None:
            edit(data, index)
        paths.append(folder / f"{(index * 7 + 3) % 11:02d}_{uid[-8:]}.dcm")
        data.save_as(paths[-1])
    return paths


def bq_per_ml() -> np.ndarray:
    return STORED * np.array(SLOPES)[:, None, None]


def assert_suv(folder: Path, factor: float | np.ndarray, **options) -> None:
    suv = read_dicom_pet(folder, **options).suv.array
    assert suv.dtype == np.float32
    np.testing.assert_allclose(suv, bq_per_ml() * factor, rtol=1e-6)


def refused(folder: Path, **options) -> str:
    with pytest.raises(MipError) as caught:
        read_dicom_pet(folder, **options)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def test_slices_are_sorted_scaled_and_decayed_to_the_series_time(tmp_path):
    write_series(tmp_path)
    assert_suv(tmp_path, ONE_HALF_LIFE)
    pet = read_dicom_pet(tmp_path)
    assert pet.warnings == ()
    assert pet.suv.spacing_mm == SPACING
    assert pet.suv.grid.origin == LOWEST
    assert [h.InstanceNumber for h in pet.headers] == [1, 2, 3, 4]


def test_admin_is_already_at_injection(tmp_path):
    write_series(tmp_path, DecayCorrection="ADMIN")
    assert_suv(tmp_path, AT_INJECTION)


def test_without_correction_every_slice_has_its_own_moment(tmp_path):
    """Frames of 2 s, so short that their mean moment is their middle, 3 minutes apart."""
    write_series(
        tmp_path, DecayCorrection="NONE", CorrectedImage=["ATTN"], ActualFrameDuration="2000"
    )
    after_s = np.array([0, 3, 6, 9]) * 60 + 1
    factors = ONE_HALF_LIFE * 2 ** (after_s / 6600)
    assert_suv(tmp_path, factors[:, None, None])


def test_without_correction_long_frames_count_at_their_mean_rate(tmp_path):
    """A frame of one half-life T: its mean rate is 1 / (2 ln 2) of the rate at its start."""
    write_series(
        tmp_path,
        DecayCorrection="NONE",
        CorrectedImage=["ATTN"],
        ActualFrameDuration="6600000",
        AcquisitionTime="115000",
    )
    assert_suv(tmp_path, ONE_HALF_LIFE * 2 * np.log(2))


@pytest.mark.parametrize(
    ("missing", "named"),
    [("AcquisitionTime", "(0008,0032)"), ("ActualFrameDuration", "(0018,1242)")],
)
def test_without_correction_the_moment_must_be_known(missing, named, tmp_path):
    write_series(tmp_path, DecayCorrection="NONE", CorrectedImage=None, **{missing: None})
    assert named in refused(tmp_path)


def test_gml_is_suv(tmp_path):
    write_series(tmp_path, Units="GML", PatientWeight=None, DecayCorrection=None)
    assert_suv(tmp_path, 1.0)
    write_series(tmp_path / "lean", Units="GML", SUVType="LBM")
    assert "(0054,1006)" in refused(tmp_path / "lean")


def philips(**factors):
    def edit(data, index):
        block = data.private_block(0x7053, "Philips PET Private Group", create=True)
        for element, value in factors.items():
            block.add_new({"suv": 0x00, "activity": 0x09}[element], "DS", value)

    return edit


def test_philips_counts(tmp_path):
    write_series(tmp_path / "suv", Units="CNTS", edit=philips(suv="0.003", activity="9"))
    assert_suv(tmp_path / "suv", 0.003)
    write_series(tmp_path / "activity", Units="CNTS", edit=philips(suv="0", activity="2.5"))
    assert_suv(tmp_path / "activity", 2.5 * ONE_HALF_LIFE)
    write_series(tmp_path / "neither", Units="CNTS")
    assert "(7053,1000)" in refused(tmp_path / "neither")


def test_injected_before_midnight_and_scanned_after_it(tmp_path):
    late = tracer(RadiopharmaceuticalStartTime="233000")
    write_series(
        tmp_path,
        RadiopharmaceuticalInformationSequence=[late],
        SeriesTime="012000",
        AcquisitionTime="012000",
    )
    assert_suv(tmp_path, ONE_HALF_LIFE)


def test_acquired_on_both_sides_of_midnight_without_dates(tmp_path):
    times = ["235500", "235900", "000300", "000700"]

    def edit(data, index):
        data.AcquisitionTime = times[index]

    item = tracer(RadiopharmaceuticalStartTime="220500")
    write_series(
        tmp_path,
        edit=edit,
        RadiopharmaceuticalInformationSequence=[item],
        SeriesTime="235500",
        SeriesDate=None,
        AcquisitionDate=None,
    )
    assert_suv(tmp_path, ONE_HALF_LIFE)


@pytest.mark.parametrize("other", [None, "030000"])
def test_the_injection_date_and_time_come_first(other, tmp_path):
    item = tracer(
        RadiopharmaceuticalStartTime=other,
        RadiopharmaceuticalStartDateTime="20200114233000.000000",
    )
    write_series(
        tmp_path,
        RadiopharmaceuticalInformationSequence=[item],
        SeriesTime="012000",
        AcquisitionTime="012000",
    )
    assert_suv(tmp_path, ONE_HALF_LIFE)


def test_days_count_where_the_nuclide_lives_for_days(tmp_path):
    """Zirconium-like: one half-life of two days."""
    item = tracer(
        RadiopharmaceuticalStartDateTime="20200113115000", RadionuclideHalfLife=str(2 * 86400)
    )
    write_series(tmp_path / "dated", RadiopharmaceuticalInformationSequence=[item])
    assert_suv(tmp_path / "dated", ONE_HALF_LIFE)
    item = tracer(RadionuclideHalfLife=str(2 * 86400))
    write_series(tmp_path / "undated", RadiopharmaceuticalInformationSequence=[item])
    (line,) = read_dicom_pet(tmp_path / "undated").warnings
    assert "day of injection" in line


def test_a_time_zone_of_the_injection(tmp_path):
    item = tracer(
        RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime="20200115080000+0000"
    )
    write_series(
        tmp_path, RadiopharmaceuticalInformationSequence=[item], TimezoneOffsetFromUTC="+0200"
    )
    assert_suv(tmp_path, ONE_HALF_LIFE)


def test_an_injection_date_that_cannot_be_leaves_the_time_of_day(tmp_path):
    item = tracer(RadiopharmaceuticalStartDateTime="20210704100000")
    write_series(tmp_path, RadiopharmaceuticalInformationSequence=[item])
    assert_suv(tmp_path, ONE_HALF_LIFE)
    (line,) = read_dicom_pet(tmp_path).warnings
    assert "time of day" in line


def test_an_injection_after_the_scan_is_refused(tmp_path):
    item = tracer(RadiopharmaceuticalStartTime="115500")
    write_series(tmp_path, RadiopharmaceuticalInformationSequence=[item])
    assert "half-lives" in refused(tmp_path)


def test_a_series_made_later_counts_from_its_acquisition(tmp_path):
    write_series(tmp_path / "any", SeriesTime="170000")
    assert_suv(tmp_path / "any", ONE_HALF_LIFE)
    (line,) = read_dicom_pet(tmp_path / "any").warnings
    assert "first acquisition" in line

    def ge(data, index):
        block = data.private_block(0x0009, "GEMS_PETD_01", create=True)
        block.add_new(0x0D, "DT", "20200115115000.00")

    late = {"SeriesTime": "170000", "AcquisitionTime": "121500"}
    write_series(tmp_path / "ge", edit=ge, **late)
    assert_suv(tmp_path / "ge", ONE_HALF_LIFE)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"Units": None}, "Units (0054,1001)"),
        ({"Units": "PROPCPS"}, "PROPCPS"),
        ({"DecayCorrection": None}, "Decay Correction (0054,1102)"),
        ({"DecayCorrection": "SOON"}, "SOON"),
        ({"PatientWeight": None}, "Patient's Weight (0010,1030)"),
        ({"PatientWeight": ""}, "Patient's Weight (0010,1030)"),
        ({"PatientWeight": "0"}, "Patient's Weight (0010,1030) is 0"),
        ({"SeriesTime": None}, "Series Time (0008,0031)"),
        ({"SeriesTime": "99"}, "Series Time (0008,0031) is no time"),
        ({"SeriesDate": "2020-1"}, "Series Date (0008,0021) is no date"),
        ({"CorrectedImage": ["DECY"]}, "Corrected Image (0028,0051)"),
        ({"CorrectedImage": ["ATTN"]}, "Corrected Image (0028,0051)"),
        ({"RadiopharmaceuticalInformationSequence": None}, "(0054,0016)"),
        ({"RadiopharmaceuticalInformationSequence": [tracer(), tracer()]}, "(0054,0016)"),
        ({"RescaleSlope": None}, "Rescale Slope (0028,1053)"),
        ({"ImagePositionPatient": None}, "(0020,0032)"),
        ({"ImageOrientationPatient": [0.8, 0.6, 0, -0.6, 0.8, 0]}, "oblique"),
        ({"PixelSpacing": [0, 2]}, "Pixel Spacing (0028,0030)"),
        ({"NumberOfFrames": 3}, "multi-frame"),
        ({"NumberOfFrames": "1", "SamplesPerPixel": 3}, "colour"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(TM|DA|time).*:UserWarning")
def test_what_suv_needs_is_named(changes, named, tmp_path):
    paths = write_series(tmp_path, **changes)
    message = refused(tmp_path)
    assert named in message
    assert any(str(path) in message for path in paths)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"RadionuclideTotalDose": None}, "Radionuclide Total Dose (0018,1074)"),
        ({"RadionuclideTotalDose": "0"}, "Radionuclide Total Dose (0018,1074)"),
        ({"RadionuclideHalfLife": None}, "Radionuclide Half Life (0018,1075)"),
        ({"RadiopharmaceuticalStartTime": None}, "(0018,1072)"),
        ({"RadiopharmaceuticalStartTime": "noon"}, "(0018,1072)"),
        ({"RadiopharmaceuticalStartDateTime": "soon"}, "(0018,1078)"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*(TM|DT|time).*:UserWarning")
def test_what_suv_needs_of_the_injection_is_named(changes, named, tmp_path):
    write_series(tmp_path, RadiopharmaceuticalInformationSequence=[tracer(**changes)])
    assert named in refused(tmp_path)


def test_a_missing_slice_and_a_doubled_one(tmp_path):
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


def test_a_slice_missing_at_an_end_is_told(tmp_path):
    paths = write_series(tmp_path, NumberOfSlices=4)
    assert read_dicom_pet(tmp_path).warnings == ()
    paths[3].unlink()
    (line,) = read_dicom_pet(tmp_path).warnings
    assert "4 slices by its header, 3" in line


def test_rounded_positions_are_one_spacing(tmp_path):
    def edit(data, index):
        data.ImagePositionPatient[2] = LOWEST[2] + 3 * index + (0.08 if index == 1 else 0)

    write_series(tmp_path, edit=edit)
    assert read_dicom_pet(tmp_path).suv.spacing_mm == SPACING


def test_tilted_and_mixed_slices_are_refused(tmp_path):
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
def test_any_axis_order_agrees_with_itk(cosines, tmp_path):
    normal = np.cross(cosines[:3], cosines[3:])

    def edit(data, index):
        data.ImagePositionPatient = [float(v) for v in LOWEST + normal * 3.0 * index]

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


def test_small_negative_values_become_zero(tmp_path):
    write_series(tmp_path, stored=STORED - 20)
    assert read_dicom_pet(tmp_path).suv.array.min() == 0
    write_series(tmp_path / "empty", stored=np.zeros(SHAPE))
    assert "is empty" in refused(tmp_path / "empty")


def test_other_files_and_copies_do_not_matter(tmp_path):
    paths = write_series(tmp_path / "deep" / "er")
    (tmp_path / "copy.dcm").write_bytes(paths[1].read_bytes())
    paths[2].rename(tmp_path / "IM0002")
    (tmp_path / "readme.txt").write_text("not an image")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "._hidden.dcm").write_bytes(b"junk")
    assert_suv(tmp_path, ONE_HALF_LIFE)


def test_damaged_files_are_named(tmp_path):
    paths = write_series(tmp_path)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:-10])
    assert str(paths[1]) in refused(tmp_path)


def test_a_file_compressed_as_a_whole_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    def deflate(data, _):
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    paths = write_series(tmp_path / "pet", edit=deflate)
    monkeypatch.setattr("pydicom.filereader.zlib.decompress", None)
    message = refused(tmp_path / "pet")
    assert any(path.name in message for path in paths)
    assert "Deflated" in message and "dcmconv" in message


def test_the_attenuation_corrected_and_longest_series_is_taken(tmp_path):
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
    assert_suv(tmp_path, 2 * ONE_HALF_LIFE, series=twin)
    assert "1.2.3" in refused(tmp_path, series="1.2.3")


def test_two_studies_are_not_guessed_between(tmp_path):
    write_series(tmp_path / "long")
    write_series(tmp_path / "short", count=3, StudyInstanceUID=generate_uid())
    assert "several studies" in refused(tmp_path)


def write_ct(folder: Path, level=lambda z: 10 * z, count: int = 12, **changes) -> None:
    """Slices 1 mm apart, each value by its z."""

    def edit(data, index):
        z = LOWEST[2] - 1.5 + index
        data.ImagePositionPatient = [-20, 10, z]
        data.PixelData = np.full((40, 40), level(z) + 1024, np.int16).tobytes()
        data.RescaleSlope, data.RescaleIntercept = "1", "-1024"

    options = {"Modality": "CT", "SOPClassUID": CT_SOP, "PixelSpacing": [1, 1], **changes}
    write_series(folder, count, np.zeros((1, 40, 40)), edit, **options)


def test_ct_comes_in_hu_on_the_grid_of_the_pet(tmp_path):
    write_series(tmp_path / "pet")
    assert read_dicom_ct(read_dicom_pet(tmp_path)) is None
    write_ct(tmp_path / "ct", count=9)
    write_ct(tmp_path / "scout", count=20, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_ct(tmp_path / "elsewhere", count=20, FrameOfReferenceUID=generate_uid())
    pet = read_dicom_pet(tmp_path)
    ct = read_dicom_ct(pet)
    assert ct.grid == pet.suv.grid
    assert ct.array.shape == SHAPE
    # z is -100, -97, -94, -91; the slices of the CT lie between, up to -93.5.
    expected = np.array([-1000, -970, -940, -1000], np.float32)
    np.testing.assert_allclose(ct.array, np.broadcast_to(expected[:, None, None], SHAPE))


def test_no_pet_in_the_folder(tmp_path):
    assert "no DICOM series at all" in refused(tmp_path)
    write_ct(tmp_path / "ct")
    assert "there is: CT" in refused(tmp_path)
    assert "no such folder" in refused(tmp_path / "nowhere")


def test_a_study_reads_the_same_from_files_and_from_a_folder(tmp_path):
    write_series(tmp_path / "dicom", SeriesTime="170000")
    from_dicom = read_study(tmp_path / "dicom")
    assert "the series time 17:00:00 is later" in from_dicom.warnings[0]
    write_volume(from_dicom.suv.array, from_dicom.grid, tmp_path / "suv.nii.gz")
    from_file = read_study(tmp_path / "suv.nii.gz")
    assert from_file.dicom is None and from_dicom.dicom.suv is from_dicom.suv
    np.testing.assert_array_equal(from_dicom.suv.array, from_file.suv.array)


def convert(tree: Path, raw: Path, monkeypatch, *options: str) -> Path:
    monkeypatch.setenv("nnUNet_raw", str(raw))
    with pytest.raises(SystemExit) as ended:
        convert_autopet.main(["-i", str(tree), "-d", "7", "--views", "3", *options])
    assert ended.value.code == 0
    return raw / "Dataset007_AutoPETMIP"


def test_a_tree_of_dicom_studies_converts_as_the_same_volumes_do(tmp_path, monkeypatch):
    dicom, nifti = (tmp_path / kind / "PETCT_a" / "study" for kind in ("dicom", "nifti"))
    write_series(dicom / "pet")
    write_ct(dicom / "ct")
    pet = read_dicom_pet(dicom)
    ct = read_dicom_ct(pet)
    mask = pet.suv.array > np.percentile(pet.suv.array, 90)
    for study in (dicom, nifti):
        write_volume(mask.astype(np.uint8), pet.suv.grid, study / "SEG.nii.gz")
    write_volume(pet.suv.array, pet.suv.grid, nifti / "SUV.nii.gz")
    write_volume(ct.array, ct.grid, nifti / "CTres.nii.gz")
    found = [
        convert(tmp_path / kind, tmp_path / f"raw_{kind}", monkeypatch, "--channels", "suv,ct")
        for kind in ("dicom", "nifti")
    ]
    stacks = sorted(path.relative_to(found[0]) for path in found[0].rglob("*.nii.gz"))
    assert len(stacks) == 3
    for stack in stacks:
        assert (found[0] / stack).read_bytes() == (found[1] / stack).read_bytes()


def test_a_dicom_study_without_the_wanted_ct(tmp_path, monkeypatch, capsys):
    study = tmp_path / "tree" / "PETCT_a" / "study"
    write_series(study / "pet")
    pet = read_dicom_pet(study)
    write_volume(np.ones(SHAPE, np.uint8), pet.suv.grid, study / "SEG.nii.gz")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    with pytest.raises(SystemExit) as ended:
        convert_autopet.main(["-i", str(tmp_path / "tree"), "-d", "7", "--channels", "suv,ct"])
    assert ended.value.code == 2
    assert "the channel ct needs the CT" in capsys.readouterr().err


def test_fusing_with_a_dicom_series(tmp_path, monkeypatch):
    write_series(tmp_path / "pet")
    pet = read_dicom_pet(tmp_path / "pet")
    mask = (pet.suv.array > np.median(pet.suv.array)).astype(np.uint8)
    write_volume(mask, pet.suv.grid, tmp_path / "seg.nii.gz")
    commands = (
        (project, ["-i", "pet", "-o", "views", "--seg", "seg.nii.gz", "--views", "5"]),
        (fuse, ["-i", "views", "-o", "mask.nii.gz", "--suv", "pet", "--rule", "visibility"]),
    )
    for command, options in commands:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            command.main(options)
        assert ended.value.code == 0
    assert read_mask(tmp_path / "mask.nii.gz", like=pet.suv).array.any()


def test_without_pydicom_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    (tmp_path / "a.dcm").write_bytes(b"anything")
    with pytest.raises(MipError, match=r'pip install "nnunetv2-mip\[dicom\]"'):
        read_dicom_pet(tmp_path)


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
