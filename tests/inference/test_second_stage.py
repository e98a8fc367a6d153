"""The second stage in 3D: out-of-fold cues, the network that uses them, prediction with both."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunetv2_mip.commands import (
    convert_autopet,
    convert_stage2,
    phantom,
    plan_and_preprocess,
    predict,
)
from nnunetv2_mip.dataset_conversion.stage2 import _predictor as cue_predictor
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.grand_challenge.time_budget import fit_to_budget
from nnunetv2_mip.inference.deadline import Cancelled, Deadline
from nnunetv2_mip.inference.export import export_model
from nnunetv2_mip.inference.l2snet_rules import combine_l2snet
from nnunetv2_mip.inference.second_stage import SecondStagePredictor
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.networks.cue import CuedResidualEncoderUNet, CuedUNet
from nnunetv2_mip.nnunet.model_folder import VOLUMETRIC_STAGE
from nnunetv2_mip.nnunet.second_stage_data import stage2_input
from nnunetv2_mip.training.augmentation import AttachCueTransform, DetachCueTransform

PRESET_3D = {
    "finest_spacing_mm": [16, 16, 16],
    "max_patch_px": [16, 16, 16],
    "max_batch_size": 2,
    "features_per_stage": [4, 6, 8],
    "convs_per_stage": 1,
    "vram_gb": 8,
}
PRESET_2D = {**PRESET_3D, "finest_spacing_mm": [16, 16], "max_patch_px": [32, 32]}
TRAINERS = """
from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP
from nnunetv2_mip.trainers.nnUNetTrainerMIP_L2S3D import nnUNetTrainerMIP_L2S3D


class Short:
    epochs = 2
    iterations_per_epoch = 4
    val_iterations_per_epoch = 1


class nnUNetTrainerMIP_tiny2D(Short, nnUNetTrainerMIP):
    pass


class nnUNetTrainerMIP_tiny3D(Short, nnUNetTrainerMIP_L2S3D):
    pass
