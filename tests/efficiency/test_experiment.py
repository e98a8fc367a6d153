"""The efficiency study: scores, costs, resuming and tables, with tiny networks (untrained)."""

import csv
import json
import multiprocessing
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_mip.commands import convert_stage2, phantom, study
from nnunetv2_mip.efficiency.cost import (
    Meter,
    forward_operations,
    training_cost,
    training_operations,
)
from nnunetv2_mip.efficiency.experiment import (
    Choices,
    EfficiencyStudy,
    check_unseen,
    read_models,
    studies_of_dataset,
    studies_of_tree,
)
from nnunetv2_mip.efficiency.plots import write_plots
from nnunetv2_mip.efficiency.scores import quality, stack_quality, view_quality
from nnunetv2_mip.efficiency.tables import markdown, rows_of, write_tables
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.engine import ENGINE_VARIABLE
from nnunetv2_mip.inference.predictor import MIPPredictor, StudyPrediction
from nnunetv2_mip.inference.second_stage import SecondStagePredictor
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.study_layouts import find_studies
from nnunetv2_mip.io.volumes import Volume, read_mask, read_suv
from nnunetv2_mip.nnunet.splits import SPLITS_FILE, without_patients
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.projection import project_mask

RESAMPLING = "resample_data_or_seg_to_shape"
# Columns that are measured, and so differ from run to run.
MEASURED = ("seconds", "mb", "wh")


@dataclass(frozen=True)
class World:
    """Networks of views and of volumes, and studies that they have not seen."""

    tree: Path
    flat: Path
    deep: Path
    environment: dict[str, str]


def answer(command, *arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        command.main([str(argument) for argument in arguments])
    return ended.value.code


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


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
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
        assert answer(convert_stage2, "-i", home / "seen", "-d", 702, "--no-cue") == 0
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
        # As training leaves it: what tells the patients is the preprocessed data set alone.
        make_model(folder, without_patients(content), *rest)
        planned = home / "nnUNet_preprocessed" / folder.parent.name
        planned.mkdir()
        (planned / "dataset.json").write_text(json.dumps(content))
        shutil.copyfile(raw / "splits_final.json", planned / "splits_final.json")
    return World(home / "tree", flat, deep, environment)


@pytest.fixture
def ready(world, monkeypatch) -> World:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    return world


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory) -> Path:
    """A study of both networks. Read it, do not change it."""
    out = tmp_path_factory.mktemp("out") / "study"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.environment.items():
            patch.setenv(name, value)
        models = (f"flat={world.flat}", f"deep={world.deep}")
        assert answer(study, "-i", world.tree, "--models", *models, *settings(out), "--views", 3, 1,
                      "--training-iterations", 1) == 0  # fmt: skip
    return out


def settings(out: Path) -> tuple:
    common = ("-device", "cpu", "--disable_tta", "--no-energy", "--reference-views", 2)
    return "-o", out, *common


def read_csv(path: Path) -> list[dict]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def certain(rows: list[dict]) -> list[dict]:
    """Rows without what is measured."""
    return [
        {key: value for key, value in row.items() if not key.endswith(MEASURED)} for row in rows
    ]


