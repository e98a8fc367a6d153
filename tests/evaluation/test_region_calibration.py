"""Training of the region classifier on regions made by hand, and its command."""

import json
import shutil

import numpy as np
import pytest
from helpers import assert_refused, run, write_image

from nnunetv2_mip.commands import calibrate_regions as command
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.region_calibration import (
    VIEW_THRESHOLDS,
    StudyRegions,
    calibrate_regions,
    fit_classifier,
)
from nnunetv2_mip.fusion.region_features import FEATURES
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.io.study_layouts import find_studies

VOLUME = FEATURES.index("log_volume_ml")
ALONG = FEATURES.index("along_body")


def study(number: int, ill: bool) -> StudyRegions:
    """One lesion of 100 voxels where the patient is ill, one thin line that is none.

    The lesion is found with view thresholds below 0.4 alone; the line always.
    """
    noise = np.zeros((2, len(FEATURES)), np.float32)
    noise[:, [VOLUME, ALONG]] = np.random.default_rng(number).normal(0, 0.1, (2, 2))
    features, voxels, hits = [], [], []
    for threshold in VIEW_THRESHOLDS:
        rows = noise.copy()
        rows[:, ALONG] += (0.1, 0.95)
        there = [0, 1] if ill and threshold < 0.4 else [1]
        features.append(rows[there])
        voxels.append(np.array([100, 40])[there])
        hits.append(np.array([90, 0])[there])
    return StudyRegions(f"p{number}", 100 * ill, 0.064, tuple(features), tuple(voxels), tuple(hits))


STUDIES = [study(number, number % 3 > 0) for number in range(30)]


def test_lines_go_and_the_lower_threshold_finds_the_lesions():
    found = calibrate_regions(STUDIES)
    assert found.view_threshold < 0.4
    # 90 of 100 voxels, the region is as large: 180 / 200.
    assert found.dice == pytest.approx(0.9) and found.dice_plain == 0
    assert found.false_ml == 0 and found.false_ml_plain == pytest.approx(40 * 0.064)
    assert (found.studies, found.healthy) == (30, 10)
    # Beside the choice: each threshold of the views, with the classifier and without.
    chosen = (found.view_threshold, found.classifier.threshold, found.dice, found.false_ml)
    assert chosen in found.compared and len(found.compared) == 2 * len(VIEW_THRESHOLDS)
    assert (0.5, 0.0, found.dice_plain, found.false_ml_plain) in found.compared
    probabilities = found.classifier.probabilities(STUDIES[1].features[0])
    assert probabilities[0] > found.classifier.threshold > probabilities[1]


def test_what_it_needs():
    with pytest.raises(MipError, match="at least 10 patients"):
        calibrate_regions(STUDIES[:9])
    with pytest.raises(MipError, match="with lesions and without"):
        calibrate_regions([study(number, True) for number in range(12)])
    with pytest.raises(MipError, match="regions that are lesions and others"):
        fit_classifier([study(number, False) for number in range(12)])


def test_regions_are_kept_in_files(tmp_path):
    path = tmp_path / "one.npz"
    STUDIES[1].save(path)
    again = StudyRegions.load(path)
    assert (again.patient, again.lesion_voxels, again.voxel_ml) == ("p1", 100, 0.064)
    for name in ("features", "voxels", "hits"):
        for one, other in zip(getattr(again, name), getattr(STUDIES[1], name), strict=True):
            np.testing.assert_array_equal(one, other)
    path.write_bytes(b"no archive")
    with pytest.raises(MipError, match="remove the file"):
        StudyRegions.load(path)


@pytest.mark.slow
def test_the_command_predicts_what_is_missing_and_writes_the_choice(tiny_model, tmp_path, capsys):
    model, tree, out = tmp_path / "model", tmp_path / "tree", tmp_path / "regions"
    shutil.copytree(tiny_model, model)
    suv = np.random.default_rng(0).random((10, 12, 12)).astype(np.float32)
    truth = np.zeros(suv.shape, np.uint8)
    truth[4:6, 5:7, 5:7] = 1
    for number, made in enumerate(STUDIES[:12]):
        folder = tree / f"PETCT_{number:08d}" / "01-01-2001-study"
        write_image(suv + 5 * truth, folder / "SUV.nii.gz")
        write_image(truth * np.uint8(made.lesion_voxels > 0), folder / "SEG.nii.gz")
    out.mkdir()
    for made, found in zip(STUDIES, find_studies(tree)[:11]):
        made.save(out / f"tree_{found.case}.npz")
    assert run(command, "-m", model, "-i", tree, "-o", out, "--write", "-device", "cpu") == 0
    assert len(list(out.glob("*.npz"))) == 12
    said = capsys.readouterr().out
    assert "12 studies, 4 without lesions: view threshold" in said
    assert sum("  none  " in line for line in said.splitlines()) == len(VIEW_THRESHOLDS)
    config = InferenceConfig.load(model)
    assert config.regions is not None and config.fusion.view_threshold < 0.4
    content = json.loads((model / "inference.json").read_text())
    assert content["regions"]["features"] == list(FEATURES)
    # A study without a mask says neither that it is healthy nor that it is not.
    found.seg.unlink()
    assert_refused(capsys, found.suv, command, "-m", model, "-i", tree, "-o", out)
