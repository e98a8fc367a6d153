"""Train recipes with nnU-Net on the same folds, and score them on the folds' validation images.

    python benchmarks/dmiai/recipes.py -d 10 -o recipes_out --folds 0 --iterations 1200 \\
        stock=nnUNetTrainer,nnUNetMIPPlans_cpu_3mm \\
        recipe=nnUNetTrainerMIP_recipe,nnUNetMIPPlans_cpu_3mm

A recipe is NAME=TRAINER,PLANS; the plans must exist (`nnUNetv2_mip_plan_and_preprocess`).
NAME=FOLDER scores a model that is trained, with folds that it was not trained on. Every training
gets the same number of iterations. Each network predicts the validation images of its fold with
test-time mirroring, at a threshold of 0.5, as they are (`clean`) and in copies perturbed as the
2025 evaluation was (see `recipe_scores.copy_of`). The others are compared with the first recipe.
The row `img < 50` is the competition kit's rule.

OUT gets `<recipe>/fold_<n>.csv` (a row an image and copy), the out-of-fold probabilities, and
`table.md`. Run again, it goes on where it stopped: with nnU-Net's --c in the middle of a training.
With --scores FOLDER the scores of all runs are kept there, in small files (see `score_table.py`);
what was trained elsewhere is timed 0 minutes.
Selection is by the mean per-image Dice over the patients of the validation folds.
"""

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import recipe_scores as scores
import torch

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import write_json
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.nnunet.model_folder import CHECKPOINT
from nnunetv2_mip.nnunet.paths import add_own_trainers, nnunet_folder, raw_dataset

CONFIGURATION = "2d"
ITERATIONS_AN_EPOCH = 50
# A training ends with this code after the epoch in which the time of STOP_AT (Unix) has come.
STOP_AT, STOPPED = "NNUNETV2_MIP_STOP_AT", 75
# `nnUNetv2_train`, also where the package lies on PYTHONPATH alone.
TRAIN = "from nnunetv2.run.run_training import run_training_entry; run_training_entry()"
KIT = f"img < {scores.KIT_RULE_BELOW}"
# The trainer of a recipe, with the length of this benchmark. nnU-Net finds it by its file.
SHORTENED = '''"""Written by benchmarks/dmiai/recipes.py: {base} for {iterations} iterations."""

import os
import time

import torch
from {module} import {base}

from nnunetv2_mip.training.cpu import apply_thread_limit


class {name}({base}):
    def __init__(
        self, plans, configuration, fold, dataset_json, device=torch.device("cuda")
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = {epochs}
        self.num_iterations_per_epoch = {iterations_an_epoch}
        self.num_val_iterations_per_epoch = 4
        if device.type == "cpu":
            # For trainers of others; ours do so themselves.
            apply_thread_limit()

    def initialize(self):
        super().initialize()
        self.save_every = 1

    def on_epoch_end(self):
        super().on_epoch_end()
        late = time.time() > float(os.environ.get("{stop_at}", "inf"))
        if late and self.current_epoch < self.num_epochs:
            # The checkpoint of this epoch is written: --c goes on from here.
            raise SystemExit({stopped})

    def perform_actual_validation(self, save_probabilities=False):
        """The benchmark predicts and scores itself."""
'''


def epochs_of(iterations: int, an_epoch: int = ITERATIONS_AN_EPOCH) -> tuple[int, int]:
    """Number of epochs and iterations of each; a checkpoint is written after every epoch."""
    epochs = max(1, math.ceil(iterations / an_epoch))
    return epochs, math.ceil(iterations / epochs)


def shortened_trainer(
    base: str, iterations: int, folder: Path, an_epoch: int = ITERATIONS_AN_EPOCH
) -> str:
    """Write a trainer of `iterations` into `folder` and give its name.

    Raises:
        MipError: nnU-Net knows no trainer of this name.
    """
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    add_own_trainers()
    try:
        module = recursive_find_trainer_class_by_name(base).__module__
    except RuntimeError as error:
        raise MipError(f"{base}: no such trainer: {error}") from None
    if not module.startswith("nnunetv2"):
        # Ours: nnU-Net imports the files of a folder as top-level modules.
        module = f"nnunetv2_mip.trainers.{module}"
    name = f"{base}_i{iterations}"
    epochs, length = epochs_of(iterations, an_epoch)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(
        SHORTENED.format(
            base=base,
            module=module,
            name=name,
            iterations=iterations,
            epochs=epochs,
            iterations_an_epoch=length,
            stop_at=STOP_AT,
            stopped=STOPPED,
        )
    )
    return name


