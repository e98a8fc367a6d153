"""Training curves of a model folder, read from what nnU-Net leaves in it.

The text logs come first: they are plain text, whoever made them. Only where a fold has none is its
checkpoint asked (a pickle, which torch loads).
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
class Curves:
    """One fold's training.

    Attributes:
        fold: name of its folder without `fold_`.
        epochs: numbers of the finished epochs, from 1.
        values: for each of `CURVES` one value an epoch (NaN where the log has none): losses, mean
            pseudo Dice of the foreground classes, learning rate, seconds.
    """

    fold: str
    epochs: list[int]
    values: dict[str, list[float]]


@dataclass(frozen=True)
class Training:
    """What a model folder says of itself.

    Attributes:
        name: of the folder.
        trainer, plans, configuration: by nnU-Net's naming; empty where nothing tells.
        folds: those with curves.
        silent: names of the folds without any.
    """

    name: str
    trainer: str
    plans: str
    configuration: str
    folds: list[Curves] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


def read_training(folder: Path) -> Training:
    """The curves of all folds in a model folder.

    Raises:
        MipError: no such folder, or no model in it.
    """
    if not folder.is_dir():
        raise MipError(f"{folder}: no such folder; -m names a model folder (plans.json, fold_*)")
    places = sorted(path for path in folder.glob("fold_*") if path.is_dir())
    if not (folder / "plans.json").is_file() or not places:
        raise MipError(
            f"{folder}: is no model folder of nnU-Net (it lacks plans.json or fold_*): name one "
            "that nnUNetv2_train has written, DATASET/TRAINER__PLANS__CONFIGURATION"
        )
    # TRAINER__PLANS__CONFIGURATION
    name = folder.resolve().name
    parts = name.split("__")
    trainer, plans, configuration = parts if len(parts) == 3 else ("", "", "")
    plans = plans or str(read_json(folder / "plans.json").get("plans_name", ""))
    training = Training(name, trainer, plans, configuration)
    for place in places:
        fold = place.name.removeprefix("fold_")
        curves = _of_logs(place, fold) or _of_checkpoint(place, fold)
        if curves is None:
            training.silent.append(fold)
        else:
            training.folds.append(curves)
    return training


def _moment(log: Path) -> list[int]:
    """When a training began, of its log's name: nnU-Net writes 9 and 10, not 09 and 10."""
    return [int(number) for number in re.findall(r"\d+", log.stem)]


def _of_logs(place: Path, fold: str) -> Curves | None:
    """Curves of the text logs; a training that went on has several, and the later ones count."""
    found: dict[int, dict[str, float]] = {}
    for log in sorted(place.glob("training_log_*.txt"), key=_moment):
        epoch = None
        for line in log.read_text("utf-8", errors="replace").splitlines():
            said = _LINE.match(line)
            text = said.group(1).strip() if said else ""
            started = _EPOCH.match(text)
            if started:
                epoch = int(started.group(1)) + 1
                # An epoch that is trained again replaces itself and all that came after it.
                found = {number: row for number, row in found.items() if number < epoch}
                found[epoch] = {}
            elif epoch is not None:
                found[epoch] |= _values_of(text)
    # The last epoch of a training that was stopped has no end.
    finished = {number: row for number, row in found.items() if "train_loss" in row}
    if not finished:
        return None
    epochs = sorted(finished)
    values = {name: [finished[n].get(name, math.nan) for n in epochs] for name in CURVES}
    return Curves(fold, epochs, values)


def _values_of(text: str) -> dict[str, float]:
    dice = _DICE.match(text)
    if dice:
        return {"dice": _mean([float(value) for value in _VALUE.findall(dice.group(1))])}
    for name, pattern in _PATTERNS.items():
        value = pattern.match(text)
        if value:
            return {name: float(value.group(1))}
    return {}


def _of_checkpoint(place: Path, fold: str) -> Curves | None:
    path = next((place / name for name in CHECKPOINTS if (place / name).is_file()), None)
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
    return Curves(fold, list(range(1, count + 1)), values)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
