"""Choice of the PET series among what scanners and archives store beside it."""

import numpy as np
import pytest

pytest.importorskip("pydicom")
from pydicom.uid import generate_uid

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.find_inputs import find_jobs
from nnunetv2_mip.io.dicom.choice import options_of_folders
from nnunetv2_mip.io.dicom.options import DicomOptions, check_options, parse_injection_time
from nnunetv2_mip.io.dicom.pet import find_dicom_studies, find_dicom_study, read_dicom_pet
from nnunetv2_mip.io.read_study import read_study

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def _rotate(data, index):
    angle = np.deg2rad(10 * index)
    data.ImageOrientationPatient = [round(np.cos(angle), 6), round(np.sin(angle), 6), 0, 0, 0, -1]
    data.ImagePositionPatient = [0, 0, 0]


def _colour(data, _):
    data.SamplesPerPixel, data.PhotometricInterpretation = 3, "RGB"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.PlanarConfiguration = 7, 0, 0
    data.PixelData = bytes(data.Rows * data.Columns * 3)


@pytest.mark.parametrize(
    ("edit", "changes"),
    [
        (_rotate, {"ImageType": ["DERIVED", "SECONDARY", "MIP"]}),
        (_rotate, {}),
        (None, {"ImageType": ["DERIVED", "SECONDARY", "MIP"]}),
        (None, {"SOPClassUID": CAPTURE}),
        (None, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        (_colour, {}),
    ],
)
def test_images_that_are_no_slices_are_passed_over(edit, changes, tmp_path, write_series):
    """More images than the body has slices, in a series of their own and in that of the body."""
    body = generate_uid()
    write_series(tmp_path / "body", SeriesInstanceUID=body)
    write_series(tmp_path / "images", 9, edit=edit, **changes)
    study = find_dicom_study(tmp_path)
    assert study.pet.uid == body
    assert study.warnings == ()


@pytest.mark.parametrize(
    ("edit", "changes"), [(None, {"SOPClassUID": CAPTURE}), (_colour, {"SOPClassUID": CAPTURE})]
)
def test_a_capture_in_the_series_itself_is_no_slice(edit, changes, tmp_path, write_series, known):
    body = generate_uid()
    write_series(tmp_path / "body", SeriesInstanceUID=body)
    write_series(tmp_path / "a capture", 2, edit=edit, SeriesInstanceUID=body, **changes)
    assert read_dicom_pet(tmp_path).suv.array.shape == known.shape


def test_images_that_are_no_slices_alone_are_refused_with_the_reason(
    tmp_path, write_series, refused
):
    write_series(tmp_path / "mip", 9, edit=_rotate)
    assert "another size, pixel spacing or orientation" in refused(tmp_path)
    write_series(tmp_path / "capture", 9, SOPClassUID=CAPTURE)
    assert "no PET series of slices" in refused(tmp_path)


def _coronal(data, index):
    data.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    data.ImagePositionPatient = [0, 2 * index, 0]


def _repeat(data, index):
    data.ImagePositionPatient[2] = 3 * (index % 4)


def _fine(data, index):
    data.ImagePositionPatient[2] = 0.5 * index


@pytest.mark.parametrize(
    ("edit", "count", "changes"),
    [
        (_fine, 9, {}),
        (None, 3, {}),
        (_coronal, 40, {}),
        (_repeat, 12, {}),
        (None, 9, {"SeriesType": ["GATED", "IMAGE"]}),
        (None, 9, {"SeriesType": ["DYNAMIC", "IMAGE"]}),
        (None, 9, {"ImageType": ["DERIVED", "SECONDARY"]}),
        (None, 9, {"Units": "PROPCNTS"}),
    ],
    ids=["head", "short", "coronal", "frames", "gated", "dynamic", "derived", "relative"],
)
def test_the_whole_body_is_taken_and_the_others_are_named(
    edit, count, changes, tmp_path, write_series
):
    body, other = generate_uid(), generate_uid()
    write_series(tmp_path / "body", SeriesInstanceUID=body)
    write_series(tmp_path / "other", count, edit=edit, SeriesInstanceUID=other, **changes)
    pet = read_dicom_pet(tmp_path)
    assert pet.study.pet.uid == body
    (line,) = pet.warnings
    assert other in line.split("left out")[1] and "--series UID" in line


def test_of_equal_lengths_the_finer_slices_are_taken_and_the_others_named(tmp_path, write_series):
    def finer(data, index):
        data.ImagePositionPatient[2] = -100 + 1.5 * index

    coarse, fine = generate_uid(), generate_uid()
    write_series(tmp_path / "coarse", SeriesInstanceUID=coarse)
    write_series(tmp_path / "fine", 8, edit=finer, SeriesInstanceUID=fine)
    study = find_dicom_study(tmp_path)
    assert study.pet.uid == fine and coarse in study.warnings[0]


def test_reconstructions_of_one_length_are_asked_about(tmp_path, write_series, refused):
    plain, psf = generate_uid(), generate_uid()
    write_series(tmp_path / "plain", SeriesInstanceUID=plain)
    write_series(tmp_path / "psf", SeriesInstanceUID=psf, SeriesDescription="PSF")
    message = refused(tmp_path)
    assert plain in message and psf in message and "--series UID" in message
    for uid in (plain, psf):
        study = find_dicom_study(tmp_path, DicomOptions((uid,)))
        assert study.pet.uid == uid and study.warnings == ()
    with pytest.raises(MipError, match="names 2 series"):
        find_dicom_study(tmp_path, DicomOptions((plain, psf)))


def test_without_corrected_image_the_longest_is_not_guessed(tmp_path, write_series, refused):
    write_series(tmp_path / "a", CorrectedImage=None)
    write_series(tmp_path / "b", 12, CorrectedImage=None)
    assert "2 PET series that could be meant" in refused(tmp_path)


def test_a_broken_body_is_not_replaced_by_a_head_in_silence(tmp_path, write_series, refused):
    body = write_series(tmp_path / "body", 8)
    body[3].unlink()
    head = generate_uid()
    write_series(tmp_path / "head", 3, SeriesInstanceUID=head)
    message = refused(tmp_path)
    assert "a slice is missing" in message and head in message
    assert read_dicom_pet(tmp_path, DicomOptions((head,))).suv.array.shape[0] == 3


def test_of_several_ct_series_the_longest_is_read_and_said(tmp_path, write_series, write_ct):
    write_series(tmp_path / "pet")
    write_ct(tmp_path / "long", SeriesDescription="low dose")
    write_ct(tmp_path / "short", count=6, SeriesDescription="lung")
    assert not [line for line in read_study(tmp_path).warnings if "CT series" in line]
    study = read_study(tmp_path, wants_ct=True)
    (line,) = (line for line in study.warnings if "CT series" in line)
    assert "low dose" in line.split("left out")[0] and "lung" in line.split("left out")[1]


@pytest.mark.parametrize("dates", [("20200115", "20200312"), ("20200115", "20200115"), ("", "")])
def test_studies_of_one_folder_get_masks_of_their_own(dates, tmp_path, write_series):
    source = tmp_path / "flat"
    uids = [generate_uid(), generate_uid()]
    for name, date, uid in zip("ab", dates, uids):
        paths = write_series(
            tmp_path / name,
            StudyInstanceUID=generate_uid(),
            SeriesInstanceUID=uid,
            StudyDate=date,
        )
        source.mkdir(exist_ok=True)
        for path in paths:
            path.rename(source / path.name)
    jobs = find_jobs(source, tmp_path / "out")
    assert {job.dicom.pet.uid for job in jobs} == set(uids)
    names = {job.dicom.pet.uid: job.case for job in jobs}
    assert len(set(names.values())) == 2
    for uid, date in zip(uids, dates):
        assert names[uid] == f"flat_{date if len(set(dates)) == 2 else uid.replace('.', '-')}"


def test_several_named_series_of_a_study_are_all_predicted(tmp_path, write_series):
    uids = tuple(generate_uid() for _ in range(3))
    for uid in uids:
        write_series(tmp_path / "in" / uid[-5:], SeriesInstanceUID=uid)
    found = find_dicom_studies(tmp_path / "in", DicomOptions(uids[:2]))
    assert [study.pet.uid for study in found] == list(uids[:2])
    # One patient: the weight is that of both.
    options = DicomOptions(uids[:2], weight_kg=80.0)
    assert len(find_jobs(tmp_path / "in", tmp_path / "out", options)) == 2


def test_values_of_one_study_are_not_given_to_several(tmp_path, write_series):
    for name in "ab":
        write_series(tmp_path / "in" / name, StudyInstanceUID=generate_uid())
    with pytest.raises(MipError, match=r"--dose_mbq 350: belongs to one study, .* 2 DICOM"):
        find_jobs(tmp_path / "in", tmp_path / "out", DicomOptions(dose_mbq=350.0))


def test_a_named_series_belongs_to_the_study_of_a_tree_that_has_it(tmp_path, write_series):
    uids = [generate_uid(), generate_uid()]
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, uid in zip(folders, uids):
        write_series(folder, SeriesInstanceUID=uid)
    own = options_of_folders(DicomOptions((uids[1],)), folders, tmp_path)
    assert own == {folders[0]: DicomOptions(), folders[1]: DicomOptions((uids[1],))}
    with pytest.raises(MipError, match=r"no DICOM study has the series 1\.2\.3"):
        options_of_folders(DicomOptions(("1.2.3",)), folders, tmp_path)
    with pytest.raises(MipError, match="holds 2 DICOM studies"):
        options_of_folders(DicomOptions(weight_kg=70.0), folders, tmp_path)
    with pytest.raises(MipError, match="--weight_kg 70: is for DICOM"):
        options_of_folders(DicomOptions(weight_kg=70.0), [], tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10:05", "10:05:00"),
        ("1005", "10:05:00"),
        ("100530.25", "10:05:30"),
        ("10:05:30", "10:05:30"),
        ("2025-01-31T10:05", "2025-01-31T10:05:00"),
        ("2025-01-31 10:05:30", "2025-01-31T10:05:30"),
        ("20250131100530", "2025-01-31T10:05:30"),
    ],
)
def test_times_of_injection(text, expected):
    assert parse_injection_time(text).isoformat() == expected


@pytest.mark.parametrize(
    "text", ["", "10", "25:00", "10:5", "2025-01-31", "20:25-01", "10:05+01:00", "noon", "-10:05"]
)
def test_times_of_injection_that_are_none(text):
    with pytest.raises(MipError, match="--injection_time"):
        parse_injection_time(text)


@pytest.mark.parametrize(
    "said",
    [
        {"series": ("abc",)},
        {"weight_kg": 0.0},
        {"weight_kg": float("nan")},
        {"dose_mbq": -1.0},
        {"dose_mbq": float("inf")},
    ],
)
def test_options_that_cannot_be(said):
    with pytest.raises(MipError, match=f"--{next(iter(said))}"):
        check_options(**said)
