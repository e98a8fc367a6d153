"""The mixed trainer on a merged data set of images and studies, through the real entry points."""

import json

import numpy as np
import pytest
import torch
from helpers import run, save_png, write_image

from nnunetv2_mip.commands import (
    convert_autopet,
    convert_dmiai,
    merge_datasets,
    plan_and_preprocess,
)
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.out_of_fold import (
    TrainingData,
    predict_out_of_fold,
    validation_cases,
)
from nnunetv2_mip.trainers.nnUNetTrainerMIP_mixed import (
    nnUNetTrainerMIP_mixed_coarse,
    nnUNetTrainerMIP_mixed_fine,
    nnUNetTrainerMIP_mixed_images,
    nnUNetTrainerMIP_mixed_third,
)

TRAINER = "nnUNetTrainerMIP_tinymixed"
TINY_MIXED = f"""
from nnunetv2_mip.trainers.nnUNetTrainerMIP_mixed import nnUNetTrainerMIP_mixed_coarse


class {TRAINER}(nnUNetTrainerMIP_mixed_coarse):
    epochs = 1
    iterations_per_epoch = 2
    val_iterations_per_epoch = 1
"""


def write_images(data, count: int = 2) -> None:
    """Patients with a black spot, and controls without (40 × 32 pixels, dark is uptake)."""
    rng = np.random.default_rng(0)
    for number in range(count):
        for kind in ("patient", "control"):
            grey = np.full((40, 32), 255, np.uint8)
            grey[4:-4, 4:-4] = rng.integers(150, 220, (32, 24))
            spot = np.zeros_like(grey)
            if kind == "patient":
                spot[10:16, 8:14] = 255
                grey[spot > 0] = 0
                name = f"segmentation_{number}.png"
                save_png(spot, data / "patients" / "labels" / name)
            save_png(grey, data / f"{kind}s" / "imgs" / f"{kind}_{number}.png")


def write_studies(tree) -> None:
    """A simulated patient with a lesion and a healthy one."""
    for name, lesion in (("PETCT_ill", True), ("PETCT_well", False)):
        suv = np.zeros((16, 16, 16), np.float32)
        suv[:, 3:-3, 3:-3] = 1
        seg = np.zeros(suv.shape, np.uint8)
        seg[5:9, 6:9, 6:9] = lesion
        suv[seg > 0] = 8
        for array, file in ((suv, "SUV.nii.gz"), (seg, "SEG.nii.gz")):
            write_image(array, tree / name / "study" / file, (4.0, 4.0, 4.0))


@pytest.fixture
def merged(untrained, tmp_path):
    """Images (10) and studies (21) merged into 30, and planned."""
    write_images(tmp_path / "png")
    write_studies(tmp_path / "tree")
    assert run(convert_dmiai, "-i", tmp_path / "png", "-d", 10) == 0
    views = ("--views", 3, "--window", 7, "--pixel", 2)
    assert run(convert_autopet, "-i", tmp_path / "tree", "-d", 21, *views) == 0
    options = ("-d", 10, 21, "-o", 30, "-n", "Mixed", "--sources", "dmiai", "phantom")
    assert run(merge_datasets, *options) == 0
    preset = ("--preset", untrained.preset, "-np", 1)
    assert run(plan_and_preprocess, "-d", 30, *preset) == 0
    (untrained.base / "trainers" / f"{TRAINER}.py").write_text(TINY_MIXED)
    return untrained.base


def build():
    from nnunetv2.run.run_training import get_trainer_from_args

    plans = "nnUNetMIPPlans_tiny"
    return get_trainer_from_args("30", "2d", 0, TRAINER, plans, device=torch.device("cpu"))


