"""Bad views and predictions of `nnUNetv2_mip_fuse`: one line that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from bad_input.inputs import SHAPE, suv_array, write_garbage
from helpers import assert_refused, paths_below, truncate, write_image

from nnunetv2_mip.commands import fuse, project


def other_geometry(folder: Path, **entries: object) -> None:
    path = folder / "geometry.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def drop_angles(folder: Path) -> None:
    path = folder / "geometry.json"
    content = json.loads(path.read_text())
    del content["angles_deg"]
    path.write_text(json.dumps(content))


def write_stack(array: np.ndarray, path: Path) -> None:
    write_image(array, path, spacing=(4.0, 5.0, 1000.0))


def soft(value: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "seg.nii.gz"
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.float32)
        array[0, 0, 0] = value
        write_stack(array, path)

    return spoil


BAD_VIEWS = {
    "no geometry": (lambda f: (f / "geometry.json").unlink(), "seg.nii.gz", "no geometry file"),
    "broken geometry": (lambda f: truncate(f / "geometry.json"), "geometry.json", "JSON"),
    "newer geometry": (
        lambda f: other_geometry(f, format_version=99),
        "geometry.json",
        "newer than this program",
    ),
    "geometry of an image": (
        lambda f: other_geometry(f, kind="image"),
        "geometry.json",
        "single image",
    ),
    "geometry without angles": (drop_angles, "geometry.json", "angles_deg"),
    "geometry is a list": (
        lambda f: (f / "geometry.json").write_text("[]"),
        "geometry.json",
        "not a view geometry",
    ),
    "other number of views": (
        lambda f: other_geometry(f, angles_deg=[0.0]),
        "seg.nii.gz",
        "its geometry says",
    ),
    "no views": (lambda f: (f / "seg.nii.gz").unlink(), "seg.nii.gz", "no such file"),
    "truncated views": (lambda f: truncate(f / "seg.nii.gz", 0.9), "seg.nii.gz", "truncated"),
    "a volume's dimensions": (
        lambda f: write_image(np.ones((2, *SHAPE), np.uint8), f / "seg.nii.gz"),
        "seg.nii.gz",
        "not a stack",
    ),
    "above 1": (soft(3), "seg.nii.gz", "between 0 and 1"),
    "below 0": (soft(-0.1), "seg.nii.gz", "between 0 and 1"),
    "not a number": (soft(np.nan), "seg.nii.gz", "between 0 and 1"),
}


@pytest.mark.parametrize("fault", BAD_VIEWS)
def test_bad_views_are_not_fused(fault, views, inputs, capsys):
    spoil, named, reason = BAD_VIEWS[fault]
    spoil(views)
    arguments = ("-i", views, "-o", inputs / "out" / "mask.nii.gz")
    line = assert_refused(capsys, views / named, fuse, *arguments)
    assert reason in line
    assert not (inputs / "out").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--views_file", "suv.nii.gz"), "suv.nii.gz"),
        (("--rule", "visibility"), "--rule visibility"),
        (("--threshold", 0), "--threshold 0"),
        (("--threshold", 1.5), "--threshold 1.5"),
        (("--threshold", "nan"), "--threshold nan"),
        (("--suv", "nowhere.nii.gz"), "nowhere.nii.gz"),
    ],
)
def test_fuse_options_that_cannot_be_served(options, named, views, inputs, capsys):
    arguments = ("-i", views, "-o", inputs / "out" / "mask.nii.gz", *options)
    assert_refused(capsys, named, fuse, *arguments)
    assert not (inputs / "out").exists()


def test_fuse_refuses_the_suv_of_another_study(views, inputs, capsys):
    other = inputs / "other.nii.gz"
    write_image(suv_array()[1:], other)
    arguments = ("-i", views, "-o", inputs / "out" / "mask.nii.gz", "--suv", other)
    assert "another grid" in assert_refused(capsys, other, fuse, *arguments)
    assert not (inputs / "out").exists()


def test_fuse_does_not_replace_the_views(views, inputs, capsys):
    stack = views / "seg.nii.gz"
    before = stack.read_bytes()
    assert_refused(capsys, stack, fuse, "-i", views, "-o", stack)
    assert stack.read_bytes() == before


@pytest.mark.parametrize("output", ["mask.png", "mask", "."])
def test_fuse_refuses_an_output_it_cannot_write(output, views, capsys):
    before = paths_below(views)
    assert_refused(capsys, views, fuse, "-i", views, "-o", views / output)
    assert paths_below(views) == before


@pytest.fixture
def predictions(views, inputs) -> Path:
    """A folder as nnUNetv2_predict writes it for the data set 5, whose raw data are there."""
    images = inputs / "nnUNet_raw" / "Dataset005_X" / "imagesTr"
    images.mkdir(parents=True)
    shutil.copy(views / "geometry.json", images / "a_geometry.json")
    (inputs / "predictions").mkdir()
    shutil.copy(views / "seg.nii.gz", inputs / "predictions" / "a.nii.gz")
    return inputs / "predictions"


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    np.savez_compressed(path, **arrays)


def cut_npz(path: Path) -> None:
    save_npz(path, probabilities=np.random.default_rng(0).random((2, 4, 8, 12)))
    truncate(path, 0.7)


BAD_PREDICTIONS = {
    "no geometry": (
        lambda p: shutil.copy(p / "a.nii.gz", p / "b.nii.gz"),
        "b_geometry.json",
        "no such file",
    ),
    "truncated": (lambda p: truncate(p / "a.nii.gz"), "a.nii.gz", "truncated"),
    "truncated npz": (lambda p: cut_npz(p / "a.npz"), "a.npz", "probability file"),
    "no npz": (lambda p: write_garbage(p / "a.npz"), "a.npz", "probability file"),
    "npz of other things": (
        lambda p: save_npz(p / "a.npz", data=np.zeros(3)),
        "a.npz",
        "probability file",
    ),
    "npz of one class": (
        lambda p: save_npz(p / "a.npz", probabilities=np.zeros((1, 4, 8, 12))),
        "a.npz",
        "probability file",
    ),
    "no case": (lambda p: (p / "a.nii.gz").unlink(), "predictions", "no predictions"),
    "no folder": (shutil.rmtree, "predictions", "no such folder"),
}


@pytest.mark.parametrize("fault", BAD_PREDICTIONS)
def test_bad_predictions_are_not_fused(fault, predictions, inputs, capsys):
    spoil, named, reason = BAD_PREDICTIONS[fault]
    spoil(predictions)
    arguments = ("-i", predictions, "-d", 5, "-o", inputs / "out")
    assert reason in assert_refused(capsys, named, fuse, *arguments)
    assert not (inputs / "out").exists()


def test_predictions_of_a_data_set_that_is_not_there(predictions, inputs, capsys):
    line = assert_refused(capsys, "id 6", fuse, "-i", predictions, "-d", 6, "-o", inputs / "out")
    assert str(inputs / "nnUNet_raw") in line


def test_predictions_are_not_replaced_by_their_fusion(predictions, capsys):
    before = (predictions / "a.nii.gz").read_bytes()
    assert_refused(capsys, predictions, fuse, "-i", predictions, "-d", 5, "-o", predictions)
    assert (predictions / "a.nii.gz").read_bytes() == before


def test_ignored_pixels_cannot_be_fused(tmp_path, capsys):
    from nnunetv2_mip.io.volumes import write_volume
    from nnunetv2_mip.phantom.subject import simulate_subject
    from nnunetv2_mip.views.stack_files import read_stack, write_stack

    study = simulate_subject(0, 38, 12.0)
    write_volume(study.suv, study.grid, tmp_path / "suv.nii.gz")
    write_volume(study.seg, study.grid, tmp_path / "seg.nii.gz")
    views = tmp_path / "views"
    options = ["--views", "2", "--labels", "ignore", "--seg", str(tmp_path / "seg.nii.gz")]
    with pytest.raises(SystemExit) as ended:
        project.main(["-i", str(tmp_path / "suv.nii.gz"), "-o", str(views), *options])
    assert ended.value.code == 0
    stack, spacing = read_stack(views / "seg.nii.gz")
    stack = stack.copy()
    stack[0, 3, 3] = 2
    write_stack(stack, spacing, views / "seg.nii.gz")
    with pytest.raises(SystemExit) as ended:
        fuse.main(["-i", str(views), "-o", str(tmp_path / "mask.nii.gz")])
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert "ignore label 2" in line
    assert "labelsTr_projected" in line
