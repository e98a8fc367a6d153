"""Lesion masks of SEG and RTSTRUCT files on the grid of a PET."""

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

from dicom_objects import ORIENTATIONS, lesions_on  # noqa: E402
from helpers import run  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.sr.codedict import codes  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, generate_uid  # noqa: E402

from nnunetv2_mip.commands import evaluate, project  # noqa: E402
from nnunetv2_mip.errors import MipError  # noqa: E402
from nnunetv2_mip.evaluation.matching import match  # noqa: E402
from nnunetv2_mip.io.dicom.masks import (  # noqa: E402
    is_dicom_file,
    mask_reference,
    read_dicom_mask,
    read_dicom_mask_on,
)
from nnunetv2_mip.io.dicom.pet import DicomPet, read_dicom_pet  # noqa: E402
from nnunetv2_mip.io.dicom.seg import write_dicom_seg  # noqa: E402
from nnunetv2_mip.io.dicom.source_headers import source_headers  # noqa: E402
from nnunetv2_mip.io.read_study import read_study  # noqa: E402
from nnunetv2_mip.io.volumes import write_volume  # noqa: E402
from nnunetv2_mip.report.case_arrays import read_volume_case  # noqa: E402
from nnunetv2_mip.report.case_files import files_of_pairs  # noqa: E402

Kind = highdicom.seg.SegmentationTypeValues


@pytest.fixture
def pet(tmp_path, write_pet) -> DicomPet:
    return read_dicom_pet(write_pet(tmp_path / "pet"))


@pytest.fixture
def mask(pet) -> np.ndarray:
    return lesions_on(pet.suv.array.shape)


