"""Ways from views to 3D at equal training compute, on simulated patients never seen in training.

    python benchmarks/autopet/cascade.py -o OUT [--organs MAP ... --test_organs MAP ...]
        [--train 40] [--test 20] [--spacing 4] [--pflop 5] [--views 12] [--only 2d l2s ...]
        [-device cpu]

| pipeline | trained | at prediction |
|---|---|---|
| `2d` | nnUNetTrainerMIP | views, fused |
| `l2s` | nnUNetTrainerMIP_L2S | views, fused |
| `cascade` | 2d_loc in two folds, then 2d_seg | views through both, fused |
| `3d` | nnUNetTrainerMIP_volumes | 3D |
| `3d+cue` | nnUNetTrainerMIP in two folds, then nnUNetTrainerMIP_L2S3D | views, cue, 3D |

Training compute is counted in floating-point operations of the networks (torch's counter; a
backward pass counts as two forward ones), and every pipeline gets --pflop of them in all: where a
stage comes first, its folds together get a half and the last stage the other half. The last stage
of each pipeline trains on all training patients (`all`). What is counted at prediction are the
operations of one test study, all windows and views included; none is mirrored, and a view goes
through its network in one piece.

OUT gets `table.md` and `cascade.json`. Every step that is done is not repeated: run again to go on.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch

from nnunetv2_mip.efficiency.cost import OperationCount, forward_operations
from nnunetv2_mip.evaluation.bootstrap import interval_over_groups
from nnunetv2_mip.files import read_json, write_json
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.inference.second_stage import SecondStagePredictor
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.study_layouts import find_studies
from nnunetv2_mip.io.volumes import read_suv, write_volume
from nnunetv2_mip.nnunet.model_folder import CHECKPOINT

VIEWS_ID, CUE_ID, ALONE_ID = 801, 802, 803
EPOCHS = 10
SCORES = ("dice", "false_positive_volume_ml", "false_negative_volume_ml")
FOLDS = (0, 1)
# Options that change no result.
FREE = ("out", "only", "np")
TRAINER = '''"""Written by benchmarks/autopet/cascade.py."""

from nnunetv2_mip.trainers.{base} import {base}


class {name}({base}):
    epochs = {epochs}
    iterations_per_epoch = {iterations}
    val_iterations_per_epoch = 2

    def initialize(self):
        super().initialize()
        self.save_every = 1

    def perform_actual_validation(self, save_probabilities=False):
        # Only what a next stage needs: the benchmark predicts and scores itself.
        if self.configuration_manager.next_stage_names:
            super().perform_actual_validation(save_probabilities)
'''
LIMITS = {"features_per_stage": [16, 32, 64, 128, 192], "convs_per_stage": 2, "vram_gb": 8}
PRESETS = {
    "flat": {
        **LIMITS,
        "finest_spacing_mm": [4, 4],
        "max_patch_px": [256, 160],
        "max_batch_size": 4,
    },
    "two": {
        **LIMITS,
        "finest_spacing_mm": [4, 4],
        "max_patch_px": [256, 160],
        "max_batch_size": 4,
        "localization": {
            **LIMITS,
            "finest_spacing_mm": [8, 8],
            "max_patch_px": [256, 96],
            "max_batch_size": 12,
        },
    },
    "deep": {
        "features_per_stage": [16, 32, 64, 128],
        "convs_per_stage": 2,
        "vram_gb": 8,
        "finest_spacing_mm": [4, 4, 4],
        "max_patch_px": [96, 64, 96],
        "max_batch_size": 2,
    },
}


@dataclass(frozen=True)
class Stage:
    """One network of a pipeline: what it is trained on, and its share of the compute."""

    dataset: int
    preset: str
    configuration: str
    trainer: str
    folds: tuple
    share: float


FIRST_2D = Stage(VIEWS_ID, "flat", "2d", "nnUNetTrainerMIP", FOLDS, 0.5)
PIPELINES = {
    "2d": (Stage(VIEWS_ID, "flat", "2d", "nnUNetTrainerMIP", ("all",), 1.0),),
    "l2s": (Stage(VIEWS_ID, "flat", "2d", "nnUNetTrainerMIP_L2S", ("all",), 1.0),),
    "cascade": (
        Stage(VIEWS_ID, "two", "2d_loc", "nnUNetTrainerMIP", FOLDS, 0.5),
        Stage(VIEWS_ID, "two", "2d_seg", "nnUNetTrainerMIP", ("all",), 0.5),
    ),
    "3d": (Stage(ALONE_ID, "deep", "3d_fullres", "nnUNetTrainerMIP_volumes", ("all",), 1.0),),
    "3d+cue": (
        FIRST_2D,
        Stage(CUE_ID, "deep", "3d_fullres", "nnUNetTrainerMIP_L2S3D", ("all",), 0.5),
    ),
}


class Bench:
    def __init__(self, args: argparse.Namespace):
        self.args, self.out = args, args.out.resolve()
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ[name] = str(self.out / name)
            (self.out / name).mkdir(parents=True, exist_ok=True)
        (self.out / "trainers").mkdir(exist_ok=True)
        os.environ["nnUNet_extTrainer"] = str(self.out / "trainers")
        for name, content in PRESETS.items():
            write_json(self.out / f"{name}.json", content)

    def run(self, command: str, *arguments) -> float:
        """Run a command of nnU-Net or ours; seconds."""
        start = time.perf_counter()
        line = [str(Path(sys.executable).parent / command), *map(str, arguments)]
        print("$", " ".join([command, *line[1:]]), flush=True)
        with (self.out / "log.txt").open("a") as log:
            if subprocess.run(line, stdout=log, stderr=subprocess.STDOUT).returncode:
                raise SystemExit(f"{command} failed: see {self.out / 'log.txt'}")
        return time.perf_counter() - start

    def raw(self, number: int) -> Path | None:
        return next((self.out / "nnUNet_raw").glob(f"Dataset{number}_*"), None)

    def prepare(self) -> None:
        """The cohorts, and the data sets that need no model."""
        args = self.args
        for name, count, seed, maps in (
            ("train", args.train, args.seed, args.organs),
            ("test", args.test, args.seed + 1000, args.test_organs),
        ):
            if not (self.out / name).is_dir():
                organs = ("--organs", *maps) if maps else ()
                partial = self.out / f"{name}.partial"
                self.run("nnUNetv2_mip_phantom", "-o", partial, "-n", count, "--seed", seed,
                         "--spacing", args.spacing, "-np", args.np, *organs)  # fmt: skip
                partial.rename(self.out / name)
        if self.raw(VIEWS_ID) is None:
            self.run("nnUNetv2_mip_convert_autopet", "-i", self.out / "train", "-d", VIEWS_ID,
                     "--views", args.views, "-np", args.np)  # fmt: skip
        self._two_folds(self.raw(VIEWS_ID))
        if self.raw(ALONE_ID) is None:
            self.run("nnUNetv2_mip_convert_stage2", "-i", self.out / "train", "-d", ALONE_ID,
                     "--no_cue", "--name", "Alone", "-np", args.np)  # fmt: skip

    def _two_folds(self, raw: Path) -> None:
        patients = read_json(raw / "dataset.json")["mip"]["patients"]
        people = sorted(set(patients.values()))
        halves = [set(people[fold :: len(FOLDS)]) for fold in FOLDS]
        splits = [
            {
                "train": [case for case in patients if patients[case] not in half],
                "val": [case for case in patients if patients[case] in half],
            }
            for half in halves
        ]
        write_json(raw / "splits_final.json", splits)

    def plan(self, stage: Stage) -> dict:
        """Plan and preprocess a stage's data set; the plans."""
        raw = self.raw(stage.dataset)
        path = self.out / "nnUNet_preprocessed" / raw.name / f"nnUNetMIPPlans_{stage.preset}.json"
        done = path.with_suffix(".done")
        if not done.exists():
            self.run("nnUNetv2_mip_plan_and_preprocess", "-d", stage.dataset, "--preset",
                     self.out / f"{stage.preset}.json", "-np", self.args.np)  # fmt: skip
            done.touch()
        return read_json(path)

    def model(self, stage: Stage, name: str) -> Path:
        folder = f"{name}__nnUNetMIPPlans_{stage.preset}__{stage.configuration}"
        return self.out / "nnUNet_results" / self.raw(stage.dataset).name / folder

    def train(self, pipeline: str, stage: Stage, total: float) -> tuple[Path, float, float]:
        """Train a stage within its share; model folder, operations spent, seconds."""
        plans = self.plan(stage)
        each = self._operations_of_an_iteration(stage, plans)
        iterations = max(1, round(total * stage.share / len(stage.folds) / each / EPOCHS))
        # Both stages of nnU-Net's cascade need one trainer: each has its own length in a file.
        name = f"{stage.trainer}_{pipeline.replace('+', '_')}"
        lengths = self.out / "trainers" / f"{name}.py"
        lengths.write_text(
            TRAINER.format(base=stage.trainer, name=name, epochs=EPOCHS, iterations=iterations)
        )
        folder = self.model(stage, name)
        seconds = 0.0
        for fold in stage.folds:
            run = folder / f"fold_{fold}"
            if not (run / "done").exists():
                started = ["--c"] if any(run.glob("checkpoint_*.pth")) else []
                self.run("nnUNetv2_train", stage.dataset, stage.configuration, fold, "-tr", name,
                         "-p", f"nnUNetMIPPlans_{stage.preset}", "-device", self.args.device,
                         *started)  # fmt: skip
                (run / "done").touch()
            seconds += _seconds_of_epochs(run / CHECKPOINT)
        return folder, each * iterations * EPOCHS * len(stage.folds), seconds

    def _operations_of_an_iteration(self, stage: Stage, plans: dict) -> float:
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        from nnunetv2_mip.nnunet.paths import add_own_trainers

        add_own_trainers()
        manager = PlansManager(plans)
        configuration = manager.get_configuration(stage.configuration)
        content = read_json(self.raw(stage.dataset) / "dataset.json")
        channels = len(content["channel_names"]) + (configuration.previous_stage_name is not None)
        network = recursive_find_trainer_class_by_name(stage.trainer).build_network_architecture(
            manager, configuration, channels, 2, True
        )
        shape = (configuration.batch_size, channels, *configuration.patch_size)
        return 3.0 * forward_operations(network, shape)

    def pipeline(self, name: str, total: float) -> dict:
        """Train, predict and score one pipeline."""
        stages = PIPELINES[name]
        folders, spent, seconds = [], 0.0, 0.0
        for stage in stages:
            if stage.dataset == CUE_ID:
                seconds += self._make_cues(folders[0])
            folder, operations, took = self.train(name, stage, total)
            folders.append(folder)
            spent, seconds = spent + operations, seconds + took
        target = self.out / "predictions" / name.replace("+", "_")
        result = self._predict(self._predictor(name, stages, folders), target)
        result["tflop_a_study"] = self._operations_of_a_study(name, stages, folders) / 1e12
        metrics = target / "metrics.json"
        self.run("nnUNetv2_mip_evaluate", "-i", target, "-g", self.out / "test", "-o", metrics)
        report = read_json(metrics)
        return {
            "training_pflop": spent / 1e15,
            "training_seconds": seconds,
            **result,
            "cases": report["cases"],
        }

    def _make_cues(self, model: Path) -> float:
        """Cues of all training studies; seconds: made by networks, they are training time too."""
        clock = self.out / "cue_seconds.json"
        if self.raw(CUE_ID) is None:
            seconds = self.run(
                "nnUNetv2_mip_convert_stage2", "-i", self.out / "train", "-d", CUE_ID,
                "--cue_from", model, "--name", "Cued", "-device", self.args.device,
            )  # fmt: skip
            write_json(clock, {"seconds": seconds})
        return read_json(clock)["seconds"]

    def _predictor(self, name: str, stages: tuple, folders: list[Path]):
        device = self.args.device
        if name == "3d":
            return SecondStagePredictor.from_model_folder(
                folders[0], ("all",), device=device, mirror=False
            )
        fast = {"tta": False, "tiling": "whole"}
        if name == "3d+cue":
            first = MIPPredictor.from_model_folder(folders[0], FOLDS, device=device)
            second = SecondStagePredictor.from_model_folder(
                folders[1], ("all",), device=device, mirror=False
            )
            return first.override(**fast).with_second_stage(second)
        folds = None if name == "cascade" else ("all",)
        return MIPPredictor.from_model_folder(folders[-1], folds, device=device).override(**fast)

    def _operations_of_a_study(self, name: str, stages: tuple, folders: list[Path]) -> float:
        """Of the first test study, what OpenVINO runs included."""
        predictor = self._predictor(name, stages, folders)
        suv = read_suv(next(iter(find_studies(self.out / "test"))).suv)
        with OperationCount(predictor).counting() as operations:
            _mask_of(predictor, suv)
        return operations[0]

    def _predict(self, predictor, target: Path) -> dict:
        """Masks of all test studies; seconds a study, of the clock and of the CPU."""
        target.mkdir(parents=True, exist_ok=True)
        seconds, busy = [], []
        for study in find_studies(self.out / "test"):
            suv = read_suv(study.suv)
            start, worked = time.perf_counter(), time.process_time()
            mask = _mask_of(predictor, suv)
            seconds.append(time.perf_counter() - start)
            busy.append(time.process_time() - worked)
            write_volume(mask, suv.grid, target / f"{study.case}.nii.gz")
        return {
            "seconds_a_study": float(np.median(seconds)),
            "cpu_seconds_a_study": float(np.median(busy)),
        }


