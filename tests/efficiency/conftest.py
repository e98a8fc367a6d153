"""Networks of an efficiency study (tiny, untrained), unseen studies, and one finished study."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from nnunetv2_mip.commands import convert_stage2, phantom, study
from nnunetv2_mip.nnunet.splits import without_patients

RESAMPLING = "resample_data_or_seg_to_shape"


def answer(command, *arguments) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        command.main([str(argument) for argument in arguments])
    return ended.value.code


@dataclass(frozen=True)
class Networks:
    """Networks of views (`flat`) and of volumes (`deep`), and a tree of studies unseen by both."""

    tree: Path
    flat: Path
    deep: Path
    environment: dict[str, str]

    def options(self, out: Path) -> tuple:
        """Options of the command for a quick study in `out`."""
        common = ("-device", "cpu", "--disable_tta", "--no_energy", "--reference_views", 2)
        return "-o", out, *common

    def study(self, *arguments) -> int:
        """Exit code of `nnUNetv2_mip_study`."""
        return answer(study, *arguments)


def make_model(folder: Path, dataset: dict, configuration: str, trainer: str) -> Path:
    """A model folder as training leaves it, with the first weights of a tiny U-Net of nnU-Net."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    axes = int(configuration[0])
    conv = f"torch.nn.modules.conv.Conv{axes}d"
    norm = f"torch.nn.modules.instancenorm.InstanceNorm{axes}d"
    resampling = {"order": 1, "order_z": 0, "force_separate_z": None}
    network = {
        "n_stages": 3,
        "features_per_stage": [4, 6, 8],
        "conv_op": conv,
        "kernel_sizes": [[3] * axes] * 3,
        "strides": [[1] * axes, [2] * axes, [2] * axes],
        "n_conv_per_stage": [1] * 3,
        "n_conv_per_stage_decoder": [1] * 2,
        "conv_bias": True,
        "norm_op": norm,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    imported = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    kind = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    plan = {
        "data_identifier": "tiny",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16] * axes,
        "spacing": [16.0] * axes,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": True,
        "architecture": {
            "network_class_name": kind,
            "arch_kwargs": network,
            "_kw_requires_import": imported,
        },
    }
    for what in ("data", "seg", "probabilities"):
        plan[f"resampling_fn_{what}"] = RESAMPLING
        plan[f"resampling_fn_{what}_kwargs"] = {"is_seg": what == "seg", **resampling}
    intensity = {"mean": 1.0, "std": 50.0, "percentile_00_5": 0.0, "percentile_99_5": 255.0}
    plans = {
        "dataset_name": folder.parent.name,
        "plans_name": "tiny",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {configuration: plan},
        "experiment_planner_used": "MIPExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensity},
    }
    torch.manual_seed(0)
    module = get_network_from_plans(kind, network, imported, 1, 2, deep_supervision=False)
    checkpoint = {
        "network_weights": module.state_dict(),
        "trainer_name": trainer,
        "init_args": {"configuration": configuration},
        "inference_allowed_mirroring_axes": tuple(range(axes)),
    }
    (folder / "fold_0").mkdir(parents=True)
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


@pytest.fixture(scope="session")
def networks(tmp_path_factory) -> Networks:
    home = tmp_path_factory.mktemp("study")
    folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    environment = {name: str(home / name) for name in folders}
    for folder in environment.values():
        Path(folder).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        for name, count, seed in (("seen", 3, 4), ("tree", 2, 21)):
            cohort = ("-o", home / name, "-n", count, "--seed", seed, "--spacing", 12)
            assert answer(phantom, *cohort) == 0
        assert answer(convert_stage2, "-i", home / "seen", "-d", 702, "--no_cue") == 0
    raw = home / "nnUNet_raw" / "Dataset702_AutoPETStage2"
    volumes = json.loads((raw / "dataset.json").read_text())
    views = {**volumes["mip"], "source": "autopet", "views": 3, "window_suv": 8.0}
    views = {**volumes, "mip": views}
    (raw.parent / "Dataset701_Views").mkdir()
    (raw.parent / "Dataset701_Views" / "dataset.json").write_text(json.dumps(views))
    results = home / "nnUNet_results"
    flat = results / "Dataset701_Views" / "nnUNetTrainerMIP__tiny__2d"
    deep = results / raw.name / "nnUNetTrainerMIP_volumes__tiny__3d_fullres"
    for folder, content, rest in (
        (flat, views, ("2d", "nnUNetTrainerMIP")),
        (deep, volumes, ("3d_fullres", "nnUNetTrainerMIP_volumes")),
    ):
        # As training leaves it: only the preprocessed data set names the patients.
        make_model(folder, without_patients(content), *rest)
        planned = home / "nnUNet_preprocessed" / folder.parent.name
        planned.mkdir()
        (planned / "dataset.json").write_text(json.dumps(content))
        shutil.copyfile(raw / "splits_final.json", planned / "splits_final.json")
    return Networks(home / "tree", flat, deep, environment)


@pytest.fixture
def ready(networks, monkeypatch) -> Networks:
    """The networks, with nnU-Net's variables set for the test."""
    for name, value in networks.environment.items():
        monkeypatch.setenv(name, value)
    return networks


@pytest.fixture(scope="session")
def finished(networks, tmp_path_factory) -> Path:
    """A study of both networks. Read it, do not change it."""
    out = tmp_path_factory.mktemp("out") / "study"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in networks.environment.items():
            patch.setenv(name, value)
        models = (f"flat={networks.flat}", f"deep={networks.deep}")
        options = (*networks.options(out), "--views", 3, 1, "--training_iterations", 1)
        assert networks.study("-i", networks.tree, "--models", *models, *options) == 0
    return out
