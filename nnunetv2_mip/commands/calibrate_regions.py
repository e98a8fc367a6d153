"""`nnUNetv2_mip_calibrate_regions`: classifier of the regions of a model's fused masks."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._options import add_checkpoint_option, add_device_option
from nnunetv2_mip.errors import MipError

if TYPE_CHECKING:
    from nnunetv2_mip.evaluation.region_calibration import StudyRegions
    from nnunetv2_mip.inference.predictor import MIPPredictor
    from nnunetv2_mip.io.study_layouts import StudyFiles


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_calibrate_regions",
        "Train the classifier that removes false regions from a model's fused masks, and choose "
        "its threshold and that of the views. The model predicts every study; lesions and other "
        "regions are told apart by size, shape, uptake, place and agreement of the views.",
        epilog="The studies must be of patients on whom the model was not trained, with lesions "
        "and without: real ones, or simulated ones of other seeds (nnUNetv2_mip_phantom). Dice and "
        "false millilitres are of patients on whom the classifier was not fitted; both thresholds "
        "were chosen on them.",
    )
    parser.add_argument("-m", required=True, metavar="FOLDER", help="model folder")
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds (all there are)")
    add_checkpoint_option(parser)
    parser.add_argument(
        "-i",
        nargs="+",
        type=Path,
        required=True,
        metavar="TREE",
        help="folders with studies (SUV and lesion mask), as nnUNetv2_mip_convert_autopet takes "
        "them",
    )
    parser.add_argument(
        "-o",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="gets the regions of every study; run again, studies that are done are not repeated",
    )
    parser.add_argument(
        "--write", action="store_true", help="write the choice into the model's inference.json"
    )
    add_device_option(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.evaluation.region_calibration import calibrate_regions
    from nnunetv2_mip.files import check_output
    from nnunetv2_mip.inference.config import INFERENCE_FILE, InferenceConfig
    from nnunetv2_mip.io.study_layouts import find_studies
    from nnunetv2_mip.nnunet.model_folder import folds_with_checkpoint

    folder = Path(args.m)
    folds_with_checkpoint(folder, args.f, args.chk)
    config = InferenceConfig.load(folder)
    if args.write:
        check_output(folder / INFERENCE_FILE)
    if config.fusion.rule != "explain":
        raise MipError(
            f"{folder / INFERENCE_FILE}: the regions are those of the fusion rule explain, not of "
            f"{config.fusion.rule}"
        )
    studies = [(tree, study) for tree in args.i for study in find_studies(tree)]
    for tree, study in studies:
        if study.seg is None:
            raise MipError(
                f"{study.suv}: this study has no lesion mask; leave it out of {tree}, or add an "
                "empty one where there is no lesion"
            )
    found = calibrate_regions(_regions(args, folder, studies))
    print(
        f"{found.studies} studies, {found.healthy} without lesions: view threshold "
        f"{found.view_threshold}, regions below {found.classifier.threshold} removed: Dice "
        f"{found.dice:.3f}, {found.false_ml:.2f} ml marked without lesions (at 0.5 without the "
        f"classifier: {found.dice_plain:.3f} and {found.false_ml_plain:.2f} ml)"
    )
    print("view threshold  regions removed below   Dice  ml without lesions")
    for view_threshold, threshold, dice, false_ml in found.compared:
        border = threshold or "none"
        print(f"{view_threshold:14}  {border:>21}  {dice:.3f}  {false_ml:18.2f}")
    path = folder / INFERENCE_FILE
    if args.write:
        from dataclasses import replace

        chosen = config.changed(
            fusion=replace(config.fusion, view_threshold=found.view_threshold),
            regions=found.classifier,
        )
        print(f"written: {chosen.save(folder)}")
        return
    print(f"{path} stays as it is; --write writes classifier and thresholds")


def _regions(
    args: argparse.Namespace, folder: Path, studies: "list[tuple[Path, StudyFiles]]"
) -> "list[StudyRegions]":
    """Regions of every study, from the folder of an earlier run or predicted."""
    from tqdm import tqdm

    from nnunetv2_mip.evaluation.region_calibration import StudyRegions

    args.o.mkdir(parents=True, exist_ok=True)
    predictor, found = None, []
    for tree, study in tqdm(studies, desc="regions", unit="study", disable=None):
        path = args.o / f"{tree.resolve().name}_{study.case}.npz"
        if not path.is_file():
            if predictor is None:
                from nnunetv2_mip.inference.predictor import MIPPredictor

                predictor = MIPPredictor.from_model_folder(folder, args.f, args.chk, args.device)
            _regions_of(study, tree, predictor).save(path)
        found.append(StudyRegions.load(path))
    return found


def _regions_of(study: "StudyFiles", tree: Path, predictor: "MIPPredictor") -> "StudyRegions":
    from nnunetv2_mip.evaluation.region_calibration import study_regions
    from nnunetv2_mip.io.read_study import read_study_files

    read = read_study_files(study, wants_ct=predictor.wants_ct)
    if read.seg is None:
        raise MipError(f"{study.suv}: this study has no lesion mask")
    # One name in two trees is two patients.
    patient = f"{tree.resolve().name}/{study.patient}"
    return study_regions(
        predictor.region_context(read), read.seg.array, predictor.config.fusion, patient
    )


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
