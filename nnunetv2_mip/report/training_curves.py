"""Training curves of a model folder, from the logs that nnU-Net writes into it.

The text logs of a fold are read first: plain text is safe to read. A fold without text logs is read
from its checkpoint, a pickle that torch loads.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
CURVES = ("train_loss", "val_loss", "dice", "rate", "seconds")
_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?: (.*)$")
_NUMBER = r"(-?\d+\.?\d*(?:[eE][-+]?\d+)?|nan|-?inf)"
_PATTERNS = {
    "rate": re.compile(rf"^Current learning rate: {_NUMBER}"),
    "train_loss": re.compile(rf"^train_loss {_NUMBER}"),
    "val_loss": re.compile(rf"^val_loss {_NUMBER}"),
    "seconds": re.compile(rf"^Epoch time: {_NUMBER} s"),
}
_EPOCH = re.compile(r"^Epoch (\d+)$")
_DICE = re.compile(r"^Pseudo dice \[(.*)\]")
_VALUE = re.compile(rf"(?:np\.float\d+\()?{_NUMBER}\)?")


@dataclass(frozen=True)
class FoldCurves:
    """Training curves of one fold.

    Attributes:
        fold: name of its folder without `fold_`.
        epochs: numbers of the finished epochs, from 1.
        values: one value an epoch for each of `CURVES` (NaN where the log has none): losses, mean
            pseudo Dice of the foreground classes, learning rate, seconds.
    """

    fold: str
    epochs: list[int]
    values: dict[str, list[float]]


@dataclass(frozen=True)
class TrainingHistory:
    """Training of a model folder.

    Attributes:
        name: of the folder.
        trainer, plans, configuration: as nnU-Net names them; empty where they are not known.
        folds: those with curves.
        without_curves: names of the other folds.
    """

    name: str
    trainer: str
    plans: str
    configuration: str
    folds: list[FoldCurves] = field(default_factory=list)
    without_curves: list[str] = field(default_factory=list)


def read_training(folder: Path) -> TrainingHistory:
    """Curves of all folds in a model folder.

    Raises:
        MipError: no such folder, or no model in it.
    """
    if not folder.is_dir():
        raise MipError(f"{folder}: no such folder; -m names a model folder (plans.json, fold_*)")
    fold_folders = sorted(path for path in folder.glob("fold_*") if path.is_dir())
    if not (folder / "plans.json").is_file() or not fold_folders:
        raise MipError(
            f"{folder}: is no model folder of nnU-Net (it lacks plans.json or fold_*): name one "
            "that nnUNetv2_train has written, DATASET/TRAINER__PLANS__CONFIGURATION"
        )
    name = folder.resolve().name
    # TRAINER__PLANS__CONFIGURATION
    parts = name.split("__")
    trainer, plans, configuration = parts if len(parts) == 3 else ("", "", "")
    plans = plans or str(read_json(folder / "plans.json").get("plans_name", ""))
    training = TrainingHistory(name, trainer, plans, configuration)
    for fold_folder in fold_folders:
        fold = fold_folder.name.removeprefix("fold_")
        curves = _read_logs(fold_folder, fold) or _read_checkpoint(fold_folder, fold)
        if curves is None:
            training.without_curves.append(fold)
        else:
            training.folds.append(curves)
    return training


def _start_time(log: Path) -> list[int]:
    """Start of a training, by its log's name, in which nnU-Net writes 9, not 09."""
    return [int(number) for number in re.findall(r"\d+", log.stem)]


def _read_logs(fold_folder: Path, fold: str) -> FoldCurves | None:
    """Curves of the text logs; of several logs of one training the later ones count."""
    found: dict[int, dict[str, float]] = {}
    for log in sorted(fold_folder.glob("training_log_*.txt"), key=_start_time):
        epoch = None
        for line in log.read_text("utf-8", errors="replace").splitlines():
            dated = _LINE.match(line)
            text = dated.group(1).strip() if dated else ""
            started = _EPOCH.match(text)
            if started:
                epoch = int(started.group(1)) + 1
                # An epoch that is trained again replaces itself and all later ones.
                found = {number: row for number, row in found.items() if number < epoch}
                found[epoch] = {}
            elif epoch is not None:
                found[epoch] |= _values_of(text)
    # An interrupted training has an unfinished last epoch.
    finished = {number: row for number, row in found.items() if "train_loss" in row}
    if not finished:
        return None
    epochs = sorted(finished)
    values = {name: [finished[n].get(name, math.nan) for n in epochs] for name in CURVES}
    return FoldCurves(fold, epochs, values)


def _values_of(text: str) -> dict[str, float]:
    dice = _DICE.match(text)
    if dice:
        return {"dice": _mean([float(value) for value in _VALUE.findall(dice.group(1))])}
    for name, pattern in _PATTERNS.items():
        value = pattern.match(text)
        if value:
            return {name: float(value.group(1))}
    return {}


def _read_checkpoint(fold_folder: Path, fold: str) -> FoldCurves | None:
    path = next(
        (fold_folder / name for name in CHECKPOINTS if (fold_folder / name).is_file()), None
    )
    if path is None:
        return None
    import torch

    try:
        logging = torch.load(path, map_location="cpu", weights_only=False).get("logging")
    except Exception as error:
        raise MipError(f"{path}: is not a checkpoint of nnU-Net: {error}") from None
    if not isinstance(logging, dict) or not logging.get("train_losses"):
        return None
    count = len(logging["train_losses"])

    def curve(name: str) -> list[float]:
        values = [float(value) for value in logging.get(name, [])][:count]
        return values + [math.nan] * (count - len(values))

    starts, ends = curve("epoch_start_timestamps"), curve("epoch_end_timestamps")
    values = {
        "train_loss": curve("train_losses"),
        "val_loss": curve("val_losses"),
        "dice": curve("mean_fg_dice"),
        "rate": curve("lrs"),
        "seconds": [end - start for start, end in zip(starts, ends)],
    }
    return FoldCurves(fold, list(range(1, count + 1)), values)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
