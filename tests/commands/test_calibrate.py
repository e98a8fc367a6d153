"""The calibrate command on a tiny model of two trained folds."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from nnunetv2_mip.commands import calibrate as command
from nnunetv2_mip.evaluation.threshold_calibration import calibrate
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.out_of_fold import (
    TrainingData,
    predict_out_of_fold,
    read_probability,
    validation_cases,
)
from nnunetv2_mip.inference.predictor import MIPPredictor

VALIDATED_IN = {"ann_1": 0, "ann_2": 0, "bob_1": 1, "eve_1": 1}

pytestmark = pytest.mark.slow


def run(*argv) -> int:
    with pytest.raises(SystemExit) as ended:
        command.main([*map(str, argv), "-device", "cpu"])
    return ended.value.code


@pytest.fixture(scope="module")
def both_folds(tiny_trained, tmp_path_factory):
    """The tiny data with both folds trained, and nnU-Net's probabilities of their validation."""
    from nnunetv2.run.run_training import run_training

    own = replace(tiny_trained, base=tmp_path_factory.mktemp("both"))
    shutil.copytree(tiny_trained.base, own.base, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.environment.items():
            patch.setenv(name, value)
        for fold in (0, 1):
            run_training(
                str(own.number),
                "2d",
                fold,
                own.trainer,
                own.plans,
                export_validation_probabilities=True,
                only_run_validation=fold == 0,
                device=torch.device("cpu"),
            )
    return own


@pytest.fixture
def trained(both_folds, tmp_path, monkeypatch):
    """A copy of the model of both folds that a test may change."""
    for name, value in both_folds.environment.items():
        monkeypatch.setenv(name, value)
    model = tmp_path / both_folds.model.name
    shutil.copytree(both_folds.model, model)
    return model


def test_every_case_is_predicted_by_the_network_that_has_not_seen_it(trained):
    data, cases = TrainingData.of_model(trained), validation_cases(trained)
    assert {case: fold for fold, names in cases.items() for case in names} == VALIDATED_IN
    found = dict(predict_out_of_fold(trained, data, cases, device="cpu"))
    assert set(found) == set(VALIDATED_IN)
    for case, fold in VALIDATED_IN.items():
        levels, pixel_mm = data.levels(case, 8.0)
        answers = [
            MIPPredictor.from_model_folder(trained, [number], device="cpu").view_probabilities(
                levels, pixel_mm
            )
            for number in (fold, 1 - fold)
        ]
        np.testing.assert_array_equal(found[case], answers[0])
        assert not np.array_equal(found[case], answers[1])


def test_nothing_is_written_unless_asked(trained, capsys):
    config = InferenceConfig(threshold=0.7, tta=False, views=3)
    path = config.save(trained)
    before = path.read_bytes()
    assert run("-m", trained) == 0
    out = capsys.readouterr().out
    assert path.read_bytes() == before
    # Three views of each case with lesions.
    assert "9 images of 2 patients" in out
    assert str(path) in out and "(now 0.7)" in out and "--write" in out


def test_the_choice_is_written_beside_the_other_settings(trained, capsys):
    InferenceConfig(threshold=0.7, tta=False, views=3).save(trained)
    data = TrainingData.of_model(trained)
    images = []
    for case, probability in predict_out_of_fold(
        trained, data, validation_cases(trained), device="cpu"
    ):
        images += [(*pair, data.patients[case]) for pair in zip(probability, data.truth(case))]
    expected = calibrate(images)
    assert run("-m", trained, "--write") == 0
    assert f"threshold {expected.threshold}," in capsys.readouterr().out
    written = InferenceConfig.load(trained)
    assert written == InferenceConfig(
        threshold=expected.threshold,
        min_component_px=expected.min_component_px,
        tta=False,
        views=3,
    )


def test_probabilities_of_nnunets_validation_give_the_same_choice(trained, capsys):
    folders = [trained / f"fold_{fold}" / "validation" for fold in (0, 1)]
    assert run("-m", trained) == 0
    predicted = capsys.readouterr().out
    assert run("-m", trained, "-i", *folders) == 0
    assert capsys.readouterr().out.split(":")[0] == predicted.split(":")[0]


def test_the_model_may_be_named_by_its_data_set(both_folds, trained, capsys):
    names = ["-d", both_folds.number, "-tr", both_folds.trainer, "-p", both_folds.plans]
    assert run(*names) == 0
    assert str(both_folds.model / "inference.json") in capsys.readouterr().out


def test_probabilities_of_the_benchmark_are_read(tmp_path):
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.savez_compressed(tmp_path / "a.npz", levels=levels)
    found = read_probability(tmp_path / "a.npz")
    np.testing.assert_allclose(found, levels[None] / 255, atol=1e-7)


def bad_folder(folder, **content):
    folder.mkdir()
    for name, arrays in content.items():
        np.savez_compressed(folder / f"{name}.npz", **arrays)
    return folder


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "holds no probabilities"),
        ({"zoe_1": {"levels": np.zeros((44, 36), np.uint8)}}, "no case zoe_1"),
        ({"bob_1": {"other": np.zeros(3)}}, "no probabilities of nnU-Net"),
        ({"bob_1": {"levels": np.zeros((44, 36), np.uint8)}}, "have (3, 44, 36)"),
    ],
)
def test_files_that_cannot_be_used_end_in_one_line(trained, tmp_path, capsys, content, words):
    folder = bad_folder(tmp_path / "probabilities", **content)
    assert run("-m", trained, "-i", folder) == 2
    error = capsys.readouterr().err
    assert words in error.splitlines()[-1]
    assert "Traceback" not in error


def test_models_that_cannot_be_calibrated_end_in_one_line(trained, tmp_path, capsys, monkeypatch):
    def last_line(*argv) -> str:
        before = (trained / "inference.json").read_bytes()
        assert run("-m", trained, "--write", *argv) == 2
        assert (trained / "inference.json").read_bytes() == before
        return capsys.readouterr().err.splitlines()[-1]

    # Fold 0 validates on one patient with lesions.
    assert "at least two patients with lesions" in last_line("-f", 0)
    assert "fold_3" in last_line("-f", 3)
    assert "-i name their folders" in last_line("-f", 0, "-i", tmp_path)
    shutil.rmtree(trained / "fold_1")
    (trained / "fold_0").rename(trained / "fold_all")
    assert "fold all has trained on every case" in last_line()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nowhere"))
    assert "was trained on this data set" in last_line()


def test_a_data_set_of_another_converter_is_refused(trained, both_folds, tmp_path, monkeypatch):
    raw = tmp_path / "raw" / both_folds.name
    raw.mkdir(parents=True)
    content = json.loads((both_folds.raw / "dataset.json").read_text())
    del content["mip"]["patients"]
    (raw / "dataset.json").write_text(json.dumps(content))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    assert run("-m", trained) == 2