"""


def answer(command, *arguments):
    """Exit code of a command of ours."""
    with pytest.raises(SystemExit) as ended:
        command.main([str(argument) for argument in arguments])
    return ended.value.code


def train(number, configuration, fold, trainer, plans):
    from nnunetv2.run.run_training import run_training

    run_training(str(number), configuration, fold, trainer, plans, device=torch.device("cpu"))


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """Four simulated patients of 12 mm, two folds, a 2D model with both."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    trainers = tmp_path / "trainers"
    trainers.mkdir()
    (trainers / "tiny_trainers.py").write_text(TRAINERS)
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers))
    tree = tmp_path / "tree"
    assert answer(phantom, "-o", tree, "-n", 4, "--seed", 3, "--spacing", 12) == 0
    assert answer(convert_autopet, "-i", tree, "-d", 601, "--views", 3) == 0
    raw = tmp_path / "nnUNet_raw" / "Dataset601_AutoPETMIP"
    patients = json.loads((raw / "dataset.json").read_text())["mip"]["patients"]
    people = sorted(set(patients.values()))
    halves = [set(people[::2]), set(people[1::2])]
    splits = [
        {
            "train": [case for case in patients if patients[case] not in half],
            "val": [case for case in patients if patients[case] in half],
        }
        for half in halves
    ]
    (raw / "splits_final.json").write_text(json.dumps(splits))
    for name, content in (("flat", PRESET_2D), ("deep", PRESET_3D)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert answer(plan_and_preprocess, "-d", 601, "--preset", tmp_path / "flat.json", "-np", 1) == 0
    for fold in range(2):
        train(601, "2d", fold, "nnUNetTrainerMIP_tiny2D", "nnUNetMIPPlans_flat")
    model = (
        tmp_path / "nnUNet_results" / raw.name / "nnUNetTrainerMIP_tiny2D__nnUNetMIPPlans_flat__2d"
    )
    return tmp_path, tree, model, splits


@pytest.mark.slow
def test_from_out_of_fold_cues_to_a_mask(cohort, capsys, tmp_path):
    from nnunetv2_mip.inference.predictor import MIPPredictor
    from nnunetv2_mip.io.volumes import read_mask, read_suv

    home, tree, model, splits = cohort
    # A model that lacks a fold is refused before anything is written.
    kept = (model / "fold_1").rename(model / "elsewhere")
    arguments = ("-i", tree, "-d", 602, "--cue_from", model, "-device", "cpu")
    capsys.readouterr()
    assert answer(convert_stage2, *arguments) == 2
    assert "fold_1" in capsys.readouterr().err
    assert not list((home / "nnUNet_raw").glob("*602*"))
    kept.rename(model / "fold_1")

    assert answer(convert_stage2, *arguments) == 0
    raw = home / "nnUNet_raw" / "Dataset602_AutoPETStage2"
    assert json.loads((raw / "splits_final.json").read_text()) == splits
    content = json.loads((raw / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "suv", "1": "cue"}
    records = json.loads((raw / "conversion.json").read_text())["cases"]

    # No cue was made by a model that saw the patient: it is that of the fold which validated it,
    # and the other fold's, which trained on it, is another one.
    by_fold = [MIPPredictor.from_model_folder(model, (fold,), device="cpu") for fold in range(2)]
    for fold, split in enumerate(splits):
        for case in split["val"]:
            assert records[case]["cue_fold"] == fold
            assert case not in split["train"]
            cue = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / f"imagesTr/{case}_0001.nii.gz")))
            (path,) = [path for path in tree.rglob("SUV.nii.gz") if case.startswith(path.parts[-3])]
            suv = read_suv(path)
            own, other = (
                predictor.predict_study(Study(suv), with_probability=True).probability
                for predictor in (by_fold[fold], by_fold[1 - fold])
            )
            np.testing.assert_allclose(cue, own, atol=1e-5)
            assert not np.allclose(cue, other, atol=1e-3)

    assert answer(plan_and_preprocess, "-d", 602, "--preset", home / "deep.json", "-np", 1) == 0
    assert "-tr nnUNetTrainerMIP_L2S3D" in capsys.readouterr().out
    train(602, "3d_fullres", 0, "nnUNetTrainerMIP_tiny3D", "nnUNetMIPPlans_deep")
    second = home / "nnUNet_results" / raw.name
    second = second / "nnUNetTrainerMIP_tiny3D__nnUNetMIPPlans_deep__3d_fullres"
    losses = torch.load(second / "fold_0/checkpoint_final.pth", weights_only=False)["logging"]
    assert np.isfinite(losses["train_losses"]).all()

    source = next(tree.rglob("SUV.nii.gz"))
    target = tmp_path / "mask.nii.gz"
    common = ("-i", source, "-o", target, "-m", model, "-device", "cpu")
    assert answer(predict, *common, "--stage2", second) == 0
    suv = read_suv(source)
    mask = read_mask(target, like=suv).array
    stage2 = SecondStagePredictor.from_model_folder(second, device="cpu")
    both = MIPPredictor.from_model_folder(model, device="cpu").with_second_stage(stage2)
    found = both.predict_study(Study(suv))
    np.testing.assert_array_equal(mask, found.mask)
    np.testing.assert_array_equal(found.mask, found.probability > 0.5)
    # The cue matters: the same volume with another cue gives another answer.
    nothing = np.zeros_like(found.probability)
    assert not np.allclose(stage2.predict(Study(suv), nothing)[1], found.probability, atol=1e-4)

    # The same from within the model's folder; in a hurry it is left out.
    whole = tmp_path / "whole"
    shutil.copytree(model, whole)
    shutil.copytree(second, whole / VOLUMETRIC_STAGE)
    within = MIPPredictor.from_model_folder(whole, device="cpu")
    within_model = ("-i", source, "-o", target, "-m", whole, "-device", "cpu")
    np.testing.assert_array_equal(within.predict_study(Study(suv)).mask, mask)
    assert within.second_stage.seconds(suv) > 0
    assert fit_to_budget(within, Study(suv), 1000.0) is within
    assert fit_to_budget(within, Study(suv), 0.001).second_stage is None
    # Its options reach it there too.
    assert answer(predict, *within_model, "--combine", "l2snet") == 0
    cue = MIPPredictor.from_model_folder(model, device="cpu").predict_study(Study(suv), True)
    edited = combine_l2snet(found.probability, cue.probability)
    assert (read_mask(target, like=suv).array != edited).mean() < 0.01
    assert answer(predict, *within_model, "--disable_tta", "--save_probabilities") == 0
    flat = within.override(tta=False)
    plain = flat.with_second_stage(stage2.override(mirror=False))
    mirrored, unmirrored = (p.predict_study(Study(suv)).probability for p in (flat, plain))
    written = sitk.GetArrayFromImage(
        sitk.ReadImage(str(next(tmp_path.glob("*_probabilities.nii.gz"))))
    )
    written = suv.grid.to_canonical(written)
    # Not the same to the last bit: the engine of the views is quicker from the second call on.
    assert np.abs(written - unmirrored).mean() < np.abs(written - mirrored).mean()
    # The deadline is asked before every window of both networks, and may end the work.
    deadline = Counting()
    within.predict_study(Study(suv), deadline=deadline)
    assert deadline.asked == deadline.windows + 2
    deadline.asked, deadline.stop_after = 0, 2
    with pytest.raises(Cancelled):
        stage2.predict(Study(suv), cue.probability, deadline)
    # Cues stay out of fold: the 3D network, which has seen the patient, makes none.
    assert cue_predictor(whole, 0, "cpu").second_stage is None
    # It goes along where the model goes.
    shipped = export_model(whole, tmp_path / "shipped", (0, 1))
    again = MIPPredictor.from_model_folder(shipped, device="cpu").predict_study(Study(suv))
    assert np.quantile(np.abs(again.probability - found.probability), 0.95) < 0.02
    assert again.probability.any()

    capsys.readouterr()
    assert answer(predict, *common, "--combine", "l2snet") == 2
    assert "--stage2" in capsys.readouterr().err
    assert answer(predict, *common, "--stage2", model) == 2
    assert "not a second stage" in capsys.readouterr().err
    # Views and volumes want presets of their own.
    assert answer(plan_and_preprocess, "-d", 602, "--preset", home / "flat.json", "-np", 1) == 2
    assert "choose another" in capsys.readouterr().err


