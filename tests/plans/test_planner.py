"""Presets, planner and the plan-and-preprocess command."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from nnunetv2_mip.commands import plan_and_preprocess
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.plans.presets import load_preset, preset_names


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Plan a data set that exists on paper only: its fingerprint and its dataset.json.

    Gives a function (preset, image size, in-plane spacing, images, changes of "mip") → plans.
    """
    from nnunetv2_mip.plans.mip_planner import MIPExperimentPlanner

    raw = tmp_path / "nnUNet_raw" / "Dataset905_Paper"
    preprocessed = tmp_path / "nnUNet_preprocessed" / raw.name
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed):
        folder.mkdir(parents=True)
    (raw / "imagesTr" / "a_0000.nii.gz").touch()
    for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(folder, str(tmp_path / folder))

    def run(preset, size=(300, 200), spacing=(2.0, 2.0), images=5, views=12, first=1000.0, **mip):
        constants = {"mean": 40.0, "std": 50.0, "low": 0.0, "high": 255.0}
        content = {
            "channel_names": {"0": "suv"},
            "labels": {"background": 0, "lesion": 1},
            "numTraining": images,
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "SimpleITKIO",
            "mip": {"channels": ["suv"], "intensity": {"suv": constants}, **mip},
        }
        (raw / "dataset.json").write_text(json.dumps(content))
        fingerprint = {
            "spacings": [[first, *spacing]] * images,
            "shapes_after_crop": [[views, *size]] * images,
            "foreground_intensity_properties_per_channel": {"0": {"mean": 1.0}},
            "median_relative_size_after_cropping": 0.5,
        }
        (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
        if isinstance(preset, str):
            preset = load_preset(preset)
        return MIPExperimentPlanner(905, preset=preset).plan_experiment()

    run.preprocessed = preprocessed
    return run


def test_cpu_preset_is_the_measured_network(plan):
    """2 mm pixels and images above the limit: the plan of the reference measurements."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plans = plan("cpu", size=(480, 400))
    config = plans["configurations"]["2d"]
    assert (config["patch_size"], config["batch_size"]) == ([256, 192], 4)
    assert config["spacing"] == [2.0, 2.0]
    assert config["median_image_size_in_voxels"] == [480.0, 400.0]
    architecture = config["architecture"]
    assert architecture["arch_kwargs"]["features_per_stage"] == [16, 32, 64, 128, 192, 192]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        2,
        allow_init=False,
    )
    parameters = sum(weights.numel() for weights in network.parameters())
    assert parameters == pytest.approx(3.4e6, rel=0.02)


def test_only_the_2d_configuration_is_planned(plan):
    plans = plan("cpu")
    assert list(plans["configurations"]) == ["2d"]
    assert plans["transpose_forward"] == plans["transpose_backward"] == [0, 1, 2]
    assert plans["configurations"]["2d"]["batch_dice"] is True
    saved = json.loads((plan.preprocessed / "nnUNetMIPPlans_cpu.json").read_text())
    assert saved["plans_name"] == "nnUNetMIPPlans_cpu"
    assert saved["mip_preset"]["name"] == "cpu"


@pytest.mark.parametrize("preset", ["cpu", "default"])
def test_channels_are_standardised_by_constants_of_the_data_set(plan, preset):
    """Without a mask, although cropping halves the images (where stock nnU-Net takes one).

    The mean of 40 is not subtracted but the window's lower end, so that 0 is air.
    """
    plans = plan(preset)
    assert plans["configurations"]["2d"]["normalization_schemes"] == ["CTNormalization"]
    assert plans["configurations"]["2d"]["use_mask_for_norm"] == [False]
    assert plans["foreground_intensity_properties_per_channel"] == {
        "0": {"mean": 0.0, "std": 50.0, "percentile_00_5": 0.0, "percentile_99_5": 255.0}
    }


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [((1.0, 1.5), [2.0, 2.0]), ((3.0, 2.04), [3.0, 2.04]), ((4.0, 1.0), [4.0, 2.0])],
)
def test_a_preset_makes_pixels_coarser_but_never_finer(plan, spacing, expected):
    config = plan("cpu", spacing=spacing)["configurations"]["2d"]
    assert config["spacing"] == expected


def test_unequal_pixels_do_not_make_more_stages_than_the_preset_has(plan):
    """Rows four times as high as columns are wide: the columns are halved first."""
    config = plan("cpu", spacing=(8.0, 2.0), size=(250, 200))["configurations"]["2d"]
    arguments = config["architecture"]["arch_kwargs"]
    assert arguments["n_stages"] == len(arguments["features_per_stage"]) <= 6
    assert len(arguments["strides"]) == arguments["n_stages"]


@pytest.mark.parametrize(
    ("size", "patch"),
    [
        ((250, 130), [256, 160]),
        ((200, 100), [224, 112]),
        ((60, 40), [64, 40]),
        ((900, 60), [256, 64]),
    ],
)
def test_the_patch_is_the_median_view_rounded_up_within_the_limit(plan, size, patch):
    config = plan("cpu", size=size, spacing=(4.0, 4.0))["configurations"]["2d"]
    assert config["patch_size"] == patch
    strides = np.prod(config["architecture"]["arch_kwargs"]["strides"], axis=0)
    assert all(edge % stride == 0 for edge, stride in zip(patch, strides))


def test_batches_are_not_capped_for_small_data_sets(plan):
    """nnU-Net's 5 % rule would allow 2 images here; 5 studies of 12 views are 60."""
    config = plan("default", size=(256, 192), images=5)["configurations"]["2d"]
    assert config["batch_size"] == 24
    assert config["patch_size"] == [256, 192]


@pytest.mark.slow
def test_less_memory_means_smaller_batches_and_then_patches(plan):
    large = load_preset("default")
    sizes = []
    for vram_gb in (8.0, 2.0, 0.3):
        preset = replace(large, vram_gb=vram_gb)
        config = plan(preset, size=(500, 400))["configurations"]["2d"]
        sizes.append((config["batch_size"], config["patch_size"]))
    assert sizes[0][1] == sizes[1][1] == [512, 448]
    assert 24 > sizes[0][0] > sizes[1][0] >= 2
    assert sizes[2][0] == 2
    assert np.prod(sizes[2][1]) < np.prod(sizes[1][1])


def test_wider_presets_hold_a_body(plan):
    wide = plan("cpu_wide", size=(489, 360))["configurations"]["2d"]
    assert (wide["patch_size"], wide["batch_size"]) == ([512, 320], 2)
    coarse = plan("cpu_3mm", size=(489, 340))["configurations"]["2d"]
    assert coarse["spacing"] == [3.0, 3.0]
    assert coarse["patch_size"] == [352, 256]


@pytest.mark.slow
def test_residual_blocks_give_the_residual_encoder(plan):
    config = plan("resenc", size=(320, 256))["configurations"]["2d"]
    architecture = config["architecture"]
    assert architecture["network_class_name"].endswith("ResidualEncoderUNet")
    arguments = architecture["arch_kwargs"]
    stages = arguments["n_stages"]
    assert arguments["n_blocks_per_stage"] == [1, 3, 4, 6, 6, 6, 6][:stages]
    assert arguments["n_conv_per_stage_decoder"] == [1] * (stages - 1)
    assert "n_conv_per_stage" not in arguments


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "base"),
    [("cpu", "AttendingPlainConvUNet"), ("resenc", "AttendingResidualEncoderUNet")],
)
def test_attention_in_the_decoder_is_a_matter_of_plans(plan, preset, base):
    without = plan(preset)["configurations"]["2d"]["architecture"]
    config = plan(replace(load_preset(preset), decoder_attention="gates"))["configurations"]["2d"]
    architecture = config["architecture"]
    assert architecture["network_class_name"] == f"nnunetv2_mip.networks.{base}"
    attention = architecture["arch_kwargs"].pop("decoder_attention")
    assert attention == "gates"
    assert architecture["arch_kwargs"] == without["arch_kwargs"]