def test_scores_and_operations_are_those_of_the_predictors(ready, finished, monkeypatch):
    monkeypatch.setenv(ENGINE_VARIABLE, "torch")
    rows = {(row["model"], row["views"]): row for row in read_csv(finished / "study.csv")}
    assert list(rows) == [("flat", "1"), ("flat", "3"), ("deep", "")]
    cases = {
        (row["model"], row["views"], row["case"]): row for row in read_csv(finished / "cases.csv")
    }
    flat = MIPPredictor.from_model_folder(ready.flat, device="cpu").override(tta=False)
    deep = SecondStagePredictor.from_model_folder(ready.deep, device="cpu", mirror=False)
    tflop = {key: [] for key in rows}
    for files in find_studies(ready.tree):
        suv, truth = read_suv(files.suv), read_mask(files.seg).array
        for key in rows:
            with FlopCounterMode(display=False) as counter:
                if key[0] == "flat":
                    mask = flat.override(views=int(key[1])).predict_study(Study(suv)).mask
                else:
                    mask = deep.predict(Study(suv), np.zeros_like(suv.array))[0]
            tflop[key].append(counter.get_total_flops() / 1e12)
            row = cases[key[0], key[1] or "3d", files.case]
            assert int(row["operations"]) == counter.get_total_flops() > 0
            both = 2 * np.count_nonzero(mask & truth)
            if truth.any():
                overlap = both / (np.count_nonzero(mask) + np.count_nonzero(truth))
                assert float(row["dice_3d"]) == pytest.approx(overlap)
            else:
                assert row["dice_3d"] == ""
            assert (row["dice_2d"] == "") == (key[0] == "deep" or not truth.any())
            assert float(row["seconds"]) > 0 and float(row["peak_mb"]) > 100
    for key, row in rows.items():
        assert float(row["tflop"]) == pytest.approx(np.mean(tflop[key]))
    assert int(rows["flat", "3"]["parameters"]) == flat.parameters
    # Three views cost three times one.
    assert float(rows["flat", "3"]["tflop"]) == pytest.approx(3 * float(rows["flat", "1"]["tflop"]))
    # Paired with itself there is nothing, with one view there may be.
    assert rows["flat", "3"]["dice_difference"] == ""
    assert rows["flat", "1"]["dice_difference"] != ""
    assert rows["flat", "1"]["trained_views"] == "3"
    # Training: an epoch of 250 iterations at the plans' batch.
    batch = flat.training_batch
    assert batch == (2, 1, 16, 16)
    module = flat.networks[-1].module
    expected = 250 * training_operations(module, batch) / 1e12
    assert float(rows["flat", "1"]["epoch_tflop"]) == pytest.approx(expected)


def test_tables_and_pictures(finished):
    text = (finished / "tables.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("**")] == [
        "**3D against MIP** (2D: views that a 2D network segmented; projected: the 3D mask onto "
        "the reference views)",
        "**Views** (mean, 95 % interval over patients)",
        "**Efficiency**",
    ]
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert [len(lines) - 2 for lines in tables] == [2, 2, 3]
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1
    for name in ("views", "operations"):
        picture = np.asarray(Image.open(finished / f"{name}.png").convert("RGB"))
        # Not empty: the first network's colour is in it.
        assert (np.abs(picture.astype(int) - (0, 0x72, 0xB2)).sum(-1) < 30).sum() > 50
        assert "flat (trained on 3 views)" in (finished / f"{name}.svg").read_text()
    assert json.loads((finished / "study.json").read_text())["unfinished"] == []
    left = [path.name for path in finished.rglob("*") if "partial" in path.name]
    assert not left


def test_killed_and_run_again(ready, finished, tmp_path):
    out = tmp_path / "study"
    models = read_models([f"flat={ready.flat}"])
    begun = EfficiencyStudy(out, studies_of_tree(ready.tree), Choices(False, 2, "cpu", False))
    begun.add(models)

    def kill(task, name):
        for child in multiprocessing.active_children():
            child.kill()
            child.join()

    with pytest.raises(MipError, match=r"was killed .*Run again"):
        begun.run(begun.tasks(models, [1], 0), kill)
    (kept,) = (out / "cells").rglob("*.json")
    assert write_tables(out)["unfinished"]
    before = kept.read_bytes(), kept.stat().st_mtime_ns
    # Going on with it adds what is missing, and touches nothing that was there.
    arguments = ("-i", ready.tree, *settings(out), "--models", f"flat={ready.flat}", "--views", 1)
    assert answer(study, *arguments) == 0
    assert before == (kept.read_bytes(), kept.stat().st_mtime_ns)
    again = certain(read_csv(out / "cases.csv"))
    whole = certain(read_csv(finished / "cases.csv"))
    assert again == [row for row in whole if (row["model"], row["views"]) == ("flat", "1")]
    assert len(again) == 2


def test_asking_for_less_leaves_the_rest_in_the_table(ready, finished, tmp_path):
    out = tmp_path / "study"
    shutil.copytree(finished, out)
    cells = {path: path.read_bytes() for path in (out / "cells").rglob("*.json")}
    arguments = ("-i", ready.tree, *settings(out), "--models", f"flat={ready.flat}", "--views", 1)
    assert answer(study, *arguments) == 0
    assert cells == {path: path.read_bytes() for path in (out / "cells").rglob("*.json")}
    assert len(cells) == 6
    assert len(read_csv(out / "study.csv")) == 3