def test_a_wanted_ct_that_is_not_there():
    volume = np.zeros((2, 2, 2), np.float32)
    assert stage2_input(("suv", "cue"), volume, None, volume, "x").shape == (2, 2, 2, 2)
    with pytest.raises(MipError, match=r"x: the second stage wants the CT"):
        stage2_input(("suv", "ct", "cue"), volume, None, volume, "x")


SHAPE = {
    "input_channels": 2,
    "n_stages": 3,
    "features_per_stage": [4, 6, 8],
    "conv_op": nn.Conv3d,
    "kernel_sizes": [[3, 3, 3]] * 3,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    "num_classes": 2,
    "n_conv_per_stage_decoder": [1, 1],
    "conv_bias": True,
    "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
    "deep_supervision": False,
}
NETWORKS = [
    (PlainConvUNet, CuedUNet, {"n_conv_per_stage": [1] * 3}),
    (ResidualEncoderUNet, CuedResidualEncoderUNet, {"n_blocks_per_stage": [1] * 3}),
]


@pytest.mark.parametrize(("plain", "cued", "more"), NETWORKS)
def test_a_neutral_cue_weights_nothing(plain, cued, more):
    torch.manual_seed(0)
    ours, stock = cued(**SHAPE, **more).eval(), plain(**SHAPE, **more).eval()
    stock.load_state_dict({k: v for k, v in ours.state_dict().items() if k != "strengths"})
    image = torch.randn(1, 2, 16, 16, 16)
    image[:, 1] = 0.5
    with torch.no_grad():
        torch.testing.assert_close(ours(image), stock(image))
        image[:, 1, :8] = 1
        assert not torch.allclose(ours(image), stock(image), atol=1e-3)


def test_cues_are_dropped_in_training_alone():
    network = CuedUNet(**SHAPE, **NETWORKS[0][2])
    batch = torch.rand(400, 2, 2, 2, 2)
    torch.manual_seed(0)
    seen = network.train()._with_cue(batch)
    torch.testing.assert_close(seen[:, 0], batch[:, 0])
    cue = seen[:, 1].flatten(1)
    kept = (cue == batch[:, 1].flatten(1)).all(1)
    neutral, empty = (cue == 0.5).all(1), (cue == 0).all(1)
    assert (kept | neutral | empty).all()
    for share, expected in ((kept, 0.7), (neutral, 0.15), (empty, 0.15)):
        assert share.float().mean() == pytest.approx(expected, abs=0.06)
    torch.testing.assert_close(network.eval()._with_cue(batch), batch)


def test_intensity_transforms_leave_the_cue_alone():
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

    image = torch.rand(2, 4, 4, 4)
    data = {"image": image.clone(), "segmentation": torch.zeros(1, 4, 4, 4)}
    brighter = MultiplicativeBrightnessTransform((2, 2), synchronize_channels=True, p_per_channel=1)
    chain = [DetachCueTransform(), brighter, MirrorTransform((2,)), AttachCueTransform()]
    torch.manual_seed(1)
    for _ in range(4):
        out = ComposeTransforms(chain)(**{k: v.clone() for k, v in data.items()})
        assert set(out) == {"image", "segmentation"}
        cue = out["image"][1]
        mirrored = bool(torch.equal(cue, image[1].flip(2)))
        assert mirrored or torch.equal(cue, image[1])
        suv = image[0].flip(2) if mirrored else image[0]
        torch.testing.assert_close(out["image"][0], 2 * suv)


