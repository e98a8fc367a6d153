"""The mask as DICOM SEG, read back voxel by voxel; predict and project on DICOM folders."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, generate_uid  # noqa: E402

from nnunetv2_mip.commands import predict, project  # noqa: E402
from nnunetv2_mip.errors import MipError  # noqa: E402
from nnunetv2_mip.fusion.rules import FusionRule  # noqa: E402
from nnunetv2_mip.inference.find_inputs import find_jobs  # noqa: E402
from nnunetv2_mip.io.dicom.pet import DicomPet, read_dicom_pet  # noqa: E402
from nnunetv2_mip.io.dicom.seg import write_dicom_seg  # noqa: E402
from nnunetv2_mip.io.volumes import read_suv, write_volume  # noqa: E402
from nnunetv2_mip.views.geometry import ViewGeometry  # noqa: E402

SHAPE = (14, 12, 16)
# Exact in the single precision of a NIfTI header, so that both ways give the same bits.
ROW_MM, COLUMN_MM, SLICE_MM = 4.0, 4.125, 5.0
ORIGIN = np.array([-31.5, 12.25, 100.125])
SLOPE = 0.001
# Head first and feet first, supine and prone, as Image Orientation (Patient) says it.
ORIENTATIONS = {
    "head first": [1, 0, 0, 0, 1, 0],
    "head first, prone": [-1, 0, 0, 0, -1, 0],
    "feet first": [-1, 0, 0, 0, 1, 0],
    "coronal slices": [1, 0, 0, 0, 0, -1],
}


def uptake() -> np.ndarray:
    suv = np.full(SHAPE, 0.2)
    suv[:, 2:-2, 2:-2] = np.random.default_rng(1).uniform(0.6, 1.6, (SHAPE[0], 8, 12))
    suv[4:8, 4:8, 9:13] = 7
    return suv


def write_pet(folder: Path, cosines=(1, 0, 0, 0, 1, 0), names="up", **changes) -> Path:
    """A GML series; its slices are the first axis of `uptake()` along the slice normal.

    Args:
        names: `up` or `down`: whether file names and instance numbers rise or fall with position.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = np.round(uptake() / SLOPE).astype(np.int16)
    series, study, frame = (generate_uid() for _ in range(3))
    normal = np.cross(cosines[:3], cosines[3:])
    for index, pixels in enumerate(stored):
        number = index if names == "up" else len(stored) - 1 - index
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        values = {
            "SOPClassUID": meta.MediaStorageSOPClassUID,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "FrameOfReferenceUID": frame,
            "Modality": "PT",
            "PatientID": "phantom-1",
            "PatientName": "Phantom^One",
            "InstanceNumber": number + 1,
            "ImageOrientationPatient": list(cosines),
            "ImagePositionPatient": [float(v) for v in ORIGIN + normal * SLICE_MM * index],
            "PixelSpacing": [ROW_MM, COLUMN_MM],
            "SliceThickness": str(SLICE_MM),
            "CorrectedImage": ["DECY", "ATTN"],
            "Units": "GML",
            "RescaleIntercept": "0",
            "RescaleSlope": str(SLOPE),
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            **changes,
        }
        for keyword, value in values.items():
            if value is not None:
                setattr(data, keyword, value)
        data.PixelData = pixels.tobytes()
        data["PixelData"].VR = "OW"
        data.save_as(folder / f"IM{number:04d}")
    return folder


def mask_of_dicom(seg: Dataset, pet: DicomPet) -> np.ndarray:
    """The SEG as a viewer puts it: every frame on the image that it refers to; (z, y, x)."""
    slots = {str(h.SOPInstanceUID): index for index, h in enumerate(pet.headers)}
    positions = [np.array(h.ImagePositionPatient, float) for h in pet.headers]
    stack = np.zeros(pet.suv.grid.size[::-1], np.uint8)
    frames = np.atleast_3d(seg.pixel_array)
    if seg.NumberOfFrames == 1:
        frames = seg.pixel_array[None]
    for pixels, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        index = slots[str(source.ReferencedSOPInstanceUID)]
        at = groups.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(np.array(at, float), positions[index])
        stack[index] = pixels
    return pet.suv.grid.to_canonical(stack)


def some_mask(pet: DicomPet) -> np.ndarray:
    """Asymmetric along every axis, so that a flip shows."""
    mask = np.zeros(pet.suv.array.shape, np.uint8)
    mask[1:4, 2:5, 3:9] = 1
    mask[-2, 1, -1] = 1
    return mask


