"""Demo on simulated patients: cohort, views, training, 3D masks, metrics, figures.

Every step is a command that a user could type, run in a process of its own. The demo runs them one
after the other and shows their output.
"""

import math
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.io.study_layouts import StudyFiles, find_studies
from nnunetv2_mip.io.volumes import read_mask, read_suv
from nnunetv2_mip.nnunet.paths import trainer_folders
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.projection import project, project_mask
from nnunetv2_mip.visualization.case_views import CaseViews
from nnunetv2_mip.visualization.contact_sheet import write_contact_sheet
from nnunetv2_mip.visualization.rotating_gif import write_turning_gif

DATASET_ID = 100
# Only for reporting, as its test seed 1047. The defaults and the difficulty of the phantoms were
# chosen on other seeds (0 to 21, 31, 101, 1031, 1101).
TRAINING_SEED = 47
TEST_SEED_OFFSET = 1000
TRAINER, PLANS = "nnUNetTrainerMIP_demo", "nnUNetMIPPlans_cpu"
SHEET_VIEWS = 4
GIF_VIEWS = 24


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo.

    Attributes:
        output: folder to make.
        training_studies, test_studies: numbers of simulated studies.
        views: projection angles in training and prediction.
        seed: seed of the training cohort; the test cohort has `seed + 1000`.
        spacing_mm: voxel size of the simulated studies.
        trainer: trainer class.
        device: device of training and prediction.
    """

    output: Path
    training_studies: int = 36
    test_studies: int = 8
    views: int = 12
    seed: int = TRAINING_SEED
    spacing_mm: float = 4.0
    trainer: str = TRAINER
    device: str = "cpu"


def run_demo(settings: DemoSettings) -> dict:
    """Content of metrics.json, after all steps.

    Raises:
        MipError: the output folder is not empty, or a step failed (see its demo.log).
    """
    out = settings.output
    if out.exists() and any(out.iterdir()):
        raise MipError(f"{out}: is not empty; name a new folder by -o or remove it")
    out.mkdir(parents=True, exist_ok=True)
    steps = _Steps(out, settings.device)
    train, test = out / "phantoms_training", out / "phantoms_test"
    predictions, metrics = out / "predictions", out / "metrics.json"
    count, device = str(settings.views), settings.device
    dataset, fold = str(DATASET_ID), "0"
    steps.run("simulate patients to train on", "nnUNetv2_mip_phantom", "-o", train,
              "-n", settings.training_studies, "-np", 2, "--seed", settings.seed,
              "--spacing", settings.spacing_mm)  # fmt: skip
    steps.run("simulate patients never seen in training", "nnUNetv2_mip_phantom", "-o", test,
              "-n", settings.test_studies, "-np", 2, "--seed", settings.seed + TEST_SEED_OFFSET,
              "--spacing", settings.spacing_mm)  # fmt: skip
    steps.run("project them to MIP views", "nnUNetv2_mip_convert_autopet", "-i", train,
              "-d", dataset, "--name", "Phantoms", "--views", count, "-np", 2)  # fmt: skip
    steps.run("plan and preprocess", "nnUNetv2_mip_plan_and_preprocess", "-d", dataset,
              "--preset", "cpu", "-np", "2")  # fmt: skip
    steps.run("train with stock nnU-Net and our trainer", "nnUNetv2_train", dataset, "2d", fold,
              "-p", PLANS, "-tr", settings.trainer, "-device", device)  # fmt: skip
    steps.run("predict the unseen patients in 3D", "nnUNetv2_mip_predict", "-i", test,
              "-o", predictions, "-d", dataset, "-tr", settings.trainer, "-p", PLANS,
              "-f", fold, "-device", device)  # fmt: skip
    steps.run("compare with the truth", "nnUNetv2_mip_evaluate", "-i", predictions, "-g", test,
              "-o", metrics, show=True)  # fmt: skip
    report = read_json(metrics)
    steps.say("draw the pictures")
    write_pictures(test, predictions, report, out)
    return report


def write_pictures(test: Path, predictions: Path, report: dict, out: Path) -> None:
    """Write `rotating_mip.gif` of one case and `contact_sheet.png` of all.

    Args:
        test: the cohort in autoPET layout.
        predictions: `<case>.nii.gz` masks.
        report: content of metrics.json.
        out: folder to write to.
    """
    cases = []
    for study in find_studies(test):
        cases.append(_case_views(study, predictions, report, SHEET_VIEWS))
    write_contact_sheet(cases, out / "contact_sheet.png")
    shown = _median_case(report)
    study = next(study for study in find_studies(test) if study.case == shown)
    write_turning_gif(_case_views(study, predictions, report, GIF_VIEWS), out / "rotating_mip.gif")


def _median_case(report: dict) -> str:
    """Case with lesions whose Dice is the (upper) median."""
    scored = [(c["dice"], name) for name, c in report["cases"].items() if c["dice"] is not None]
    if not scored:
        return sorted(report["cases"])[0]
    return sorted(scored)[len(scored) // 2][1]


def _case_views(study: StudyFiles, predictions: Path, report: dict, views: int) -> CaseViews:
    """Views of a study with truth and prediction, projected again for a figure."""
    suv = read_suv(study.suv)
    if study.seg is None:
        raise MipError(f"{study.suv}: has no lesion mask beside it; run the demo again")
    truth = read_mask(study.seg, like=suv)
    found = read_mask(predictions / f"{study.case}.nii.gz", like=suv)
    geometry = ViewGeometry.for_volume(suv, view_angles(views))
    dice = report["cases"][study.case]["dice"]
    return CaseViews(
        name=study.case,
        views=project(suv.array, geometry).suv,
        pixel_mm=geometry.pixel_mm,
        truth=project_mask(truth.array, geometry),
        prediction=project_mask(found.array, geometry),
        # metrics.json writes an undefined Dice (no lesion) as null.
        dice=math.nan if dice is None else dice,
        truth_ml=float(np.count_nonzero(truth.array)) * suv.grid.voxel_ml,
        prediction_ml=float(np.count_nonzero(found.array)) * suv.grid.voxel_ml,
    )


class _Steps:
    """Runner of the commands: prints their progress and keeps their whole output in demo.log."""

    def __init__(self, out: Path, device: str):
        self.log = out / "demo.log"
        self.begin = time.monotonic()
        base = out / "nnunet"
        self.environment = {
            **os.environ,
            "nnUNet_raw": str(base / "raw"),
            "nnUNet_preprocessed": str(base / "preprocessed"),
            "nnUNet_results": str(base / "results"),
            "nnUNet_extTrainer": trainer_folders(),
            "PYTHONUNBUFFERED": "1",
        }
        if device == "cpu":
            # One augmentation process leaves the cores to the network. Its threads must not spin
            # while they wait for one another: the augmentation would get no core.
            self.environment.setdefault("nnUNet_n_proc_DA", "1")
            self.environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        for name in ("raw", "preprocessed", "results"):
            (base / name).mkdir(parents=True)

    def say(self, text: str) -> None:
        """Print a line with the time that has passed."""
        passed = int(time.monotonic() - self.begin)
        print(f"[{passed // 60:2d}:{passed % 60:02d}] {text}", flush=True)

    def run(self, title: str, command: str, *args, show: bool = False) -> None:
        """Run one command.

        Args:
            title: name of the step in the output.
            command: console script.
            args: its arguments.
            show: print its output (else only the epochs of a training).

        Raises:
            MipError: the command failed.
        """
        self.say(title)
        words = [command, *map(str, args)]
        print("        $ " + " ".join(w if " " not in w else f"'{w}'" for w in words), flush=True)
        process = subprocess.Popen(
            [_executable(command), *words[1:]],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        last = ""
        with self.log.open("a", encoding="utf-8") as log, process:
            log.write("\n$ " + " ".join(words) + "\n")
            for line in process.stdout or ():
                log.write(line)
                last = line.strip() or last
                if show:
                    print("        " + line.rstrip())
                elif ": Epoch " in line or "Pseudo dice" in line:
                    print("        " + line.split(": ", 1)[-1].strip(), flush=True)
        if process.returncode != 0:
            raise MipError(f"{self.log}: the step '{title}' failed: {last}")


def _executable(command: str) -> str:
    """Path of the console script beside this Python, else of the one on the PATH."""
    found = shutil.which(command, path=sysconfig.get_path("scripts")) or shutil.which(command)
    if found is None:
        raise MipError(f"{command}: not found beside {sys.executable}; is the package installed?")
    return found