def test_canonical_grids_name_the_same_places():
    rng = np.random.default_rng(0)
    for axes in ((0, 1, 2), (2, 0, 1), (1, 0, 2)):
        direction = np.eye(3)[:, list(axes)] * rng.choice([-1, 1], 3)
        grid = SourceGrid((3, 4, 5), (1.0, 2.0, 3.0), (-7.0, 8.0, 9.0), tuple(direction.ravel()))
        array = rng.normal(size=(5, 4, 3)).astype(np.float32)
        images = []
        for values, where in ((array, grid), (grid.to_canonical(array), grid.canonical())):
            image = sitk.GetImageFromArray(np.ascontiguousarray(values))
            image.SetSpacing(where.spacing)
            image.SetOrigin(where.origin)
            image.SetDirection(where.direction)
            images.append(image)
        for index in np.ndindex(3, 4, 5):
            place = images[0].TransformIndexToPhysicalPoint([int(i) for i in index])
            again = images[1].TransformPhysicalPointToIndex(place)
            assert images[1].GetPixel(again) == images[0].GetPixel([int(i) for i in index])
        assert grid.canonical().to_canonical(grid.to_canonical(array)).shape == grid.shape_zyx


class Counting(Deadline):
    """Counts, and may stop."""

    asked, stop_after = 0, None

    def check(self):
        self.asked += 1
        if self.stop_after is not None and self.asked > self.stop_after:
            raise Cancelled


def test_rules_of_l2snet_take_the_cue_of_the_views(tmp_path):
    """Also for a network that has no channel for it: a stand-in that is sure of one region."""
    volume = Volume(
        np.ones((12, 12, 12), np.float32),
        SourceGrid((12,) * 3, (4.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel())),
        tmp_path,
    )
    cue = block(volume.array.shape, (2, 2, 2), (8, 8, 8)).astype(np.float32)

    class Sure(SecondStagePredictor):
        def _probability(self, array, spacing_mm, deadline):
            return 0.95 * cue

    mask, _ = Sure(None, ("suv",), "l2snet").predict(Study(volume), cue)
    np.testing.assert_array_equal(mask, cue)


def block(shape, low, high):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high))] = True
    return mask


def test_combination_rules_one_by_one():
    shape = (24, 24, 48)
    probability, cue = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    kept = block(shape, (1, 1, 1), (6, 6, 6))
    probability[kept] = 0.95
    cue[2, 2, 2] = 0.9
    # 27 voxels, 18 of them confident: too few, the peak remains.
    few = block(shape, (1, 1, 10), (4, 4, 13))
    probability[few] = 0.6
    probability[1:3, 1:4, 10:13] = 0.92
    probability[2, 2, 11] = 0.99
    cue[2, 2, 11] = 0.9
    # No cue: the peak.
    unseen = block(shape, (1, 1, 18), (6, 6, 23))
    probability[unseen] = 0.95
    probability[3, 3, 20] = 0.97
    # 108 voxels, 36 confident: more than 2.25 times, the confident part.
    blurred = block(shape, (10, 1, 1), (13, 7, 7))
    probability[blurred] = 0.6
    probability[10, 1:7, 1:7] = 0.95
    cue[10, 3, 3] = 0.9
    # Cues in which nothing is marked: a faint peak, a large faint one, a small faintest one.
    for low, high, at, peak in (
        ((18, 1, 1), (20, 3, 3), (18, 1, 1), 0.2),
        ((18, 1, 10), (22, 5, 14), (19, 2, 11), 1e-3),
        ((18, 1, 20), (20, 3, 22), (18, 1, 20), 1e-3),
    ):
        cue[block(shape, low, high)] = 0.8
        probability[at] = peak
    mask = combine_l2snet(probability, cue)
    assert mask[kept].all()
    assert mask[few].sum() == 1 and mask[2, 2, 11]
    assert mask[unseen].sum() == 1 and mask[3, 3, 20]
    assert mask[blurred].sum() == 36 and mask[10, 1:7, 1:7].all()
    assert mask[18, 1, 1] and mask[19, 2, 11] and not mask[18:20, 1:3, 20:22].any()
    assert mask.sum() == kept.sum() + 1 + 1 + 36 + 2


def test_nothing_is_edited_where_all_is_small():
    probability = np.zeros((8, 8, 8), np.float32)
    probability[1:4, 1:4, 1:4] = 0.6
    mask = combine_l2snet(probability, np.zeros_like(probability))
    np.testing.assert_array_equal(mask, probability > 0.5)


def test_a_last_channel_that_is_no_cue(tiny, with_trainer):
    from nnunetv2.run.run_training import get_trainer_from_args

    own = with_trainer("tiny_trainers", TRAINERS)
    own = replace(own, trainer="nnUNetTrainerMIP_tiny3D")
    trainer = get_trainer_from_args(
        str(own.number), "2d", 0, own.trainer, own.plans, device=torch.device("cpu")
    )
    with pytest.raises(MipError, match=r"last channel is suv, not the cue"):
        trainer.initialize()