@pytest.mark.parametrize("names", ["up", "down"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_seg_holds_the_mask_voxel_by_voxel(name, names, tmp_path):
    pet = read_dicom_pet(write_pet(tmp_path / "pet", ORIENTATIONS[name], names))
    mask = some_mask(pet)
    write_dicom_seg(mask, pet, tmp_path / "out" / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "out" / "seg.dcm")
    assert np.array_equal(mask_of_dicom(seg, pet), mask)
    # In patient space too, by highdicom's own reader: every lesion voxel at its millimetre.
    volume = highdicom.seg.segread(tmp_path / "out" / "seg.dcm").get_volume(combine_segments=True)
    found = volume.map_indices_to_reference(np.argwhere(volume.array > 0))
    # Through NIfTI, the other answer of predict.
    write_volume(mask, pet.suv.grid, tmp_path / "mask.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    voxels = np.argwhere(sitk.GetArrayFromImage(image))[:, ::-1]
    expected = np.array([image.TransformIndexToPhysicalPoint([int(i) for i in v]) for v in voxels])
    order = np.lexsort(np.round(found, 2).T), np.lexsort(np.round(expected, 2).T)
    np.testing.assert_allclose(found[order[0]], expected[order[1]], atol=1e-3)


def test_the_seg_refers_to_the_series_and_says_what_made_it(tmp_path):
    pet = read_dicom_pet(write_pet(tmp_path / "pet"))
    write_dicom_seg(some_mask(pet), pet, tmp_path / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    source = pet.headers[0]
    assert seg.SOPClassUID == pydicom.uid.SegmentationStorage
    assert (seg.Modality, seg.SegmentationType) == ("SEG", "BINARY")
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert seg[keyword].value == source[keyword].value
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID != seg.SeriesInstanceUID
    (segment,) = seg.SegmentSequence
    assert segment.SegmentLabel == "Lesion"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert segment.TrackingID
    assert segment.TrackingUID.is_valid
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "nnunetv2_mip"


def test_an_empty_mask_gives_a_seg_of_zeros(tmp_path):
    pet = read_dicom_pet(write_pet(tmp_path / "pet"))
    write_dicom_seg(np.zeros(SHAPE, np.uint8), pet, tmp_path / "seg.dcm")
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert seg.NumberOfFrames == SHAPE[0]
    assert not seg.pixel_array.any()


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    pet = read_dicom_pet(write_pet(tmp_path / "pet", FrameOfReferenceUID=None))
    with pytest.raises(MipError, match="Frame Of Reference UID"):
        write_dicom_seg(some_mask(pet), pet, tmp_path / "out" / "seg.dcm")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="does not lie on"):
        write_dicom_seg(np.zeros((2, 2, 2), np.uint8), pet, tmp_path / "out" / "seg.dcm")
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(MipError, match=r'pip install "nnunetv2-mip\[dicom\]"'):
        write_dicom_seg(some_mask(pet), pet, tmp_path / "out" / "seg.dcm")


def run(command, *argv: object) -> int:
    with pytest.raises(SystemExit) as ended:
        command.main([str(part) for part in argv])
    return ended.value.code


def names_in(folder: Path) -> set[str]:
    """Files below a folder, without the tables of lesions beside masks (asserted to be there)."""
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    return {name for name in found if not name.endswith("_lesions.csv")}


@pytest.fixture
def eager(tiny_model, tmp_path) -> tuple:
    """The tiny model, with a threshold so low that it marks half of the series here."""
    from nnunetv2_mip.inference.predictor import MIPPredictor
    from nnunetv2_mip.io.read_study import read_study

    predictor = MIPPredictor.from_model_folder(tiny_model, device="cpu")
    predictor = predictor.override(tta=False, views=2, fusion=FusionRule("max"))
    found = predictor.predict_study(
        read_study(write_pet(tmp_path / "usual")), with_probability=True
    )
    folder = tmp_path / "eager"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("validation", "*.png"))
    config = json.loads((folder / "inference.json").read_text())
    config["fusion"] = {
        "rule": "max",
        "threshold": float(np.median(found.probability)),
    }
    (folder / "inference.json").write_text(json.dumps(config))
    return "-m", folder, "-device", "cpu", "--disable_tta", "--views", 2


def test_predict_on_dicom_is_predict_on_its_suv_and_a_seg(eager, tmp_path, capsys):
    source = write_pet(tmp_path / "PET 7", names="down")
    pet = read_dicom_pet(source)
    write_volume(pet.suv.array, pet.suv.grid, tmp_path / "pet.nii.gz")
    assert run(predict, "-i", source, "-o", tmp_path / "out", *eager) == 0
    assert "1 mask written" in capsys.readouterr().out
    assert names_in(tmp_path / "out") == {"PET_7.nii.gz", "PET_7.dcm"}
    assert run(predict, "-i", tmp_path / "pet.nii.gz", "-o", tmp_path / "m.nii.gz", *eager) == 0
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "PET_7.nii.gz")))
    from_file = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.nii.gz")))
    assert mask.any()
    assert not mask.all()
    assert np.array_equal(mask, from_file)
    seg = pydicom.dcmread(tmp_path / "out" / "PET_7.dcm")
    assert np.array_equal(mask_of_dicom(seg, pet), pet.suv.grid.to_canonical(mask))