def train(
    dataset: str,
    fold: int | str,
    trainer: str,
    plans: str,
    device: str,
    stop_at: float | None = None,
    in_process: bool = False,
) -> tuple[float, bool]:
    """Train to the end, or go on with a training that was stopped.

    Args:
        stop_at: Unix time after which no other epoch is begun (not `in_process`).
        in_process: without a process of its own, whose start counts in a short training.

    Returns:
        the minutes it took so far, and whether it has ended.
    """
    folder = model_folder(dataset, trainer, plans) / f"fold_{fold}"
    clock = folder / "training_minutes.json"
    spent = scores.read_notes(clock).get("minutes", 0.0)
    if (folder / CHECKPOINT).is_file():
        return spent, True
    command = [sys.executable, "-c", TRAIN, str(int(dataset[7:10])), CONFIGURATION, str(fold)]
    command += ["-tr", trainer, "-p", plans, "-device", device]
    if (folder / "checkpoint_latest.pth").is_file():
        command.append("--c")
    environment = dict(os.environ)
    if stop_at is not None:
        environment[STOP_AT] = str(stop_at)
    started = time.monotonic()
    if in_process:
        from nnunetv2.run.run_training import run_training

        with redirect_stdout(sys.stderr):
            run_training(
                str(int(dataset[7:10])),
                CONFIGURATION,
                fold,
                trainer,
                plans,
                continue_training="--c" in command,
                device=torch.device(device),
            )
        code = 0
    else:
        done = subprocess.run(command, check=False, stdout=sys.stderr, env=environment)
        code = done.returncode
    if code not in (0, STOPPED):
        raise MipError(f"{trainer}, fold {fold}: the training failed (exit {code})")
    spent += (time.monotonic() - started) / 60
    write_json(clock, {"minutes": spent})
    return spent, code == 0


def model_folder(dataset: str, trainer: str, plans: str) -> Path:
    return nnunet_folder("nnUNet_results") / dataset / f"{trainer}__{plans}__{CONFIGURATION}"


def predict(
    predictor: MIPPredictor, raw: Path, fold: int, recipe: str, copies: list[str], out: Path
) -> list[dict]:
    """Rows of the fold's validation images; probabilities go to `out`/probabilities."""
    rows = []
    for image in scores.images_of(raw, scores.folds_of(raw)[fold]["val"]):
        for kind in copies:
            copy = scores.copy_of(image, kind)
            started = time.perf_counter()
            mask, probability = predictor.predict_image(copy.levels)
            seconds = time.perf_counter() - started
            scores.save_probability(
                copy.back(probability), out / "probabilities" / kind / f"{image.case}.npz"
            )
            about = {"recipe": recipe, "fold": fold, "case": image.case}
            about |= {"patient": image.patient, "copy": kind}
            rows.append(
                about | scores.score(image, copy.back(mask)) | {"seconds": round(seconds, 3)}
            )
    return rows


