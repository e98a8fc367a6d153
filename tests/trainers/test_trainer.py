"""The trainer through nnU-Net's own entry points."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.nnunet.paths import trainers_folder
from nnunetv2_mip.training.losses import DiceFocalLoss

LENGTHS = {1: "1epoch", **{n: f"{n}epochs" for n in (5, 10, 20, 50, 100, 250, 500)}}


def build_trainer(tiny, fold=0, name=None):
    """A trainer as nnUNetv2_train builds it."""
    from nnunetv2.run.run_training import get_trainer_from_args

    return get_trainer_from_args(
        str(tiny.number), "2d", fold, name or tiny.trainer, tiny.plans, device=torch.device("cpu")
    )


@pytest.fixture
def own(tiny, tmp_path, monkeypatch):
    """A copy of the preprocessed data that a test may spoil."""
    from dataclasses import replace

    for folder in ("nnUNet_preprocessed", "nnUNet_raw"):
        shutil.copytree(tiny.base / folder, tmp_path / folder)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nnUNet_preprocessed"))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnUNet_raw"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "nnUNet_results"))
    return replace(tiny, base=tmp_path)


def test_training_leaves_a_complete_model_folder(tiny):
    fold = tiny.model / "fold_0"
    assert (fold / "checkpoint_final.pth").is_file()
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert {case["prediction_file"].rsplit("/")[-1] for case in summary["metric_per_case"]} == {
        "ann_1.nii.gz",
        "ann_2.nii.gz",
    }
    config = InferenceConfig.load(tiny.model)
    assert (tiny.model / "inference.json").is_file()
    assert (config.window_suv, config.views, config.channels) == (8.0, 3, ("suv",))


def test_weights_and_losses_are_finite(tiny):
    checkpoint = torch.load(tiny.model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    losses = checkpoint["logging"]["train_losses"]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert all(torch.isfinite(weight).all() for weight in checkpoint["network_weights"].values())


@pytest.mark.slow
def test_the_loss_falls_on_a_batch_seen_again_and_again(tiny, monkeypatch, tmp_path):
    # One batch: a few epochs of the augmented stream differ more by chance than by learning.
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    torch.manual_seed(0)
    trainer = build_trainer(tiny)
    trainer.initialize()
    trainer.network.train()
    image = torch.randn(2, 1, 32, 32)
    truth = torch.zeros(2, 1, 32, 32)
    truth[:, :, 8:20, 10:18] = 1
    image[truth == 1] += 3
    batch = {"data": image, "target": [truth, truth[:, :, ::2, ::2]]}
    losses = [float(trainer.train_step(batch)["loss"]) for _ in range(25)]
    assert losses[-1] < 0.7 * losses[0]


def test_model_folder_names_no_patient(tiny):
    for path in (tiny.model / "dataset.json", tiny.model / "fold_0" / "debug.json"):
        assert "patients" not in path.read_text()
        assert "has_lesion" not in path.read_text()
    checkpoint = torch.load(tiny.model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert set(checkpoint["init_args"]["dataset_json"]["mip"]).isdisjoint(
        {"patients", "has_lesion"}
    )


def test_predict_from_the_command_line_entry(tiny, tmp_path, monkeypatch):
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point

    monkeypatch.setattr(
        "sys.argv",
        ["nnUNetv2_predict", "-i", str(tiny.raw / "imagesTr"), "-o", str(tmp_path / "out")]
        + ["-d", str(tiny.number), "-tr", tiny.trainer, "-p", tiny.plans, "-c", "2d"]
        + ["-f", "0", "-device", "cpu", "-npp", "0", "-nps", "0"],
    )
    predict_entry_point()
    mask = sitk.ReadImage(str(tmp_path / "out" / "bob_1.nii.gz"))
    image = sitk.ReadImage(str(tiny.raw / "imagesTr" / "bob_1_0000.nii.gz"))
    assert mask.GetSize() == image.GetSize()
    assert mask.GetSpacing() == pytest.approx(image.GetSpacing())
    assert set(np.unique(sitk.GetArrayFromImage(mask))) <= {0, 1}


def test_another_fold_keeps_tuned_settings(own, run_nnunet_training):
    trainer = build_trainer(own)
    folder = own.model
    trainer._write_inference_config()
    InferenceConfig(threshold=0.3, tta=False, window_suv=5.0).save(folder)
    trainer._write_inference_config()
    config = InferenceConfig.load(folder)
    assert (config.threshold, config.tta, config.window_suv) == (0.3, False, 8.0)


def test_loss_and_mirroring_are_ours(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    trainer = build_trainer(tiny)
    trainer.initialize()
    loss = trainer.loss.loss
    assert isinstance(loss, DiceFocalLoss)
    assert (loss.weight_dice, loss.weight_focal, loss.gamma) == (1.0, 10.0, 2.0)
    assert (loss.batch_dice, loss.ignore_label, loss.ddp) == (True, None, False)
    # A recipe may ask for the images' own Dice, whatever the plans say.
    monkeypatch.setattr(type(trainer), "batch_dice", False)
    assert trainer._dice_focal().batch_dice is False
    # Three stages: two supervised outputs, the coarser of which nnU-Net gives no weight.
    assert trainer.loss.weight_factors == (1.0, 0.0)
    mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[-1]
    assert mirror_axes == trainer.inference_allowed_mirroring_axes == (0, 1)


@pytest.mark.parametrize(
    ("suffix", "optimizer", "rate", "decay"),
    [("", "AdamW", 1e-3, 1e-2), ("_SGD", "SGD", 1e-2, 3e-5), ("_demo", "MuonAdamW", 2e-3, 1e-2)],
)
def test_optimisers(tiny, monkeypatch, tmp_path, suffix, optimizer, rate, decay):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_folder()))
    trainer = build_trainer(tiny, name=f"nnUNetTrainerMIP{suffix}")
    trainer.initialize()
    assert type(trainer.optimizer).__name__ == optimizer
    groups = trainer.optimizer.param_groups
    assert {group["lr"] for group in groups} == {rate}
    assert {group["weight_decay"] for group in groups} == {decay}
    if optimizer == "SGD":
        assert groups[0]["momentum"] == 0.99
    trainer.lr_scheduler.step(trainer.num_epochs // 2)
    assert [group["lr"] for group in groups] == pytest.approx([rate * 0.5**0.9] * len(groups))


@pytest.mark.parametrize(("limit", "threads"), [("1", 1), ("", 2), ("many", 2)])
def test_the_thread_limit_is_obeyed(tiny, monkeypatch, tmp_path, limit, threads):
    """`nnUNetv2_train -device cpu` sets as many threads as there are cores before it."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        build_trainer(tiny)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_patients_stay_nearly_upright(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_folder()))
    trainer = build_trainer(tiny, name="nnUNetTrainerMIP")
    rotation, *_ = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert np.rad2deg(rotation) == pytest.approx([-15, 15])