def test_predict_on_several_dicom_studies(eager, tmp_path, capsys):
    write_pet(tmp_path / "in" / "ann" / "pet")
    write_pet(tmp_path / "in" / "bob")
    assert run(predict, "-i", tmp_path / "in", "-o", tmp_path / "out", *eager) == 0
    assert "2 masks written" in capsys.readouterr().out
    expected = {"ann_pet.nii.gz", "ann_pet.dcm", "bob.nii.gz", "bob.dcm"}
    assert names_in(tmp_path / "out") == expected


def test_jobs_of_dicom_folders(tmp_path, monkeypatch):
    source = write_pet(tmp_path / "in" / "ann")
    (job,) = find_jobs(source, tmp_path / "out")
    assert (job.kind, job.case, job.source) == ("dicom", "ann", source)
    assert job.dicom.pet.uid == read_dicom_pet(source).study.pet.uid
    monkeypatch.chdir(source)
    (job,) = find_jobs(".", tmp_path / "out")
    assert job.target == tmp_path / "out" / "ann.nii.gz"
    write_pet(tmp_path / "in" / "bob")
    ann, bob = find_jobs(tmp_path / "in", tmp_path / "out")
    assert (ann.source, bob.source) == (source, tmp_path / "in" / "bob")
    (one,) = find_jobs(tmp_path / "in", tmp_path / "out", series=bob.series)
    assert one.series == bob.series


@pytest.mark.parametrize(
    ("make", "output", "named"),
    [
        (lambda folder: None, "pet", "choose another -o"),
        (lambda folder: None, "mask.dcm", "-o must be a folder"),
        (lambda folder: (folder / "a.png").write_bytes(b""), "out", "PNGs and DICOM"),
        (lambda folder: (folder / "a.nii.gz").write_bytes(b""), "out", "volumes and DICOM"),
        (lambda folder: write_pet(folder / "2", StudyInstanceUID="1.2.3"), "out", "be meant"),
    ],
)
def test_dicom_folders_that_cannot_be_served(make, output, named, tmp_path):
    source = write_pet(tmp_path / "pet", StudyInstanceUID="1.2.3")
    make(source)
    with pytest.raises(MipError, match=named):
        find_jobs(source, tmp_path / output)


def test_a_single_dicom_file_is_answered_with_its_folder(tmp_path):
    source = write_pet(tmp_path / "pet")
    (source / "IM0000").rename(source / "a.dcm")
    with pytest.raises(MipError, match="give the folder"):
        find_jobs(source / "a.dcm", tmp_path / "out")


def test_a_missing_tag_ends_predict_with_one_line(eager, tmp_path, capsys):
    source = write_pet(tmp_path / "pet", Units=None)
    assert run(predict, "-i", source, "-o", tmp_path / "out", *eager) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "Units (0054,1001)" in err
    assert not (tmp_path / "out").exists()


def test_a_series_that_no_seg_can_refer_to_still_gives_a_mask(eager, tmp_path, capsys):
    source = write_pet(tmp_path / "pet", FrameOfReferenceUID=None)
    assert run(predict, "-i", source, "-o", tmp_path / "out", *eager) == 0
    assert "no DICOM SEG" in capsys.readouterr().err
    assert names_in(tmp_path / "out") == {"pet.nii.gz"}


def test_without_highdicom_nothing_is_predicted(eager, tmp_path, capsys, monkeypatch):
    source = write_pet(tmp_path / "pet")
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    assert run(predict, "-i", source, "-o", tmp_path / "out", *eager) == 2
    assert "nnunetv2-mip[dicom]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_project_takes_a_dicom_folder(tmp_path):
    source = write_pet(tmp_path / "pet", names="down")
    pet = read_dicom_pet(source)
    write_volume(pet.suv.array, pet.suv.grid, tmp_path / "pet.nii.gz")
    for name, given in (("dicom", source), ("file", tmp_path / "pet.nii.gz")):
        assert run(project, "-i", given, "-o", tmp_path / name, "--views", 3) == 0
    views = [
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name / "suv.nii.gz")))
        for name in ("dicom", "file")
    ]
    assert views[0].max() == pytest.approx(7)
    np.testing.assert_allclose(*views, atol=1e-6)
    geometry = ViewGeometry.load(tmp_path / "dicom" / "geometry.json")
    assert geometry.source == "pet"


def test_a_real_series_and_its_mask(tmp_path):
    data = os.environ.get("NNUNETV2_MIP_TEST_DATA")
    if not data:
        pytest.skip("NNUNETV2_MIP_TEST_DATA is not set")
    folder = Path(data) / "petct" / "STS_001"
    pet = read_dicom_pet(folder / "dicom")
    mask = (read_suv(folder / "SEG.nii.gz").array > 0).astype(np.uint8)
    write_dicom_seg(mask, pet, tmp_path / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert np.array_equal(mask_of_dicom(seg, pet), mask)
    assert seg.NumberOfFrames < SHAPE[0] * 10