def kit_rows(raw: Path, fold: int, copies: list[str]) -> list[dict]:
    rows = []
    for image in scores.images_of(raw, scores.folds_of(raw)[fold]["val"]):
        for kind in copies:
            copy = scores.copy_of(image, kind)
            mask = copy.back(scores.kit_rule(copy.levels))
            about = {"recipe": KIT, "fold": fold, "case": image.case}
            about |= {"patient": image.patient, "copy": kind}
            rows.append(about | scores.score(image, mask) | {"seconds": 0.0})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    parser.add_argument("-o", type=Path, required=True, help="folder for scores")
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--iterations", type=int, help="of each training (1200); of a FOLDER: those it had"
    )
    parser.add_argument("--copies", nargs="+", choices=scores.COPIES, default=list(scores.COPIES))
    parser.add_argument("-device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--prefilter", help="none or impulse, for all recipes")
    parser.add_argument(
        "--as_configured",
        action="store_true",
        help="threshold, smallest component and prefilter of inference.json, not 0.5, 0 and none",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        help="keep scores here, from run to run; a fold that is there is not trained again",
    )
    parser.add_argument("--no_tta", action="store_true", help="no mirroring at prediction")
    parser.add_argument(
        "--in_process", action="store_true", help="train without starting a process each time"
    )
    parser.add_argument("-chk", default=CHECKPOINT, metavar="FILE", help="checkpoint")
    parser.add_argument("recipes", nargs="+", metavar="NAME=TRAINER,PLANS")
    args = parser.parse_args()
    raw = raw_dataset(args.d)
    trainers = args.o.resolve() / "trainers"
    add_own_trainers()
    kept = scores.ScoreFolder(args.scores) if args.scores else None
    trained = any(_trained_folder(text.partition("=")[2]) for text in args.recipes)
    if kept and trained and args.iterations is None:
        raise MipError("--scores keeps how long a FOLDER was trained: name its --iterations")
    if args.iterations is None:
        args.iterations = 1200
    rows, notes = [], {}
    # Fold by fold: whenever it is stopped, what is there can be compared.
    for fold in args.folds:
        for text in args.recipes:
            name, _, what = text.partition("=")
            if kept and kept.has(name, fold, args.iterations):
                continue
            found, about = _one(args, raw, name, what, fold, trainers)
            rows += found
            note = notes.setdefault(name, {"parameters": 0, "training_minutes": 0.0})
            note["parameters"] = about["parameters"]
            note["training_minutes"] += about["minutes"] / len(args.folds)
            if kept:
                kept.add(found, args.iterations, **about)
        found = kit_rows(raw, fold, args.copies)
        rows += found
        if kept:
            kept.add(found, 0, 0, 0.0)
    reference = args.recipes[0].partition("=")[0]
    if kept:
        rows, notes = kept.rows(), kept.notes()
    text = scores.table(rows, reference, notes)
    scores.write_text(args.o / "table.md", text + "\n")
    write_json(args.o / "notes.json", notes)
    print(text)


def _one(
    args: argparse.Namespace, raw: Path, name: str, what: str, fold: int, trainers: Path
) -> tuple[list[dict], dict]:
    """Train and predict one fold of one recipe: its rows, parameters and minutes of training."""
    folder, minutes = _trained_folder(what), 0.0
    if folder is None:
        base, plans = what.split(",")
        trainer = shortened_trainer(base, args.iterations, trainers)
        if str(trainers) not in os.environ["nnUNet_extTrainer"].split(os.pathsep):
            os.environ["nnUNet_extTrainer"] += f"{os.pathsep}{trainers}"
        minutes, _ = train(raw.name, fold, trainer, plans, args.device, in_process=args.in_process)
        folder = model_folder(raw.name, trainer, plans)
    predictor = MIPPredictor.from_model_folder(folder, [fold], args.chk, args.device)
    choices = {"threshold": 0.5, "min_component_px": 0, "prefilter": "none", "healthy_image": None}
    if args.as_configured:
        choices = {}
    if args.no_tta:
        choices["tta"] = False
    if args.prefilter is not None:
        choices["prefilter"] = args.prefilter
    out = args.o / name / f"fold_{fold}.csv"
    weights = hashlib.sha256((folder / f"fold_{fold}" / args.chk).read_bytes()).hexdigest()[:16]
    predictor = predictor.override(**choices)
    made_by = {"weights": weights, "copies": args.copies, "config": predictor.config.to_dict()}
    made_by = json.loads(json.dumps(made_by))
    if not out.is_file():
        scores.write_rows(predict(predictor, raw, fold, name, args.copies, args.o / name), out)
        write_json(out.with_suffix(".json"), made_by)
    elif scores.read_notes(out.with_suffix(".json")) != made_by:
        raise MipError(f"{out}: is of another model or of other options; choose another -o")
    return scores.read_rows(out), {"parameters": predictor.parameters, "minutes": minutes}


def _trained_folder(what: str) -> Path | None:
    """The model folder of a recipe that is already trained, None for TRAINER,PLANS."""
    if what.count(",") == 1:
        return None
    if not (Path(what) / "plans.json").is_file():
        raise MipError(f"{what}: neither TRAINER,PLANS nor a trained model folder")
    return Path(what)


if __name__ == "__main__":
    try:
        main()
    except MipError as error:
        raise SystemExit(f"recipes.py: {error}") from None