def test_validation_studies_of_a_data_set(ready, tmp_path, monkeypatch, capsys):
    raw = Path(ready.environment["nnUNet_raw"]) / "Dataset702_AutoPETStage2"
    wanted = json.loads((raw / SPLITS_FILE).read_text())[0]["val"]
    studies = studies_of_dataset(raw, 0)
    assert [found.case for found in studies] == sorted(wanted)
    (model,) = read_models([str(ready.deep)], [0])
    assert model.name == "Dataset702_AutoPETStage2_nnUNetTrainerMIP_volumes"
    assert check_unseen([model], studies) == []
    # Its fold 0 was trained on other splits than the studies are chosen by.
    moved = tmp_path / "nnUNet_preprocessed"
    shutil.copytree(ready.environment["nnUNet_preprocessed"], moved)
    splits = moved / raw.name / SPLITS_FILE
    splits.write_text(json.dumps(json.loads(splits.read_text())[::-1]))
    monkeypatch.setenv("nnUNet_preprocessed", str(moved))
    out = tmp_path / "study"
    assert answer(study, "-d", 702, *settings(out), "--models", ready.deep) == 2
    assert "was trained on" in capsys.readouterr().err and not out.exists()
    # Where nobody can tell, it is said.
    monkeypatch.delenv("nnUNet_preprocessed")
    (line,) = check_unseen([model], studies)
    assert "cannot tell whom it was trained on" in line and str(ready.deep) in line


def bad(world: World, tmp_path: Path, what: str) -> tuple[tuple, str]:
    """Arguments that cannot be served, and words of the answer."""
    out = tmp_path / "out"
    flat = ("--models", world.flat)
    tree = ("-i", world.tree)
    if what == "no MIP model":
        folder = tmp_path / "stock"
        (folder / "fold_0").mkdir(parents=True)
        (folder / "fold_0/checkpoint_final.pth").touch()
        (folder / "plans.json").write_text("{}")
        (folder / "dataset.json").write_text('{"channel_names": {"0": "CT"}}')
        return (*tree, "--models", folder, *settings(out)), "is no MIP model"
    if what == "no model":
        return (*tree, "--models", tmp_path / "none", *settings(out)), "no such model folder"
    if what == "twice":
        return (*tree, *flat, world.flat, *settings(out)), "comes twice"
    if what == "strange name":
        return (*tree, "--models", f"a/b={world.flat}", *settings(out)), "letters"
    if what == "no truth":
        lone = tmp_path / "lone/PETCT_1/study"
        lone.mkdir(parents=True)
        (lone / "SUV.nii.gz").write_bytes(next(world.tree.rglob("SUV.nii.gz")).read_bytes())
        return ("-i", tmp_path / "lone", *flat, *settings(out)), "has no lesion mask"
    if what == "views, not volumes":
        return ("-d", 701, *flat, *settings(out)), "holds no volumes"
    if what == "no view":
        return (*tree, *flat, *settings(out), "--views", 4, 0), "--views 0: at least 1"
    if what == "device":
        return (*tree, *flat, "-o", out, "-device", "abacus"), "unknown device"
    if what == "fold":
        return (*tree, *flat, *settings(out), "-f", "x"), "-f x: choose a fold"
    if what == "seen":
        seen = world.tree.parent / "seen"
        return ("-i", seen, "--models", world.deep, *settings(out)), "was trained on"
    out.mkdir()
    (out / "diary.txt").write_text("mine")
    return (*tree, *flat, *settings(out)), "is no folder of a study"