def test_a_data_set_without_constants(plan):
    with pytest.raises(MipError, match=r'dataset\.json: .* "suv" has no high, low'):
        plan("cpu", intensity={"suv": {"mean": 1.0, "std": 1.0}})


def test_volumes_are_no_stacks(plan):
    with pytest.raises(MipError, match="3 mm along the first axis are volumes"):
        plan("cpu", first=3.0)


def test_presets_of_the_package_load():
    names = ["cascade", "cpu", "cpu_3d", "cpu_3mm", "cpu_4mm", "cpu_4mm_gates", "cpu_4mm_scse"]
    assert preset_names() == [*names, "cpu_wide", "default", "resenc"]
    for name in preset_names():
        assert load_preset(name).description


@pytest.mark.parametrize(
    ("file_name", "content", "message"),
    [
        ("p.json", {}, "features_per_stage is missing"),
        ("p.json", {"features_per_stage": [8]}, "two or more"),
        ("p.json", {"features_per_stage": [8, 8], "stages": 2}, "unknown key stages"),
        ("p.json", {"features_per_stage": [8, 8], "max_patch_px": [64]}, "max_patch_px"),
        ("p.json", {"features_per_stage": [8, 8], "max_batch_size": 1}, "max_batch_size"),
        ("p.json", {"features_per_stage": [8, 8], "vram_gb": -1}, "vram_gb"),
        ("p.json", {"features_per_stage": [8, 8], "finest_spacing_mm": "2"}, "finest_spacing"),
        ("p.json", {"features_per_stage": [8, 8], "decoder_attention": "se"}, '"gates", "scse"'),
        ("p.json", [], "not a JSON object"),
        ("a__b.json", {"features_per_stage": [8, 8]}, "name 'a__b'"),
    ],
)
def test_preset_files_that_cannot_be_used(tmp_path, file_name, content, message):
    (tmp_path / file_name).write_text(json.dumps(content))
    with pytest.raises(MipError, match=message) as caught:
        load_preset(tmp_path / file_name)
    assert str(caught.value).startswith(str(tmp_path / file_name))


