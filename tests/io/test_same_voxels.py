"""One study, its files stored along any axes: every door gives the same answer."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import AXIS_CODES, run, write_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunetv2_mip.commands import evaluate, fuse, project
from nnunetv2_mip.evaluation.evaluate import score_pair
from nnunetv2_mip.evaluation.matching import Pair
from nnunetv2_mip.io.read_study import read_study
from nnunetv2_mip.io.volumes import read_volume

SPACING, ORIGIN = (4.0, 5.0, 6.0), (-20.0, 30.0, -200.0)
ANY_FOLDER = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CODES = st.sampled_from(AXIS_CODES)


def arrays() -> dict[str, np.ndarray]:
    """SUV, CT and two masks (z, y, x), without symmetry."""
    suv = np.random.default_rng(0).uniform(0.5, 1.5, (9, 8, 10)).astype(np.float32)
    suv[2:4, 1:3, 6:9] = 8
    ct = np.arange(suv.size, dtype=np.int16).reshape(suv.shape)
    seg = (suv > 5).astype(np.uint8)
    found = np.roll(seg, 1, axis=2)
    return {"suv": suv, "ct": ct, "seg": seg, "found": found}


def write_all(folder: Path, codes: dict[str, str], ending: str = ".nii.gz") -> dict[str, Path]:
    return {
        name: write_image(
            array, folder / f"{name}{ending}", SPACING, ORIGIN, codes.get(name, "LPS")
        )
        for name, array in arrays().items()
    }


@given(suv=CODES, ct=CODES, seg=CODES, ending=st.sampled_from([".nii.gz", ".mha", ".nrrd"]))
@ANY_FOLDER
def test_a_study_is_the_same_however_its_files_are_stored(tmp_path, suv, ct, seg, ending):
    files = write_all(tmp_path, {"suv": suv, "ct": ct, "seg": seg}, ending)
    study = read_study(files["suv"], files["ct"], files["seg"], wants_ct=True)
    expected = arrays()
    np.testing.assert_array_equal(study.suv.array, expected["suv"])
    np.testing.assert_array_equal(study.ct.array, expected["ct"])
    np.testing.assert_array_equal(study.seg.array, expected["seg"])
    assert study.grid.axis_codes == suv


@given(truth=CODES, found=CODES)
@ANY_FOLDER
def test_scores_are_the_same_however_the_masks_are_stored(tmp_path, truth, found):
    files = write_all(tmp_path, {"seg": truth, "found": found})
    kind, scores = score_pair(Pair("p", files["seg"], files["found"]))
    assert kind == "volume"
    # Of 12 voxels 8 are common.
    assert scores["dice"] == pytest.approx(2 * 8 / 24)
    assert scores["true_volume_ml"] == pytest.approx(12 * 0.12)


@pytest.mark.slow
@pytest.mark.parametrize("code", ["RAS", "LAS", "PIR", "SAL"])
def test_commands_take_masks_ct_and_suv_stored_along_other_axes(code, tmp_path):
    plain = write_all(tmp_path / "plain", {})
    other = write_all(tmp_path / "other", {"seg": code, "ct": code, "found": code})
    results = []
    for files in (plain, other):
        out = files["suv"].parent / "views"
        options = ("-i", files["suv"], "--seg", files["seg"], "--ct", files["ct"], "--views", 3)
        assert run(project, *options, "--channels", "suv,ct", "-o", out) == 0
        results.append([read_volume(out / f"{n}.nii.gz").array for n in ("suv", "ct", "seg")])
    for one, same in zip(*results):
        np.testing.assert_array_equal(one, same)
    # Fused onto the grid of the views' source, with the SUV stored otherwise.
    suv = write_image(arrays()["suv"], tmp_path / "suv.nii.gz", SPACING, ORIGIN, code)
    masks = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for mask, given_suv in zip(masks, (plain["suv"], suv)):
        assert run(fuse, "-i", plain["suv"].parent / "views", "-o", mask, "--suv", given_suv) == 0
    assert masks[0].read_bytes() == masks[1].read_bytes()
    report = tmp_path / "report.json"
    assert run(evaluate, "-p", other["found"], "-g", plain["seg"], "-o", report) == 0
    (case,) = json.loads(report.read_text())["cases"].values()
    assert case["dice"] == pytest.approx(2 * 8 / 24)


def test_the_same_numbers_in_other_directions_are_another_place(tmp_path, capsys):
    files = write_all(tmp_path, {})
    image = sitk.ReadImage(str(files["seg"]))
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    mirrored = tmp_path / "mirrored.nii.gz"
    sitk.WriteImage(image, str(mirrored))
    for command, options in (
        (evaluate, ("-p", mirrored, "-g", files["seg"], "-o", tmp_path / "r.json")),
        (project, ("-i", files["suv"], "--seg", mirrored, "-o", tmp_path / "views")),
    ):
        assert run(command, *options) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"{mirrored}: lies on another grid" in line and "axes RPS against LPS" in line


def test_a_mask_of_most_voxels_is_doubted(tmp_path):
    lesion = np.zeros((6, 8, 10), np.uint8)
    lesion[2:4, 3:5, 4:6] = 1
    sitk.WriteImage(sitk.GetImageFromArray(lesion * 5.0 + 1), str(tmp_path / "suv.nii.gz"))
    for name, mask, count in (("mask", lesion, 0), ("inverted", 1 - lesion, 1)):
        path = tmp_path / f"{name}.nii.gz"
        sitk.WriteImage(sitk.GetImageFromArray(mask), str(path))
        study = read_study(tmp_path / "suv.nii.gz", seg=path)
        assert sum("is the mask inverted?" in line for line in study.warnings) == count
