"""Features of a segmentation network: crop to the body, mirrored copies, several networks."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetv2_mip.classification.classifier import load_classifier
from nnunetv2_mip.classification.features import FeatureExtractor, body_window
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.engine import ENGINE_VARIABLE, Network
from nnunetv2_mip.inference.predictor import MIPPredictor


def test_the_body_is_cut_out_whatever_air_is_around_it():
    levels = np.zeros((2, 200, 90), np.uint8)
    # A column of four pixels: 2 % of the image's rows, more of the body's.
    levels[0, 20:160, 20:60] = 50
    levels[0, 80:84, 60] = 50
    rows, columns = body_window(levels)
    assert (rows, columns) == (slice(20, 160), slice(20, 61))
    for top, bottom, left, right in ((60, 100, 0, 0), (0, 0, 300, 10)):
        padded = np.pad(levels, ((0, 0), (top, bottom), (left, right)))
        moved = body_window(padded)
        assert moved == (slice(20 + top, 160 + top), slice(20 + left, 61 + left))
    # A speck far from the body is no body.
    levels[1, 199, 89] = 200
    assert body_window(levels)[0].start == 20
    with pytest.raises(MipError, match="empty"):
        body_window(np.zeros((1, 20, 20), np.uint8))


def test_padding_with_air_changes_nothing(trained, tiny, few_threads):
    out, raw, _ = trained
    classifier = load_classifier(out, device="cpu")
    path = raw / "Dataset801_Cohort" / "imagesTr" / "case_00_0000.nii.gz"
    levels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    plain = classifier.score(levels, (5.0, 4.0))
    padded = classifier.score(np.pad(levels, ((0, 0), (9, 14), (3, 5))), (5.0, 4.0))
    assert padded.probability == pytest.approx(plain.probability, abs=1e-6)
    assert np.allclose(padded.weights, plain.weights)
    with pytest.raises(MipError, match="empty"):
        classifier.score(np.zeros_like(levels), (5.0, 4.0))


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_mirrored_image_has_the_same_features(trained, tiny, few_threads, axis):
    """All mirrored copies of it are the same ones; of the crops only the whole body is too."""
    out, raw, _ = trained
    extractor = load_classifier(out, device="cpu").scorer.extractor
    path = raw / "Dataset801_Cohort" / "imagesTr" / "case_00_0000.nii.gz"
    levels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    plain = extractor.features(levels, (5.0, 4.0))
    turned = extractor.features(np.flip(levels, axis), (5.0, 4.0))
    assert np.abs(plain[0]).max() > 1
    np.testing.assert_allclose(turned[0], plain[0], rtol=1e-3, atol=1e-3)


def test_the_log_odds_of_several_networks_are_averaged(tiny, tmp_path, few_threads):
    model = tmp_path / "model"
    shutil.copytree(tiny.model, model, ignore=shutil.ignore_patterns("validation", "*.png"))
    shutil.copytree(model / "fold_0", model / "fold_1")
    path = model / "fold_1" / "checkpoint_final.pth"
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    for name, value in checkpoint["network_weights"].items():
        if ".seg_layers." in name:
            value *= -0.5
    torch.save(checkpoint, path)
    # A body of 2000 mm²: the mean log odds of the highest 3200 mm² are those of all of it.
    levels = np.random.default_rng(0).integers(20, 250, (1, 10, 10)).astype(np.uint8)

    def features(folds: list[int]) -> tuple[dict[str, np.ndarray], str]:
        predictor = MIPPredictor.from_model_folder(model, folds, device="cpu")
        extractor = FeatureExtractor(predictor, networks=len(folds))
        row = extractor.features(levels, (5.0, 4.0))[0, 0]
        groups = extractor.layout.slices
        return {name: row[part] for name, part in groups.items()}, extractor.fingerprint

    (one, fingerprint), (other, _), (both, of_both) = map(features, ([0], [1], [0, 1]))
    assert fingerprint != of_both
    assert abs(one["odds"][-1] - other["odds"][-1]) > 0.01
    assert both["odds"][-1] == pytest.approx((one["odds"][-1] + other["odds"][-1]) / 2, rel=1e-4)
    # The encoder's stages are those of the first network.
    for group in ("mean", "max"):
        np.testing.assert_allclose(both[group], one[group], rtol=1e-5)


def test_both_engines_give_the_same_features(tiny_model, few_threads, monkeypatch):
    pytest.importorskip("openvino", reason="the extra serve is not installed")
    levels = np.zeros((2, 60, 40), np.uint8)
    levels[:, 4:-4, 4:-4] = np.random.default_rng(0).integers(20, 200, (2, 52, 32))
    found = {}
    for engine in ("torch", "openvino"):
        monkeypatch.setenv(ENGINE_VARIABLE, "torch" if engine == "torch" else "")
        predictor = MIPPredictor.from_model_folder(tiny_model, device="cpu")
        extractor = FeatureExtractor(predictor)
        found[engine] = extractor.features(levels, (4.0, 4.0))
        # The whole body by itself is the first band, bit for bit.
        whole = extractor.features_of_whole_body(levels, (4.0, 4.0))
        assert np.array_equal(whole, found[engine][0])
        assert predictor.engine == engine and not predictor.network._stages_by_torch
    np.testing.assert_allclose(found["openvino"], found["torch"], rtol=1e-4, atol=1e-4)


def test_what_openvino_cannot_do_is_done_by_torch(tiny_model, few_threads, monkeypatch):
    pytest.importorskip("openvino", reason="the extra serve is not installed")
    predictor = MIPPredictor.from_model_folder(tiny_model, device="cpu")

    def fail(self, fold, module):
        raise RuntimeError("no")

    monkeypatch.setattr(Network, "_compile", fail)
    levels = np.full((1, 60, 40), 90, np.uint8)
    assert np.isfinite(FeatureExtractor(predictor).features(levels, (4.0, 4.0))).all()
    assert predictor.network._stages_by_torch and predictor.engine == "openvino"
