"""Commands `project` and `fuse`: there and back, and the output of stock nnU-Net."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import run

from nnunetv2_mip.commands import convert_autopet, fuse, project
from nnunetv2_mip.views.geometry import ViewGeometry

SHAPE = (10, 16, 16)
ORIENTATIONS = ["LPS", "RAS", "LAS", "PIR"]


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """A body of SUV 1 with two lesions, one of them off the axis and hot; and their mask."""
    suv, seg = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    suv[:, 2:-2, 2:-2] = 1
    for corner, size, value in (((2, 4, 9), 3, 9.0), ((6, 8, 4), 2, 5.0)):
        block = tuple(slice(start, start + size) for start in corner)
        suv[block], seg[block] = value, 1
    return suv, seg


def write(array: np.ndarray, path: Path, code: str = "LPS") -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((4.0, 4.0, 5.0))
    image.SetOrigin((-30.5, 12.25, 100.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, code), str(path))
    return path


def write_study(folder: Path, code: str = "LPS", ending: str = ".nii.gz") -> tuple[Path, Path]:
    suv, seg = arrays()
    return write(suv, folder / f"SUV{ending}", code), write(seg, folder / f"SEG{ending}", code)


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def assert_same_header(one: Path, two: Path) -> None:
    one, two = sitk.ReadImage(str(one)), sitk.ReadImage(str(two))
    assert one.GetSize() == two.GetSize()
    assert one.GetSpacing() == two.GetSpacing()
    assert one.GetOrigin() == two.GetOrigin()
    assert one.GetDirection() == two.GetDirection()


def dice(one: np.ndarray, two: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & two) / (np.count_nonzero(one) + np.count_nonzero(two))


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
@pytest.mark.parametrize("code", ORIENTATIONS)
def test_there_and_back_in_any_orientation(code, ending, tmp_path, capsys):
    suv, seg = write_study(tmp_path / "study", code, ending)
    views, mask = tmp_path / "views", tmp_path / "out" / f"mask{ending}"
    assert run(project, "-i", suv, "-o", views, "--seg", seg, "--views", 24) == 0
    assert "24 views of 10 x" in capsys.readouterr().out
    written = {"suv.nii.gz", "seg.nii.gz", "geometry.json", "lesions.json"}
    assert {p.name for p in views.iterdir()} == written
    geometry = ViewGeometry.load(views / "geometry.json")
    stack, label = read(views / "suv.nii.gz"), read(views / "seg.nii.gz")
    assert stack.shape == label.shape == geometry.stack_shape
    # Raw SUV, not levels; the front view is the plain maximum and does not depend on the file's
    # orientation (row 0 at the head, patient's left on the right).
    assert geometry.window_suv is None
    front, side = arrays()[0].max(axis=1)[::-1], (stack.shape[2] - SHAPE[2]) // 2
    front = np.pad(front, ((0, 0), (side, side))) if side >= 0 else front[:, -side:side]
    assert np.array_equal(stack[0], front)
    assert label.dtype == np.uint8
    for extra in ((), ("--suv", suv)):
        assert run(fuse, "-i", views, "-o", mask, *extra) == 0
        assert_same_header(mask, suv)
        found, truth = read(mask), read(seg)
        assert found.dtype == np.uint8
        assert dice(found > 0, truth > 0) >= 0.85
    assert {p.name for p in mask.parent.iterdir()} == {mask.name, "mask_lesions.csv"}


def test_more_views_come_closer_to_the_truth(tmp_path):
    # Two lesions on one diagonal: two views cannot tell them from those on the other.
    suv, _ = write_study(tmp_path)
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:6, 4:6, 4:6] = mask[4:6, 10:12, 10:12] = 1
    seg = write(mask, tmp_path / "two.nii.gz")
    scores = []
    for views in (2, 24):
        folder = tmp_path / str(views)
        assert run(project, "-i", suv, "-o", folder, "--seg", seg, "--views", views) == 0
        assert run(fuse, "-i", folder, "-o", folder / "mask.nii.gz", "--rule", "hull") == 0
        scores.append(dice(read(folder / "mask.nii.gz") > 0, read(seg) > 0))
    assert scores[0] == pytest.approx(2 / 3)
    assert scores[1] > 0.95


def test_rules_and_thresholds_do_what_they_say(tmp_path):
    suv, seg = write_study(tmp_path)
    assert run(project, "-i", suv, "-o", tmp_path / "v", "--seg", seg, "--views", 12) == 0
    voxels = {}
    for rule, threshold in (("hull", 0.5), ("max", 0.5), ("mean", 0.3), ("mean", 0.9)):
        out = tmp_path / f"{rule}{threshold}.nii.gz"
        choice = ("--rule", rule, "--threshold", threshold)
        assert run(fuse, "-i", tmp_path / "v", "-o", out, *choice) == 0
        voxels[rule, threshold] = read(out) > 0
    assert voxels["hull", 0.5].sum() < voxels["max", 0.5].sum()
    assert voxels["mean", 0.9].sum() < voxels["mean", 0.3].sum()
    assert not (voxels["hull", 0.5] & ~voxels["max", 0.5]).any()


@pytest.fixture(scope="module")
def predicted(tiny_trained, tmp_path_factory) -> dict[str, Path]:
    """What stock nnU-Net wrote, masks and probabilities, for a converted study."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    base = tmp_path_factory.mktemp("stock")
    suv, _ = write_study(base / "tree" / "PETCT_a" / "s", "RAS")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in tiny_trained.environment.items():
            patch.setenv(name, value)
        patch.setenv("nnUNet_raw", str(base / "raw"))
        converted = ("-i", base / "tree", "-d", 511, "--views", 6, "--window", 8)
        assert run(convert_autopet, *converted) == 0
        images = base / "raw" / "Dataset511_AutoPETMIP" / "imagesTr"
        predictor = nnUNetPredictor(
            perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
        )
        predictor.initialize_from_trained_model_folder(str(tiny_trained.model), (0,))
        out = base / "predicted"
        out.mkdir()
        predictor.predict_from_files_sequential(str(images), str(out), save_probabilities=True)
    return {"suv": suv, "raw": base / "raw", "images": images, "out": out}