def _seconds_of_epochs(checkpoint: Path) -> float:
    """Wall time of a training without its start, and over all times it was resumed."""
    log = torch.load(checkpoint, map_location="cpu", weights_only=False)["logging"]
    pairs = zip(log["epoch_start_timestamps"], log["epoch_end_timestamps"])
    return sum(end - start for start, end in pairs)


def _mask_of(predictor, suv) -> np.ndarray:
    if isinstance(predictor, SecondStagePredictor):
        return predictor.predict(Study(suv), np.zeros_like(suv.array))[0]
    return predictor.predict_study(Study(suv)).mask


def _mean_and_interval(values: dict[str, float], patients: dict[str, str]) -> tuple:
    """Mean over cases, and its interval over patients."""
    groups: dict[str, list[float]] = {}
    for case, value in values.items():
        groups.setdefault(patients[case], []).append(value)
    return float(np.mean(list(values.values()))), *interval_over_groups(list(groups.values()))


def _values(row: dict, key: str) -> dict[str, float]:
    cases = row["cases"]
    return {case: found[key] for case, found in cases.items() if found.get(key) is not None}


def table(results: dict, patients: dict[str, str]) -> str:
    """Markdown: the pipelines, each compared with the first, and 3D with and without the cue.

    Args:
        results: of `cascade.json`.
        patients: of the test studies.
    """
    lines = [
        "| pipeline | Dice | FPV ml | FNV ml | Dice against the first | training PFLOP | "
        "training s | TFLOP a study | CPU s a study |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def shown(values: dict[str, float], sign: str = "", digits: int = 3) -> str:
        to = " to " if sign else "–"
        mean, low, high = (f"{x:{sign}.{digits}f}" for x in _mean_and_interval(values, patients))
        return f"{mean} ({low}{to}{high})"

    def difference(name: str, other: str) -> str:
        ours, theirs = (_values(results[key], "dice") for key in (name, other))
        return shown({case: ours[case] - theirs[case] for case in ours}, "+")

    first = next(iter(results))
    for name, row in results.items():
        false = [shown(_values(row, key), digits=2) for key in SCORES[1:]]
        against = "" if name == first else difference(name, first)
        lines.append(
            f"| `{name}` | {shown(_values(row, 'dice'))} | {false[0]} | {false[1]} | "
            f"{against} | {row['training_pflop']:.2f} | {row['training_seconds']:.0f} | "
            f"{row['tflop_a_study']:.3f} | {row['cpu_seconds_a_study']:.2f} |"
        )
    studies = len(_values(results[first], "dice"))
    lines.append(f"\nDice over {studies} studies with lesions, 95 % intervals over patients.")
    if {"3d", "3d+cue"} <= set(results):
        lines.append(f"The cue, 3D with it against without: {difference('3d+cue', '3d')}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument(
        "--organs", type=Path, nargs="+", help="organ maps of the training patients"
    )
    parser.add_argument("--test_organs", type=Path, nargs="+", help="others, to test on")
    parser.add_argument("--train", type=int, default=40)
    parser.add_argument("--test", type=int, default=20)
    parser.add_argument("--spacing", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=61)
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--pflop", type=float, default=5.0, help="training compute of a pipeline")
    parser.add_argument("--only", nargs="+", choices=list(PIPELINES), default=list(PIPELINES))
    parser.add_argument("-np", type=int, default=2)
    parser.add_argument("-device", default="cpu")
    args = parser.parse_args()
    bench = Bench(args)
    bench.prepare()
    path = bench.out / "cascade.json"
    settings = {key: str(value) for key, value in vars(args).items() if key not in FREE}
    report = json.loads(path.read_text()) if path.exists() else {"results": {}}
    for key, value in settings.items():
        if report.get("settings", settings).get(key) != value:
            raise SystemExit(f"{path}: has other settings ({key}); choose another -o")
    for name in args.only:
        if name not in report["results"]:
            report["results"][name] = bench.pipeline(name, args.pflop * 1e15)
            report |= {"date": date.today().isoformat(), "settings": settings}
            write_json(path, report)
    ordered = {name: report["results"][name] for name in PIPELINES if name in report["results"]}
    patients = {study.case: study.patient for study in find_studies(bench.out / "test")}
    text = table(ordered, patients)
    (bench.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
