"""What this package relies on in nnU-Net, so that an upgrade that changes it says so here.

Each test names the place in this package that would break.
"""

import inspect
import json
import os
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name


@pytest.fixture
def stock(tiny, monkeypatch, tmp_path):
    """Builds a trainer of the tiny data set, whose results go elsewhere."""
    from nnunetv2.run.run_training import get_trainer_from_args

    monkeypatch.setenv("nnUNet_results", str(tmp_path))

    def build(name="nnUNetTrainer", fold=0):
        return get_trainer_from_args(
            str(tiny.number), "2d", fold, name, tiny.plans, device=torch.device("cpu")
        )

    return build


@pytest.fixture
def nnunet_predictor(tiny_model):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(tiny_model), (0,), "checkpoint_final.pth")
    return predictor


def test_version_is_the_one_that_was_checked():
    assert version("nnunetv2").startswith("2.8.")


# Trainers (trainers/)


def test_trainers_are_searched_as_flat_modules_that_are_dropped_again(tiny):
    found = recursive_find_trainer_class_by_name(tiny.trainer)
    assert found.__module__ == tiny.trainer
    assert tiny.trainer not in sys.modules
    assert os.environ["nnUNet_extTrainer"] not in sys.path


def test_several_trainer_folders_are_searched(tiny, monkeypatch, tmp_path):
    """commands/env.py appends our folder to a value that is set."""
    both = os.pathsep.join([str(tmp_path), os.environ["nnUNet_extTrainer"]])
    monkeypatch.setenv("nnUNet_extTrainer", both)
    assert recursive_find_trainer_class_by_name(tiny.trainer).__name__ == tiny.trainer


def test_an_unknown_trainer_is_an_error(tiny):
    with pytest.raises(RuntimeError, match="nnUNet_extTrainer"):
        recursive_find_trainer_class_by_name("nnUNetTrainerMIP_none")


def test_parameters_of_a_trainer():
    parameters = list(inspect.signature(nnUNetTrainer.__init__).parameters)
    assert parameters == ["self", "plans", "configuration", "fold", "dataset_json", "device"]


def test_attributes_that_our_trainer_sets(stock):
    trainer = stock()
    assert trainer.num_epochs == 1000
    assert trainer.num_iterations_per_epoch == 250
    assert trainer.num_val_iterations_per_epoch == 50
    assert trainer.initial_lr == 1e-2


def test_what_goes_into_init_reaches_every_checkpoint(stock):
    """Why our trainer removes the patients before `super().__init__`."""
    trainer = stock()
    assert trainer.my_init_kwargs["dataset_json"] is trainer.dataset_json


def test_hooks_that_our_trainer_overrides():
    for name in (
        "_build_loss",
        "do_split",
        "on_train_start",
        "configure_rotation_dummyDA_mirroring_and_inital_patch_size",
    ):
        assert list(inspect.signature(getattr(nnUNetTrainer, name)).parameters) == ["self"]


def test_the_loss_is_wrapped_for_deep_supervision(stock):
    trainer = stock()
    loss = trainer._build_loss()
    assert type(loss).__name__ == "DeepSupervisionWrapper"
    assert loss.weight_factors[-1] == 0
    assert sum(loss.weight_factors) == pytest.approx(1)
    trainer.enable_deep_supervision = False
    assert type(trainer._build_loss()).__name__ == "DC_and_CE_loss"


def test_batches_are_what_the_loss_expects(stock):
    """Targets: one a supervision scale, (B, 1, H, W), class indices, no −1 left."""
    trainer = stock()
    trainer.initialize()
    train, _ = trainer.get_dataloaders()
    batch = next(train)
    height, width = trainer.configuration_manager.patch_size
    assert batch["data"].shape == (2, 1, height, width)
    assert [tuple(t.shape) for t in batch["target"]] == [
        (2, 1, height, width),
        (2, 1, height // 2, width // 2),
    ]
    for target in batch["target"]:
        assert target.dtype == torch.int16
        assert set(torch.unique(target).tolist()) <= {0, 1}


def test_ignored_pixels_stay_ignored_at_every_scale():
    """Targets are downsampled by picking pixels, so that no class appears in an ignored region."""
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
        DownsampleSegForDSTransform,
    )

    target = torch.zeros((1, 16, 16), dtype=torch.int16)
    target[:, :, 8:] = 2
    for scale in DownsampleSegForDSTransform([[1, 1], [0.5, 0.5], [0.25, 0.25]])(
        segmentation=target
    )["segmentation"]:
        half = scale.shape[-1] // 2
        assert (scale[..., half:] == 2).all()
        assert (scale[..., :half] == 0).all()


def test_stock_invents_a_split_where_ours_refuses(stock):
    train, val = stock(fold=7).do_split()
    assert len(train) + len(val) == 4
    assert (len(train), len(val)) == (3, 1)


# Planning (plans/, commands/plan_and_preprocess.py)


def test_a_planner_object_is_accepted(tiny, monkeypatch):
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset

    calls = {}

    class Planner:
        plans_identifier = "p"

        def __init__(self, dataset_id, preset, **options):
            calls.update(options, dataset_id=dataset_id, preset=preset)

        def plan_experiment(self):
            return {"plans": 1}

    assert plan_experiment_dataset(tiny.number, partial(Planner, preset=3)) == ({"plans": 1}, "p")
    assert calls == {
        "dataset_id": tiny.number,
        "preset": 3,
        "preprocessor_name": "DefaultPreprocessor",
        "overwrite_target_spacing": None,
        "suppress_transpose": False,
    }