@pytest.mark.slow
def test_the_output_of_stock_nnunet_is_fused(predicted, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(predicted["raw"]))
    out = tmp_path / "fused"
    case = "PETCT_a_s.nii.gz"
    with np.load(predicted["out"] / "PETCT_a_s.npz") as content:
        probability = content["probabilities"][1]
    assert (
        probability.shape
        == ViewGeometry.load(predicted["images"] / "PETCT_a_s_geometry.json").stack_shape
    )
    # A threshold that something reaches, whatever the tiny network says.
    threshold = float(probability.max()) * 0.5
    arguments = ("-i", predicted["out"], "-d", 511, "--rule", "max", "--threshold", threshold)
    assert run(fuse, *arguments, "-o", out) == 0
    table = case.replace(".nii.gz", "_lesions.csv")
    assert {p.name for p in out.iterdir()} == {case, table}
    assert_same_header(out / case, predicted["suv"])
    found = read(out / case)
    assert set(np.unique(found)) <= {0, 1}
    assert found.any()


@pytest.mark.slow
def test_probabilities_are_preferred_and_masks_are_enough(predicted, tmp_path, monkeypatch):
    """The files of stock nnU-Net with chosen content: both kinds lead to the true mask."""
    monkeypatch.delenv("nnUNet_raw", raising=False)
    from nnunetv2_mip.io.volumes import read_suv
    from nnunetv2_mip.views.projection import project_mask

    geometry = ViewGeometry.load(predicted["images"] / "PETCT_a_s_geometry.json")
    seg = np.zeros(SHAPE, np.uint8)
    seg[3:6, 6:10, 6:10] = 1
    views = project_mask(seg, geometry)
    folder = tmp_path / "predictions"
    folder.mkdir()
    stock = sitk.ReadImage(str(predicted["out"] / "PETCT_a_s.nii.gz"))
    image = sitk.GetImageFromArray(views)
    image.CopyInformation(stock)
    sitk.WriteImage(image, str(folder / "PETCT_a_s.nii.gz"))
    arguments = ("-i", folder, "-d", 511, "--geometry", predicted["images"])
    assert run(fuse, *arguments, "-o", tmp_path / "masks") == 0
    result = read_suv(tmp_path / "masks" / "PETCT_a_s.nii.gz").array
    assert dice(result > 0, seg > 0) >= 0.75

    # Probabilities of nothing beside those masks: the probabilities count.
    nothing = np.stack([np.ones(views.shape), np.zeros(views.shape)]).astype(np.float16)
    np.savez_compressed(folder / "PETCT_a_s.npz", probabilities=nothing)
    assert run(fuse, *arguments, "-o", tmp_path / "none") == 0
    assert not read(tmp_path / "none" / "PETCT_a_s.nii.gz").any()


def test_a_real_study_there_and_back(tmp_path):
    data = os.environ.get("NNUNETV2_MIP_TEST_DATA")
    if not data:
        pytest.skip("NNUNETV2_MIP_TEST_DATA is not set")
    study = Path(data) / "petct" / "STS_001"
    arguments = ("--seg", study / "SEG.nii.gz", "--views", 48)
    assert run(project, "-i", study / "SUV.nii.gz", "-o", tmp_path / "v", *arguments) == 0
    assert run(fuse, "-i", tmp_path / "v", "-o", tmp_path / "mask.nii.gz") == 0
    assert_same_header(tmp_path / "mask.nii.gz", study / "SUV.nii.gz")
    score = dice(read(tmp_path / "mask.nii.gz") > 0, read(study / "SEG.nii.gz") > 0)
    assert score >= 0.97


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-d", 901, "--suv", "suv.nii.gz"), "--suv is for one case"),
        (("-d", 901, "--uptake_share", 0.4), "--uptake_share is for one case"),
        (("-d", 901, "--views_file", "seg.nii.gz"), "--views_file is for one case"),
        (("-d", 901, "--rule", "visibility"), "without -d"),
        (("--geometry", "."), "--geometry goes with -d"),
    ],
)
def test_options_of_the_other_kind_of_input_are_refused(tmp_path, capsys, options, said):
    with pytest.raises(SystemExit) as ended:
        fuse.main([str(word) for word in ("-i", tmp_path, "-o", tmp_path / "out", *options)])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
