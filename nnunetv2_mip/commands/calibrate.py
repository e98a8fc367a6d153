"""`nnUNetv2_mip_calibrate`: threshold, smallest component, healthy images, judged out of fold."""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._options import add_device_option, add_results_options
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from nnunetv2_mip.evaluation.healthy_calibration import HealthyCalibration
    from nnunetv2_mip.inference.config import InferenceConfig
    from nnunetv2_mip.inference.out_of_fold import TrainingData


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_calibrate",
        "Choose threshold and smallest component of a trained model for the highest mean Dice of "
        "single views. Every fold's network predicts its validation cases, with the settings of "
        "inference.json.",
        epilog="The cross-fitted Dice is that of patients on whom the choice was not made. Masks "
        "of PNGs and of stacks change; those of volumes are made by the fusion's own threshold.",
    )
    model = parser.add_argument_group("model (-m, or -d with -tr -p -c)")
    which = model.add_mutually_exclusive_group(required=True)
    which.add_argument("-m", metavar="FOLDER", help="model folder (has plans.json and fold_*)")
    which.add_argument("-d", type=int, metavar="ID", help="data set id in nnUNet_results")
    add_results_options(model)
    parser.add_argument(
        "-i",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="do not predict: out-of-fold probabilities (<case>.npz), as nnUNetv2_train --npz "
        "leaves them in fold_*/validation",
    )
    parser.add_argument(
        "--write", action="store_true", help="write the choice into the model's inference.json"
    )
    parser.add_argument(
        "--healthy",
        action="store_true",
        help="also choose the evidence below which a PNG is called healthy and gets an empty mask, "
        "at a cost of at most 0.001 in mean Dice; needs images without lesions",
    )
    add_device_option(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.commands.predict import model_folder
    from nnunetv2_mip.evaluation.healthy_calibration import calibrate_healthy
    from nnunetv2_mip.evaluation.threshold_calibration import calibrate
    from nnunetv2_mip.files import check_output
    from nnunetv2_mip.inference.config import INFERENCE_FILE, InferenceConfig
    from nnunetv2_mip.inference.out_of_fold import TrainingData
    from nnunetv2_mip.nnunet.model_folder import folds_with_checkpoint

    folder = model_folder(args)
    folds_with_checkpoint(folder, args.f, args.chk)
    config = InferenceConfig.load(folder)
    if args.write:
        check_output(folder / INFERENCE_FILE)
    data = TrainingData.of_model(folder)
    evidences: list[np.ndarray] | None = [] if args.healthy else None
    patients: list[str] = []
    found = calibrate(_with_truth(_probabilities(args, folder, data), data, evidences, patients))
    print(
        f"threshold {found.threshold}, smallest component "
        f"{counted(found.min_component_px, 'pixel')}: "
        f"Dice {found.dice:.3f} on {counted(found.images, 'image')} of "
        f"{counted(found.patients, 'patient')} "
        f"(cross-fitted {found.dice_cross_fitted:.3f}; at 0.5 with nothing dropped "
        f"{found.dice_default:.3f})"
    )
    chosen = config.changed(threshold=found.threshold, min_component_px=found.min_component_px)
    if evidences is not None:
        healthy = calibrate_healthy(evidences, found.image_dice, patients)
        chosen = chosen.changed(healthy_image=healthy.rule)
        print(_healthy_line(healthy))
    path = folder / INFERENCE_FILE
    if args.write:
        print(f"written: {chosen.save(folder)}")
        return
    print(
        f'{path} would get "threshold": {chosen.threshold} (now {config.threshold}), '
        f'"min_component_px": {chosen.min_component_px} (now {config.min_component_px})'
        f"{_healthy_entry(chosen) if args.healthy else ''}; "
        "--write writes them"
    )


def _healthy_line(found: "HealthyCalibration") -> str:
    healthy, missed, lost = found.cross_fitted
    return (
        f"healthy below {found.rule.log_odds:g} (mean log odds of {found.rule.area_mm2:g} mm²): "
        f"{found.called_healthy} of {counted(found.healthy, 'image')} without lesions, "
        f"{found.missed} of {found.with_lesions} with, at a cost of {found.lost:.4f} in mean Dice "
        f"(cross-fitted {healthy}, {missed} and {lost:.4f})"
    )


def _healthy_entry(config: "InferenceConfig") -> str:
    return f', "healthy_image": {json.dumps(config.to_dict()["healthy_image"])}'


def _probabilities(
    args: argparse.Namespace, folder: Path, data: "TrainingData"
) -> Iterator[tuple[str, "np.ndarray"]]:
    """Case and probability (V, H, W), with a progress bar."""
    from nnunetv2_mip.inference.out_of_fold import (
        predict_out_of_fold,
        probability_files,
        read_probability,
        validation_cases,
    )

    if args.i is not None:
        if args.f is not None:
            raise MipError("-f chooses the folds that predict; with -i name their folders instead")
        files = probability_files(args.i, data)
        yield from _with_bar(((case, read_probability(path)) for case, path in files), len(files))
        return
    cases = validation_cases(folder, args.f, args.chk)
    predicted = predict_out_of_fold(folder, data, cases, args.chk, args.device)
    yield from _with_bar(predicted, sum(map(len, cases.values())))


def _with_bar(items: Iterable, total: int) -> Iterable:
    from tqdm import tqdm

    return tqdm(items, total=total, desc="calibrate", unit="case", disable=None)


def _with_truth(
    predictions: Iterable[tuple[str, "np.ndarray"]],
    data: "TrainingData",
    evidences: "list[np.ndarray] | None",
    patients: list[str],
) -> Iterator[tuple["np.ndarray", "np.ndarray", str]]:
    """Probability (H, W), truth (H, W) and patient of every view.

    `patients` gets the name of each patient, `evidences` the evidence of each view.
    """
    from nnunetv2_mip.evaluation.healthy_calibration import evidence_of_areas

    for case, probability in predictions:
        truth = data.truth(case)
        if truth.shape != probability.shape:
            raise MipError(
                f"{case}: probabilities of {probability.shape} (views, rows, columns), but the "
                f"labels in {data.folder} have {truth.shape}"
            )
        for view, labels in zip(probability, truth):
            patients.append(data.patients[case])
            if evidences is not None:
                evidences.append(evidence_of_areas(view))
            yield view, labels, data.patients[case]


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