@pytest.mark.parametrize(
    "what",
    [
        "no MIP model",
        "no model",
        "twice",
        "strange name",
        "no truth",
        "views, not volumes",
        "no view",
        "device",
        "fold",
        "seen",
        "no folder of a study",
    ],
)
def test_one_line_for_what_cannot_be_served(ready, what, tmp_path, capsys):
    arguments, words = bad(ready, tmp_path, what)
    before = sorted(tmp_path.rglob("*"))
    assert answer(study, *arguments) == 2
    printed = capsys.readouterr()
    assert words in printed.err and printed.err.count("\n") == 1 and not printed.out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_made_with_other_settings(ready, finished, tmp_path, capsys):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    common = ("-i", ready.tree, "--models", f"flat={ready.flat}", "--views", 1, "-device", "cpu")
    others = ("--reference-views", 2, "--no-energy")
    assert answer(study, *common, "-o", finished, *others) == 2
    assert "other settings (tta False, not True)" in capsys.readouterr().err
    patient = next(path for path in ready.tree.iterdir() if path.is_dir())
    shutil.copytree(patient, tmp_path / "fewer" / patient.name)
    other = ("-i", tmp_path / "fewer", "--models", f"flat={ready.flat}", *settings(finished))
    assert answer(study, *other) == 2
    assert "other settings (other studies)" in capsys.readouterr().err
    swapped = ("-i", ready.tree, "--models", f"flat={ready.deep}", *settings(finished))
    assert answer(study, *swapped) == 2
    assert "flat was another network before" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


def test_scores_of_a_volume_and_its_views_by_hand():
    axes = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    grid = SourceGrid((20, 20, 12), (2.0, 2.0, 4.0), (0.0, 0.0, 0.0), axes)
    suv = Volume(np.ones((12, 20, 20), np.float32), grid, Path("suv"))
    truth = np.zeros(suv.array.shape, np.uint8)
    truth[4:8, 8:13, 6:10] = 1
    mask = np.roll(truth, 1, axis=0)
    # And a voxel where nothing is, in line with the lesion in neither view.
    mask[0, 1, 1] = 1
    found = quality(mask, truth, suv, 2)
    assert found["dice_3d"] == pytest.approx(2 * 60 / (80 + 81))
    assert found["fpv_ml"] == pytest.approx(0.016)
    assert found["fnv_ml"] == 0
    # Four rows of four (five) columns, one row too low, and a pixel: of the view.
    assert found["dice_projected"] == pytest.approx((2 * 12 / (16 + 17) + 2 * 15 / (20 + 21)) / 2)
    lower = quality(np.roll(truth, 1, axis=0), truth, suv, 2)
    assert (lower["hd95_3d_mm"], lower["hd95_projected_mm"]) == (4.0, 4.0)
    assert lower["dice_projected"] == pytest.approx(3 / 4)
    # The views themselves: one column of 2 mm beside the truth at 0° and at 90°.
    geometry = ViewGeometry.for_volume(suv, (0.0, 90.0))
    views = np.roll(project_mask(truth, geometry), 1, axis=2)
    answer_of_views = StudyPrediction(
        truth, None, views.astype(np.float32), views[None], geometry, geometry.stack_spacing_mm
    )
    config = InferenceConfig(pixel_mm=None, threshold=0.5, min_component_px=0)
    scores = view_quality(answer_of_views, truth, config)
    assert scores["dice_2d"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert scores["hd95_2d_mm"] == pytest.approx(2.0)


def test_scores_of_views_by_hand():
    truth = np.zeros((3, 6, 6), np.uint8)
    truth[:2, 1:3, 1:3] = 1
    found = np.zeros_like(truth)
    found[0, 1:3, 1:3] = 1
    found[1, 1:3, 3:5] = 1
    found[2, 0, 0] = 1
    # Dice 1 and 0 (the third has no lesion); distances 0 and, two columns of 4 mm away, 8.
    assert stack_quality(found, truth, (5.0, 4.0)) == (0.5, 4.0)
    assert all(np.isnan(stack_quality(truth[2:], truth[2:], (1, 1))))


def record(case: str, patient: str, dice: float | None, **more) -> dict:
    costs = {"seconds": 1.0, "cpu_seconds": 2.0, "peak_mb": 3.0, "peak_gpu_mb": None}
    energy = {"energy_wh": 0.5, "processor_wh": 0.25, "energy_missing": None}
    common = {"dice_3d": dice, "operations": 10**12, "parameters": 7, **costs, **energy}
    return {"case": case, "patient": patient, **common, **more}


def test_rows_by_hand():
    few = [record("a1", "a", 0.2), record("a2", "a", 0.4), record("b", "b", 0.9)]
    more = [record("a1", "a", 0.4), record("a2", "a", 0.6), record("b", "b", None)]
    more[0] |= {"seconds": 9.0, "cpu_seconds": 7.0, "peak_mb": 30.0, "energy_missing": "why"}
    more[0]["energy_wh"] = None
    model = {"volumetric": False, "trained_views": 12}
    training = {"net": {"operations": 4e9, "seconds": 1, "cpu_seconds": 2, "energy_wh": 0.1,
                        "processor_wh": 0.05}}  # fmt: skip
    cells = {("net", "4"): few, ("net", "16"): more}
    first, second = rows_of(cells, {"models": {"net": model}}, training)
    assert (first["views"], first["studies"], first["patients"]) == (4, 3, 2)
    assert first["dice_3d"] == pytest.approx(0.5)
    # Two patients: either alone, or both.
    assert first["dice_3d_low"] == pytest.approx(0.3)
    assert first["dice_3d_high"] == pytest.approx(0.9)
    assert second["dice_3d"] == pytest.approx(0.5)
    assert second["dice_3d_low"] is None
    assert second["dice_difference"] is None
    assert (second["seconds"], second["cpu_seconds"], second["peak_mb"]) == (1.0, 2.0, 30.0)
    assert second["energy_wh"] is None and second["energy_missing"] == "why"
    assert first["energy_wh"] == 0.5 and first["energy_missing"] is None
    assert first["epoch_tflop"] == pytest.approx(1.0)
    assert first["epoch_cpu_seconds"] == 500 and first["epoch_processor_wh"] == 12.5
    assert "| net | 4 | 12 |" in markdown([first, second])


def test_a_difference_is_taken_where_both_have_a_dice():
    few = [record("a", "a", 0.2), record("b", "b", 0.9)]
    most = [record("a", "a", 0.5), record("b", "b", 0.7)]
    deep = [record("a", "a", 0.6), record("b", "b", 0.6)]
    models = {"net": {"volumetric": False, "trained_views": 2}}
    models["deep"] = {"volumetric": True, "trained_views": None}
    cells = {("net", "2"): few, ("net", "8"): most, ("deep", "3d"): deep}
    rows = rows_of(cells, {"models": models}, {})
    assert [row["dice_difference"] for row in rows] == pytest.approx([-0.05, None, 0.0])
    assert rows[0]["dice_difference_low"] == pytest.approx(-0.3)
    assert rows[0]["dice_difference_high"] == pytest.approx(0.2)
    assert rows[2]["views"] is None and rows[2]["epoch_tflop"] is None


def test_pictures_of_nothing(tmp_path):
    assert len(write_plots([], tmp_path)) == 4


def test_operations_of_a_network_by_hand():
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3, padding=1, bias=False))
    # Per pixel and output channel 2 × 9 products with their additions.
    forward = 2 * 5 * (4 * 6) * 3 * (2 * 9)
    assert forward_operations(network, (5, 2, 4, 6)) == forward
    # Backward: the same for the weights; the input needs no gradient.
    assert training_operations(network, (5, 2, 4, 6)) == 2 * forward
    assert next(network.parameters()).device.type == "cpu"