@pytest.mark.slow
def test_a_merged_data_set_is_planned_trained_and_predicted(merged):
    from nnunetv2.run.run_training import run_training

    plans = "nnUNetMIPPlans_tiny"
    splits = json.loads((merged / "nnUNet_raw/Dataset030_Mixed/splits_final.json").read_text())
    run_training("30", "2d", 0, TRAINER, plans, device=torch.device("cpu"))
    model = merged / "nnUNet_results/Dataset030_Mixed" / f"{TRAINER}__{plans}__2d"
    validated = {p.name for p in (model / "fold_0" / "validation").glob("*.nii.gz")}
    assert validated == {f"{case}.nii.gz" for case in splits[0]["val"]}
    assert all(case.startswith(("patient", "control")) for case in splits[0]["val"])
    # The window of the images; views of a volume as many as without a merge.
    config = InferenceConfig.load(model)
    assert (config.window_suv, config.views) == (10.0, InferenceConfig().views)
    shipped = (model / "dataset.json").read_text()
    assert "PETCT" not in shipped and "source_of" not in shipped
    data, cases = TrainingData.of_model(model), validation_cases(model)
    assert cases == {0: splits[0]["val"]}
    predicted = dict(predict_out_of_fold(model, data, cases, device="cpu"))
    assert {case: found.shape for case, found in predicted.items()} == dict.fromkeys(
        splits[0]["val"], (1, 40, 32)
    )

    # What is drawn: images with lesions 4 times, without once; simulated 3 times and twice.
    training, _ = build().get_tr_and_val_datasets()
    often = {"patient": 4, "control": 1, "PETCT_ill_study": 3, "PETCT_well_study": 2}
    expected = [
        case
        for case in sorted(splits[0]["train"])
        for _ in range(often[case if case in often else case.partition("_")[0]])
    ]
    assert training.identifiers == expected
    assert {case.partition("_")[0] for case in expected} == {"patient", "control", "PETCT"}

    path = merged / "nnUNet_preprocessed/Dataset030_Mixed/dataset.json"
    content = json.loads(path.read_text())
    content["mip"]["source_of"] = dict.fromkeys(content["mip"]["source_of"], "other")
    path.write_text(json.dumps(content))
    with pytest.raises(MipError, match="source other is none of autopet, dmiai, phantom"):
        build().get_tr_and_val_datasets()
    # A data set that was converted, not merged.
    del content["mip"]["source_of"]
    path.write_text(json.dumps(content))
    with pytest.raises(MipError, match="nnUNetv2_mip_merge_datasets"):
        build().get_tr_and_val_datasets()


SETTINGS = {
    nnUNetTrainerMIP_mixed_coarse: {"epochs": 10, "learning_rate": 2e-3, "paste_probability": 0.0},
    nnUNetTrainerMIP_mixed_fine: {
        "epochs": 6,
        "learning_rate": 1e-3,
        "paste_probability": 0.3,
        "saturation_probability": 0.4,
        "batch_dice": False,
        "starts_from": ("nnUNetTrainerMIP_mixed_coarse", "nnUNetMIPPlans_cpu_4mm"),
    },
    nnUNetTrainerMIP_mixed_third: {
        "epochs": 6,
        "learning_rate": 1e-3,
        "warmup": 0.05,
        "deformation": (0.7, 0.7, 0.4),
        "paste_probability": 0.5,
        "saturation_probability": 0.5,
        "batch_dice": False,
        "starts_from": ("nnUNetTrainerMIP_mixed_fine", "nnUNetMIPPlans_cpu_3mm"),
    },
    nnUNetTrainerMIP_mixed_images: {
        "epochs": 6,
        "learning_rate": 1e-3,
        "warmup": 0.05,
        "deformation": (0.7, 0.7, 0.4),
        "paste_probability": 0.5,
        "saturation_probability": 0.5,
        "batch_dice": False,
        "starts_from": ("nnUNetTrainerMIP_mixed_third", "nnUNetMIPPlans_cpu_3mm"),
        "source_repeats": {"dmiai": (5, 1), "autopet": (0, 0), "phantom": (0, 0)},
    },
}


@pytest.mark.parametrize("trainer", SETTINGS)
def test_the_settings_of_the_parts(trainer):
    """Written out: published networks were trained with them."""
    repeats = {"dmiai": (4, 1), "autopet": (3, 2), "phantom": (3, 2)}
    settings = {"source_repeats": repeats, **SETTINGS[trainer]}
    assert {name: getattr(trainer, name) for name in settings} == settings
    assert trainer.muon_factor == 10
