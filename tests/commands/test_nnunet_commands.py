"""Stock nnU-Net's own commands on our models: find the best configuration, ensemble, fuse."""

import json
import shutil
from dataclasses import replace

import pytest
import SimpleITK as sitk
from nnunetv2.ensembling.ensemble import entry_point_ensemble_folders
from nnunetv2.evaluation.find_best_configuration import find_best_configuration_entry_point
from nnunetv2.inference.predict_from_raw_data import predict_entry_point

SECOND_TRAINER = """
from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP


class nnUNetTrainerMIP_other(nnUNetTrainerMIP):
    epochs = 1
    iterations_per_epoch = 2
    val_iterations_per_epoch = 1
"""


@pytest.fixture(scope="module")
def two_models(tiny_trained, tmp_path_factory):
    """Two trainers, two folds each, with the probabilities of their validation cases."""
    import torch
    from nnunetv2.run.run_training import run_training

    base = tmp_path_factory.mktemp("two")
    for folder in ("nnUNet_preprocessed", "nnUNet_raw", "trainers"):
        shutil.copytree(tiny_trained.base / folder, base / folder)
    (base / "trainers" / "nnUNetTrainerMIP_other.py").write_text(SECOND_TRAINER)
    tiny = replace(tiny_trained, base=base)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in tiny.environment.items():
            patch.setenv(name, value)
        for trainer in (tiny.trainer, "nnUNetTrainerMIP_other"):
            for fold in (0, 1):
                run_training(
                    str(tiny.number),
                    "2d",
                    fold,
                    trainer,
                    tiny.plans,
                    export_validation_probabilities=True,
                    device=torch.device("cpu"),
                )
    return tiny


@pytest.fixture
def models(two_models, monkeypatch):
    for name, value in two_models.environment.items():
        monkeypatch.setenv(name, value)
    return two_models


def run(monkeypatch, entry_point, *words):
    monkeypatch.setattr("sys.argv", [entry_point.__name__, *map(str, words)])
    entry_point()


@pytest.mark.slow
def test_find_best_configuration_compares_and_ensembles_our_trainers(models, monkeypatch):
    trainers = (models.trainer, "nnUNetTrainerMIP_other")
    run(monkeypatch, find_best_configuration_entry_point, models.number, "-p", models.plans,
        "-c", "2d", "-tr", *trainers, "-np", 1, "-f", 0, 1)  # fmt: skip
    found = json.loads((models.results / "inference_information.json").read_text())
    compared = " ".join(found["all_results"])
    assert all(f"{trainer}__{models.plans}__2d" in compared for trainer in trainers)
    assert any("ensemble" in name for name in found["all_results"])
    assert found["best_model_or_ensemble"]["selected_model_or_models"][0]["trainer"] in trainers


@pytest.mark.slow
def test_ensemble_of_two_predictions(models, monkeypatch, tmp_path):
    folders = []
    for trainer in (models.trainer, "nnUNetTrainerMIP_other"):
        folders.append(tmp_path / trainer)
        run(monkeypatch, predict_entry_point, "-i", models.raw / "imagesTr", "-o", folders[-1],
            "-d", models.number, "-p", models.plans, "-tr", trainer, "-c", "2d", "-f", 0, 1,
            "-device", "cpu", "-npp", 0, "-nps", 0, "--save_probabilities",
            "--disable_tta")  # fmt: skip
    run(monkeypatch, entry_point_ensemble_folders, "-i", *folders, "-o", tmp_path / "both",
        "-np", 1)  # fmt: skip
    masks = sorted((tmp_path / "both").glob("*.nii.gz"))
    assert [mask.name for mask in masks] == [
        f"{case}.nii.gz" for case in ("ann_1", "ann_2", "bob_1", "eve_1")
    ]
    image = sitk.ReadImage(str(models.raw / "imagesTr" / "ann_1_0000.nii.gz"))
    merged = sitk.ReadImage(str(masks[0]))
    assert merged.GetSize() == image.GetSize()
    assert merged.GetSpacing() == pytest.approx(image.GetSpacing())
