"""nnU-Net's cascade in 2D: planned by a preset, trained stage by stage, predicted as one model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.deadline import Deadline
from nnunetv2_mip.inference.export import export_model
from nnunetv2_mip.nnunet.model_folder import FIRST_STAGE_FOLDER
from nnunetv2_mip.plans.presets import load_preset

LIMITS = {
    "max_batch_size": 2,
    "features_per_stage": [4, 8, 8],
    "convs_per_stage": 1,
    "vram_gb": 8,
}
PRESET = {
    **LIMITS,
    "finest_spacing_mm": [4, 4],
    "max_patch_px": [32, 32],
    # Two stages: a network with a single output.
    "localization": {
        **LIMITS,
        "features_per_stage": [4, 8],
        "finest_spacing_mm": [8, 8],
        "max_patch_px": [24, 24],
    },
}


def run(command, arguments, monkeypatch):
    monkeypatch.setattr("sys.argv", arguments)
    command()


class Counting(Deadline):
    asked = 0

    def check(self):
        self.asked += 1


def train(own, configuration, fold):
    from nnunetv2.run.run_training import run_training

    run_training(
        str(own.number), configuration, fold, own.trainer, own.plans, device=torch.device("cpu")
    )


@pytest.mark.slow
def test_a_cascade_from_plan_to_prediction(untrained, monkeypatch, tmp_path, capsys):
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point

    from nnunetv2_mip.commands import plan_and_preprocess
    from nnunetv2_mip.inference.predictor import MIPPredictor

    own = replace(untrained, plans="nnUNetMIPPlans_tinycascade")
    preset = own.base / "tinycascade.json"
    preset.write_text(json.dumps(PRESET))
    with pytest.raises(SystemExit) as planned:
        plan_and_preprocess.main(["-d", str(own.number), "--preset", str(preset), "-np", "1"])
    assert planned.value.code == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    asked = [line[2:4] for line in lines if line[:1] == ["nnUNetv2_train"]]
    assert asked == [["2d_loc", "0"], ["2d_loc", "1"], ["2d_seg", "0"]]
    plans = json.loads((own.preprocessed / f"{own.plans}.json").read_text())["configurations"]
    assert plans["2d_loc"]["spacing"] == [8.0, 8.0]
    assert plans["2d_seg"]["spacing"] == [5.0, 4.0]
    assert plans["2d_seg"]["previous_stage"] == "2d_loc"

    # The second stage says what it lacks: at first everything, then the other fold.
    with pytest.raises(MipError, match=r"4 of 4 cases .* train 2d_loc first"):
        train(own, "2d_seg", 0)
    train(own, "2d_loc", 0)
    with pytest.raises(MipError, match=r"2 of 4 cases .*\(bob_1, eve_1\)"):
        train(own, "2d_seg", 0)
    train(own, "2d_loc", 1)
    train(own, "2d_seg", 0)

    losses = torch.load(
        own.results / f"{own.trainer}__{own.plans}__2d_loc" / "fold_0" / "checkpoint_final.pth",
        weights_only=False,
    )["logging"]["train_losses"]
    assert np.isfinite(losses).all()

    first, second = (
        own.results / f"{own.trainer}__{own.plans}__{name}" for name in ("2d_loc", "2d_seg")
    )
    predictor = MIPPredictor.from_model_folder(second, folds=(0,), device="cpu")
    assert predictor.parameters > MIPPredictor.from_model_folder(first, (0,)).parameters
    image = sitk.ReadImage(str(own.raw / "imagesTr" / "bob_1_0000.nii.gz"))
    levels = sitk.GetArrayFromImage(image)[None]
    deadline = Counting()
    ours = predictor.view_probabilities(levels, (5.0, 4.0), deadline)
    # Of both stages.
    assert deadline.asked == deadline.windows

    assert np.isfinite(ours).all()

    # The same as nnU-Net's two commands.
    common = ["-i", str(own.raw / "imagesTr"), "-d", str(own.number), "-tr", own.trainer]
    common += ["-p", own.plans, "-f", "0", "-device", "cpu", "-npp", "0", "-nps", "0"]
    loc, seg = str(tmp_path / "loc"), str(tmp_path / "seg")
    run(
        predict_entry_point,
        ["nnUNetv2_predict", *common, "-c", "2d_loc", "-o", loc],
        monkeypatch,
    )
    run(
        predict_entry_point,
        ["nnUNetv2_predict", *common, "-c", "2d_seg", "-o", seg]
        + ["-prev_stage_predictions", loc, "--save_probabilities"],
        monkeypatch,
    )
    # A pixel that the first stage leaves undecided may fall to either side, by half precision.
    stock = np.load(tmp_path / "seg" / "bob_1.npz")["probabilities"][1]
    assert np.quantile(np.abs(ours - stock), 0.95) < 0.02

    shipped = export_model(second, tmp_path / "shipped", (0,))
    assert (shipped / FIRST_STAGE_FOLDER / "fold_0" / "checkpoint_final.pth").is_file()
    again = MIPPredictor.from_model_folder(shipped, device="cpu")
    shipped_answer = again.view_probabilities(levels, (5.0, 4.0))
    assert np.quantile(np.abs(shipped_answer - ours), 0.95) < 0.02

    first.rename(tmp_path / "elsewhere")
    with pytest.raises(MipError, match=r"whose first stage \(2d_loc\) is neither"):
        MIPPredictor.from_model_folder(second, folds=(0,), device="cpu")


def test_the_preset_that_comes_with_the_package():
    preset = load_preset("cascade")
    coarse, fine = preset.localization.finest_spacing_mm, preset.finest_spacing_mm
    assert all(a > b for a, b in zip(coarse, fine))


@pytest.mark.parametrize(
    ("localization", "message"),
    [
        ({"features": [4]}, "localization: unknown key features"),
        ({}, "localization: features_per_stage is missing"),
        ([4, 8], "localization: not a JSON object"),
        ({"features_per_stage": [4, 8], "max_batch_size": 1}, "localization: max_batch_size"),
        ({**PRESET}, "two stages, not three"),
    ],
)
def test_presets_that_make_no_sense(tmp_path, localization, message):
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({**PRESET, "localization": localization}))
    with pytest.raises(MipError, match=message):
        load_preset(path)
