"""Training: the files it writes, and the folds it validates."""

import json
import shutil

import pytest

from nnunetv2_mip.classification.classifier_file import (
    FILE_NAME,
    read_classifier,
)
from nnunetv2_mip.classification.metrics import (
    auroc,
)
from nnunetv2_mip.classification.study_labels import StudyLabel
from nnunetv2_mip.classification.train import training_folds
from nnunetv2_mip.errors import MipError


def test_train_writes_a_classifier_and_its_scores(trained, rows_of):
    out, raw, printed = trained
    about, _ = read_classifier(out / FILE_NAME)
    assert about["studies"] == {"with_lesions": 6, "without": 6}
    assert about["views"] == 2
    table = rows_of(out / "out_of_fold.csv")
    assert len(table) == 12
    report = json.loads((out / "metrics.json").read_text())
    labels = [int(row["has_lesion"]) for row in table]
    probabilities = [float(row["probability"]) for row in table]
    value = report["natural_ratio"]["auroc"]["value"]
    assert value == pytest.approx(auroc(labels, probabilities), abs=1e-4)
    # A bright square is easily seen; the height of all images is the same.
    assert value > 0.9
    assert report["height alone"]["natural_ratio"]["auroc"]["value"] <= 0.6
    assert "heights matched (6 pairs)" in printed
    assert len(list((raw.parent / "cache").iterdir())) == 12


@pytest.mark.slow
def test_every_fold_by_its_own_network(
    tiny, trained, tmp_path, monkeypatch, few_threads, capsys, classify, rows_of
):
    monkeypatch.setenv("nnUNet_raw", str(trained[1]))
    names = [f"case_{number:02d}" for number in range(12)]
    splits = [{"train": names[k::2], "val": names[1 - k :: 2]} for k in (0, 1)]
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(tiny.model, model, ignore=shutil.ignore_patterns("validation", "*.png"))
    arguments = ["train", "-d", 801, "-o", out, "--network", model, "--fold_networks"]
    arguments += ["--splits", tmp_path / "splits.json", "-device", "cpu"]
    arguments += ["--cache", trained[1].parent / "cache"]
    assert classify(*arguments) == 2
    said = capsys.readouterr().err
    assert "fold_1" in said
    assert "--network" in said
    assert not out.exists()
    shutil.copytree(model / "fold_0", model / "fold_1")
    assert classify(*arguments) == 0
    folds = {row["case"]: int(row["fold"]) for row in rows_of(out / "out_of_fold.csv")}
    assert folds == {case: fold for fold, part in enumerate(splits) for case in part["val"]}
    # What is written asks the networks of all folds.
    about, _ = read_classifier(out / FILE_NAME)
    assert (about["folds"], about["networks"]) == (["0", "1"], 2)
    scores, source = tmp_path / "scores.csv", trained[1] / "Dataset801_Cohort" / "imagesTr"
    assert classify("predict", "-i", source, "-o", scores, "-m", out, "-device", "cpu") == 0
    table = rows_of(scores)
    truth = [row["case"] < "case_06" for row in table]
    assert auroc(truth, [float(row["probability"]) for row in table]) > 0.9


def test_a_network_validates_only_studies_it_was_not_trained_on(tmp_path, monkeypatch):
    names = [f"case_{number}" for number in range(6)]
    splits = [{"train": names[k::2], "val": names[1 - k :: 2]} for k in (0, 1)]
    planned = tmp_path / "nnUNet_preprocessed" / "Dataset001_A"
    planned.mkdir(parents=True)
    (planned / "splits_final.json").write_text(json.dumps(splits))
    patients = {name: name for name in names}
    (planned / "dataset.json").write_text(json.dumps({"mip": {"patients": patients}}))
    model, raw = tmp_path / "model", tmp_path / "raw"
    for folder in (model, raw):
        folder.mkdir()
    (model / "plans.json").write_text(json.dumps({"dataset_name": "Dataset001_A"}))
    # The raw data set's own splits are others: those of the model's training count.
    (raw / "splits_final.json").write_text(json.dumps(splits[::-1]))
    monkeypatch.setenv("nnUNet_preprocessed", str(planned.parent))
    studies = [StudyLabel(name, name, number < 3) for number, name in enumerate((*names, "new"))]
    folds = training_folds(raw, studies, None, model)
    assert {case: fold for case, fold in folds.items() if case != "new"} == {
        case: fold for fold, part in enumerate(splits) for case in part["val"]
    }
    assert folds["new"] in (0, 1)
    for fold in splits:
        fold["val"] = [name for name in fold["val"] if name != "case_0"]
        fold["train"] = sorted({*fold["train"], "case_0"})
    named = tmp_path / "splits.json"
    named.write_text(json.dumps(splits))
    with pytest.raises(MipError, match="case_0 is in the training part of fold"):
        training_folds(raw, studies, named, model)
    named.write_text(json.dumps({"train": names}))
    with pytest.raises(MipError, match="not a list of"):
        training_folds(raw, studies, named)