@pytest.mark.parametrize(("epochs", "suffix"), LENGTHS.items())
def test_length_variants(epochs, suffix, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_folder()))
    found = recursive_find_trainer_class_by_name(f"nnUNetTrainerMIP_{suffix}")
    assert found.epochs == epochs
    assert found.__name__ == f"nnUNetTrainerMIP_{suffix}"


def test_splits_are_those_of_the_file(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    assert build_trainer(tiny, fold=1).do_split() == (["ann_1", "ann_2"], ["bob_1", "eve_1"])
    everything = ["ann_1", "ann_2", "bob_1", "eve_1"]
    train, val = build_trainer(tiny, fold="all").do_split()
    assert sorted(train) == sorted(val) == everything


def test_a_fold_that_does_not_exist(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    with pytest.raises(MipError, match=r"splits_final\.json: no fold 2: the file has 2"):
        build_trainer(tiny, fold=2).do_split()


def test_missing_splits(own):
    (own.preprocessed / "splits_final.json").unlink()
    with pytest.raises(MipError, match=r"splits_final\.json: no such file"):
        build_trainer(own).do_split()
    assert not (own.preprocessed / "splits_final.json").exists()


def test_splits_that_mix_patients(own):
    splits = [{"train": ["ann_1", "eve_1"], "val": ["ann_2", "bob_1"]}]
    (own.preprocessed / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(MipError, match="fold 0 has patient ann both in training and in valid"):
        build_trainer(own).do_split()


def test_stale_splits(own):
    for path in (own.preprocessed / f"{own.plans}_2d").glob("bob_1*"):
        path.unlink()
    with pytest.raises(MipError, match=r"stale: fold 0 names bob_1, not in the data set"):
        build_trainer(own).do_split()


def test_data_set_of_another_kind(own):
    path = own.preprocessed / "dataset.json"
    content = json.loads(path.read_text())
    del content["mip"]
    path.write_text(json.dumps(content))
    with pytest.raises(MipError, match='no "mip" → "patients"'):
        build_trainer(own).do_split()


def test_not_preprocessed(own):
    shutil.rmtree(own.preprocessed / f"{own.plans}_2d")
    with pytest.raises(MipError, match="nnUNetv2_mip_plan_and_preprocess"):
        build_trainer(own).do_split()


def test_training_stops_at_bad_splits(own, run_nnunet_training):
    """The error ends the training itself, before an epoch has run."""
    splits = [{"train": ["ann_1", "eve_1"], "val": ["ann_2", "bob_1"]}]
    (own.preprocessed / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(MipError, match="patient ann"):
        run_nnunet_training(own, fold=0)
    assert not list(own.model.glob("fold_0/*.pth"))


def test_only_the_first_process_of_several_writes_checkpoints(tmp_path):
    from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP

    partial = tmp_path / "checkpoint.pth.partial"
    partial.write_bytes(b"half")
    nnUNetTrainerMIP.save_checkpoint(
        SimpleNamespace(local_rank=1), str(tmp_path / "checkpoint.pth")
    )
    assert list(tmp_path.iterdir()) == [partial]
