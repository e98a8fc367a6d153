"""Training curves are those of nnU-Net's logs and checkpoints."""

import math
import shutil

import pytest

from nnunetv2_mip.commands import report
from nnunetv2_mip.report.training_curves import read_training


def test_curves_of_the_logs_are_those_of_the_checkpoint(tiny_model, tmp_path):
    without_logs = tmp_path / tiny_model.name
    shutil.copytree(tiny_model, without_logs, ignore=shutil.ignore_patterns("training_log_*"))
    (logged,), (saved,) = read_training(tiny_model).folds, read_training(without_logs).folds
    assert logged.epochs == saved.epochs == [1, 2]
    for name in ("train_loss", "val_loss", "dice"):
        assert logged.values[name] == pytest.approx(saved.values[name], abs=1e-4, nan_ok=True)
    assert all(seconds > 0 for seconds in saved.values["seconds"])


def test_a_model_folder_alone_makes_a_report(tiny_model, run, read_page, tmp_path):
    output = tmp_path / "training.html"
    assert run(report, "-m", tiny_model, "-o", output) == 0
    page = read_page(output)
    (curves,) = read_training(tiny_model).folds
    assert f"{curves.values['train_loss'][-1]:.3f}" in page.words
    assert "nnUNetTrainerMIP_tiny" in page.words and len(page.attributes_of("svg")) == 2


def test_a_continued_training_counts_once(tmp_path):
    (tmp_path / "plans.json").write_text("{}")
    fold = tmp_path / "fold_1"
    fold.mkdir()

    def log(name: str, epochs: dict[int, float], unfinished: int | None = None) -> None:
        lines = []
        for epoch, loss in epochs.items():
            lines += [f"Epoch {epoch} ", "Current learning rate: 1e-05 ", f"train_loss {loss} ",
                      "val_loss nan ", "Pseudo dice [np.float32(0.5), 0.7] "]  # fmt: skip
        if unfinished is not None:
            lines.append(f"Epoch {unfinished} ")
        text = "".join(f"2026-01-01 10:00:00.123456: {line}\n" for line in lines)
        (fold / f"training_log_{name}.txt").write_text(text)

    # nnU-Net writes no zeros before one digit: the tenth month comes after the ninth.
    log("2026_9_30_8_0_0", {0: 1.0, 1: 0.9, 2: -0.8}, unfinished=3)
    log("2026_10_1_7_59_9", {1: 0.5})
    # An exported model has weights and no logs.
    (tmp_path / "fold_2").mkdir()
    training = read_training(tmp_path)
    assert training.without_curves == ["2"]
    (curves,) = training.folds
    assert curves.epochs == [1, 2] and curves.values["train_loss"] == [1.0, 0.5]
    assert curves.values["dice"] == pytest.approx([0.6, 0.6])
    assert curves.values["rate"] == [1e-5, 1e-5] and math.isnan(curves.values["val_loss"][0])
