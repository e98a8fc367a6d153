"""SEG, RTSTRUCT and SR of one mask, read back by other programs on the right voxels."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Polygon

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

from dicom_objects import (  # noqa: E402
    AXIAL,
    ORIENTATIONS,
    PIXELS,
    invalid,
    lesions_on,
    other_program,
    positions,
)

from nnunetv2_mip.io.dicom.masks import read_dicom_mask  # noqa: E402
from nnunetv2_mip.io.dicom.objects import object_paths, write_dicom_objects  # noqa: E402
from nnunetv2_mip.io.dicom.pet import DicomPet, read_dicom_pet  # noqa: E402
from nnunetv2_mip.io.volumes import image_on_grid  # noqa: E402
from nnunetv2_mip.lesions.lesion_table import lesion_numbers, lesion_table  # noqa: E402

CASES = [(name, pixels) for name in ORIENTATIONS for pixels in PIXELS]


@pytest.fixture(scope="module")
def written(tmp_path_factory, write_pet):
    """Writer of the objects of a mask: orientation, pixels → PET, mask, kind → file."""
    known: dict = {}

    def write(name: str, pixels: str) -> tuple[DicomPet, np.ndarray, dict[str, Path]]:
        if (name, pixels) not in known:
            folder = tmp_path_factory.mktemp("objects")
            options = {"PixelSpacing": PIXELS[pixels]}
            pet = read_dicom_pet(write_pet(folder / "pet", ORIENTATIONS[name], **options))
            mask = lesions_on(pet.suv.array.shape)
            paths = write_objects(mask, pet, folder)
            known[name, pixels] = pet, mask, paths
        return known[name, pixels]

    return write


def write_objects(mask: np.ndarray, pet: DicomPet, folder: Path) -> dict[str, Path]:
    """Files of all objects of a mask."""
    paths = object_paths(folder, "case", ("seg", "rtstruct", "sr"))
    rows = lesion_table(mask, pet.suv.array, pet.suv.grid)
    assert write_dicom_objects(lesion_numbers(mask, pet.suv.grid), rows, pet, paths) == ()
    return paths


@pytest.mark.parametrize("name,pixels", CASES)
def test_seg_and_rtstruct_are_read_back_voxel_by_voxel(name, pixels, written):
    pet, mask, paths = written(name, pixels)
    for kind in ("seg", "rtstruct"):
        lines: list[str] = []
        assert np.array_equal(read_dicom_mask(paths[kind], pet, lines.append).array, mask)
        assert lines == []


@pytest.mark.parametrize("name,pixels", CASES)
def test_highdicom_reads_the_seg_at_its_place(name, pixels, written):
    pet, mask, paths = written(name, pixels)
    seg = highdicom.seg.segread(paths["seg"])
    volume = seg.get_volume(combine_segments=True, skip_overlap_checks=True)
    found = volume.map_indices_to_reference(np.argwhere(volume.array > 0))
    places = {tuple(np.round(place, 1) + 0.0) for place in found}
    assert places == positions(image_on_grid(mask, pet.suv.grid))


@pytest.mark.parametrize("name,pixels", CASES)
def test_dcmqi_reads_the_seg_at_its_place(name, pixels, written, tmp_path):
    pet, mask, paths = written(name, pixels)
    options = ("--outputDirectory", tmp_path, "--outputType", "nrrd")
    done = other_program("segimage2itkimage", "--inputDICOM", paths["seg"], *options)
    assert done.returncode == 0, done.stderr
    images = [sitk.ReadImage(str(path)) for path in tmp_path.glob("*.nrrd")]
    assert len(images) == lesion_numbers(mask, pet.suv.grid).max()
    assert set().union(*map(positions, images)) == positions(image_on_grid(mask, pet.suv.grid))


@pytest.mark.parametrize("name,pixels", [case for case in CASES if case[0] in AXIAL])
def test_plastimatch_reads_the_rtstruct_at_its_place(name, pixels, written, tmp_path):
    pet, mask, paths = written(name, pixels)
    options = ("--referenced-ct", pet.files[0].parent, "--output-prefix", tmp_path / "roi")
    source = ("--input", paths["rtstruct"])
    done = other_program("plastimatch", "convert", *source, *options, "--prefix-format", "nrrd")
    assert done.returncode == 0, done.stderr
    numbers = lesion_numbers(mask, pet.suv.grid)
    for number in range(1, numbers.max() + 1):
        found = positions(sitk.ReadImage(str(tmp_path / "roi" / f"Lesion {number}.nrrd")))
        assert found == positions(image_on_grid((numbers == number).astype(np.uint8), pet.suv.grid))


@pytest.mark.parametrize("name,pixels", CASES)
def test_matplotlib_fills_the_contours_on_the_slices_that_they_refer_to(name, pixels, written):
    pet, mask, paths = written(name, pixels)
    slots = {str(header.SOPInstanceUID): k for k, header in enumerate(pet.headers)}
    stack = np.zeros(pet.suv.grid.size[::-1], bool)
    for roi in pydicom.dcmread(paths["rtstruct"]).ROIContourSequence:
        for contour in roi.ContourSequence:
            k = slots[str(contour.ContourImageSequence[0].ReferencedSOPInstanceUID)]
            header = pet.headers[k]
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            points -= np.array(header.ImagePositionPatient, float)
            cosines = np.array(header.ImageOrientationPatient, float)
            rows_mm, columns_mm = map(float, header.PixelSpacing)
            x, y = points @ cosines[:3] / columns_mm, points @ cosines[3:] / rows_mm
            np.testing.assert_allclose(points @ np.cross(cosines[:3], cosines[3:]), 0, atol=1e-4)
            grid = np.stack(np.meshgrid(*map(np.arange, stack.shape[:0:-1])), axis=-1)
            inside = Polygon(np.column_stack([x, y])).contains_points(grid.reshape(-1, 2))
            stack[k] ^= inside.reshape(stack.shape[1:])
    assert np.array_equal(pet.suv.grid.to_canonical(stack), mask)


@pytest.mark.parametrize("kind", ["seg", "rtstruct", "sr"])
@pytest.mark.parametrize("name", ["head first, prone", "sagittal"])
def test_a_validator_finds_no_error(name, kind, written):
    assert invalid(written(name, "not square")[2][kind]) == []


@pytest.mark.parametrize("kind", ["seg", "rtstruct", "sr"])
def test_an_empty_mask_gives_valid_objects(kind, tmp_path, write_pet):
    pet = read_dicom_pet(write_pet(tmp_path / "pet"))
    paths = write_objects(np.zeros(pet.suv.array.shape, np.uint8), pet, tmp_path)
    assert invalid(paths[kind]) == []
    if kind != "sr":
        assert not read_dicom_mask(paths[kind], pet).array.any()


def test_the_sr_has_the_numbers_of_the_lesion_table(written):
    pet, mask, paths = written("head first", "not square")
    report = highdicom.sr.srread(paths["sr"])
    groups = report.content.get_volumetric_roi_measurement_groups()
    rows = lesion_table(mask, pet.suv.array, pet.suv.grid)
    assert len(groups) == len(rows) == 5
    seg = pydicom.dcmread(paths["seg"])
    for row, group, segment in zip(rows, groups, seg.SegmentSequence):
        found = {}
        for item in group.get_measurements():
            how = item.derivation.meaning if item.derivation else ""
            found[item.name.value, how] = item.value, item.unit.value
        assert found == {
            ("118565006", ""): (row["volume_ml"], "ml"),
            ("126401", "Maximum"): (row["suv_max"], "g/ml{SUVbw}"),
            ("126401", "Mean"): (row["suv_mean"], "g/ml{SUVbw}"),
            ("126033", ""): (row["tlg"], "g"),
        }
        assert group.tracking_identifier == segment.TrackingID == f"Lesion {row['lesion']}"
        assert group.tracking_uid == segment.TrackingUID
        assert group.finding_type.value == "108369006"
        (reference, *_) = group.referenced_segment
        assert reference.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert reference.referenced_segment_numbers == [row["lesion"]]


def test_dcmqi_reads_the_sr(written, tmp_path):
    pet, mask, paths = written("head first", "square")
    out = tmp_path / "sr.json"
    done = other_program("tid1500reader", "--inputDICOM", paths["sr"], "--outputMetadata", out)
    assert done.returncode == 0, done.stderr
    rows = lesion_table(mask, pet.suv.array, pet.suv.grid)
    found = json.loads(out.read_text())["Measurements"]
    for row, group in zip(rows, found, strict=True):
        assert group["ReferencedSegment"] == row["lesion"]
        values = [float(item["value"]) for item in group["measurementItems"]]
        assert values == [row["volume_ml"], row["suv_max"], row["suv_mean"], row["tlg"]]


def test_the_sr_of_no_lesion_says_that_there_is_none(tmp_path, write_pet):
    pet = read_dicom_pet(write_pet(tmp_path / "pet"))
    paths = write_objects(np.zeros(pet.suv.array.shape, np.uint8), pet, tmp_path)
    report = highdicom.sr.srread(paths["sr"])
    (group,) = report.content.get_image_measurement_groups()
    (evaluation,) = group.get_qualitative_evaluations()
    assert (evaluation.name.meaning, evaluation.value.meaning) == ("Presence", "Absent")


def test_the_rtstruct_has_one_roi_a_lesion_with_its_numbers(written):
    pet, mask, paths = written("head first", "square")
    data = pydicom.dcmread(paths["rtstruct"])
    rows = lesion_table(mask, pet.suv.array, pet.suv.grid)
    for row, roi in zip(rows, data.StructureSetROISequence, strict=True):
        assert roi.ROIName == f"Lesion {row['lesion']}"
        assert float(roi.ROIVolume) == row["volume_ml"]
        assert f"SUVmax {row['suv_max']:.2f}" in roi.ROIDescription
        assert roi.ReferencedFrameOfReferenceUID == pet.headers[0].FrameOfReferenceUID
    (frame,) = data.ReferencedFrameOfReferenceSequence
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == pet.headers[0].SeriesInstanceUID
    assert len(series.ContourImageSequence) == len(pet.headers)


def test_a_seg_alone_has_one_segment_and_an_sr_brings_one_segment_a_lesion(tmp_path, write_pet):
    pet = read_dicom_pet(write_pet(tmp_path / "pet"))
    mask = lesions_on(pet.suv.array.shape)
    rows = lesion_table(mask, pet.suv.array, pet.suv.grid)
    numbers = lesion_numbers(mask, pet.suv.grid)
    for kinds, labels in ((("seg",), ["Lesion"]), (("sr",), [f"Lesion {n}" for n in range(1, 6)])):
        paths = object_paths(tmp_path, "case", kinds)
        write_dicom_objects(numbers, rows, pet, paths)
        seg = pydicom.dcmread(paths["seg"])
        assert [segment.SegmentLabel for segment in seg.SegmentSequence] == labels
