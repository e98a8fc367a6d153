"""`nnUNetv2_mip_predict`: masks for PNGs, stacks, SUV volumes and whole trees of studies."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._dicom_options import add_dicom_options, dicom_options
from nnunetv2_mip.commands._findings import findings_of_many, findings_of_one
from nnunetv2_mip.commands._options import add_device_option, add_results_options
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.options import DICOM_OBJECTS
from nnunetv2_mip.wording import counted

# Volumes of which pictures are drawn without being asked for.
MOST_PICTURES = 20


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
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument(
        "--no_picture", action="store_true", help="volumes: no rotating MIP beside the mask"
    )
    pictures.add_argument(
        "--save_pictures",
        action="store_true",
        help=f"pictures also of more than {MOST_PICTURES} volumes, and of PNGs",
    )
    add_dicom_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.files import check_output, write_json
    from nnunetv2_mip.inference.find_inputs import VOLUMES, find_jobs
    from nnunetv2_mip.inference.load_predictor import ModelChoice
    from nnunetv2_mip.inference.predict_files import Extras, run_jobs
    from nnunetv2_mip.inference.progress import PredictionBar
    from nnunetv2_mip.io.folder_layout import left_out_images
    from nnunetv2_mip.nnunet.model_folder import BUNDLED_VOLUME_WARNING

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
    settings: dict[str, Any] = {}
    if args.views is not None:
        settings["views"] = args.views
    if args.disable_tta:
        settings["tta"] = False
    if args.never_empty:
        settings["never_empty"] = True
    choice = ModelChoice(folder, args.f, args.chk, args.device, settings, args.stage2, args.combine)
    volumes = sum(job.kind in VOLUMES for job in jobs)
    objects = None if args.dicom is None else tuple(args.dicom)
    few = 0 < volumes <= MOST_PICTURES and not args.no_picture
    extras = Extras(args.save_views, args.save_probabilities, objects, few or args.save_pictures)
    written = []
    with PredictionBar(len(jobs)) as bar:
        bar.say("loading the model")
        # Heavy imports after the cheap checks.
        predictor = choice.load()
        if volumes and args.m is None and args.d is None:
            bar.warn(BUNDLED_VOLUME_WARNING)
        bar.say("reading")
        for one in run_jobs(jobs, predictor, extras, bar):
            if one.warning:
                bar.warn(one.warning)
            written.append(one)
            bar.case_done()
    originals = {job.case: job.original for job in jobs if job.original is not None}
    if originals:
        # Names that ASCII cannot spell.
        write_json(jobs[0].target.with_name("case_names.json"), originals)
    where = jobs[0].target if len(jobs) == 1 else jobs[0].target.parent
    print(f"{where}: {counted(len(jobs), 'mask')} written")
    lines = findings_of_one(written[0]) if len(written) == 1 else findings_of_many(written)
    print("\n".join(lines))
    if volumes:
        print(f"views of each volume: {predictor.config.views}")
    if volumes > MOST_PICTURES and not extras.pictures and not args.no_picture:
        print(f"no pictures of more than {MOST_PICTURES} volumes; --save_pictures draws them")


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