def test_unknown_preset():
    with pytest.raises(
        MipError, match=r"--preset huge: no such preset: choose cascade, cpu, cpu_3d, cpu_3mm"
    ):
        load_preset("huge")


def run_command(*arguments):
    with pytest.raises(SystemExit) as left:
        plan_and_preprocess.main(list(arguments))
    return left.value.code


def test_command_leaves_what_training_needs(tiny):
    """The trained data set was planned and preprocessed by the command."""
    stored = {path.name for path in (tiny.preprocessed / f"{tiny.plans}_2d").iterdir()}
    assert {"ann_1.b2nd", "ann_1_seg.b2nd", "ann_1.pkl"} <= stored
    for name in ("dataset.json", "splits_final.json", "dataset_fingerprint.json"):
        assert (tiny.preprocessed / name).is_file()
    assert (tiny.preprocessed / "gt_segmentations" / "eve_1.nii.gz").is_file()


def test_preprocessed_levels_are_standardised(tiny):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    data, seg, *_ = nnUNetDatasetBlosc2(str(tiny.preprocessed / f"{tiny.plans}_2d")).load_case(
        "bob_1"
    )
    lesion = np.asarray(data[0])[np.asarray(seg[0]) == 1]
    assert np.median(lesion) == pytest.approx(220 / 50, abs=0.05)
    # 5 mm rows stay, 4 mm columns stay: the preset makes nothing finer.
    assert data.shape == (1, 3, 44, 36)


@pytest.mark.slow
def test_command_prints_the_training_line(untrained, capsys):
    code = run_command(
        "-d", untrained.name, "--preset", str(untrained.preset), "--no_pp", "-np", "1"
    )
    printed = capsys.readouterr().out
    assert code == 0
    assert "nnUNetv2_train 901 2d 0 -p nnUNetMIPPlans_tiny -tr nnUNetTrainerMIP" in printed
    assert not (untrained.preprocessed / "nnUNetMIPPlans_tiny_2d").exists()


def spoil(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def no_lesions(content):
    content["mip"]["has_lesion"] = dict.fromkeys(content["mip"]["has_lesion"], False)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dataset.json", lambda content: content.pop("mip"), 'no "mip" part'),
        ("dataset.json", no_lesions, "no case has a lesion"),
        ("splits_final.json", lambda splits: splits[0]["val"].append("zoe_1"), "stale: fold 0"),
        ("splits_final.json", lambda splits: splits[0]["train"].append("ann_1"), "patient ann"),
    ],
)
def test_command_refuses_data_sets_that_cannot_train(untrained, capsys, name, change, message):
    spoil(untrained.raw / name, change)
    assert run_command("-d", "901") == 2
    assert message in capsys.readouterr().err
    assert not untrained.preprocessed.exists()


def test_command_misses_files(untrained, capsys):
    (untrained.raw / "labelsTr" / "bob_1.nii.gz").unlink()
    assert run_command("-d", "901") == 2
    assert "labelsTr/bob_1.nii.gz is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-d", "902"), "no such data set"),
        (("-d", "Dataset903_Nothing"), "no such data set"),
        (("-d", "tiny"), "give the number or the name"),
        (("-d", "901", "-np", "0"), "at least one process"),
        (("-d", "901", "--preset", "huge"), "no such preset"),
    ],
)
def test_bad_arguments(untrained, capsys, arguments, message):
    assert run_command(*arguments) == 2
    assert message in capsys.readouterr().err


def test_an_unset_variable_is_named(untrained, capsys, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed")
    assert run_command("-d", "901") == 2
    error = capsys.readouterr().err
    assert "nnUNet_preprocessed" in error
    assert "nnUNetv2_mip_env" in error


def test_two_data_sets_with_one_number(untrained, capsys):
    shutil.copytree(untrained.raw, untrained.raw.with_name("Dataset901_Other"))
    assert run_command("-d", "901") == 2
    assert "Dataset901_Other, Dataset901_Tiny" in capsys.readouterr().err


@pytest.mark.slow
def test_splits_of_an_earlier_conversion(untrained, capsys):
    """They are refused, and --clean takes those of the raw data set."""
    untrained.preprocessed.mkdir(parents=True)
    earlier = untrained.preprocessed / "splits_final.json"
    earlier.write_text("[]")
    arguments = ("-d", "901", "--preset", str(untrained.preset), "--no_pp", "-np", "1")
    assert run_command(*arguments) == 2
    assert "differs from" in capsys.readouterr().err
    assert earlier.read_text() == "[]"
    assert run_command(*arguments, "--clean") == 0
    assert json.loads(earlier.read_text()) == json.loads(
        (untrained.raw / "splits_final.json").read_text()
    )


def test_the_help_names_every_preset():
    from nnunetv2_mip.commands.plan_and_preprocess import build_parser

    told = " ".join(build_parser().format_help().split()).replace("- ", "-")
    for name in preset_names():
        assert re.search(rf"[ (]{name}[,;) ]", told), name
