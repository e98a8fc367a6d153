"""Classification networks: their input, their crops, and training by the command."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetv2_mip.classification.classifier import load_classifier
from nnunetv2_mip.classification.classifier_file import (
    FILE_NAME,
    read_classifier,
    write_classifier,
)
from nnunetv2_mip.classification.network import StudyImages, study_images
from nnunetv2_mip.classification.network_training import training_batch, window_for
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.deadline import Deadline
from nnunetv2_mip.inference.predictor import MIPPredictor


def test_pixels_shown_are_those_asked_for(tiny, few_threads):

    predictor = MIPPredictor.from_model_folder(tiny.model, device="cpu")
    levels = np.full((1, 80, 60), 90, np.uint8)
    mask = np.zeros((1, 80, 60), np.uint8)
    mask[:, :40] = 1
    own = study_images(predictor, levels, (5.0, 4.0), None, mask)
    assert own.views.shape[2:] == tuple(
        round(n / p) for n, p in zip((400, 240), predictor.pixel_mm)
    )
    # Any size in mm, the same for rows and columns, coarser or finer.
    for shown in (10.0, 2.5):
        images = study_images(predictor, levels, (5.0, 4.0), shown, mask)
        assert images.views.shape == images.body.shape == images.lesions.shape
        assert images.views.shape[2:] == (400 / shown, 240 / shown)
        assert float(images.lesions.mean()) == pytest.approx(0.5)
        assert float(images.views.mean()) == pytest.approx(float(own.views.mean()), rel=1e-4)


def test_a_crop_of_a_patient_with_lesions_shows_a_lesion():

    lesions = torch.zeros(1, 1, 100, 20)
    lesions[..., 99, 4] = 1
    tall = StudyImages(torch.ones(1, 1, 100, 20), torch.ones(1, 1, 100, 20), lesions)
    wide = StudyImages(
        torch.ones(1, 1, 40, 50), torch.ones(1, 1, 40, 50), torch.zeros(1, 1, 40, 50)
    )
    window = window_for([tall, wide])
    assert window == (128, 64)
    rng = np.random.default_rng(0)
    shown = heights = 0
    for _ in range(20):
        views, body, found = training_batch([tall, wide], window, rng)
        assert views.shape == body.shape == found.shape == (2, 1, 1, *window)
        shown += int(found[0].any())
        heights += int(body[0, 0, 0].any(1).sum() < 100)
    # One crop in seven of such a patient holds the lowest row; ten are drawn.
    assert shown >= 12 and heights > 0


@pytest.mark.parametrize("how", ["--fine_tune", "--from_scratch"])
def test_a_network_of_its_own(
    tiny, trained, tmp_path, monkeypatch, few_threads, how, classify, rows_of
):
    monkeypatch.setenv("nnUNet_raw", str(trained[1]))
    out = tmp_path / "out"
    arguments = ["train", "-d", 801, "-o", out, "--network", tiny.model, "-device", "cpu"]
    arguments += ["--pixel_mm", 8, "--epochs", 2, "--no_evaluation", how]
    assert classify(*arguments) == 0
    assert [path.name for path in out.iterdir()] == [FILE_NAME]
    scores = tmp_path / "scores.csv"
    source = trained[1] / "Dataset801_Cohort" / "imagesTr"
    assert classify("predict", "-i", source, "-o", scores, "-m", out, "-device", "cpu") == 0
    table = rows_of(scores)
    assert len(table) == 12
    assert all(0 <= float(row["probability"]) <= 1 for row in table)
    if how == "--from_scratch":
        return
    weights = torch.load(
        tiny.model / "fold_0" / "checkpoint_final.pth", map_location="cpu", weights_only=False
    )["network_weights"]
    _, arrays = read_classifier(out / FILE_NAME)
    kernels = {n: x for n, x in arrays.items() if n.startswith("encoder.") and x.ndim == 4}
    moved = [np.abs(x - weights[name].numpy()).max() for name, x in kernels.items()]
    # It starts from the segmentation network's weights, and moves on.
    assert 0 < max(moved) < 0.05


@pytest.mark.slow
def test_a_head_and_a_network_as_one(
    tiny, trained, tmp_path, monkeypatch, few_threads, capsys, classify, rows_of
):
    monkeypatch.setenv("nnUNet_raw", str(trained[1]))
    out = tmp_path / "out"
    arguments = ["train", "-d", 801, "-o", out, "--network", tiny.model, "-device", "cpu"]
    arguments += ["--both", "--pixel_mm", 8, "--epochs", 2, "--cache", trained[1].parent / "cache"]
    assert classify(*arguments) == 0
    assert "both, natural ratio: AUROC" in capsys.readouterr().out
    assert len(rows_of(out / "out_of_fold.csv")) == 12
    about, arrays = read_classifier(out / FILE_NAME)
    assert (about["kind"], about["shown_mm"], len(about["parts"])) == ("both", 8.0, 2)
    classifier = load_classifier(out, device="cpu")
    path = trained[1] / "Dataset801_Cohort" / "imagesTr" / "case_00_0000.nii.gz"
    levels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    score = classifier.score(levels, (5.0, 4.0))
    odds = [
        slope * scorer.score(levels, (5.0, 4.0), Deadline())[0] + offset
        for (scorer, _), (slope, offset) in zip(classifier.scorer.parts, about["parts"])
    ]
    slope, offset = about["platt"]
    expected = 1 / (1 + math.exp(-(slope * sum(odds) / 2 + offset)))
    assert score.probability == pytest.approx(expected, abs=1e-6)
    assert sum(score.weights) == pytest.approx(1)
    # Its file without a part is none.
    for part in ("head:", "network:"):
        broken = tmp_path / "broken.npz"
        write_classifier(broken, about, {k: v for k, v in arrays.items() if part not in k})
        with pytest.raises(MipError, match=r"broken\.npz"):
            load_classifier(broken, tiny.model, "cpu")
    write_classifier(broken, {k: v for k, v in about.items() if k != "parts"}, arrays)
    with pytest.raises(MipError, match="is not a classifier"):
        load_classifier(broken, tiny.model, "cpu")