def test_memory_and_time_of_one_piece_of_work():
    meter = Meter("cpu", energy=False)
    with meter.measuring() as small:
        pass
    with meter.measuring() as large:
        block = np.ones(40_000_000)
        block += 1
    del block
    with meter.measuring() as after:
        pass
    assert large.peak_mb - small.peak_mb > 250
    assert after.peak_mb < large.peak_mb - 200
    assert large.cpu_seconds > small.cpu_seconds and large.seconds > 0
    assert (large.energy_wh, meter.reason) == (None, "not asked for")


def test_energy_without_network(monkeypatch, tmp_path):
    pytest.importorskip("codecarbon", reason="the extra study is not installed")
    monkeypatch.chdir(tmp_path)

    def refuse(*arguments):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    meter = Meter("cpu")
    assert meter.reason is None
    network = torch.nn.Conv2d(1, 8, 3, padding=1)
    found = training_cost(network, (1, 1, 64, 64), 8, "cpu", meter, 20)
    assert found["energy_wh"] > 0
    assert 0 <= found["processor_wh"] <= found["energy_wh"]
    assert list(tmp_path.iterdir()) == []


def test_no_energy_without_codecarbon(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    meter = Meter("cpu")
    assert 'pip install ".[study]"' in meter.reason
    with meter.measuring() as cost:
        pass
    assert cost.energy_wh is None and cost.seconds >= 0