def test_fingerprint_samples_are_an_attribute(tiny):
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    assert DatasetFingerprintExtractor(tiny.number).num_foreground_voxels_for_intensitystats == 1e8


def test_a_stack_is_read_with_its_views_first(tiny):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    array, properties = SimpleITKIO().read_images([str(tiny.raw / "imagesTr/bob_1_0000.nii.gz")])
    assert array.shape == (1, 3, 44, 36)
    assert list(properties["spacing"]) == [1000.0, 5.0, 4.0]


def test_the_ct_scheme_clips_and_standardises_by_constants():
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization

    constants = {"mean": 40.0, "std": 20.0, "percentile_00_5": 10.0, "percentile_99_5": 200.0}
    scheme = CTNormalization(use_mask_for_norm=False, intensityproperties=constants)
    levels = np.array([0.0, 40.0, 255.0], np.float32)
    assert scheme.run(levels).tolist() == [-1.5, 0.0, 8.0]


def test_the_planner_copies_splits_of_the_raw_data_set(tiny):
    for name in ("splits_final.json", "dataset.json"):
        assert json.loads((tiny.preprocessed / name).read_text()) == json.loads(
            (tiny.raw / name).read_text()
        )


def test_topology_limits_each_axis():
    """plans/architecture.py lowers the limit until the stages fit."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import (
        get_pool_and_conv_props,
    )

    pools, strides, kernels, patch, divisor = get_pool_and_conv_props((8.0, 2.0), (96, 100), 4, 3)
    assert pools == [2, 3]
    assert len(strides) == len(kernels) == 5
    assert patch == (96, 104)
    assert list(divisor) == [4, 8]


def test_an_additional_key_in_the_plans_is_carried_along(tiny):
    plans = json.loads((tiny.model / "plans.json").read_text())
    assert plans["mip_preset"]["name"] == "tiny"


# Inference (nnunetv2_mip/inference/predictor.py)


def test_checkpoints_name_their_trainer_and_mirroring(tiny):
    checkpoint = torch.load(tiny.model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == tiny.trainer
    assert checkpoint["inference_allowed_mirroring_axes"] == (0, 1)


def test_one_array_in_memory(nnunet_predictor):
    """Class map (V, H, W), probabilities (K, V, H, W) of the input's shape; props are changed."""
    levels = np.zeros((1, 3, 40, 30), np.float32)
    levels[:, :, 5:35, 4:28] = 60
    properties = {"spacing": [1000.0, 5.0, 4.0]}
    classes, probabilities = nnunet_predictor.predict_single_npy_array(
        levels, properties, None, None, True
    )
    assert (classes.shape, classes.dtype) == ((3, 40, 30), np.uint8)
    assert (probabilities.shape, probabilities.dtype) == ((2, 3, 40, 30), np.float32)
    assert probabilities.sum(0) == pytest.approx(np.ones((3, 40, 30)), abs=1e-3)
    assert set(properties) > {"spacing"}


def test_views_are_answered_one_by_one(nnunet_predictor):
    """A view's answer does not depend on the others in the stack (constants, not statistics)."""
    rng = np.random.default_rng(1)
    levels = rng.integers(1, 200, (1, 3, 40, 36)).astype(np.float32)
    properties = {"spacing": [1000.0, 5.0, 4.0]}

    def answer(stack):
        return nnunet_predictor.predict_single_npy_array(stack, {**properties}, None, None, True)[1]

    together = answer(levels)
    assert answer(levels[:, 1:2])[:, 0] == pytest.approx(together[:, 1], abs=1e-5)


def test_mirroring_can_be_switched_off(nnunet_predictor):
    """`use_mirroring` holds the axes' use, not the axes, and may change between calls."""
    rng = np.random.default_rng(1)
    levels = rng.integers(1, 200, (1, 1, 40, 36)).astype(np.float32)

    def answer(use_mirroring):
        nnunet_predictor.use_mirroring = use_mirroring
        return nnunet_predictor.predict_single_npy_array(
            levels, {"spacing": [1000.0, 5.0, 4.0]}, None, None, True
        )[1]

    assert not np.array_equal(answer(True), answer(False))


def test_stock_prediction_writes_masks_and_probabilities(tiny, tmp_path, nnunet_predictor):
    """What nnUNetv2_mip_fuse reads: <case>.nii.gz, and <case>.npz with (K, V, H, W)."""
    source = [[str(tiny.raw / "imagesTr" / "eve_1_0000.nii.gz")]]
    target = tmp_path / "eve_1"
    nnunet_predictor.predict_from_files_sequential(source, [str(target)], save_probabilities=True)
    mask = sitk.GetArrayFromImage(sitk.ReadImage(f"{target}.nii.gz"))
    assert mask.shape == (3, 44, 36)
    assert np.load(f"{target}.npz")["probabilities"].shape == (2, 3, 44, 36)


# Variables (nnunetv2_mip/nnunet/paths.py)


def test_variables_are_read_when_asked(monkeypatch):
    from nnunetv2.paths import nnUNet_raw

    monkeypatch.setenv("nnUNet_raw", "/one")
    assert Path(nnUNet_raw) == Path("/one")
    monkeypatch.setenv("nnUNet_raw", "/two")
    assert str(nnUNet_raw) == "/two"
