"""Section "Training": the model folder, a table of its folds, training curves."""

import math
from dataclasses import dataclass
from typing import ClassVar

from nnunetv2_mip.report import charts
from nnunetv2_mip.report.content import ReportContent
from nnunetv2_mip.report.formatting import fixed
from nnunetv2_mip.report.svg_plot import Chart
from nnunetv2_mip.report.training_curves import FoldCurves


@dataclass(frozen=True)
class FoldRow:
    """Row of a fold: number of epochs, losses of the last epoch, pseudo Dice, hours."""

    fold: str
    epochs: int
    train_loss: str
    val_loss: str
    last_dice: str
    best_dice: str
    hours: str


@dataclass(frozen=True)
class TrainingSection:
    """Values of the training section.

    Attributes:
        model: (name, value) of what is known of the model.
        folds: rows of the folds with curves.
        without_curves: names of the other folds.
        charts: plots of the curves.
    """

    id: ClassVar[str] = "training"
    title: ClassVar[str] = "Training"
    template: ClassVar[str] = "training.html"
    model: list[tuple[str, str]]
    folds: list[FoldRow]
    without_curves: list[str]
    charts: list[Chart]


def training_section(content: ReportContent) -> TrainingSection | None:
    """Training of the model folder; None without one."""
    training = content.training
    if training is None:
        return None
    model = (
        ("Model folder", training.name),
        ("Trainer", training.trainer),
        ("Plans", training.plans),
        ("Configuration", training.configuration),
    )
    return TrainingSection(
        [(name, value) for name, value in model if value],
        [_fold_row(curves) for curves in training.folds],
        training.without_curves,
        _charts(training.folds),
    )


def _fold_row(curves: FoldCurves) -> FoldRow:
    values = curves.values
    dice = [value for value in values["dice"] if not math.isnan(value)]
    seconds = sum(value for value in values["seconds"] if not math.isnan(value))
    return FoldRow(
        curves.fold,
        curves.epochs[-1],
        f"{values['train_loss'][-1]:.3f}",
        fixed(values["val_loss"][-1], 3),
        fixed(dice[-1] if dice else None, 3),
        fixed(max(dice, default=None), 3),
        f"{seconds / 3600:.2f}",
    )


def _charts(folds: list[FoldCurves]) -> list[Chart]:
    if not folds:
        return []
    losses = [(c.fold, c.epochs, c.values["train_loss"], c.values["val_loss"]) for c in folds]
    dices = [(c.fold, c.epochs, c.values["dice"]) for c in folds]
    return [charts.loss_curves(losses), charts.dice_curves(dices)]
