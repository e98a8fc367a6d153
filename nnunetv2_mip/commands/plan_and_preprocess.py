"""`nnUNetv2_mip_plan_and_preprocess`: fingerprint, plan and preprocess a converted data set."""

import argparse
import contextlib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._options import add_processes_option
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.nnunet.paths import VARIABLES, existing_datasets, nnunet_folder
from nnunetv2_mip.nnunet.splits import SPLITS_FILE, check_splits
from nnunetv2_mip.plans.presets import load_preset

FINGERPRINT_FILE = "dataset_fingerprint.json"
MOST_PROCESSES = 8


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_plan_and_preprocess",
        "Plan and preprocess a MIP data set, so that nnUNetv2_train can train on it.",
    )
    parser.add_argument("-d", required=True, help="data set: its number or its full name")
    parser.add_argument(
        "--preset",
        default="default",
        help="name of a preset (default, cpu, cpu_3mm, cpu_4mm, cpu_4mm_gates, cpu_4mm_scse, "
        "cpu_wide, resenc, cascade; for volumes cpu_3d) or a .json file",
    )
    add_processes_option(parser, default=min(MOST_PROCESSES, os.cpu_count() or 1))
    parser.add_argument("--no_pp", action="store_true", help="plan only, do not preprocess")
    parser.add_argument(
        "--clean",
        action="store_true",
        help="forget fingerprint and splits of an earlier version of this data set",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Plan and preprocess, then print the training commands.

    Raises:
        MipError: an nnU-Net variable is unset, the data set is missing or was not made by a
            converter of this package, its splits do not fit, or the preset cannot be used.
    """
    raw = find_raw_dataset(args.d)
    preprocessed = nnunet_folder("nnUNet_preprocessed") / raw.name
    check_dataset(raw)

    preset = load_preset(args.preset)
    # Heavy imports after the cheap checks.
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    from nnunetv2_mip.nnunet.second_stage_data import CUE, STAGE2
    from nnunetv2_mip.plans.mip_planner import MIPExperimentPlanner, MIPFingerprintExtractor
    from nnunetv2_mip.plans.volume_planner import MIPVolumePlanner

    _settle_splits(raw, preprocessed, args.clean)
    number = int(raw.name[7:10])
    extract_fingerprint_dataset(
        number,
        MIPFingerprintExtractor,
        num_processes=args.np,
        clean=args.clean or _fingerprint_is_stale(raw, preprocessed),
    )
    mip = read_json(raw / "dataset.json")["mip"]
    planner = MIPVolumePlanner if mip["source"] == STAGE2 else MIPExperimentPlanner
    plans, plans_name = plan_experiment_dataset(number, partial(planner, preset=preset))
    configurations = plans["configurations"]
    if not args.no_pp:
        each = (args.np,) * len(configurations)
        preprocess_dataset(number, plans_name, tuple(configurations), each)

    device = "" if torch.cuda.is_available() else " -device cpu"
    folds = range(len(read_json(raw / SPLITS_FILE))) or ("all",)
    print(f"\nPlanned {raw.name} with preset {preset.name}:")
    for name, planned in configurations.items():
        print(
            f"  {name}: patch {planned['patch_size']}, batch {planned['batch_size']}, spacing "
            f"{planned['spacing']} mm"
        )
    if args.no_pp:
        again = f"nnUNetv2_mip_plan_and_preprocess -d {number} --preset {shlex.quote(args.preset)}"
        print(f"Not preprocessed yet: {again}")
    trainer = "nnUNetTrainerMIP"
    if mip["source"] == STAGE2:
        trainer += "_L2S3D" if CUE in mip["channels"] else "_volumes"
    print("Train with")
    for name, planned in configurations.items():
        # The second stage of a cascade needs what every fold of the first one answers.
        asked = folds if "next_stage" in planned else folds[:1]
        for fold in asked:
            print(f"  nnUNetv2_train {number} {name} {fold} -p {plans_name} -tr {trainer}{device}")
    if device and trainer == "nnUNetTrainerMIP":
        print(
            "That is 1000 epochs, days without a GPU. nnUNetTrainerMIP_muon_3epochs, _10epochs and "
            "_100epochs\nare shorter; before them, on few cores: "
            "export OMP_NUM_THREADS=1 nnUNet_n_proc_DA=1"
        )


def find_raw_dataset(dataset: str) -> Path:
    """Raw folder of a data set given as its number ("7", "007") or name ("Dataset007_X").

    Raises:
        MipError: one of nnU-Net's variables is unset, no such data set, or several with its number
            (in any of nnU-Net's folders, which nnU-Net refuses).
    """
    raw, *_ = (nnunet_folder(variable) for variable in VARIABLES)
    if dataset.isdecimal():
        number, name = int(dataset), None
    elif re.fullmatch(r"Dataset\d{3}_.+", dataset):
        number, name = int(dataset[7:10]), dataset
    else:
        raise MipError(f"-d {dataset}: give the number or the name (Dataset<number>_<name>)")
    names = {path.name for path in existing_datasets(number)}
    if len(names) > 1:
        raise MipError(
            f"-d {dataset}: several data sets have this number: {', '.join(sorted(names))}: "
            "remove or rename all but one"
        )
    name = name or next(iter(names), None)
    if name is None or not (raw / name / "dataset.json").is_file():
        raise MipError(
            f"-d {dataset}: no such data set in {raw}: convert one with "
            "nnUNetv2_mip_convert_autopet or nnUNetv2_mip_convert_dmiai"
        )
    return raw / name


def check_dataset(raw: Path) -> None:
    """Check that a converter of this package made a raw data set and that it can be trained on.

    Raises:
        MipError: no "mip" part, no lesion in any case, or splits that are missing or do not fit.
    """
    content = read_json(raw / "dataset.json")
    if "mip" not in content:
        raise MipError(
            f'{raw / "dataset.json"}: no "mip" part: not a data set of '
            "nnUNetv2_mip_convert_autopet or nnUNetv2_mip_convert_dmiai"
        )
    mip = content["mip"]
    if not any(mip.get("has_lesion", {"?": True}).values()):
        raise MipError(f"{raw / 'dataset.json'}: no case has a lesion: there is nothing to learn")
    ending = content["file_ending"]
    cases = {
        path.name.removesuffix(f"_0000{ending}")
        for path in (raw / "imagesTr").glob(f"*_0000{ending}")
    }
    unlabelled = sorted(c for c in cases if not (raw / "labelsTr" / f"{c}{ending}").is_file())
    if not cases or unlabelled:
        missing = f"labelsTr/{unlabelled[0]}{ending}" if unlabelled else "imagesTr: no image"
        raise MipError(f"{raw / missing} is missing: convert the data set again")
    path = raw / SPLITS_FILE
    check_splits(read_json(path), mip.get("patients", {}), cases, source=str(path))


def _settle_splits(raw: Path, preprocessed: Path, clean: bool) -> None:
    """Check that the preprocessed splits equal the raw data set's; `clean` removes them."""
    earlier = preprocessed / SPLITS_FILE
    if not earlier.exists() or read_json(earlier) == read_json(raw / SPLITS_FILE):
        return
    if not clean:
        raise MipError(
            f"{earlier}: differs from {raw / SPLITS_FILE}: use --clean to take the latter"
        )
    earlier.unlink()


def _fingerprint_is_stale(raw: Path, preprocessed: Path) -> bool:
    fingerprint = preprocessed / FINGERPRINT_FILE
    # A conversion writes dataset.json last.
    return (
        fingerprint.exists()
        and fingerprint.stat().st_mtime < (raw / "dataset.json").stat().st_mtime
    )


class _WithoutBars:
    """Stream without progress bars, which nnU-Net writes to files and pipes too."""

    def __init__(self, stream):
        self._stream, self._after_bar = stream, False

    def write(self, text: str) -> int:
        # tqdm begins each bar by a carriage return, and ends the last one by a lone line feed.
        is_bar = text.startswith("\r") or (self._after_bar and text == "\n")
        self._after_bar = text.startswith("\r")
        return len(text) if is_bar else self._stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def main(argv: Sequence[str] | None = None) -> None:
    if sys.stderr.isatty():
        run_command(build_parser(), run, argv)
        return
    with contextlib.redirect_stderr(_WithoutBars(sys.stderr)):  # type: ignore[type-var]
        run_command(build_parser(), run, argv)
