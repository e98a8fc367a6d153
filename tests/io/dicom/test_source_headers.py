"""Headers that new DICOM objects copy: character sets, odd and missing values."""

from dataclasses import replace

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from dicom_objects import invalid  # noqa: E402

from nnunetv2_mip.errors import MipError  # noqa: E402
from nnunetv2_mip.io.dicom.masks import read_dicom_mask  # noqa: E402
from nnunetv2_mip.io.dicom.objects import object_paths, write_dicom_objects  # noqa: E402
from nnunetv2_mip.io.dicom.pet import DicomPet, read_dicom_pet  # noqa: E402
from nnunetv2_mip.io.dicom.source_headers import source_headers  # noqa: E402

# Of PS3.5 annexes H to K, as bytes.
NAMES = {
    "Japanese": (
        ["", "ISO 2022 IR 87"],
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    "Japanese, half width": (
        ["ISO 2022 IR 13", "ISO 2022 IR 87"],
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
    ),
    "Korean": (
        ["", "ISO 2022 IR 149"],
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    "Chinese, GB2312": (
        ["", "ISO 2022 IR 58"],
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab",
        "Zhang^XiaoDong=张^小东",
    ),
    "Chinese, GB18030": (
        "GB18030",
        "Wang=王^小东".encode("gb18030"),
        "Wang=王^小东",
    ),
    "Chinese, GBK": ("GBK", "Wang=王^小东".encode("gbk"), "Wang=王^小东"),
    "UTF-8": ("ISO_IR 192", "Wang=王^小東".encode(), "Wang=王^小東"),
    "Latin-1": ("ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
    "Cyrillic": ("ISO_IR 144", "Люксембург".encode("iso8859_5"), "Люксембург"),
    "Greek": ("ISO_IR 126", "Διονυσιος".encode("iso8859_7"), "Διονυσιος"),
    "Hebrew": ("ISO_IR 138", "שרון^דבורה".encode("iso8859_8"), "שרון^דבורה"),
    "Thai": ("ISO_IR 166", "สมชาย".encode("iso8859_11"), "สมชาย"),
    "not said, UTF-8": (None, "山田^太郎".encode(), "山田^太郎"),
    "empty, UTF-8": ("", "山田^太郎".encode(), "山田^太郎"),
    "nonsense, UTF-8": ("KLINGON", "Müller^Jörg".encode(), "Müller^Jörg"),
    "not said, Latin-1": (None, "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
    "several components": (None, b"A^B^C^D^E^F^G", "A^B^C^D^E"),
    "odd characters": (None, b'O\'Neil\x07^"Bob" [x]', 'O\'Neil^"Bob" [x]'),
}


@pytest.fixture
def pet_with(write_series, tmp_path):
    """PET series whose files were changed byte by byte: `pet_with(name=bytes, **tags)`."""

    def make(name: bytes = b"A^B", **tags) -> DicomPet:
        placeholder = "N" * (len(name) + len(name) % 2)
        folder = tmp_path / "pet"
        write_series(folder, PatientName=placeholder, **tags)
        for path in folder.iterdir():
            content = path.read_bytes()
            assert content.count(placeholder.encode()) == 1
            path.write_bytes(content.replace(placeholder.encode(), name.ljust(len(placeholder))))
        return read_dicom_pet(folder)

    return make


@pytest.fixture
def written(tmp_path):
    """Kind → data set of the objects of a mask of one voxel, and the mask read again."""

    def write(pet: DicomPet) -> dict[str, "pydicom.Dataset"]:
        numbers = np.zeros(pet.suv.array.shape, np.uint16)
        numbers[1, 2, 3] = 1
        row = {"volume_ml": 1.0, "suv_max": 2.0, "suv_mean": 2.0, "tlg": 2.0}
        paths = object_paths(tmp_path / "out", "case", ("seg", "rtstruct", "sr"))
        write_dicom_objects(numbers, [row], pet, paths)
        for kind, path in paths.items():
            assert invalid(path) == []
            if kind != "sr":
                assert np.array_equal(read_dicom_mask(path, pet).array, numbers)
        return {kind: pydicom.dcmread(path) for kind, path in paths.items()}

    return write


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("case", NAMES)
def test_names_of_all_character_sets_are_copied(case, pet_with):
    charset, name, expected = NAMES[case]
    first = source_headers(pet_with(name, SpecificCharacterSet=charset)).first
    assert first.SpecificCharacterSet == "ISO_IR 192"
    assert str(first.PatientName) == expected


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("case", ["Japanese", "Korean", "nonsense, UTF-8"])
def test_names_reach_the_objects(case, pet_with, written):
    charset, name, expected = NAMES[case]
    for data in written(pet_with(name, SpecificCharacterSet=charset)).values():
        assert str(data.PatientName) == expected


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(
    "keyword,value,expected",
    [
        ("PatientSex", None, ""),
        ("PatientSex", "", ""),
        ("PatientSex", "male", "M"),
        ("PatientSex", "f", "F"),
        ("PatientSex", "W", ""),
        ("PatientSex", "REMOVED", ""),
        ("PatientBirthDate", "", ""),
        ("PatientBirthDate", "1950", ""),
        ("PatientBirthDate", "1950.01.31", "19500131"),
        ("PatientBirthDate", "1950-01-31", "19500131"),
        ("PatientBirthDate", "19509999", ""),
        ("PatientBirthDate", "ANONYMIZED", ""),
        ("StudyTime", "10:20:30", "102030"),
        ("StudyTime", "997799", ""),
        ("StudyID", None, ""),
        ("StudyID", "a study id of far more than sixteen", "a study id of fa"),
        ("AccessionNumber", "7\\8", "7 8"),
        ("PatientAge", "45", None),
        ("PatientAge", "045Y", "045Y"),
    ],
)
def test_odd_values_are_mended_or_left_empty(keyword, value, expected, pet_with):
    assert source_headers(pet_with(**{keyword: value})).first.get(keyword) == expected


def test_a_blanked_header_is_enough(pet_with, written):
    blank = ("PatientID", "PatientSex", "PatientBirthDate", "StudyDate", "StudyTime", "StudyID")
    for data in written(pet_with(**dict.fromkeys(blank, ""))).values():
        assert all(data[keyword].is_empty for keyword in blank)


@pytest.mark.parametrize("between", ["0", "77"])
def test_the_slice_distance_is_that_of_the_positions(between, pet_with):
    assert source_headers(pet_with(SpacingBetweenSlices=between)).first.SpacingBetweenSlices == 3


def test_no_object_has_a_negative_slice_distance(pet_with, written):
    seg = written(pet_with(SpacingBetweenSlices="-3"))["seg"]
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == 3
    assert float(measures.SliceThickness) == 3


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_a_missing_uid_is_made_once_for_all_objects(keyword, pet_with, written):
    pet = pet_with(**{keyword: None})
    sources = source_headers(pet)
    (line,) = sources.warnings
    assert "lacks" in line
    assert "one of their own" in line
    made = {
        str(data.get(keyword) or data.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID)
        for kind, data in written(pet).items()
        if keyword in data or kind == "rtstruct"
    }
    assert made == {str(sources.first[keyword].value)}


def test_a_series_that_nothing_can_refer_to_is_refused(pet_with, monkeypatch):
    pet = pet_with()
    pet.headers[1].SOPInstanceUID = ""
    with pytest.raises(MipError, match=r"SOP Instance UID \(0008,0018\)"):
        source_headers(pet)
    # Two slices of one file, which does not say which of its frames they are.
    pet.headers[1].SOPInstanceUID = pet.headers[0].SOPInstanceUID
    with pytest.raises(MipError, match="0 of its frames lie at one position"):
        source_headers(pet)


def test_objects_refer_to_the_frames_of_a_multi_frame_file(pet_with, written, tmp_path):
    """Enhanced PET: one file, whose frames are in another order than the slices."""
    pet = pet_with()
    order = [2, 0, 3, 1]
    file = pydicom.dcmread(pet.files[0])
    file.SOPClassUID, file.NumberOfFrames = "1.2.840.10008.5.1.4.1.1.130", len(order)
    file.PerFrameFunctionalGroupsSequence = []
    for index in order:
        plane, group = pydicom.Dataset(), pydicom.Dataset()
        plane.ImagePositionPatient = pet.headers[index].ImagePositionPatient
        group.PlanePositionSequence = [plane]
        file.PerFrameFunctionalGroupsSequence.append(group)
    file.save_as(tmp_path / "enhanced.dcm")
    for header in pet.headers:
        header.SOPInstanceUID, header.SOPClassUID = file.SOPInstanceUID, file.SOPClassUID
    pet = replace(pet, files=(tmp_path / "enhanced.dcm",) * len(order))
    objects = written(pet)
    seg = objects["seg"].PerFrameFunctionalGroupsSequence[0]
    contour = objects["rtstruct"].ROIContourSequence[0].ContourSequence[0]
    for reference in (
        seg.DerivationImageSequence[0].SourceImageSequence[0],
        contour.ContourImageSequence[0],
    ):
        assert reference.ReferencedSOPClassUID == file.SOPClassUID
        assert reference.ReferencedSOPInstanceUID == file.SOPInstanceUID
        # The mask is in slice 1, the last frame.
        assert reference.ReferencedFrameNumber == 4
    (image,) = objects["seg"].ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert image.ReferencedSOPInstanceUID == file.SOPInstanceUID
    evidence = objects["sr"].CurrentRequestedProcedureEvidenceSequence[0]
    uids = [
        str(item.ReferencedSOPInstanceUID)
        for series in evidence.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]
    assert sorted(uids) == sorted([file.SOPInstanceUID, objects["seg"].SOPInstanceUID])
