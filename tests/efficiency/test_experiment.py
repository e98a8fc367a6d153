"""Command of the efficiency study: cells, resuming, refusals, with tiny untrained networks."""

import csv
import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_mip.efficiency.cost import training_operations
from nnunetv2_mip.efficiency.experiment import EfficiencyStudy, RunOptions
from nnunetv2_mip.efficiency.inputs import (
    check_unseen,
    read_models,
    studies_of_dataset,
    studies_of_tree,
)
from nnunetv2_mip.efficiency.tables import write_tables
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.engine import ENGINE_VARIABLE
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.inference.second_stage import SecondStagePredictor
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.study_layouts import find_studies
from nnunetv2_mip.io.volumes import read_mask, read_suv
from nnunetv2_mip.nnunet.splits import SPLITS_FILE

pytestmark = pytest.mark.slow

# Columns that are measured, and so differ from run to run.
MEASURED = ("seconds", "mb", "wh")


def read_csv(path: Path) -> list[dict]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def certain(rows: list[dict]) -> list[dict]:
    """Rows without measured columns."""
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


def test_killed_and_run_again(ready, finished, tmp_path):
    out = tmp_path / "study"
    models = read_models([f"flat={ready.flat}"])
    begun = EfficiencyStudy(out, studies_of_tree(ready.tree)[0], RunOptions(False, 2, "cpu", False))
    begun.add_models(models)

    def kill(task, name):
        for child in multiprocessing.active_children():
            child.kill()
            child.join()

    with pytest.raises(MipError, match=r"was killed .*Run again"):
        begun.run(begun.open_tasks(models, [1], 0), kill)
    (kept,) = (out / "cells").rglob("*.json")
    assert write_tables(out)["unfinished"]
    before = kept.read_bytes(), kept.stat().st_mtime_ns
    # Going on with it adds what is missing, and touches nothing that was there.
    arguments = (
        "-i",
        ready.tree,
        *ready.options(out),
        "--models",
        f"flat={ready.flat}",
        "--views",
        1,
    )
    assert ready.study(*arguments) == 0
    assert before == (kept.read_bytes(), kept.stat().st_mtime_ns)
    again = certain(read_csv(out / "cases.csv"))
    whole = certain(read_csv(finished / "cases.csv"))
    assert again == [row for row in whole if (row["model"], row["views"]) == ("flat", "1")]
    assert len(again) == 2


def test_asking_for_less_leaves_the_rest_in_the_table(ready, finished, tmp_path):
    out = tmp_path / "study"
    shutil.copytree(finished, out)
    cells = {path: path.read_bytes() for path in (out / "cells").rglob("*.json")}
    arguments = (
        "-i",
        ready.tree,
        *ready.options(out),
        "--models",
        f"flat={ready.flat}",
        "--views",
        1,
    )
    assert ready.study(*arguments) == 0
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
    assert ready.study("-d", 702, *ready.options(out), "--models", ready.deep) == 2
    assert "was trained on" in capsys.readouterr().err and not out.exists()
    # Unknown patients are a warning.
    monkeypatch.delenv("nnUNet_preprocessed")
    (line,) = check_unseen([model], studies)
    assert "cannot tell whom it was trained on" in line and str(ready.deep) in line


def bad(networks, tmp_path: Path, what: str) -> tuple[tuple, str]:
    """Arguments that are refused, and words of the error line."""
    out = tmp_path / "out"
    options = networks.options(out)
    flat = ("--models", networks.flat)
    tree = ("-i", networks.tree)
    if what == "no MIP model":
        folder = tmp_path / "stock"
        (folder / "fold_0").mkdir(parents=True)
        (folder / "fold_0/checkpoint_final.pth").touch()
        (folder / "plans.json").write_text("{}")
        (folder / "dataset.json").write_text('{"channel_names": {"0": "CT"}}')
        return (*tree, "--models", folder, *options), "is no MIP model"
    if what == "no model":
        return (
            *tree,
            "--models",
            tmp_path / "none",
            *options,
        ), "no such model folder"
    if what == "twice":
        return (*tree, *flat, networks.flat, *options), "comes twice"
    if what == "strange name":
        return (*tree, "--models", f"a/b={networks.flat}", *options), "letters"
    if what == "no truth":
        lone = tmp_path / "lone/PETCT_1/study"
        lone.mkdir(parents=True)
        (lone / "SUV.nii.gz").write_bytes(next(networks.tree.rglob("SUV.nii.gz")).read_bytes())
        return ("-i", tmp_path / "lone", *flat, *options), "has no lesion mask"
    if what == "views, not volumes":
        return ("-d", 701, *flat, *options), "holds no volumes"
    if what == "no view":
        return (*tree, *flat, *options, "--views", 4, 0), "--views 0: at least 1"
    if what == "device":
        return (*tree, *flat, "-o", out, "-device", "abacus"), "unknown device"
    if what == "fold":
        return (*tree, *flat, *options, "-f", "x"), "-f x: choose a fold"
    if what == "seen":
        seen = networks.tree.parent / "seen"
        return ("-i", seen, "--models", networks.deep, *options), "was trained on"
    out.mkdir()
    (out / "diary.txt").write_text("mine")
    return (*tree, *flat, *options), "is no folder of a study"


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
    assert ready.study(*arguments) == 2
    printed = capsys.readouterr()
    assert words in printed.err and printed.err.count("\n") == 1 and not printed.out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_made_with_other_settings(ready, finished, tmp_path, capsys):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    common = ("-i", ready.tree, "--models", f"flat={ready.flat}", "--views", 1, "-device", "cpu")
    others = ("--reference_views", 2, "--no_energy")
    assert ready.study(*common, "-o", finished, *others) == 2
    assert "other settings (tta False, not True)" in capsys.readouterr().err
    patient = next(path for path in ready.tree.iterdir() if path.is_dir())
    shutil.copytree(patient, tmp_path / "fewer" / patient.name)
    other = ("-i", tmp_path / "fewer", "--models", f"flat={ready.flat}", *ready.options(finished))
    assert ready.study(*other) == 2
    assert "studies that are gone" in capsys.readouterr().err
    swapped = ("-i", ready.tree, "--models", f"flat={ready.deep}", *ready.options(finished))
    assert ready.study(*swapped) == 2
    assert "flat was another network before" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
