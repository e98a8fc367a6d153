"""`nnUNetv2_mip_predict`: masks for PNGs, stacks, SUV volumes and whole trees of studies."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._dicom_options import add_dicom_options, dicom_options
from nnunetv2_mip.commands._options import add_device_option, add_results_options
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.options import DICOM_OBJECTS
from nnunetv2_mip.wording import counted

BUNDLED_MODEL_NOTE = (
    "the bundled model has learned from single coronal images alone, never from volumes; look at "
    "every mask"
)


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_predict",
        "Segment tumours. PNGs give 0/255 PNG masks of the same size; a SUV volume gives a 3D mask "
        "with exactly its header. How is read from the model's inference.json.",
    )
    parser.add_argument(
        "-i",
        required=True,
        metavar="INPUT",
        help="PNG, folder of PNGs, stack of views, SUV volume (NIfTI, MHA, NRRD), autoPET tree, or "
        "folder with DICOM PET (the mask is then written as DICOM SEG too)",
    )
    parser.add_argument(
        "-o",
        required=True,
        metavar="OUT",
        help="file (for one input file) or folder; masks of these names are replaced",
    )
    model = parser.add_argument_group(
        "model (-m, or -d with -tr -p -c; without them the one that comes along)"
    )
    model.add_argument("-m", metavar="FOLDER", help="model folder (has plans.json and fold_*)")
    model.add_argument("-d", type=int, metavar="ID", help="data set id in nnUNet_results")
    add_results_options(model)
    second = parser.add_argument_group(
        "second stage (volumes: a 3D network that is given what the views say)"
    )
    second.add_argument("--stage2", metavar="FOLDER", help="its model folder")
    second.add_argument(
        "--combine",
        default="none",
        metavar="HOW",
        help="none (what the 3D network says), or l2snet: L2SNet's rules, which mark single voxels "
        "of doubtful lesions (good for the false negative volume, not for the eye)",
    )
    parser.add_argument(
        "--ct", metavar="CT", help="CT on the grid of a single SUV volume, if the model uses it"
    )
    parser.add_argument(
        "--clicks",
        metavar="JSON",
        help="tumour and background clicks on a single SUV volume (autoPET IV's file)",
    )
    parser.add_argument(
        "--dicom",
        nargs="+",
        choices=DICOM_OBJECTS,
        metavar="KIND",
        help="DICOM input: objects to write beside the mask: seg, rtstruct (one ROI a lesion), sr "
        "(measurements of the lesions, TID 1500; brings its SEG) (default: seg)",
    )
    parser.add_argument("--views", type=int, metavar="N", help="projection angles for volumes")
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring: 4 times faster")
    parser.add_argument("--never_empty", action="store_true", help="PNGs: never an empty mask")
    add_device_option(parser)
    parser.add_argument("--save_views", action="store_true", help="volumes: keep the views")
    parser.add_argument("--save_probabilities", action="store_true", help="keep probabilities")
    add_dicom_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.files import check_output, write_json
    from nnunetv2_mip.inference.config import InferenceConfig
    from nnunetv2_mip.inference.find_inputs import VOLUMES, find_jobs
    from nnunetv2_mip.inference.predict_files import Extras, run_jobs
    from nnunetv2_mip.io.folder_layout import left_out_images
    from nnunetv2_mip.nnunet.model_folder import folds_with_checkpoint

    check_output(args.o)
    folder = model_folder(args)
    jobs = find_jobs(args.i, args.o, dicom_options(args), args.ct, args.clicks)
    others = left_out_images(Path(args.i)) if Path(args.i).is_dir() else None
    if others is not None:
        print(f"warning: {others}", file=sys.stderr)
    if args.dicom:
        from nnunetv2_mip.io.dicom.objects import require_libraries

        # A study of a tree may be a folder with its series.
        if not any(job.kind == "dicom" or job.source.is_dir() for job in jobs):
            raise MipError(f"--dicom {' '.join(args.dicom)}: {args.i} holds no DICOM series")
        require_libraries(args.dicom)
    choices = {}
    if args.views is not None:
        choices["views"] = args.views
    if args.disable_tta:
        choices["tta"] = False
    if args.never_empty:
        choices["never_empty"] = True
    folds_with_checkpoint(folder, args.f, args.chk)
    InferenceConfig.load(folder).changed(**choices)
    # Heavy imports after the cheap checks.
    from tqdm import tqdm

    from nnunetv2_mip.inference.predictor import MIPPredictor
    from nnunetv2_mip.lesions.lesion_table import LESION_TABLE_SUFFIX, lesion_table_path

    predictor = MIPPredictor.from_model_folder(
        folder, args.f, args.chk, args.device, second_stage=args.stage2 is None
    )
    predictor = predictor.override(**choices)
    if args.stage2 is not None:
        from nnunetv2_mip.inference.second_stage import SecondStagePredictor

        second = SecondStagePredictor.from_model_folder(
            args.stage2, checkpoint=args.chk, device=args.device
        )
        predictor = predictor.with_second_stage(second)
    if predictor.second_stage is not None:
        second = predictor.second_stage.override(args.combine, mirror=not args.disable_tta)
        predictor = predictor.with_second_stage(second)
    elif args.combine != "none":
        raise MipError("--combine needs a second stage: name one with --stage2 FOLDER")
    volumes = [job for job in jobs if job.kind in VOLUMES]
    if volumes and args.m is None and args.d is None:
        print(f"warning: {BUNDLED_MODEL_NOTE}", file=sys.stderr, flush=True)
    objects = None if args.dicom is None else tuple(args.dicom)
    extras = Extras(args.save_views, args.save_probabilities, objects)
    with tqdm(total=len(jobs), unit="case", disable=len(jobs) == 1 or None) as bar:
        for _, warning in run_jobs(jobs, predictor, extras):
            if warning:
                tqdm.write(f"warning: {warning}", file=sys.stderr)
            bar.update()
    originals = {job.case: job.original for job in jobs if job.original is not None}
    if originals:
        # Names that ASCII cannot spell.
        write_json(jobs[0].target.with_name("case_names.json"), originals)
    where = jobs[0].target if len(jobs) == 1 else jobs[0].target.parent
    print(f"{where}: {counted(len(jobs), 'mask')} written")
    if volumes:
        tables = [lesion_table_path(job.target) for job in volumes]
        table = tables[0] if len(tables) == 1 else tables[0].with_name(f"*{LESION_TABLE_SUFFIX}")
        print(f"{table}: lesions with volume and SUV")
        print(f"views of each volume: {predictor.config.views}")


def model_folder(args: argparse.Namespace) -> Path:
    """The folder of -m, or of -d -tr -p -c under nnUNet_results, or the bundled model."""
    from nnunetv2_mip.nnunet.model_folder import bundled_model
    from nnunetv2_mip.nnunet.paths import nnunet_folder

    if args.m is None and args.d is None:
        return bundled_model()
    if args.m is not None and args.d is not None:
        raise MipError("name one model: either -m FOLDER, or -d ID (with -tr, -p, -c)")
    if args.m is not None:
        return Path(args.m)
    results = nnunet_folder("nnUNet_results")
    found = sorted(results.glob(f"Dataset{args.d:03d}_*"))
    if not found:
        raise MipError(f"{results}: has no results of data set {args.d}; train a model first")
    folder = found[0] / f"{args.tr}__{args.p}__{args.c}"
    if not folder.is_dir():
        there = ", ".join(sorted(path.name for path in found[0].iterdir() if "__" in path.name))
        raise MipError(f"{folder}: no such model; there is: {there or 'none'} (see -tr, -p, -c)")
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