def write_seg(path, pet, pixels, kind=Kind.BINARY, names=("Lesion",), types=None, **options):
    """SEG of a stack in the order of the slices, as another program would write it."""
    types = types or [codes.SCT.Neoplasm] * len(names)
    category = {
        True: codes.SCT.MorphologicallyAbnormalStructure,
        False: codes.SCT.AnatomicalStructure,
    }
    segments = [
        highdicom.seg.SegmentDescription(
            n, name, category[code == codes.SCT.Neoplasm], code, "MANUAL"
        )
        for n, (name, code) in enumerate(zip(names, types), start=1)
    ]
    seg = highdicom.seg.Segmentation(
        source_images=list(source_headers(pet).slices),
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=7,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="another program",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    seg.save_as(path)
    return path


def write_rtstruct(path, pet, rois: dict, frame_uid=None, series=None):
    """RTSTRUCT of ROI name → list of contours, each (N, 3) points in mm or (type, points)."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.Modality, data.StudyInstanceUID = "RTSTRUCT", pet.headers[0].StudyInstanceUID
    frame_uid = frame_uid or pet.headers[0].FrameOfReferenceUID
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame_uid
        data.StructureSetROISequence.append(roi)
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for contour in contours:
            kind, points = contour if isinstance(contour, tuple) else ("CLOSED_PLANAR", contour)
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
            item.ContourData = [f"{value:.3f}" for value in np.ravel(points)]
            drawn.ContourSequence.append(item)
        data.ROIContourSequence.append(drawn)
    if series:
        frame, study, refers = Dataset(), Dataset(), Dataset()
        refers.SeriesInstanceUID = series
        study.RTReferencedSeriesSequence = [refers]
        frame.RTReferencedStudySequence, frame.FrameOfReferenceUID = [study], frame_uid
        data.ReferencedFrameOfReferenceSequence = [frame]
    data.save_as(path, enforce_file_format=True)
    return path


def box(pet: DicomPet, z: float, y: tuple[float, float], x: tuple[float, float]) -> np.ndarray:
    """Rectangle in mm, of places in voxels of the canonical array."""
    grid = pet.suv.grid.canonical()
    corners = [(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)]
    return np.array(corners) * np.array(grid.spacing) + np.array(grid.origin)


def stack_of(mask, pet) -> np.ndarray:
    return np.ascontiguousarray(pet.suv.grid.from_canonical(mask)).astype(np.uint8)


def test_fractional_segments_count_from_one_half(tmp_path, pet, mask):
    share = stack_of(mask, pet) * 0.6
    share[0] = 0.4
    path = write_seg(tmp_path / "s.dcm", pet, share, Kind.FRACTIONAL, max_fractional_value=100)
    assert np.array_equal(read_dicom_mask(path, pet).array, mask)


def test_a_labelmap_is_read(tmp_path, pet, mask):
    names = ("Lesion 1", "Lesion 2")
    labels = stack_of(mask, pet) + stack_of(mask * (np.indices(mask.shape)[0] > 5), pet)
    path = write_seg(tmp_path / "s.dcm", pet, labels, Kind.LABELMAP, names)
    assert np.array_equal(read_dicom_mask(path, pet).array, mask)


def test_organs_beside_lesions_are_left_out_with_a_line(tmp_path, pet, mask):
    labels = stack_of(mask, pet)
    labels[0, 5:9, 5:9] = 2
    types = [codes.SCT.Neoplasm, codes.SCT.Liver]
    lines: list[str] = []
    for kind in (Kind.BINARY, Kind.LABELMAP):
        path = write_seg(tmp_path / "s.dcm", pet, labels, kind, ("A", "B"), types)
        assert np.array_equal(read_dicom_mask(path, pet, lines.append).array, mask)
    assert lines == [f"{path}: takes 'A' as lesions, leaves out 'B'"] * 2


def test_a_seg_of_organs_is_refused(tmp_path, pet, mask):
    path = write_seg(tmp_path / "s.dcm", pet, stack_of(mask, pet), types=[codes.SCT.Liver],
                     names=("Segment_1",))  # fmt: skip
    with pytest.raises(MipError, match="which segments are lesions is not clear from 'Segment_1'"):
        read_dicom_mask(path, pet)


@pytest.mark.parametrize("name", ["feet first", "sagittal"])
def test_frames_are_matched_by_place_not_by_index(name, tmp_path, write_pet):
    folder = write_pet(tmp_path / "pet", ORIENTATIONS[name])
    pet = read_dicom_pet(folder)
    mask = lesions_on(pet.suv.array.shape)
    write_dicom_seg(mask, pet, tmp_path / "s.dcm")
    seg = pydicom.dcmread(tmp_path / "s.dcm")
    order = np.random.default_rng(0).permutation(int(seg.NumberOfFrames))
    frames = seg.pixel_array[order]
    groups = list(seg.PerFrameFunctionalGroupsSequence)
    seg.PerFrameFunctionalGroupsSequence = [groups[index] for index in order]
    seg.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()
    seg.PixelData += b"\0" * (len(seg.PixelData) % 2)
    seg.save_as(tmp_path / "s.dcm")
    assert np.array_equal(read_dicom_mask(tmp_path / "s.dcm", pet).array, mask)


def test_a_seg_of_the_other_axes_on_the_same_voxels_is_exact(tmp_path, write_pet):
    """Frames along another axis of the body: only their places say where they belong."""
    tags = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    cube = {"PixelSpacing": [5, 5], **tags}
    axial = read_dicom_pet(write_pet(tmp_path / "axial", **cube))
    coronal = read_dicom_pet(write_pet(tmp_path / "coronal", ORIENTATIONS["coronal"], **cube))
    # Its highest voxels are the lowest ones of the axial series.
    drawn = np.zeros(coronal.suv.array.shape, np.uint8)
    drawn[-1, 2:5, 3:9] = drawn[-1, 6, 2] = 1
    write_dicom_seg(drawn, coronal, tmp_path / "s.dcm")
    lines: list[str] = []
    found = read_dicom_mask(tmp_path / "s.dcm", axial, lines.append).array
    assert np.array_equal(found[0], drawn[-1, : found.shape[1]])
    assert not found[1:].any()
    assert lines == []


def test_other_voxels_take_the_nearest_value_with_a_line(tmp_path, write_pet):
    """A mask drawn on a grid of half the pixel size (as of a CT), and its volume."""
    tags = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    pet = read_dicom_pet(write_pet(tmp_path / "pet", PixelSpacing=[4, 4], **tags))
    fine = read_dicom_pet(write_pet(tmp_path / "fine", PixelSpacing=[2, 2], **tags))
    drawn = np.zeros(fine.suv.array.shape, np.uint8)
    drawn[2:5, 3:7, 5:9] = 1
    write_dicom_seg(drawn, fine, tmp_path / "s.dcm")
    lines: list[str] = []
    found = read_dicom_mask(tmp_path / "s.dcm", pet, lines.append).array
    expected = np.zeros_like(found)
    expected[2:5, 2:4, 3:5] = 1
    assert np.array_equal(found, expected)
    (line,) = lines
    assert "lies on other voxels than the PET" in line
    assert "0.96 ml become 0.96 ml" in line


def test_another_frame_of_reference_is_refused_unless_the_series_is_named(tmp_path, pet, mask):
    write_dicom_seg(mask, pet, tmp_path / "s.dcm")
    seg = pydicom.dcmread(tmp_path / "s.dcm")
    seg.FrameOfReferenceUID = generate_uid()
    seg.save_as(tmp_path / "s.dcm")
    assert np.array_equal(read_dicom_mask(tmp_path / "s.dcm", pet).array, mask)
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = generate_uid()
    seg.save_as(tmp_path / "s.dcm")
    with pytest.raises(MipError, match="another frame of reference"):
        read_dicom_mask(tmp_path / "s.dcm", pet)
    contours = {"Lesion": [box(pet, 3, (1.5, 4.5), (2.5, 5.5))]}
    path = write_rtstruct(tmp_path / "r.dcm", pet, contours, frame_uid=generate_uid())
    with pytest.raises(MipError, match="another frame of reference"):
        read_dicom_mask(path, pet)
    series = str(pet.headers[0].SeriesInstanceUID)
    path = write_rtstruct(tmp_path / "r.dcm", pet, contours, generate_uid(), series)
    assert read_dicom_mask(path, pet).array.any()


def test_a_mask_of_another_study_without_frame_of_reference_is_refused(tmp_path, pet, mask):
    write_dicom_seg(mask, pet, tmp_path / "s.dcm")
    seg = pydicom.dcmread(tmp_path / "s.dcm")
    seg.FrameOfReferenceUID = ""
    del seg.ReferencedSeriesSequence
    seg.save_as(tmp_path / "s.dcm")
    assert np.array_equal(read_dicom_mask(tmp_path / "s.dcm", pet).array, mask)
    seg.StudyInstanceUID = generate_uid()
    seg.save_as(tmp_path / "s.dcm")
    with pytest.raises(MipError, match="is of another study than the PET series"):
        read_dicom_mask(tmp_path / "s.dcm", pet)


def test_lesions_beyond_the_pet(tmp_path, pet, mask):
    write_dicom_seg(mask, pet, tmp_path / "s.dcm")
    seg = pydicom.dcmread(tmp_path / "s.dcm")
    positions = [group.PlanePositionSequence[0] for group in seg.PerFrameFunctionalGroupsSequence]
    for far, found in ((5 * 9, "some"), (5 * 100, "none")):
        for position in positions:
            x, y, z = map(float, position.ImagePositionPatient)
            position.ImagePositionPatient = [x, y, z + far]
        seg.save_as(tmp_path / "s.dcm")
        lines: list[str] = []
        if found == "none":
            with pytest.raises(MipError, match="lie outside of the PET"):
                read_dicom_mask(tmp_path / "s.dcm", pet)
            continue
        moved = read_dicom_mask(tmp_path / "s.dcm", pet, lines.append).array
        assert np.array_equal(moved[9:], mask[:-9])
        (line,) = lines
        assert "of its lesions lie outside of the PET and are left out" in line


def test_contours_are_filled_by_voxel_centres(tmp_path, pet):
    rois = {
        "Lesion 1": [
            box(pet, 3, (1.6, 6.4), (2.6, 9.4)),
            box(pet, 3, (3.4, 4.6), (5.4, 6.6)),
            box(pet, 4, (2, 5), (3, 6)),
        ],
        "Lesion 2": [box(pet, 3, (5.5, 8.5), (8.5, 11.5))],
    }
    expected = np.zeros(pet.suv.array.shape, np.uint8)
    expected[3, 2:7, 3:10] = 1
    expected[3, 4, 6] = 0
    expected[4, 2:6, 3:7] = 1
    # Of another ROI, so no hole in the first.
    expected[3, 6:9, 9:12] = 1
    path = write_rtstruct(tmp_path / "r.dcm", pet, rois)
    lines: list[str] = []
    assert np.array_equal(read_dicom_mask(path, pet, lines.append).array, expected)
    assert lines == []


def test_points_are_left_out_with_a_line_and_nothing_filled_is_refused(tmp_path, pet):
    rois = {"Lesion": [("POINT", [[0, 0, 0]]), box(pet, 3, (1.6, 6.4), (2.6, 9.4))]}
    lines: list[str] = []
    read_dicom_mask(write_rtstruct(tmp_path / "r.dcm", pet, rois), pet, lines.append)
    assert lines == [f"{tmp_path / 'r.dcm'}: 1 contours are no closed lines, and hold no voxel"]
    small = {"Lesion": [box(pet, 3, (1.1, 1.2), (2.1, 2.2))]}
    with pytest.raises(MipError, match="hold no voxel"):
        read_dicom_mask(write_rtstruct(tmp_path / "r.dcm", pet, small), pet)


def test_a_closed_contour_of_one_point_is_its_voxel(tmp_path, pet):
    """As rt-utils outlines a part of one pixel."""
    rois = {"Lesion": [box(pet, 3, (4, 4), (6, 6))[:1], box(pet, 5, (2, 2), (6, 8))[:2]]}
    found = read_dicom_mask(write_rtstruct(tmp_path / "r.dcm", pet, rois), pet).array
    assert np.argwhere(found).tolist() == [[3, 4, 6], [5, 2, 6], [5, 2, 7], [5, 2, 8]]


def test_contours_on_other_slices_are_taken_by_the_nearest_with_a_line(tmp_path, pet):
    """Slices of half the distance, as of a CT, from 2.6 to 5.1."""
    levels = np.arange(2.6, 5.5, 0.5)
    rois = {"GTV": [box(pet, level, (1.6, 6.4), (2.6, 9.4)) for level in levels]}
    lines: list[str] = []
    path = write_rtstruct(tmp_path / "r.dcm", pet, rois)
    found = read_dicom_mask(path, pet, lines.append).array
    assert np.flatnonzero(found.any(axis=(1, 2))).tolist() == [3, 4, 5]
    (line,) = lines
    assert "lie on other slices than the PET's (axial, 0.5 of its slices apart)" in line


def test_contours_in_no_plane_of_the_voxels_are_refused(tmp_path, pet):
    points = box(pet, 3, (1.6, 6.4), (2.6, 9.4))
    points[0, 2] += 5
    path = write_rtstruct(tmp_path / "r.dcm", pet, {"Lesion": [points]})
    with pytest.raises(MipError, match="lie in no plane of the voxels"):
        read_dicom_mask(path, pet)


def test_what_a_mask_refers_to(tmp_path, pet, mask):
    series = str(pet.headers[0].SeriesInstanceUID)
    study = str(pet.headers[0].StudyInstanceUID)
    write_dicom_seg(mask, pet, tmp_path / "s.dcm")
    assert mask_reference(tmp_path / "s.dcm") == ("SEG", (series,), study)
    path = write_rtstruct(tmp_path / "r.dcm", pet, {}, series=series)
    assert mask_reference(path) == ("RTSTRUCT", (series,), study)
    assert mask_reference(pet.files[0]) == ("PT", (), study)
    (tmp_path / "x.dcm").write_bytes(b"no DICOM at all")
    with pytest.raises(MipError, match="cannot be read as DICOM"):
        mask_reference(tmp_path / "x.dcm")


def test_an_image_as_mask_is_refused(pet):
    with pytest.raises(MipError, match="is DICOM of modality PT; a mask is SEG or RTSTRUCT"):
        read_dicom_mask(pet.files[0], pet)


def test_a_study_has_its_mask_from_dicom_or_beside_a_nifti(tmp_path, pet, mask):
    write_dicom_seg(mask, pet, tmp_path / "seg")
    assert is_dicom_file(tmp_path / "seg")
    study = read_study(tmp_path / "pet", seg=tmp_path / "seg")
    assert np.array_equal(study.lesion_mask, mask)
    write_volume(pet.suv.array, pet.suv.grid, tmp_path / "suv.nii.gz")
    study = read_study(tmp_path / "suv.nii.gz", seg=tmp_path / "seg")
    assert np.array_equal(study.lesion_mask, mask)
    grid = pet.suv.grid
    assert np.array_equal(read_dicom_mask_on(tmp_path / "seg", grid).array, mask)


@pytest.mark.slow
def test_project_takes_a_seg(tmp_path, pet, mask, capsys):
    write_dicom_seg(mask, pet, tmp_path / "s.dcm")
    options = ("--seg", tmp_path / "s.dcm", "--views", 2)
    assert run(project, "-i", tmp_path / "pet", "-o", tmp_path / "out", *options) == 0
    assert (tmp_path / "out" / "seg.nii.gz").is_file()


def test_evaluate_takes_a_seg_as_truth(tmp_path, pet, mask, capsys):
    write_dicom_seg(mask, pet, tmp_path / "truth.dcm")
    predicted = mask.copy()
    predicted[-2, 1, -1] = 0
    write_volume(predicted, pet.suv.grid, tmp_path / "p.nii.gz")
    files = ("-p", tmp_path / "p.nii.gz", "-g", tmp_path / "truth.dcm")
    assert run(evaluate, *files, "-o", tmp_path / "r.json") == 0
    n = int(mask.sum())
    assert f"{2 * (n - 1) / (2 * n - 1):.3f}" in capsys.readouterr().out
    both = ("-p", tmp_path / "truth.dcm", "-g", tmp_path / "truth.dcm", "-o", tmp_path / "r.json")
    assert run(evaluate, *both) == 2
    assert "has no grid of its own" in capsys.readouterr().err


def test_a_report_draws_a_seg_as_truth(tmp_path, pet, mask):
    write_dicom_seg(mask, pet, tmp_path / "truth.dcm")
    write_volume(mask, pet.suv.grid, tmp_path / "p.nii.gz")
    pairs = match(tmp_path / "p.nii.gz", tmp_path / "truth.dcm").pairs
    (files,) = files_of_pairs(pairs, {})
    suv, truth, prediction, warnings = read_volume_case(files)
    assert suv is None
    assert warnings == []
    assert np.array_equal(truth.array, mask)
    assert np.array_equal(prediction.array, mask)
