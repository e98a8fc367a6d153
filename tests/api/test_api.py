"""Python API: inputs of all kinds, results in the axes of the input, the same masks as commands."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import AXIS_CODES, ROOT, run, save_png, write_image

import nnunetv2_mip
from nnunetv2_mip import (
    FusionRule,
    ImageResult,
    MipError,
    Predictor,
    VolumeResult,
    evaluate,
    fuse,
    project,
    read_study,
)
from nnunetv2_mip.commands import predict

SHAPE = (14, 12, 16)
SPACING = (5.0, 4.0, 4.1)


def a_volume() -> np.ndarray:
    suv = np.full(SHAPE, 0.2, np.float32)
    suv[:, 2:-2, 2:-2] = np.random.default_rng(1).uniform(0.6, 1.6, (SHAPE[0], 8, 12))
    suv[4:8, 4:8, 9:13] = 7
    return suv


def a_picture() -> np.ndarray:
    pixels = np.full((41, 33), 255, np.uint8)
    pixels[4:-4, 4:-4] = 210
    pixels[12:20, 10:16] = 35
    return pixels


def a_file(path: Path, code: str = "LPS") -> Path:
    return write_image(a_volume(), path, SPACING[::-1], (-31.5, 12.25, 100.125), code)


def array_of(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.fixture(scope="module")
def folder(tiny_trained, tmp_path_factory) -> Path:
    """The tiny model with thresholds that half of a volume and of an image exceed."""
    folder = tmp_path_factory.mktemp("eager") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_extTrainer", tiny_trained.environment["nnUNet_extTrainer"])
        usual = Predictor(tiny_trained.model, device="cpu", tta=False, fusion=FusionRule("max"))
        volume = usual.predict((a_volume(), SPACING), probability=True)
        image = usual.predict(a_picture())
    kept = shutil.ignore_patterns("validation", "*.png")
    shutil.copytree(tiny_trained.model, folder, ignore=kept)
    config = json.loads((folder / "inference.json").read_text())
    config["threshold"] = float(np.median(image.probability))
    config["fusion"] = {"rule": "max", "threshold": float(np.median(volume.probability))}
    (folder / "inference.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def predictor(folder, tiny) -> Predictor:
    return Predictor(folder, device="cpu", tta=False)


@pytest.fixture
def arguments(folder, tiny) -> tuple:
    return "-m", folder, "-device", "cpu", "--disable_tta", "--no_picture"


def test_the_names_are_lazy_and_predicting_alone_needs_torch():
    code = (
        "import sys, nnunetv2_mip\n"
        "heavy = ('torch', 'nnunetv2', 'numba', 'SimpleITK', 'numpy')\n"
        "print([n for n in heavy if n in sys.modules])\n"
        "for name in nnunetv2_mip.__all__: getattr(nnunetv2_mip, name)\n"
        "nnunetv2_mip.Predictor.bundled()\n"
        "print([n for n in ('torch', 'nnunetv2', 'matplotlib') if n in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_the_stub_declares_every_name():
    stub = Path(nnunetv2_mip.__file__).with_suffix(".pyi").read_text("utf-8")
    declared = {line.rsplit(" as ", 1)[1] for line in stub.splitlines() if " as " in line}
    assert declared == set(nnunetv2_mip._API)
    with pytest.raises(AttributeError, match="no attribute 'predictor'"):
        nnunetv2_mip.predictor  # noqa: B018


@pytest.mark.parametrize("code", ["LPS", "RAS", "AIL"])
def test_a_volume_gives_the_mask_of_the_command(code, predictor, arguments, tmp_path):
    source = a_file(tmp_path / "in" / "SUV.nii.gz", code)
    assert run(predict, "-i", source, "-o", tmp_path / "SUV.nii.gz", *arguments) == 0
    found = predictor.predict(source, probability=True)
    assert isinstance(found, VolumeResult) and found.case == "SUV"
    expected = array_of(tmp_path / "SUV.nii.gz")
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(found.mask, expected)
    np.testing.assert_array_equal(found.suv, array_of(source))
    assert found.spacing_mm == pytest.approx(sitk.ReadImage(str(source)).GetSpacing()[::-1])
    image, original = found.to_sitk(), sitk.ReadImage(str(source))
    assert image.GetDirection() == original.GetDirection()
    assert image.GetOrigin() == pytest.approx(original.GetOrigin())
    assert found.probability.shape == expected.shape
    assert len(found.lesions) == sitk.GetArrayFromImage(found.to_sitk("lesions")).max()
    written = found.save(tmp_path / "own" / "SUV.nii.gz")
    for path in written:
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


@pytest.mark.parametrize("code", AXIS_CODES[::7])
def test_an_image_in_memory_is_what_its_file_is(code, predictor, tmp_path):
    source = a_file(tmp_path / "SUV.mha", code)
    found = predictor.predict(sitk.ReadImage(str(source)))
    np.testing.assert_array_equal(found.mask, predictor.predict(source).mask)
    assert found.to_sitk().GetDirection() == sitk.ReadImage(str(source)).GetDirection()


def test_an_array_is_what_its_file_is_and_is_not_changed(predictor, tmp_path):
    array = a_volume()
    array[0, 0, 0] = -1e-4
    before = array.copy()
    found = predictor.predict((array, SPACING), case="ann")
    np.testing.assert_array_equal(array, before)
    assert found.case == "ann"
    np.testing.assert_array_equal(
        found.mask, predictor.predict(a_file(tmp_path / "SUV.nii.gz")).mask
    )


def test_a_png_gives_the_mask_of_the_command(predictor, arguments, tmp_path):
    source = save_png(a_picture(), tmp_path / "in" / "p.png")
    assert run(predict, "-i", source, "-o", tmp_path / "p.png", *arguments) == 0
    for given in (source, source.read_bytes(), a_picture()):
        found = predictor.predict(given)
        assert isinstance(found, ImageResult)
        assert 0 < found.mask.sum() < found.mask.size
        np.testing.assert_array_equal(255 * found.mask, array_of(tmp_path / "p.png"))
    assert found.to_sitk().GetSpacing() == (2.0, 2.0)


def test_steps_one_by_one_give_the_same_mask(predictor, tmp_path):
    study = read_study(a_file(tmp_path / "SUV.nii.gz", "RAS"))
    views = predictor.project(study)
    again = fuse(predictor.view_probabilities(views), views, study, predictor.config.fusion)
    np.testing.assert_array_equal(again.mask, predictor.predict(study).mask)
    with pytest.raises(MipError, match="level 255 is"):
        predictor.view_probabilities(project(study, views=3))


def test_many_inputs_come_one_after_the_other(predictor, tmp_path):
    for name in ("a", "b"):
        a_file(tmp_path / "in" / f"{name}.nii.gz")
    assert [one.case for one in predictor.predict_all(tmp_path / "in")] == ["a", "b"]
    given = [tmp_path / "in" / "b.nii.gz", a_picture()]
    assert [type(one) for one in predictor.predict_all(given)] == [VolumeResult, ImageResult]
    with pytest.raises(MipError, match="holds 2 cases; predict them with predict_all"):
        predictor.predict(tmp_path / "in")


def test_scores_of_hand_made_masks(tmp_path):
    truth, mask = np.zeros((2, 4, 5, 6), np.uint8)
    truth[1, 1:3, 1:3] = 1
    mask[1, 1:3, 1:4] = 1
    # 4 true voxels, 6 predicted, 4 shared: 2 · 4 / 10.
    for one, other in (((mask, SPACING), (truth, SPACING)), (mask, (truth, SPACING))):
        scores = evaluate(one, other)
        assert scores.dice == pytest.approx(0.8)
        assert scores.predicted_volume_ml == pytest.approx(6 * 5 * 4 * 4.1 / 1000)
    assert evaluate(mask[1], truth[1]).dice == pytest.approx(0.8)
    # An array alone lies in the axes of the other mask's file.
    path = write_image(truth, tmp_path / "t.nii.gz", SPACING[::-1], orientation="RAS")
    assert evaluate(array_of(path), path).dice == 1.0
    assert evaluate((mask, SPACING), sitk.ReadImage(str(write_image(
        truth, tmp_path / "u.nii.gz", SPACING[::-1])))).dice == pytest.approx(0.8)  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: read_study(np.ones((3, 4, 5))), "needs its voxel size"),
        (lambda: read_study((np.ones((3, 4)), (1, 1))), "has 2 dimensions"),
        (lambda: read_study((np.ones((9, 9, 9)), (4, 4))), "three numbers above 0"),
        (lambda: read_study((np.full((9, 9, 9), np.nan), (4, 4, 4))), "array: contains NaN"),
        (lambda: read_study((np.full((9, 9, 9), "a"), (4, 4, 4))), "numbers are expected"),
        (lambda: read_study("nowhere.nii.gz"), "nowhere.nii.gz: no such file"),
        (lambda: read_study("image.png"), "is an image"),
        (lambda: read_study(7), "int cannot be read"),
        (lambda: Predictor("nowhere"), "no such model folder"),
        (lambda: Predictor.bundled(treshold=0.4), "unknown setting treshold"),
        (lambda: Predictor.bundled(views=0), "views"),
        (lambda: evaluate(np.ones((2, 2, 2)), np.ones((2, 2, 2))), "need their voxel size"),
        (lambda: evaluate(np.ones((2, 2)), np.ones((2, 3))), "have shapes"),
        (lambda: evaluate(np.arange(4).reshape(2, 2), np.ones((2, 2))), "one other value"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(MipError, match=message) as refused:
        call()
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::nnunetv2_mip.errors.MipWarning")
def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(ROOT / "docs" / "examples" / "python_api.py"))
    out = tmp_path / "python_api_out"
    assert (out / "mask_mip.gif").read_bytes().startswith(b"GIF")
    np.testing.assert_array_equal(array_of(out / "mask.nii.gz"), found["found"].mask)
    assert [p.name for p in (out / "masks").glob("*.nii.gz")]
